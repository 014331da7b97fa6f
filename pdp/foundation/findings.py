"""What the examination of a program found: each check for itself, up to its first problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pdp.errors import PDPError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. `level` is `ok`, `warning` for what to consider, or `problem` for what must be corrected."""

    check: str
    level: str
    found: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is to be considered, and stops nothing."""

    found: str


def findings_of(name: str, check: Callable[[], Iterator[str | Doubt]]) -> Iterator[Finding]:
    """Yield what a check found, up to the first problem. It yields what is well or in doubt, and raises what is not."""
    try:
        for one in check():
            if isinstance(one, Doubt):
                yield Finding(check=name, level="warning", found=one.found)
            else:
                yield Finding(check=name, level="ok", found=one)
    except (PDPError, OSError) as error:
        yield from (Finding(check=name, level="problem", found=line) for line in str(error).splitlines())
