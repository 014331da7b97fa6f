"""Policies as the engine is asked about them: so many at a time, since it keeps the interpreter while it answers.

A slice can hold thousands of policies. Asked about together, they would hold up every other thread for tens of
milliseconds, among them the one that answers what is remembered. While it parses, it lets go of the interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cedarpy

from pdp.policy.binding import ERRING_POLICY, Answer, Policies

# The engine answers about so many in about a millisecond.
AT_A_TIME: Final = 400
# For a thread that waits for the interpreter: it needs longer to wake than to be asked for nothing.
_PAUSE_SECONDS: Final = 0.00005


class PolicySets(NamedTuple):
    """Parsed policies, `AT_A_TIME` in a set, each with the place of its first."""

    sets: tuple[tuple[int, Policies], ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> PolicySets:
        """Parse policies."""
        sets = []
        for place in range(0, max(len(texts), 1), AT_A_TIME):
            text = "\n".join(texts[place : place + AT_A_TIME])
            parsed = cedarpy.PolicySet.from_str(text, release_gil=True)
            sets.append((place, Policies(parsed)))
        return cls(tuple(sets))

    def ask(self, request: dict[str, Any], entities: cedarpy.Entities, schema: cedarpy.Schema | None = None) -> Answer:
        """Return the answer about all of them, as `Policies.ask` does. Raises what that raises."""
        answers = []
        for place, one in self.sets:
            _let_others(place)
            answers.append(_placed(one.ask(request, entities, schema), place))
        return answers[0] if len(answers) == 1 else _joined(answers)


def _let_others(place: int) -> None:
    """Let go of the interpreter before a part that is not the first."""
    if place:
        time.sleep(_PAUSE_SECONDS)


def _placed(answer: Answer, place: int) -> Answer:
    """Return an answer about the policies from a place on, which it counts from zero, with their own places."""
    if not place:
        return answer
    return answer._replace(
        decisive=frozenset([place + one for one in answer.decisive]),
        errors=tuple(
            [
                ERRING_POLICY.sub(lambda at: f"{at[0][: at.start(1)]}{place + int(at[1])}`", error)
                for error in answer.errors
            ]
        ),
    )


def _joined(answers: Sequence[Answer]) -> Answer:
    """Return the answer about all policies from those about parts of them.

    As the engine would: a forbid in any part denies, and then no permit counts; without one, any permit allows.
    """
    decided = all(one.decided for one in answers)
    forbidding = [one for one in answers if one.decisive and not one.allowed]
    decisive = forbidding or [one for one in answers if one.allowed]
    return Answer(
        decided=decided,
        allowed=decided and bool(decisive) and not forbidding,
        decisive=frozenset[int]().union(*(one.decisive for one in decisive)),
        errors=tuple([error for one in answers for error in one.errors]),
    )
