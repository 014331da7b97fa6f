"""Choose cases by words or patterns on their file and name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pdp.workbench.suite import Suite


def chosen(suites: Iterable[Suite], filters: Sequence[str]) -> tuple[Suite, ...]:
    """Return the suites with the cases that any filter matches; all without filters.

    A filter is part of `FILE: CASE`; with `*` or `?` it is a pattern for the whole of it, of the file, or of the case.
    """
    if not filters:
        return tuple(suites)
    kept = (
        replace(
            suite, cases=tuple(case for case in suite.cases if any(found(f, case.file, case.name) for f in filters))
        )
        for suite in suites
    )
    return tuple(suite for suite in kept if suite.cases)


def found(text: str, file: str, name: str) -> bool:
    """Say whether a filter matches a case."""
    whole = f"{file}: {name}"
    if not {"*", "?"} & set(text):
        return text in whole
    # Names of cases contain brackets, so shell patterns with their classes cannot be used.
    pattern = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
    return any(re.fullmatch(pattern, one, re.DOTALL) for one in (whole, file, name))
