"""Summarise the current activity, from the records of the last minute or so: for `pdp top`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pdp.audit.values import DECISION, Found
from pdp.record.fields import text_of

_MICROSECONDS = 1_000_000
# About 100 bytes each; when there are more, the window is shorter than asked for.
_MOST_RECORDS = 200_000
_LEAST_SECONDS = 1.0
# What the record says about itself is not activity.
_NO_EVENTS = frozenset({DECISION, "checkpoint", "segment.opened", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolActivity:
    """One tool: how often it was asked about and denied, and the median and longest time in µs."""

    server: str
    tool: str
    decisions: int
    denied: int
    median_us: float
    longest_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionActivity:
    """One session with denies: its user and agent, how often it was denied, and the subject of the last deny."""

    session_id: str
    user: str
    agent: str
    decisions: int
    denied: int
    server: str
    tool: str
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The activity of `seconds` seconds. `hit_rate` is None when no call used the cache.

    `outcomes` and `bases` count decisions, `events` everything else by its kind.
    """

    seconds: float
    decisions: int
    per_second: float
    outcomes: Mapping[str, int]
    bases: Mapping[str, int]
    hit_rate: float | None
    median_us: float
    longest_us: float
    slowest: tuple[ToolActivity, ...]
    denied: tuple[SessionActivity, ...]
    events: Mapping[str, int]


class _Seen(NamedTuple):
    """The fields that are kept of one record."""

    at: int
    kind: str
    session_id: str = ""
    user: str = ""
    agent: str = ""
    server: str = ""
    tool: str = ""
    outcome: str = ""
    basis: str = ""
    cache: str = ""
    duration_us: float = 0.0


class ActivityWindow:
    """The records of the last `seconds` seconds, which an `Activity` summarises. For one thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: deque[_Seen] = deque(maxlen=_MOST_RECORDS)

    def add(self, found: Iterable[Found]) -> None:
        """Add records, in order of time; missing or mistyped fields are empty."""
        self._seen.extend(_seen(one) for one in found)

    def activity(self, now: float, *, most: int = 10) -> Activity:
        """Return the activity until `now`, unix seconds, of at most `most` tools and sessions."""
        seen = self._seen
        while seen and seen[0].at < (now - self._seconds) * _MICROSECONDS:
            seen.popleft()
        decisions = [one for one in seen if one.kind == DECISION]
        # A window that began a moment ago must not make the rate look low.
        observed = min(self._seconds, now - seen[0].at / _MICROSECONDS) if seen else self._seconds
        seconds = max(observed, _LEAST_SECONDS)
        asked = [one.cache for one in decisions if one.cache != "none"]
        durations = sorted(one.duration_us for one in decisions)
        return Activity(
            seconds=round(seconds, 3),
            decisions=len(decisions),
            per_second=round(len(decisions) / seconds, 1),
            outcomes=dict(Counter(one.outcome for one in decisions)),
            bases=dict(Counter(one.basis for one in decisions).most_common()),
            hit_rate=round(asked.count("hit") / len(asked), 4) if asked else None,
            median_us=_median(durations),
            longest_us=durations[-1] if durations else 0.0,
            slowest=_slowest(decisions, most),
            denied=_denied(decisions, most),
            events=dict(Counter(one.kind for one in seen if one.kind not in _NO_EVENTS).most_common()),
        )


def _seen(found: Found) -> _Seen:
    record = found.record()
    kind = text_of(record, "kind")
    if kind != DECISION:
        return _Seen(found.mark.at, kind)
    duration = record.get("duration_us")
    return _Seen(
        at=found.mark.at,
        kind=kind,
        session_id=text_of(record, "session_id"),
        user=text_of(record, "user"),
        agent=text_of(record, "agent"),
        server=text_of(record, "server"),
        tool=text_of(record, "tool"),
        outcome=text_of(record, "outcome"),
        basis=text_of(record, "basis"),
        cache=text_of(record, "cache"),
        duration_us=float(duration) if isinstance(duration, int | float) else 0.0,
    )


def _slowest(decisions: Iterable[_Seen], most: int) -> tuple[ToolActivity, ...]:
    by_tool: dict[tuple[str, str], list[_Seen]] = {}
    for one in decisions:
        by_tool.setdefault((one.server, one.tool), []).append(one)
    tools = []
    for (server, tool), asked in by_tool.items():
        durations = sorted(one.duration_us for one in asked)
        tools.append(
            ToolActivity(
                server=server,
                tool=tool,
                decisions=len(asked),
                denied=sum(one.outcome == "deny" for one in asked),
                median_us=_median(durations),
                longest_us=durations[-1],
            )
        )
    return tuple(sorted(tools, key=lambda one: (-one.median_us, one.server, one.tool))[:most])


def _denied(decisions: Iterable[_Seen], most: int) -> tuple[SessionActivity, ...]:
    asked: Counter[str] = Counter()
    denied: Counter[str] = Counter()
    last: dict[str, _Seen] = {}
    for one in decisions:
        asked[one.session_id] += 1
        if one.outcome == "deny":
            denied[one.session_id] += 1
            last[one.session_id] = one
    return tuple(
        SessionActivity(
            session_id=session_id,
            user=last[session_id].user,
            agent=last[session_id].agent,
            decisions=asked[session_id],
            denied=count,
            server=last[session_id].server,
            tool=last[session_id].tool,
            basis=last[session_id].basis,
        )
        for session_id, count in denied.most_common(most)
    )


def _median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2] if ordered else 0.0
