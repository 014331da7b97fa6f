"""Write the lists of bases into the page of the API and the schema of test files: `python -m tests.docs.bases`.

The bases are those of the model, and what a deny advises is in `pdp/decision/advice.py`. `make proto` runs this too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pdp.decision.advice import ADVICE
from pdp.model import Basis

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "proto" / "README.md"
SCHEMA = _ROOT / "pdp" / "workbench" / "suite.schema.json"
BEGIN, END = "<!-- denies: begin -->", "<!-- denies: end -->"


def page_with_bases(page: str) -> str:
    """Return the text of the page with the present advice."""
    before, _, rest = page.partition(BEGIN)
    return before + "\n".join((BEGIN, "", *_table(), "", END)) + rest.partition(END)[2]


def schema_with_bases(schema: str) -> str:
    """Return the text of the schema with the present bases, and with what a test can expect."""
    parsed = json.loads(schema)
    denies = [f"deny {basis.value}" for basis in Basis if basis is not Basis.PERMIT]
    parsed["$defs"]["basis"]["enum"] = [basis.value for basis in Basis]
    parsed["$defs"]["expectation"]["anyOf"][0]["enum"] = ["allow", "deny", "allow permit", *denies]
    return json.dumps(parsed, indent=2) + "\n"


def _table() -> Iterator[str]:
    yield "| basis | advice |"
    yield "|---|---|"
    for basis in Basis:
        if basis is not Basis.PERMIT:
            yield f"| `{basis.name}` | {ADVICE[basis]} |"


if __name__ == "__main__":
    PAGE.write_text(page_with_bases(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(schema_with_bases(SCHEMA.read_text(encoding="utf-8")), encoding="utf-8")
