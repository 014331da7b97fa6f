"""What a person looks for in the record: read from an address, and asked of the server in bounded parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pdp.audit.rows import time_of
from pdp.audit.values import DECISION, Found, Mark
from pdp.client import AsyncClient, InvalidRequestError
from pdp.model import Basis
from pdp.v1.audit_pb2 import AuditRecord, PlanRevocationRequest, RecordFilter
from pdp.v1.decision_pb2 import Outcome

FIELDS = ("user", "agent", "session", "caller", "tool", "resource", "outcome", "basis", "kind", "since", "until")
# These the console looks for itself, in what the server finds by the others.
_OF_CALLS = ("tool", "resource", "basis")
_OUTCOMES = {"": Outcome.OUTCOME_UNSPECIFIED, "allow": Outcome.OUTCOME_ALLOW, "deny": Outcome.OUTCOME_DENY}
_BASES = frozenset({"", *(basis.value for basis in Basis)})
_SERVER_PAGE = 500
_AGO = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_MARK = re.compile(r"([0-9]{1,17})\.(.{1,200})\.([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search: `given` is what the form has, and `which` what the server filters by."""

    given: Mapping[str, str]
    which: RecordFilter

    def takes(self, found: Found) -> bool:
        """Say whether a record that the server found is about the tool, the resource and the basis."""
        if not any(self.given[name] for name in _OF_CALLS):
            return True
        record = found.record()
        tool, resource = record.get("tool"), record.get("resource_id") or record.get("resource_digest")
        return (
            self.given["tool"] in ("", tool, f"{record.get('server')}/{tool}")
            and self.given["resource"] in ("", resource, f"{record.get('resource_type')}::{resource}")
            and self.given["basis"] in ("", record.get("basis"))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Records that match, in order of time. `after` leads to the next part, and is None at the end."""

    found: tuple[Found, ...]
    after: Mark | None


def search_of(given: Mapping[str, str], now: float) -> Search:
    """Return a search; `now` is unix seconds. Raise `InvalidRequestError`."""
    if given["outcome"] not in _OUTCOMES:
        raise InvalidRequestError(f"`{given['outcome']}` is not an outcome: choose allow or deny")
    if given["basis"] not in _BASES:
        raise InvalidRequestError(f"`{given['basis']}` is not a basis")
    of_calls = any(given[name] for name in _OF_CALLS)
    which = RecordFilter(
        session_id=given["session"],
        user=given["user"],
        agent=given["agent"],
        caller_id=given["caller"],
        outcome=_OUTCOMES[given["outcome"]],
        kind=given["kind"] or (DECISION if of_calls else ""),
    )
    bound(which, given, now)
    return Search(given=given, which=which)


def bound(message: RecordFilter | PlanRevocationRequest, given: Mapping[str, str], now: float) -> None:
    """Bound a question by the times `since` and `until` of a form. Raise `InvalidRequestError`."""
    for name, field in (("since", message.since_time), ("until", message.until_time)):
        if text := given[name]:
            try:
                field.FromMicroseconds(round(_moment(text, now) * 1_000_000))
            except (ValueError, OverflowError):
                raise InvalidRequestError(
                    f"`{text}` is not a time such as `2026-01-05T10:00`, `2026-01-05`, or `2h` for two hours ago"
                ) from None


async def records(client: AsyncClient, search: Search, after: Mark | None, *, most: int, most_read: int) -> Part:
    """Return at most `most` records that match, after a place, and read at most `most_read` for them."""
    which = RecordFilter()
    which.CopyFrom(search.which)
    if after:
        which.since_time.FromMicroseconds(max(after.at, which.since_time.ToMicroseconds()))
    matching: list[Found] = []
    read = 0
    async for one in client.list_records(which, page_size=_SERVER_PAGE):
        found = found_of(one)
        if after and found.mark <= after:
            continue
        if search.takes(found):
            if len(matching) == most:
                return Part(found=tuple(matching), after=matching[-1].mark)
            matching.append(found)
        read += 1
        if read == most_read:
            return Part(found=tuple(matching), after=found.mark)
    return Part(found=tuple(matching), after=None)


def found_of(record: AuditRecord) -> Found:
    """Return a record of the API with its place."""
    line = record.record_json
    return Found(mark=Mark(at=time_of(line) or 0, segment=record.segment, place=record.place), line=line)


def mark_of(text: str) -> Mark | None:
    """Return the place that an address names; None if it names none. Raise `InvalidRequestError`."""
    if not text:
        return None
    named = _MARK.fullmatch(text)
    if not named:
        raise InvalidRequestError("the link to this part of the record is not whole")
    return Mark(at=int(named[1]), segment=named[2], place=int(named[3]))


def mark_text(mark: Mark) -> str:
    """Return a place as an address names it."""
    return f"{mark.at}.{mark.segment}.{mark.place}"


def _moment(text: str, now: float) -> float:
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
