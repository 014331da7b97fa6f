"""The oracle's people: what they are asked about single calls, what they answer, and what an answer is good for.

Written anew from the documents; it shares no line with the product and imports nothing of it. Retries and runs of calls
are not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.machinery.oracle.judge import JSON, Ask

# Unix seconds, seconds since boot, and which boot.
Time = tuple[float, float, str]


@dataclass(kw_only=True, eq=False)
class Question:
    """One question about one call, by whose gateway it was asked; it ends at `end`, on either clock."""

    name: str
    gateway: tuple[str, str]
    session: str
    root: str
    call: tuple[Any, ...]
    bundle: object
    asks: frozenset[Ask]
    end: Time
    state: str = "open"


class People:
    """All questions so far, oldest first."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def approved(self, now: Time, session: str, call: tuple[Any, ...], bundle: object, asks: set[Ask]) -> bool:
        """Say whether there is a yes to exactly this call that has not been used."""
        return self._approved(now, session, call, bundle, asks) is not None

    def use(self, now: Time, session: str, call: tuple[Any, ...], bundle: object, asks: set[Ask]) -> str:
        """Use a yes to exactly this call; return the name of its question."""
        found = self._approved(now, session, call, bundle, asks)
        assert found is not None
        found.state = "used"
        return found.name

    def ask(
        self,
        now: Time,
        gateway: tuple[str, str],
        session: str,
        call: tuple[Any, ...],
        bundle: object,
        asks: set[Ask],
        end: Time,
        root: str,
    ) -> str:
        """Ask, if that is possible; return the name of the question, or `unasked: …` with the reason.

        `root` is the session at the top: what people are spared, they are spared by all below it together.
        """
        noes = [one for one in self.questions if one.root == root and one.state == "no"]
        if call in [one.call for one in noes]:
            return "unasked: denied"
        for one in self.questions:
            alike = (one.session, one.call, one.bundle) == (session, call, bundle) and asks <= one.asks
            if alike and one.state in ("open", "yes") and not over(one.end, now):
                return one.name
        if len(noes) >= 3:
            return "unasked: too_many_noes"
        waiting = [one for one in self.questions if one.state == "open" and not over(one.end, now)]
        former = [one for one in waiting if (one.session, one.call) == (session, call)]
        others = [one for one in waiting if one not in former]
        if sum(one.root == root for one in others) >= 8:
            return "unasked: session_asks_too_much"
        if sum(one.gateway == gateway for one in others) >= 100:
            return "unasked: caller_asks_too_much"
        for one in former:
            one.state = "replaced"
        name = f"question-{len(self.questions)}"
        self.questions.append(
            Question(
                name=name,
                gateway=gateway,
                session=session,
                root=root,
                call=call,
                bundle=bundle,
                asks=frozenset(asks),
                end=_first(_after(now, 900.0), end),
            )
        )
        return name

    def answer(self, now: Time, name: str, word: str, end: Time) -> bool:
        """Answer `yes` or `no`, or take back a yes with `revoked`; `end` is that of the session. Say if it counts."""
        (question,) = (one for one in self.questions if one.name == name)
        if over(question.end, now) or question.state != ("yes" if word == "revoked" else "open"):
            return False
        question.state = word
        if word == "yes":
            question.end = _first(_after(now, 600.0), end)
        return True

    def _approved(
        self, now: Time, session: str, call: tuple[Any, ...], bundle: object, asks: set[Ask]
    ) -> Question | None:
        for one in self.questions:
            same = (one.session, one.call, one.bundle) == (session, call, bundle)
            if same and asks <= one.asks and one.state == "yes" and not over(one.end, now):
                return one
        return None


def written(value: Any) -> Any:
    """Return a JSON value in a form in which only what was typed alike is equal: `1` is not `1.0`, nor `true`."""
    if isinstance(value, dict):
        return "object", tuple(sorted((key, written(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return "list", tuple(map(written, value))
    return type(value).__name__, repr(value)


def bound(action: str, digest: str, arguments: JSON) -> tuple[Any, ...]:
    """Return what a yes is about."""
    return action, digest, written(arguments)


def over(end: Time, now: Time) -> bool:
    """Say whether a moment has come, on either clock."""
    return now[0] >= end[0] or (now[2] == end[2] and now[1] >= end[1])


def soonest(now: Time, ends: Sequence[Time]) -> Time:
    """Return the first of some moments, by the clocks of now."""
    found: Time = (float("inf"), float("inf"), now[2])
    for end in ends:
        found = _first(found, end)
    return found


def _after(now: Time, seconds: float) -> Time:
    return now[0] + seconds, now[1] + seconds, now[2]


def _first(present: Time, other: Time) -> Time:
    return min(present[0], other[0]), min(present[1], other[1]) if present[2] == other[2] else present[1], present[2]
