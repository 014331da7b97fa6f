"""What policies read of how often a session has called what: names that the bundle fixes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# The prefixes of a name in `analysis.reads`: of a count, and of what must be done.
COUNTS = "context.counts."
DONE = "context.done."


@dataclass(frozen=True, slots=True)
class CountedNames:
    """The actions and groups of actions whose calls policies count, and those that they want to be done."""

    counts: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()

    @classmethod
    def of(cls, policies: Iterable[frozenset[str] | None]) -> CountedNames:
        """Return the names that policies read, from the reads of each."""
        read = {one for reads in policies for one in reads or ()}
        return cls(
            frozenset(one.removeprefix(COUNTS) for one in read if one.startswith(COUNTS)),
            frozenset(one.removeprefix(DONE) for one in read if one.startswith(DONE)),
        )

    def __bool__(self) -> bool:
        """Say whether there is any name."""
        return bool(self.counts or self.done)

    @property
    def all(self) -> frozenset[str]:
        """Return both kinds of names."""
        return self.counts | self.done


NOTHING = CountedNames()
