"""Select a session or an access request by the beginning of its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import click

# The beginning of an id is searched among this many of the newest.
NEWEST = 1000

_ID_CHARACTERS = 26
_FEWEST_CHARACTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is selected: the prefix of its ids, what it is called, and what an empty id is told."""

    prefix: str
    noun: str
    empty: str

    def full_id(self, given: str, newest: Callable[[], Iterable[str]], *, state: str = "") -> str:
        """Return the one id that begins with the given text; `newest` returns ids of those in a state, newest first.

        A text that is long enough to be an id is not looked up.
        """
        if not given:
            raise click.UsageError(self.empty)
        if len(given) >= len(self.prefix) + _ID_CHARACTERS:
            return given
        wanted = given if given.startswith(self.prefix) else f"{self.prefix}{given}"
        if len(wanted) < len(self.prefix) + _FEWEST_CHARACTERS:
            least = f"at least {_FEWEST_CHARACTERS} characters after `{self.prefix}`"
            raise click.UsageError(f"`{given}` is too short to select a {self.noun}; type {least}")
        found = [one for one in islice(newest(), NEWEST) if one.startswith(wanted)]
        if len(found) != 1:
            which = f"{state} {self.noun}" if state else self.noun
            problem = (
                f"{len(found)} of the newest {NEWEST} {which}s begin"
                if found
                else f"none of the newest {NEWEST} {which}s begins"
            )
            raise click.ClickException(f"{problem} with `{wanted}`")
        return found[0]
