"""Policies as the engine is asked about them: so many at a time, since it keeps the interpreter while it answers.

A slice can hold thousands of policies. Asked about together, they would hold up every other thread for tens of
milliseconds, among them the one that answers what is remembered. While it parses, it lets go of the interpreter.

Of a slice in several parts, one thread at a time asks. They share the interpreter, so together they would have their
answers no sooner, and a thread that waits for the interpreter would wait for a part of each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cedarpy

from pdp.foundation.rightofway import give_way
from pdp.policy.binding import ERRING_POLICY, Answer, Policies

# The engine answers about so many in a quarter of a millisecond, and the loop can wait for that at each call of the
# system. With twice as many it can wait twice as long, and a large slice takes an eighth less.
AT_A_TIME: Final = 200
# INVARIANT: a thread that must not wait asks about slices in one part, and those need no turn.
_TURN: Final = threading.Lock()


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
        if len(self.sets) == 1:
            return self.sets[0][1].ask(request, entities, schema)
        answers = []
        for place, one in self.sets:
            with _TURN:
                if place:
                    give_way()
                answers.append(_placed(one.ask(request, entities, schema), place))
        return _joined(answers)


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
