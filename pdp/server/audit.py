"""Answers `AuditService`: questions about the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.audit.coverage import Coverage, Lacking, LackingPart
from pdp.audit.rows import micros_of
from pdp.audit.search import Search
from pdp.audit.searchable import SearchableRecord
from pdp.audit.values import (
    SELECTOR_KINDS,
    Approval,
    Filter,
    Found,
    Mark,
    PlannedSession,
    Selector,
    State,
    Touch,
    Window,
    argument_of,
)
from pdp.clock import Clock
from pdp.errors import InvalidRequestError, NotFoundError, UnavailableError
from pdp.foundation.paging import page_size_of, page_start_of, page_token_of
from pdp.limits import Limits
from pdp.model import Basis
from pdp.record.segmentcheck import SegmentCheck
from pdp.server.fields import moment_of, optional_id, optional_text, require_id, timestamp
from pdp.serving.origin import Origin
from pdp.v1 import audit_pb2 as audit
from pdp.v1 import decision_pb2 as decisions

# A client accepts messages of up to 4 MiB; a record has about 1 KiB, sometimes more.
_PAGE_BYTES = 1024 * 1024
# The longest recorded name of a server or tool as an agent gave it.
_NAME_CHARACTERS = 512
_MOST_ARGUMENTS, _MOST_FINDINGS = 16, 100
_NO_RECORD = "this server keeps no record"

_OUTCOMES = {
    decisions.OUTCOME_UNSPECIFIED: "",
    decisions.OUTCOME_ALLOW: "allow",
    decisions.OUTCOME_DENY: "deny",
}
# The generated stubs give numbers no common type.
_BASES: Mapping[Any, str] = {
    decisions.BASIS_UNSPECIFIED: "",
    **{decisions.Basis.Value(f"BASIS_{basis.name}"): basis.value for basis in Basis},
}
_STATES: Mapping[State, Any] = {state: audit.RecordedState.Value(f"RECORDED_STATE_{state.name}") for state in State}
_SELECTORS = {"session": "session_id", "bundle": "bundle_version"}


class AuditHandlers:
    """One method for each RPC; each takes the message and its origin.

    INVARIANT: every question is asked about the caller's tenant. What its answer lacks is looked up before the index
    reads what is new: what is there by then is in the answer.
    """

    def __init__(
        self,
        searchable: SearchableRecord | None,
        check: SegmentCheck | None,
        *,
        coverage: Coverage,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._searchable = searchable
        self._coverage = coverage
        self._check = check
        self._clock = clock
        self._limits = limits

    def get_record(self, request: audit.GetRecordRequest, origin: Origin) -> audit.GetRecordResponse:
        """Show the records of one decision."""
        decision_id = require_id("decision_id", request.decision_id)
        lacking = self._coverage.lacking()
        with _not_found_in_part(lacking):
            found = self._search().show(decision_id, tenant=origin.caller.tenant)
        records = [_record_message(one) for one in _bounded(found[::-1])[::-1]]
        return audit.GetRecordResponse(record=records[-1], records=records, lacking=_lacking_message(lacking))

    def list_records(self, request: audit.ListRecordsRequest, origin: Origin) -> audit.ListRecordsResponse:
        """List a page of records."""
        which = self._filter(request.filter, origin)
        size = page_size_of(request.page_size)
        start = page_start_of(request.page_token, int, str, int)
        after = Mark(at=start[0], segment=start[1], place=start[2]) if start else None
        lacking = self._coverage.lacking()
        found = self._search().page(which, after=after, limit=size + 1)
        page = _bounded(found[:size])
        more = len(page) < len(found)
        return audit.ListRecordsResponse(
            records=[_record_message(one) for one in page],
            next_page_token=page_token_of(page[-1].mark.at, page[-1].mark.segment, page[-1].mark.place) if more else "",
            lacking=_lacking_message(lacking),
        )

    def list_approvals(self, request: audit.ListApprovalsRequest, origin: Origin) -> audit.ListApprovalsResponse:
        """List who approved a session and those above it."""
        field = request.WhichOneof("subject") or "session_id"
        subject = require_id(field, getattr(request, field))
        lacking = self._coverage.lacking()
        with _not_found_in_part(lacking):
            found = self._search().approvals(subject, now_at=self._now_at(), tenant=origin.caller.tenant)
        return audit.ListApprovalsResponse(
            approvals=[_approval_message(one) for one in found], lacking=_lacking_message(lacking)
        )

    def list_touched(self, request: audit.ListTouchedRequest, origin: Origin) -> audit.ListTouchedResponse:
        """List a page of what was reached or tried."""
        which = self._filter(request.filter, origin)
        size = page_size_of(request.page_size)
        after = page_start_of(request.page_token, str, str, str, str)
        lacking = self._coverage.lacking()
        found = self._search().touched(which, limit=size + 1, after=after)
        last = found[size - 1] if len(found) > size else None
        return audit.ListTouchedResponse(
            touched=[_touch_message(one) for one in found[:size]],
            next_page_token=page_token_of(last.server, last.tool, last.resource_type, last.resource_id) if last else "",
            lacking=_lacking_message(lacking),
        )

    def plan_revocation(self, request: audit.PlanRevocationRequest, origin: Origin) -> audit.PlanRevocationResponse:
        """List a page of the live sessions to revoke."""
        selector = self._selector(request, origin)
        size = page_size_of(request.page_size)
        after = page_start_of(request.page_token, str)
        lacking = self._coverage.lacking()
        found = self._search().plan(selector, now_at=self._now_at(), limit=size + 1, after=after[0] if after else "")
        return audit.PlanRevocationResponse(
            sessions=[_planned_message(one) for one in found[:size]],
            next_page_token=page_token_of(found[size - 1].session_id) if len(found) > size else "",
            lacking=_lacking_message(lacking),
        )

    def verify_segment(self, request: audit.VerifySegmentRequest, _: Origin) -> audit.VerifySegmentResponse:
        """Say whether a segment is as it was written. A segment holds the records of all tenants."""
        name = require_id("segment", request.segment)
        if self._check is None:
            raise UnavailableError(_NO_RECORD)
        lacking = self._coverage.lacking()
        found = self._check.verify(name)
        problems = [f"line {one.line}: {one.problem}" if one.line else one.problem for one in found.findings]
        return audit.VerifySegmentResponse(
            findings=problems[:_MOST_FINDINGS],
            findings_left_out=max(0, len(problems) - _MOST_FINDINGS) + found.more_findings,
            record_count=found.records,
            last_number=found.seq,
            read_bytes=found.read_bytes,
            size_bytes=found.size_bytes,
            unsigned_count=found.unsigned,
            sign_time=_optional(micros_of(found.signed_at) / 1e6) if found.signed_at else None,
            joined=found.joined,
            verify_time=timestamp(self._now_at()),
            lacking=_lacking_message(lacking),
        )

    def _search(self) -> Search:
        if self._searchable is None:
            raise UnavailableError(_NO_RECORD)
        return self._searchable.search()

    def _now_at(self) -> float:
        return self._clock.now().wall_at

    def _filter(self, given: audit.RecordFilter, origin: Origin) -> Filter:
        if given.outcome not in _OUTCOMES:
            raise InvalidRequestError("filter.outcome", f"`{given.outcome}` is not an outcome")
        if given.basis not in _BASES:
            raise InvalidRequestError("filter.basis", f"`{given.basis}` is not a basis")
        if given.delegated and not given.session_id:
            raise InvalidRequestError("filter.delegated", "needs a `session_id`")
        return Filter(
            session_id=optional_id("filter.session_id", given.session_id),
            user=optional_id("filter.user", given.user),
            agent=optional_id("filter.agent", given.agent),
            caller_id=optional_id("filter.caller_id", given.caller_id),
            outcome=_OUTCOMES[given.outcome],
            kind=optional_id("filter.kind", given.kind),
            delegated=given.delegated,
            window=_window("filter.", given),
            tenant=origin.caller.tenant,
            arguments=self._arguments(given),
            basis=_BASES[given.basis],
            **self._of_calls("filter.", given),
        )

    def _of_calls(self, prefix: str, given: Any) -> dict[str, str]:  # noqa: ANN401 - two messages with the same three fields
        """Return the server, the tool and the resource that calls must have, as agents named them."""
        for name in ("server", "tool"):
            optional_text(prefix + name, getattr(given, name), 2 * _NAME_CHARACTERS + 1)
        if given.tool and "/" not in given.tool:
            raise InvalidRequestError(f"{prefix}tool", "must have the form `server/tool`")
        most = self._limits.resource_id_characters
        if len(given.resource) > most:
            raise InvalidRequestError(f"{prefix}resource", f"longer than {most} characters")
        return {name: getattr(given, name) for name in ("server", "tool", "resource")}

    def _arguments(self, given: audit.RecordFilter) -> tuple[tuple[str, str], ...]:
        if len(given.arguments) > _MOST_ARGUMENTS:
            raise InvalidRequestError("filter.arguments", f"more than {_MOST_ARGUMENTS}")
        return tuple(argument_of(f"filter.arguments[{index}]", text) for index, text in enumerate(given.arguments))

    def _selector(self, request: audit.PlanRevocationRequest, origin: Origin) -> Selector:
        given = {kind: getattr(request, _SELECTORS.get(kind, kind)) for kind in SELECTOR_KINDS}
        for kind in ("session", "user", "agent", "pep", "approver", "bundle"):
            optional_id(_SELECTORS.get(kind, kind), given[kind])
        self._of_calls("", request)
        if given["argument"]:
            argument_of("argument", given["argument"])
        selector = Selector(window=_window("", request), tried=request.tried, tenant=origin.caller.tenant, **given)
        if selector.empty:
            raise InvalidRequestError("request", "is empty, and would select every session")
        return selector


def _window(prefix: str, given: Any) -> Window:  # noqa: ANN401 - two messages with the same two fields
    since, until = (
        moment_of(prefix + field, getattr(given, field)) if given.HasField(field) else None
        for field in ("since_time", "until_time")
    )
    return Window(since_at=since, until_at=until)


def _bounded(found: list[Found]) -> list[Found]:
    """Return as many records as fit into a page, at least one."""
    size = 0
    for count, one in enumerate(found):
        size += len(one.line)
        if size > _PAGE_BYTES and count:
            return found[:count]
    return found


@contextmanager
def _not_found_in_part(lacking: Lacking) -> Iterator[None]:
    """Say of what is not found that it can be in what is lacking."""
    try:
        yield
    except NotFoundError as error:
        if lacking:
            raise NotFoundError(f"{error}; but {lacking}") from None
        raise


def _lacking_message(lacking: Lacking) -> audit.Lacking | None:
    if not lacking:
        return None
    return audit.Lacking(parts=map(_part_message, lacking.parts), unknown=bool(lacking.unknown))


def _part_message(part: LackingPart) -> audit.LackingPart:
    return audit.LackingPart(
        replica=part.replica,
        chain=part.chain,
        since_time=None if part.since_at is None else timestamp(part.since_at),
        until_time=None if part.until_at is None else timestamp(part.until_at),
    )


def _record_message(found: Found) -> audit.AuditRecord:
    return audit.AuditRecord(record_json=found.line, segment=found.mark.segment, place=found.mark.place)


def _approval_message(found: Approval) -> audit.Approval:
    return audit.Approval(
        session_id=found.session_id,
        user=found.user,
        agent=found.agent,
        state=_STATES[found.state],
        parent_session_id=found.parent_id,
        requested_by=found.requested_by,
        request_time=_optional(found.requested_at),
        approved_by=found.approved_by,
        approve_time=_optional(found.approved_at),
        delegated=found.delegated,
        grants=found.grants,
        expire_time=_optional(found.expires_at),
        purpose=found.purpose,
        environment=found.environment,
        labels=found.labels,
        tool_patterns=found.tool_patterns,
        tools=found.tools,
        attributes_json=json.dumps(found.attributes).encode("ascii"),
        attribute_digests_json=json.dumps(found.attribute_digests).encode("ascii"),
        terms_json=json.dumps(found.terms).encode("ascii"),
        term_digests_json=json.dumps(found.term_digests).encode("ascii"),
    )


def _touch_message(found: Touch) -> audit.Touch:
    return audit.Touch(
        server=found.server,
        tool=found.tool,
        resource_type=found.resource_type,
        resource_id=found.resource_id,
        allowed=found.allowed,
        denied=found.denied,
        first_time=timestamp(found.first_at),
        last_time=timestamp(found.last_at),
    )


def _planned_message(found: PlannedSession) -> audit.PlannedRevocation:
    return audit.PlannedRevocation(
        session_id=found.session_id,
        user=found.user,
        agent=found.agent,
        state=_STATES[found.state],
        matched=found.matched,
        parent_session_id=found.parent_id,
        expire_time=_optional(found.expires_at),
        allowed=found.allowed,
        denied=found.denied,
        last_call_time=_optional(found.last_call_at),
    )


def _optional(at: float) -> Timestamp | None:
    return timestamp(at) if at else None
