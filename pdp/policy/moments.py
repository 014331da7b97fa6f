"""The moments at which an answer that depends on the time can change.

A policy that reads `context.now` only to compare it with constants cannot distinguish two times between the same
constants. So all that the policy can see of the time is its position among these constants.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

Tree = Any
# The shift of the time before the comparison, whether only the time of day is compared, and with what; milliseconds.
Moment = tuple[int, bool, int]

DAY = 24 * 60 * 60 * 1000

_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_NOW = {".": {"left": {"Var": "context"}, "attr": "now"}}
_DURATION = re.compile(r"(-?)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = (DAY, 60 * 60 * 1000, 60 * 1000, 1000, 1)
_DATETIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T(\d{2}:\d{2}:\d{2})(?:\.(\d{3}))?(?:Z|([+-]\d{2})(\d{2})))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Beyond any year that a clock can show. A shift within it cannot overflow, which would be an error at some times only.
_FARTHEST = 10**15


class Moments:
    """The moments at which what some policies can see of the time changes."""

    def __init__(self, moments: Iterable[Moment]) -> None:
        groups: dict[tuple[int, bool], set[int]] = {}
        for shift, of_day, at in moments:
            groups.setdefault((shift, of_day), set()).add(at)
        self._groups = [(shift, of_day, sorted(groups[shift, of_day])) for shift, of_day in sorted(groups)]

    def place(self, now: int) -> tuple[int, ...]:
        """Return the position of a time among the moments.

        Two times have equal positions exactly if no policy can distinguish them. `now` is in milliseconds since 1970. A
        moment itself has a position of its own, between its neighbours.
        """
        places = []
        for shift, of_day, moments in self._groups:
            seen = (now + shift) % DAY if of_day else now + shift
            places.append(bisect_left(moments, seen) + bisect_right(moments, seen))
        return tuple(places)


def milliseconds(wall_at: float) -> int:
    """Return unix seconds as policies see them: milliseconds, rounded down."""
    return (datetime.fromtimestamp(wall_at, UTC) - _EPOCH) // timedelta(milliseconds=1)


def moments(conditions: Tree) -> list[Moment] | None:
    """Return what a tree compares the time with, sorted; None when it reads the time in another way.

    The tree is in Cedar's JSON.
    """
    found = set()
    pending = [conditions]
    while pending:
        node = pending.pop()
        if node == _NOW:
            return None
        if (moment := _comparison(node)) is not None:
            found.add(moment)
        elif isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return sorted(found)


def constant_milliseconds(node: Tree) -> int | None:
    """Return a constant time or duration in milliseconds; None for any other node."""
    at = _constant(node, "datetime", _datetime)
    return _constant(node, "duration", _duration) if at is None else at


def _comparison(node: Tree) -> Moment | None:
    for one, other in _sides(node):
        if (shift := _shift(one)) is not None and (at := _constant(other, "datetime", _datetime)) is not None:
            return shift, False, at
        inner = one.get("toTime") if isinstance(one, dict) else None
        if inner and (shift := _shift(inner[0])) is not None:
            at = _constant(other, "duration", _duration)
            if at is not None:
                return shift, True, at
    return None


def _sides(node: Tree) -> Iterator[tuple[Tree, Tree]]:
    if isinstance(node, dict) and len(node) == 1:
        for operator in _COMPARISONS:
            inner = node.get(operator)
            if isinstance(inner, dict) and set(inner) == {"left", "right"}:
                yield inner["left"], inner["right"]
                yield inner["right"], inner["left"]


def _shift(node: Tree) -> int | None:
    """Return the constant shift of the current time; None when the node is anything else."""
    shift = 0
    while isinstance(node, dict) and isinstance(node.get("offset"), list):
        node, by = node["offset"]
        more = _constant(by, "duration", _duration)
        # Each by itself: with one that is too far, another one in the opposite direction comes too late.
        if more is None or abs(more) > _FARTHEST:
            return None
        shift += more
    return shift if node == _NOW and abs(shift) <= _FARTHEST else None


def _constant(node: Tree, kind: str, parse: Any) -> int | None:  # noqa: ANN401 - one of the two functions below
    match node.get(kind) if isinstance(node, dict) and len(node) == 1 else None:
        case [{"Value": str(text)}]:
            value: int | None = parse(text)
            return value
    return None


def _duration(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if found is None or text in {"", "-"}:
        return None
    total = sum(int(count or 0) * unit for count, unit in zip(found.groups()[1:], _UNITS, strict=True))
    return -total if found[1] else total


def _datetime(text: str) -> int | None:
    found = _DATETIME.fullmatch(text)
    if found is None:
        return None
    day, time, thousandths, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time or '00:00:00'}+00:00")
    except ValueError:
        return None
    zone = timedelta(hours=int(hours or 0), minutes=int(f"{(hours or '+')[0]}{minutes or 0}"))
    return (moment - _EPOCH - zone) // timedelta(milliseconds=1) + int(thousandths or 0)
