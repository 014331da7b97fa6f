"""What a person chose of a request, before they approve it: fewer tools, a shorter time, smaller terms, grants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pdp.console.words import reducible, seconds_of
from pdp.foundation.jsontext import is_json
from pdp.v1.session_pb2 import Session

# Of the API: so many patterns select the tools to keep.
MOST_PATTERNS = 64
_SECONDS_OF_MINUTE = 60.0


class InvalidChoiceError(Exception):
    """What a person chose cannot be; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What to approve of a request; what is empty or None stays as it was asked for. `duration` is seconds."""

    tools: tuple[str, ...] = ()
    duration: float | None = None
    terms: bytes | None = None
    grants: tuple[str, ...] = ()

    @property
    def asked(self) -> Mapping[str, Any]:
        """Return the arguments of `review_session` and `approve_session`."""
        return {"tools": self.tools, "duration": self.duration, "terms": self.terms, "grants": self.grants}


EVERYTHING = Draft()


def draft_of(asked: Session, chosen: Mapping[str, Sequence[str]]) -> Draft:
    """Return what the fields of a form choose of a request. Raise `InvalidChoiceError`."""
    return Draft(
        tools=_patterns(asked, frozenset(chosen.get("tool", ()))),
        duration=_duration(asked, _one(chosen, "minutes")),
        terms=_terms(asked, chosen),
        grants=tuple(sorted(set(chosen.get("grant", ())))),
    )


def _patterns(asked: Session, kept: frozenset[str]) -> tuple[str, ...]:
    """Return patterns that keep exactly the chosen tools: none for all of them."""
    names = sorted((one.server, f"{one.server}/{one.tool}") for one in asked.tools)
    if kept.isdisjoint(name for _, name in names):
        raise InvalidChoiceError("keep at least one tool; to approve none, deny the request")
    if kept.issuperset(name for _, name in names):
        return ()
    patterns = tuple(_shortest(names, kept))
    if len(patterns) > MOST_PATTERNS:
        raise InvalidChoiceError(
            f"{len(patterns)} single tools are too many: keep at most {MOST_PATTERNS}, or all tools of a server"
        )
    return patterns


def _shortest(names: Iterable[tuple[str, str]], kept: frozenset[str]) -> Iterator[str]:
    for server, group in groupby(names, key=lambda one: one[0]):
        own = [name for _, name in group]
        if kept.issuperset(own):
            yield f"{server}/*"
        else:
            yield from (name for name in own if name in kept)


def _duration(asked: Session, minutes: str) -> float | None:
    """Return the shorter time in seconds; None for the whole."""
    if not minutes:
        return None
    try:
        seconds = float(minutes) * _SECONDS_OF_MINUTE
    except ValueError:
        raise InvalidChoiceError("the minutes must be a number") from None
    if not 0 < seconds < float("inf"):
        raise InvalidChoiceError("the session must live for some time")
    return None if seconds >= seconds_of(asked) else seconds


def _terms(asked: Session, chosen: Mapping[str, Sequence[str]]) -> bytes | None:
    """Return the terms that were changed, as a JSON object; None for none. A value keeps its digits."""
    members = []
    for name, text in reducible(asked).items():
        field = f"term.{name}"
        if field not in chosen:
            continue
        value = " ".join(_one(chosen, field).split())
        if value != text:
            members.append(f"{json.dumps(name)}:{value if is_json(value) else json.dumps(value)}")
    return ("{" + ",".join(members) + "}").encode() if members else None


def _one(chosen: Mapping[str, Sequence[str]], name: str) -> str:
    values = chosen.get(name, ())
    return values[0].strip() if values else ""
