"""The same questions answered by reading every line: no index, no SQL, and nothing from `pdp.audit`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]
CLOSING = {"ended", "denied", "expired", "revoked"}


# What the questions are about: a million whole records would fill the memory of a small machine.
KEPT = (
    "kind",
    "id",
    "time",
    "session_id",
    "user",
    "agent",
    "caller_id",
    "tenant",
    "server",
    "tool",
    "outcome",
    "basis",
    "resource_type",
    "resource_id",
    "resource_digest",
    "bundle_version",
    "ancestors",
    "facts",
)


def everything(folder: Path, cut: Callable[[Record], Record] = lambda record: record) -> list[Record]:
    """Return every record of every file, in order of time, then file, then place."""
    found = []
    for path in sorted(folder.glob("record-*.jsonl")):
        with path.open("rb") as lines:
            found += [(cut(json.loads(line)), path.name, place) for place, line in enumerate(lines)]
    found.sort(key=lambda one: (one[0]["time"], one[1], one[2]))
    return [record for record, _, _ in found]


def kept(record: Record) -> Record:
    """Return of a record what the questions are about, equal texts as one object."""
    return {
        name: sys.intern(value) if isinstance(value, str) else value
        for name in KEPT
        if (value := record.get(name)) is not None
    }


def moment(text: str) -> float:
    """Return a time of the record as unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def chosen(records: Iterable[Record], **wanted: str) -> list[Record]:
    """Return the records whose fields are as wanted."""
    return [one for one in records if all(one.get(name) == value for name, value in wanted.items())]


def within(records: Iterable[Record], since: float, until: float) -> list[Record]:
    """Return the records of a span of time."""
    return [one for one in records if since <= moment(one["time"]) < until]


def reach(records: Iterable[Record]) -> dict[tuple[str, str, str, str], tuple[int, int, str, str]]:
    """Return how often each tool and resource was allowed and denied, first and last."""
    found: dict[tuple[str, str, str, str], list[Record]] = defaultdict(list)
    for one in records:
        if one["kind"] == "decision":
            resource = one.get("resource_id") or one.get("resource_digest", "")
            found[one["server"], one["tool"], one["resource_type"], resource].append(one)
    return {
        key: (
            sum(one["outcome"] == "allow" for one in calls),
            sum(one["outcome"] == "deny" for one in calls),
            min(one["time"] for one in calls),
            max(one["time"] for one in calls),
        )
        for key, calls in found.items()
    }


def live(records: Iterable[Record], now_at: float) -> dict[str, str]:
    """Return the id and state of every session that is live at a moment."""
    events: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for one in records:
        if one.get("session_id"):
            events[one["session_id"]][one["kind"].removeprefix("session.")].append(one)
    states = {}
    for session_id, kinds in events.items():
        if CLOSING & set(kinds):
            continue
        stage = "approved" if "approved" in kinds else "requested"
        ends = [one["facts"]["expires_at"] for name in {stage, "narrowed"} for one in kinds.get(name, ())]
        if not ends or moment(min(ends)) > now_at:
            states[session_id] = {True: "active", False: "requested"}[stage == "approved"] if ends else "unknown"
    return states


def below(records: Iterable[Record], session_ids: Iterable[str]) -> set[str]:
    """Return sessions and all that were delegated from them."""
    children: dict[str, set[str]] = defaultdict(set)
    for one in records:
        if one["kind"] == "session.requested" and "parent_id" in one["facts"]:
            children[one["facts"]["parent_id"]].add(one["session_id"])
    found, left = set(), list(session_ids)
    while left:
        session_id = left.pop()
        if session_id not in found:
            found.add(session_id)
            left += children[session_id]
    return found


def plan(records: list[Record], now_at: float, meant: Callable[[Record], bool]) -> dict[str, tuple[str, bool]]:
    """Return the live sessions with a record that is meant, and the live ones below: with state and whether meant."""
    matched = {one["session_id"] for one in records if one.get("session_id") and meant(one)}
    states = live(records, now_at)
    return {one: (states[one], one in matched) for one in below(records, matched) if one in states}
