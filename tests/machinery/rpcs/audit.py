"""RPCs about the record.

It tells an auditor everything of the own tenant, what its gateways asked with a foreign handle as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.v1.audit_pb2 import (
    Approval,
    AuditRecord,
    GetRecordRequest,
    GetRecordResponse,
    ListApprovalsRequest,
    ListApprovalsResponse,
    ListRecordsRequest,
    ListRecordsResponse,
    ListTouchedRequest,
    ListTouchedResponse,
    PlannedRevocation,
    PlanRevocationRequest,
    PlanRevocationResponse,
    RecordedState,
    RecordFilter,
    Touch,
    VerifySegmentRequest,
    VerifySegmentResponse,
)
from tests.machinery.rpcs.asking import BIDI, FOREIGN_TOKENS, LONG_ID
from tests.machinery.rpcs.row import ERROR, Cells, Row, Wrapped, tenant
from tests.machinery.rpcs.states import ALL_STATES, ANYHOW, SEEN, in_states

_RECORD = AuditRecord(record_json=b"{}\n", segment="a", place=7)
_FILTER = RecordFilter(session_id="ses_1", delegated=True)


def _recorded(approval: Any) -> str:
    return RecordedState.Name(approval.state).removeprefix("RECORDED_STATE_").lower()


def _wrong_selection(kind: type[Message]) -> Iterator[tuple[Message, str]]:
    """Yield what is wrong in each field that chooses records, and pages of them."""
    for field, value in (
        ("session_id", "ses 1"),
        ("user", "a\n"),
        ("agent", "a b"),
        ("caller_id", LONG_ID),
        ("kind", "*"),
        ("outcome", 7),
        ("basis", 99),
        ("server", "x" * 1026),
        ("tool", "find_customer"),
        ("resource", "x" * 1025),
        ("delegated", True),
        ("since_time", Timestamp(seconds=-1)),
        ("until_time", Timestamp(nanos=-1)),
    ):
        yield kind(filter=RecordFilter(**{field: value})), f"filter.{field}"  # type: ignore[arg-type]  # by name
    for size in (-1, 1001):
        yield kind(page_size=size), "page_size"
    for token in ("nonsense", "bnVsbA==", "W" * 9000, *FOREIGN_TOKENS):
        yield kind(page_token=token), "page_token"


AUDIT: Mapping[str, Row] = {
    "GetRecord": Row(
        ask=lambda session: GetRecordRequest(decision_id=session.decision_id),
        roles=dict.fromkeys(("auditor", "admin"), tenant("OK")),
        states=ANYHOW,
        wrong=(
            (GetRecordRequest(), "decision_id"),
            (GetRecordRequest(decision_id="dec 1"), "decision_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.get_records("dec_1"),
            GetRecordRequest(decision_id="dec_1"),
            GetRecordResponse(record=_RECORD, records=[_RECORD, _RECORD]),
            (_RECORD, _RECORD),
        ),
        seen_again={
            "decision_id": {ERROR},
        },
        without_store="OK",
        without_bundle="OK",
    ),
    "ListRecords": Row(
        ask=lambda session: ListRecordsRequest(filter=RecordFilter(session_id=session.id, kind="session.requested")),
        said=lambda found, _: "1 record" if found.records else "no record",
        roles=dict.fromkeys(("auditor", "admin"), tenant("1 record", hidden="no record")),
        states=dict.fromkeys(ALL_STATES, "1 record") | {"unknown": "no record", "of_another_tenant": "no record"},
        wrong=(
            (ListRecordsRequest(filter=RecordFilter(user="a b")), "filter.user"),
            (ListRecordsRequest(filter=RecordFilter(arguments=["a=b", "=c"])), "filter.arguments[1]"),
            *_wrong_selection(ListRecordsRequest),
        ),
        wrapped=Wrapped(
            lambda client: client.list_records(_FILTER, page_size=2),
            ListRecordsRequest(filter=_FILTER, page_size=2),
            ListRecordsResponse(records=[_RECORD]),
            [_RECORD],
        ),
        without_store="OK",
        without_bundle="OK",
    ),
    "ListApprovals": Row(
        ask=lambda session: ListApprovalsRequest(session_id=session.id),
        said=lambda found, _: _recorded(found.approvals[0]),
        roles=dict.fromkeys(("auditor", "admin"), tenant("active")),
        states=SEEN | {"of_another_gateway": "active"},
        wrong=(
            (ListApprovalsRequest(decision_id="a b"), "decision_id"),
            (ListApprovalsRequest(), "session_id"),
            (ListApprovalsRequest(session_id="ses 1"), "session_id"),
            (ListApprovalsRequest(decision_id="dec 1"), "decision_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.list_approvals(decision_id="dec_1"),
            ListApprovalsRequest(decision_id="dec_1"),
            ListApprovalsResponse(approvals=[Approval(session_id="ses_1")]),
            (Approval(session_id="ses_1"),),
        ),
        seen_again={
            "session_id": {ERROR},
            "decision_id": {ERROR},
        },
        without_store="OK",
        without_bundle="OK",
    ),
    "ListTouched": Row(
        ask=lambda session: ListTouchedRequest(filter=RecordFilter(session_id=session.id)),
        said=lambda found, _: " ".join(f"{one.server}/{one.tool}" for one in found.touched) or "nothing",
        roles=dict.fromkeys(("auditor", "admin"), tenant("git/log", hidden="nothing")),
        states=dict.fromkeys(ALL_STATES, "nothing"),
        wrong=(
            (ListTouchedRequest(page_size=-1), "page_size"),
            (ListTouchedRequest(filter=RecordFilter(arguments=["a=b"] * 17)), "filter.arguments"),
            *_wrong_selection(ListTouchedRequest),
        ),
        wrapped=Wrapped(
            lambda client: client.list_touched(_FILTER, page_size=2),
            ListTouchedRequest(filter=_FILTER, page_size=2),
            ListTouchedResponse(touched=[Touch(tool="read")]),
            [Touch(tool="read")],
        ),
        without_store="OK",
        without_bundle="OK",
    ),
    "VerifySegment": Row(
        ask=lambda _: VerifySegmentRequest(segment="record-000000000000-000001.jsonl"),
        roles=dict.fromkeys(("auditor", "admin"), Cells(*["NOT_FOUND"] * 4)),
        states=dict.fromkeys(ALL_STATES, "NOT_FOUND"),
        wrong=((VerifySegmentRequest(), "segment"), (VerifySegmentRequest(segment="a b"), "segment")),
        wrapped=Wrapped(
            lambda client: client.verify_segment("a"),
            VerifySegmentRequest(segment="a"),
            VerifySegmentResponse(record_count=1),
            VerifySegmentResponse(record_count=1),
        ),
        seen_again={
            "segment": {ERROR},
        },
        status="NOT_FOUND",
        without_store="NOT_FOUND",
        without_bundle="NOT_FOUND",
    ),
    "PlanRevocation": Row(
        ask=lambda session: PlanRevocationRequest(session_id=session.id),
        said=lambda found, session: (
            "revoke it" if [session.id] == [one.session_id for one in found.sessions] else "nothing to revoke"
        ),
        roles=dict.fromkeys(("auditor", "admin"), tenant("revoke it", hidden="nothing to revoke")),
        states=in_states(
            live="revoke it",
            over="nothing to revoke",
            requested="revoke it",
            unknown="nothing to revoke",
            of_another_tenant="nothing to revoke",
            of_another_gateway="revoke it",
        ),
        wrong=(
            (PlanRevocationRequest(), "request"),
            *(
                (PlanRevocationRequest(**{field: value}), field)  # type: ignore[arg-type]  # by name
                for field, value in (
                    ("session_id", "ses 1"),
                    ("user", "a b"),
                    ("agent", BIDI),
                    ("pep", "a\n"),
                    ("approver", LONG_ID),
                    ("tool", "git_log"),
                    ("tool", "git/" + BIDI),
                    ("server", "a" * 1026),
                    ("resource", "r" * 1025),
                    ("bundle_version", "sha 256"),
                    ("since_time", Timestamp(seconds=-1)),
                    ("until_time", Timestamp(seconds=2**62)),
                )
            ),
            (PlanRevocationRequest(user="alice", page_size=1001), "page_size"),
            (PlanRevocationRequest(argument="recipients"), "argument"),
            *(
                (PlanRevocationRequest(user="alice", page_token=token), "page_token")
                for token in ("nonsense", *FOREIGN_TOKENS)
            ),
            (PlanRevocationRequest(tried=True), "request"),
        ),
        wrapped=Wrapped(
            lambda client: client.plan_revocation(PlanRevocationRequest(agent="coder", page_size=2)),
            PlanRevocationRequest(agent="coder", page_size=2),
            PlanRevocationResponse(sessions=[PlannedRevocation(session_id="ses_1")]),
            [PlannedRevocation(session_id="ses_1")],
        ),
        without_store="OK",
        without_bundle="OK",
    ),
}
