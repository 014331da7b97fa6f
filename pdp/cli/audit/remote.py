"""Ask a server about its record, and read the answers as values."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from pdp.audit.coverage import NOTHING_LACKING, Lacking, LackingPart
from pdp.audit.rows import time_of
from pdp.audit.values import Approval, Filter, Found, Mark, PlannedSession, Selector, State, Touch, Window
from pdp.client import Client, OverloadedError, UnavailableError
from pdp.client.enumwords import word_of
from pdp.v1 import audit_pb2, decision_pb2

_PAGE = 1000
# Records of several workers and threads arrive slightly out of order.
_OVERLAP_MICROSECONDS = 2_000_000

_OUTCOMES = {
    "": decision_pb2.OUTCOME_UNSPECIFIED,
    "allow": decision_pb2.OUTCOME_ALLOW,
    "deny": decision_pb2.OUTCOME_DENY,
}


class ServerSource:
    """Answers from `AuditService`, about the caller's tenant."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = 0
        self._seen: set[Mark] = set()
        self._answered = self._away = False
        self._lacking = NOTHING_LACKING

    @property
    def lacking(self) -> Lacking:
        """Return what the answers so far lack."""
        return self._lacking

    def show(self, decision_id: str) -> list[Found]:
        """Return the records of a decision, in order of time."""
        return list(map(_found, self._client.get_records(decision_id, on_lacking=self._note)))

    def records(self, which: Filter) -> Iterator[Found]:
        """Yield records in order of time."""
        return map(_found, self._client.list_records(_filter(which), page_size=_PAGE, on_lacking=self._note))

    def approvals(self, subject: str) -> list[Approval]:
        """Return the approvals of a session or a decision's session, and those above it."""
        named = {"decision_id" if subject.startswith("dec_") else "session_id": subject}
        return [_approval(one) for one in self._client.list_approvals(**named, on_lacking=self._note)]

    def touched(self, which: Filter) -> Iterator[Touch]:
        """Yield the tools and resources that were reached or tried."""
        return map(_touch, self._client.list_touched(_filter(which), page_size=_PAGE, on_lacking=self._note))

    def plan(self, selector: Selector) -> Iterator[PlannedSession]:
        """Yield the live sessions to revoke."""
        request = audit_pb2.PlanRevocationRequest(
            session_id=selector.session,
            user=selector.user,
            agent=selector.agent,
            pep=selector.pep,
            approver=selector.approver,
            tool=selector.tool,
            server=selector.server,
            resource=selector.resource,
            argument=selector.argument,
            bundle_version=selector.bundle,
            tried=selector.tried,
            page_size=_PAGE,
        )
        _bound(request, selector.window)
        return map(_planned, self._client.plan_revocation(request, on_lacking=self._note))

    def _note(self, lacking: audit_pb2.Lacking) -> None:
        self._lacking = self._lacking.with_(lacking_of(lacking))

    def start(self) -> list[Found]:
        """Start now, without last records: a server lists records from the oldest."""
        self._since = round(time.time() * 1_000_000)
        return []

    def poll(self) -> list[Found]:
        """Return the records since; none while a server that answered before is away."""
        since = (self._since - _OVERLAP_MICROSECONDS) / 1e6
        try:
            found = list(self.records(Filter(window=Window(since_at=since))))
        except (UnavailableError, OverloadedError) as error:
            if not self._answered:
                raise
            if not self._away:
                click.echo(f"cannot reach the server; its records will follow later: {error}", err=True)
            self._away = True
            return []
        self._answered, self._away = True, False
        new = [one for one in found if one.mark not in self._seen]
        self._since = max((one.mark.at for one in found), default=self._since)
        self._seen = {one.mark for one in found}
        return new


def lacking_of(message: audit_pb2.Lacking) -> Lacking:
    """Read what an answer of a server lacks."""
    return Lacking(
        parts=tuple(
            LackingPart(
                replica=part.replica,
                chain=part.chain,
                since_at=_at(part.since_time) if part.HasField("since_time") else None,
                until_at=_at(part.until_time) if part.HasField("until_time") else None,
            )
            for part in message.parts
        ),
        unknown="the server cannot read how far the records of others reach" if message.unknown else "",
    )


def _found(record: audit_pb2.AuditRecord) -> Found:
    line = record.record_json
    return Found(mark=Mark(at=time_of(line) or 0, segment=record.segment, place=record.place), line=line)


def _filter(which: Filter) -> audit_pb2.RecordFilter:
    message = audit_pb2.RecordFilter(
        session_id=which.session_id,
        delegated=which.delegated,
        user=which.user,
        agent=which.agent,
        caller_id=which.caller_id,
        outcome=_OUTCOMES[which.outcome],
        kind=which.kind,
        arguments=[f"{name}={value}" for name, value in which.arguments],
        server=which.server,
        tool=which.tool,
        resource=which.resource,
        basis=f"BASIS_{which.basis.upper() or 'UNSPECIFIED'}",
    )
    _bound(message, which.window)
    return message


def _bound(message: audit_pb2.RecordFilter | audit_pb2.PlanRevocationRequest, window: Window) -> None:
    if window.since_at is not None:
        message.since_time.FromMicroseconds(round(window.since_at * 1_000_000))
    if window.until_at is not None:
        message.until_time.FromMicroseconds(round(window.until_at * 1_000_000))


def _state(number: int) -> State:
    return State(word_of(audit_pb2.RecordedState, number))


def _at(message: Any) -> float:  # noqa: ANN401 - a timestamp
    return float(message.seconds + message.nanos / 1e9)


def _approval(found: audit_pb2.Approval) -> Approval:
    return Approval(
        session_id=found.session_id,
        user=found.user,
        agent=found.agent,
        state=_state(found.state),
        parent_id=found.parent_session_id,
        requested_by=found.requested_by,
        requested_at=_at(found.request_time),
        approved_by=found.approved_by,
        approved_at=_at(found.approve_time),
        delegated=found.delegated,
        grants=tuple(found.grants),
        expires_at=_at(found.expire_time),
        purpose=found.purpose,
        environment=found.environment,
        labels=tuple(found.labels),
        tool_patterns=tuple(found.tool_patterns),
        tools=tuple(found.tools),
        attributes=json.loads(found.attributes_json or b"{}"),
        attribute_digests=json.loads(found.attribute_digests_json or b"{}"),
        terms=json.loads(found.terms_json or b"{}"),
        term_digests=json.loads(found.term_digests_json or b"{}"),
    )


def _touch(found: audit_pb2.Touch) -> Touch:
    return Touch(
        server=found.server,
        tool=found.tool,
        resource_type=found.resource_type,
        resource_id=found.resource_id,
        allowed=found.allowed,
        denied=found.denied,
        first_at=_at(found.first_time),
        last_at=_at(found.last_time),
    )


def _planned(found: audit_pb2.PlannedRevocation) -> PlannedSession:
    return PlannedSession(
        session_id=found.session_id,
        user=found.user,
        agent=found.agent,
        state=_state(found.state),
        matched=found.matched,
        parent_id=found.parent_session_id,
        expires_at=_at(found.expire_time),
        allowed=found.allowed,
        denied=found.denied,
        last_call_at=_at(found.last_call_time),
    )
