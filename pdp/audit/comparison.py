"""Compare a call that waits for a person with the last one like it, by what the record holds of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from pdp.audit.search import Search
from pdp.audit.values import DECISION, Filter, Found, Window
from pdp.errors import NotFoundError

_WINDOW_DAYS, _DAY_SECONDS = 30, 86400.0
NOTHING_EARLIER = f"no call of this tool was allowed to this agent for this user in the last {_WINDOW_DAYS} days"


_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
# How a value begins that was too long for the record.
_OMITTED = '{"omitted_characters":'


class Change(Enum):
    """What is otherwise about an argument. UNKNOWN: the record does not hold its earlier value."""

    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingCall:
    """A call that waits, the decision about it, and the names of its arguments."""

    decision_id: str
    session_id: str
    user: str
    agent: str
    tenant: str
    tool: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One argument, and its earlier value as JSON where that was another one; otherwise empty."""

    name: str
    change: Change
    earlier_json: str = field(default="", repr=False)


def last_like(search: Search, call: WaitingCall, now_at: float) -> Found | None:
    """Return the last allowed decision about a call like this one, in its session or else in any; None without one."""
    which = Filter(
        tenant=call.tenant,
        user=call.user,
        agent=call.agent,
        tool=call.tool,
        outcome="allow",
        window=Window(since_at=now_at - _WINDOW_DAYS * _DAY_SECONDS),
    )
    found = search.latest(replace(which, session_id=call.session_id), limit=1) or search.latest(which, limit=1)
    return found[0] if found else None


def asked(search: Search, call: WaitingCall) -> Mapping[str, Any]:
    """Return the record of the decision that asks a person; empty when it is not in the record any more."""
    try:
        found = [one.record() for one in search.show(call.decision_id, tenant=call.tenant)]
    except NotFoundError:
        return {}
    return next((one for one in found if one.get("kind") == DECISION), {})


def identical(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Say whether two records are of calls with the same arguments, byte for byte: by their keyed digests."""
    return bool(now) and now.get("arguments_digest") == earlier.get("arguments_digest")


def compared(call: WaitingCall, now: Mapping[str, Any], earlier: Mapping[str, Any]) -> tuple[Compared, ...]:
    """Return the arguments of a call beside those of an earlier one, sorted, by the records of both.

    Only what the catalogue puts into the record can be compared, in the form that it has there.
    """
    if identical(now, earlier):
        return tuple(Compared(name=name, change=Change.SAME) for name in sorted(call.names))
    ours, before = _arguments(now), _arguments(earlier)
    # Another bundle may have recorded other parameters, so what is not there may have been there.
    complete = now.get("bundle_version") == earlier.get("bundle_version")
    found = [_one(name, ours, before, complete=complete) for name in call.names]
    gone = before.keys() - call.names
    found += [Compared(name=name, change=Change.REMOVED, earlier_json=before[name]) for name in gone]
    return tuple(sorted(found, key=lambda one: one.name))


def _one(name: str, ours: Mapping[str, str], before: Mapping[str, str], *, complete: bool) -> Compared:
    if name not in ours or _OMITTED in (ours[name][: len(_OMITTED)], before.get(name, "")[: len(_OMITTED)]):
        return Compared(name=name, change=Change.UNKNOWN)
    if name not in before:
        return Compared(name=name, change=Change.ADDED if complete else Change.UNKNOWN)
    if ours[name] == before[name]:
        return Compared(name=name, change=Change.SAME)
    return Compared(name=name, change=Change.CHANGED, earlier_json=before[name])


def _arguments(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the recorded arguments of a call by name, as JSON."""
    held = record.get("arguments")
    return {name: _JSON.encode(value) for name, value in held.items()} if isinstance(held, dict) else {}
