"""What a person looks for in the record: read from an address, and asked of the server in bounded parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pdp.audit.rows import time_of
from pdp.audit.values import Mark
from pdp.client import AsyncClient, InvalidRequestError
from pdp.model import Basis
from pdp.v1.audit_pb2 import AuditRecord, Lacking, PlanRevocationRequest, RecordFilter
from pdp.v1.decision_pb2 import Outcome

# Of a search: the fields of the form that the server takes as they are, by those of the API.
_TEXTS = {
    "user": "user",
    "agent": "agent",
    "session": "session_id",
    "caller": "caller_id",
    "server": "server",
    "tool": "tool",
    "resource": "resource",
    "kind": "kind",
}
FIELDS = (*_TEXTS, "outcome", "basis", "since", "until")
_OUTCOMES = {"": Outcome.OUTCOME_UNSPECIFIED, "allow": Outcome.OUTCOME_ALLOW, "deny": Outcome.OUTCOME_DENY}
BASES = {"": "BASIS_UNSPECIFIED", **{basis.value: f"BASIS_{basis.name}" for basis in Basis}}
_SERVER_PAGE = 500
_AGO = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_MARK = re.compile(r"([0-9]{1,17})\.(.{1,200})\.([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Records that match, in order of time. `further` is where the next part begins, or empty."""

    found: tuple[AuditRecord, ...]
    further: str = ""


def search_of(given: Mapping[str, str], now: float) -> RecordFilter:
    """Return what the server is to search by; `now` is unix seconds. Raise `InvalidRequestError`."""
    if given["outcome"] not in _OUTCOMES:
        raise InvalidRequestError(f"`{given['outcome']}` is not an outcome: choose allow or deny")
    if given["basis"] not in BASES:
        raise InvalidRequestError(f"`{given['basis']}` is not a basis")
    which = RecordFilter(outcome=_OUTCOMES[given["outcome"]], basis=BASES[given["basis"]])
    for name, field in _TEXTS.items():
        setattr(which, field, given[name])
    bound(which, given, now)
    return which


def bound(message: RecordFilter | PlanRevocationRequest, given: Mapping[str, str], now: float) -> None:
    """Bound a question by the times `since` and `until` of a form. Raise `InvalidRequestError`."""
    for name, field in (("since", message.since_time), ("until", message.until_time)):
        if text := given[name]:
            field.FromMicroseconds(round(moment_of(text, now) * 1_000_000))


def moment_of(text: str, now: float) -> float:
    """Return the time that a person wrote, in unix seconds as `now` is. Raise `InvalidRequestError`."""
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(text)
        # In UTC, so that a year beyond those of the calendar is refused here.
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"`{text}` is not a time such as `2026-01-05T10:00`, `2026-01-05`, or `2h` for two hours ago"
        ) from None


async def records(
    client: AsyncClient,
    search: RecordFilter,
    after: Mark | None,
    *,
    most: int,
    on_lacking: Callable[[Lacking], object],
) -> Part:
    """Return at most `most` records that match, after a place; tell `on_lacking` what they lack."""
    which = RecordFilter()
    which.CopyFrom(search)
    if after:
        which.since_time.FromMicroseconds(max(after.at, which.since_time.ToMicroseconds()))
    found: list[AuditRecord] = []
    async for one in client.list_records(which, page_size=min(most + 1, _SERVER_PAGE), on_lacking=on_lacking):
        # Only those of the same microsecond can have been in the part before.
        if after and _place(one) <= after:
            continue
        after = None
        if len(found) == most:
            return Part(found=tuple(found), further=_text_of(_place(found[-1])))
        found.append(one)
    return Part(found=tuple(found))


def mark_of(text: str) -> Mark | None:
    """Return the place that an address names; None if it names none. Raise `InvalidRequestError`."""
    if not text:
        return None
    named = _MARK.fullmatch(text)
    if not named:
        raise InvalidRequestError("the link to this part of the record is not whole")
    return Mark(at=int(named[1]), segment=named[2], place=int(named[3]))


def _place(one: AuditRecord) -> Mark:
    return Mark(at=time_of(one.record_json) or 0, segment=one.segment, place=one.place)


def _text_of(mark: Mark) -> str:
    return f"{mark.at}.{mark.segment}.{mark.place}"
