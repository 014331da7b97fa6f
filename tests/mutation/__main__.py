"""`python -m tests.mutation`: run every mutant and say which ones no test notices."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Container
from pathlib import Path

import pytest

from tests.mutation.campaign import Campaign, Result, mutants, options
from tests.mutation.scope import MODULES, TESTS


def run(
    modules: tuple[str, ...],
    tests: tuple[str, ...],
    *,
    out: Path | None = None,
    only: Container[tuple[str, str]] | None = None,
) -> list[Result]:
    """Run the mutants of some modules against some tests; each result is also written to `out` at once.

    `only` names the mutants to run, by module and name.
    """

    def told(result: Result) -> None:
        if result.fate != "killed":
            print(
                f"{result.fate} {result.mutant.module}:{result.mutant.line} {result.mutant.name}", file=sys.__stderr__
            )
        if out:
            row = {"module": result.mutant.module, "name": result.mutant.name, "line": result.mutant.line}
            row |= {"fate": result.fate, "tests": result.tests, "seconds": round(result.seconds, 2)}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    chosen = [one for one in mutants(modules) if only is None or (one.module, one.name) in only]
    campaign = Campaign(chosen, told)
    pytest.main([*options(), *tests], plugins=[campaign])
    return campaign.results


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules such as `pdp.decision.gate`; all of `scope.py` by default")
    parser.add_argument("--out", type=Path, help="file to append each result to, as a line of JSON")
    parser.add_argument("--again", type=Path, help="such a file: run only those that were not killed then")
    arguments = parser.parse_args()
    only = _survivors(arguments.again) if arguments.again else None
    results = run(tuple(arguments.modules) or MODULES, TESTS, out=arguments.out, only=only)
    for module in dict.fromkeys(one.mutant.module for one in results):
        own = [one for one in results if one.mutant.module == module]
        killed = sum(one.killed for one in own)
        print(f"{module}: {killed} of {len(own)} killed, {killed / len(own):.1%}")  # noqa: T201 - a command
    return 0 if results else 1


def _survivors(results: Path) -> set[tuple[str, str]]:
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {(row["module"], row["name"]) for row in rows if row["fate"] not in {"killed", "timeout"}}


if __name__ == "__main__":
    sys.exit(main())
