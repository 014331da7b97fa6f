"""The oracle's people: what they are asked about single calls, what they answer, and what an answer is good for.

Written anew from the documents; it shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.machinery.oracle.judge import JSON, Ask, Tool
from tests.machinery.oracle.outside import Form

# Unix seconds, seconds since boot, and which boot.
Time = tuple[float, float, str]
# What is the same for each try of a call, and for no other call; None for one that cannot be tried again.
Try = tuple[Any, ...] | None

RETRY_SECONDS = 60.0


class Wanted(NamedTuple):
    """A call that waits, by whose gateway it was made.

    `root` is the session at the top. `call` is what a yes to exactly this call is about. `keys` are the names in its
    arguments, `outside` what it names outside; `run` is how many calls like this a person may allow at once, 0 for only
    this one.
    """

    gateway: tuple[str, str]
    session: str
    root: str
    tool: tuple[str, str]
    call: tuple[Any, ...]
    bundle: object
    asks: frozenset[Ask]
    keys: frozenset[tuple[str, ...]]
    outside: frozenset[tuple[str, Form]]
    run: int
    made: Try


@dataclass(kw_only=True, eq=False)
class Question:
    """One question about one call; it ends at `end`, on either clock. `uses` is for how many calls a yes is."""

    name: str
    about: Wanted
    end: Time
    state: str = "open"
    uses: int = 0
    used: int = 0

    def lifts(self, wanted: Wanted) -> bool:
        """Say whether a yes would lift all that denies a call of the same tool."""
        of = self.about
        same = (of.session, of.tool, of.bundle) == (wanted.session, wanted.tool, wanted.bundle)
        return same and wanted.asks <= of.asks

    def covers(self, wanted: Wanted) -> bool:
        """Say whether a yes is to this call, or to a run that it belongs to."""
        run = self.uses > 1 and wanted.run > 0 and wanted.keys == self.about.keys
        shown = bool(wanted.outside) and wanted.outside <= self.about.outside
        return self.lifts(wanted) and (self.about.call == wanted.call or (run and shown))


class People:
    """All questions so far, oldest first."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        # By which try which yes was used, and until when it can be tried again.
        self._uses: dict[Try, tuple[Question, Time]] = {}

    def approved(self, now: Time, wanted: Wanted) -> bool:
        """Say whether there is a yes to a call, or the call is a retry of one that has used a yes."""
        return self._retried(now, wanted) is not None or self._approved(now, wanted) is not None

    def use(self, now: Time, wanted: Wanted) -> str:
        """Use a yes to a call, once for all its tries; return the name of its question."""
        if (again := self._retried(now, wanted)) is not None:
            return again.name
        found = self._approved(now, wanted)
        assert found is not None
        found.used += 1
        if found.used == found.uses:
            found.state = "used"
        if wanted.made:
            self._uses[wanted.made] = found, after(now, RETRY_SECONDS)
        return found.name

    def runs(self, name: str) -> bool:
        """Say whether the yes to a question was used by more than one call."""
        return any(one.used > 1 for one in self.questions if one.name == name)

    def ask(self, now: Time, wanted: Wanted, end: Time) -> str:
        """Ask, if that is possible; return the name of the question, or `unasked: …` with the reason."""
        session, call, gateway = wanted.session, wanted.call, wanted.gateway
        # What people are spared, they are spared by all sessions of a tree together.
        noes = [one for one in self.questions if one.about.root == wanted.root and one.state == "no"]
        if call in [one.about.call for one in noes]:
            return "unasked: denied"
        for one in self.questions:
            alike = one.about.call == call and one.lifts(wanted)
            if alike and one.state in ("open", "yes") and not over(one.end, now):
                return one.name
        if len(noes) >= 3:
            return "unasked: too_many_noes"
        waiting = [one for one in self.questions if one.state == "open" and not over(one.end, now)]
        former = [one for one in waiting if (one.about.session, one.about.call) == (session, call)]
        others = [one for one in waiting if one not in former]
        if sum(one.about.root == wanted.root for one in others) >= 8:
            return "unasked: session_asks_too_much"
        if sum(one.about.gateway == gateway for one in others) >= 100:
            return "unasked: caller_asks_too_much"
        for one in former:
            one.state = "replaced"
        name = f"question-{len(self.questions)}"
        self.questions.append(Question(name=name, about=wanted, end=_first(after(now, 900.0), end)))
        return name

    def answer(self, now: Time, name: str, word: str, end: Time, calls: int) -> bool:
        """Answer `yes` or `no`, or take back a yes with `revoked`; `end` is that of the session. Say if it counts."""
        (question,) = (one for one in self.questions if one.name == name)
        # What is over by the boot clock alone may come back after a reboot: a no must hold then.
        passed = over(question.end, now) if word == "yes" else now[0] >= question.end[0]
        if passed or question.state != ("yes" if word == "revoked" else "open"):
            return False
        if word == "yes":
            if calls > max(1, question.about.run):
                return False
            question.uses, question.end = calls, _first(after(now, 600.0), end)
        question.state = word
        return True

    def _approved(self, now: Time, wanted: Wanted) -> Question | None:
        good = [one for one in self.questions if one.state == "yes" and one.covers(wanted) and not over(one.end, now)]
        # A yes to exactly this call is used before one to a run.
        return next((one for one in good if one.about.call == wanted.call), good[0] if good else None)

    def _retried(self, now: Time, wanted: Wanted) -> Question | None:
        if wanted.made not in self._uses:
            return None
        found, end = self._uses[wanted.made]
        if over(end, now):
            return None
        return found if found.state in ("yes", "used") and found.covers(wanted) else None


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


def keys(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each name in a JSON value; `[]` stands for any place in a list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*above, f".{name}")
            yield from keys(inner, (*above, f".{name}"))
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, (*above, "[]"))


def run_of(tool: Tool, asks: Sequence[Ask], outside: frozenset[tuple[str, Form]] | None) -> int:
    """Return how many calls a person may allow at once: as many as each forbid says, if it is plain whom they reach."""
    if outside is None or tool.risk == "destructive" or "critical" in tool.groups:
        return 0
    said = [re.search(r'@step_up_run\("(\d+)"\)', text) for _, _, text in asks]
    return min(int(one[1]) if one else 0 for one in said)


def over(end: Time, now: Time) -> bool:
    """Say whether a moment has come, on either clock."""
    return now[0] >= end[0] or (now[2] == end[2] and now[1] >= end[1])


def soonest(now: Time, ends: Sequence[Time]) -> Time:
    """Return the first of some moments, by the clocks of now."""
    found: Time = (float("inf"), float("inf"), now[2])
    for end in ends:
        found = _first(found, end)
    return found


def after(now: Time, seconds: float) -> Time:
    """Return the moment some seconds later."""
    return now[0] + seconds, now[1] + seconds, now[2]


def _first(present: Time, other: Time) -> Time:
    return min(present[0], other[0]), min(present[1], other[1]) if present[2] == other[2] else present[1], present[2]
