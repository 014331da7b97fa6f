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


def findings_of(name: str, check: Callable[[], Iterator[str]]) -> Iterator[Finding]:
    """Yield what a check found, up to the first problem. It yields what is well, and raises what is not."""
    try:
        for line in check():
            yield Finding(check=name, level="ok", found=line)
    except (PDPError, OSError) as error:
        yield from (Finding(check=name, level="problem", found=line) for line in str(error).splitlines())
