"""Read which mutants an author has reviewed and found harmless: `tests/mutants.yaml`.

```yaml
equivalent:
- policy: guardrails/size
    mutant: context.input.size > 5 → context.input.size >= 5
    reason: the tool takes even sizes only
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pdp.errors import BundleError, Problem
from pdp.foundation.inside import open_inside
from pdp.foundation.yamltext import Section, load_section
from pdp.policy.contents import TESTS

FILE = "mutants.yaml"
_KEYS = ("policy", "mutant", "reason")


class Equivalent(NamedTuple):
    """Why a mutant counts as equivalent, and the line that states it."""

    reason: str
    line: int


Equivalents = Mapping[tuple[str, str], Equivalent]


def read_equivalents(folder: Path) -> Equivalents:
    """Return the mutants that count as equivalent, by policy and words.

    Raise `BundleError` naming every problem.
    """
    name = f"{TESTS}/{FILE}"
    path = folder / name
    if not path.is_file():
        return {}
    with open_inside(folder, path) as stream:
        top = load_section(name, stream.read())
    problems = top.unknown_keys(("equivalent",))
    entries = top.get("equivalent", [])
    found: dict[tuple[str, str], Equivalent] = {}
    for entry in entries if isinstance(entries, list) else ():
        problem = _problem(name, entry, found)
        if problem is not None:
            problems.append(problem)
        else:
            found[entry["policy"], entry["mutant"]] = Equivalent(reason=entry["reason"], line=entry.line)
    if not isinstance(entries, list):
        problems.append(top.problem("`equivalent` must be a list", "equivalent"))
    if problems:
        raise BundleError(tuple(problems))
    return found


def _problem(name: str, entry: object, found: Equivalents) -> Problem | None:
    if not isinstance(entry, Section):
        return Problem(name, 0, "each entry of `equivalent` must be a mapping")
    if unknown := entry.unknown_keys(_KEYS):
        return unknown[0]
    for key in _KEYS:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            return entry.problem(f"`{key}` is required", key if key in entry else None)
    if (entry["policy"], entry["mutant"]) in found:
        return entry.problem("this mutant appears twice")
    return None
