"""The questions about the record as values, like `operations`: for auditors and admins.

`on_lacking` is called with what an answer lacks, for each answer that lacks something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pdp.client.errors import InvalidRequestError
from pdp.client.operations import Method, Operation, Page, Reply
from pdp.v1 import audit_pb2

OnLacking = Callable[[audit_pb2.Lacking], object] | None
Answer = TypeVar(
    "Answer",
    audit_pb2.GetRecordResponse,
    audit_pb2.ListRecordsResponse,
    audit_pb2.ListApprovalsResponse,
    audit_pb2.ListTouchedResponse,
    audit_pb2.PlanRevocationResponse,
)


def get_records(
    decision_id: str, *, on_lacking: OnLacking
) -> Operation[audit_pb2.GetRecordResponse, tuple[audit_pb2.AuditRecord, ...]]:
    """Show the records of one decision."""
    return Operation(
        method=_method("GetRecord", audit_pb2.GetRecordResponse),
        request=audit_pb2.GetRecordRequest(decision_id=decision_id),
        read=lambda reply: tuple(_told(reply, on_lacking).records),
    )


def list_records(
    which: audit_pb2.RecordFilter | None, *, page_size: int, page_token: str, on_lacking: OnLacking
) -> Operation[audit_pb2.ListRecordsResponse, Page[audit_pb2.AuditRecord]]:
    """List one page of records."""
    return Operation(
        method=_method("ListRecords", audit_pb2.ListRecordsResponse),
        request=audit_pb2.ListRecordsRequest(filter=which, page_size=page_size, page_token=page_token),
        read=lambda reply: Page(items=_told(reply, on_lacking).records, next_token=reply.next_page_token),
    )


def list_approvals(
    *, session_id: str, decision_id: str, on_lacking: OnLacking
) -> Operation[audit_pb2.ListApprovalsResponse, tuple[audit_pb2.Approval, ...]]:
    """Say who approved the session, or that of the decision, and every session above it."""
    if bool(session_id) == bool(decision_id):
        raise InvalidRequestError("exactly one of `session_id` and `decision_id` is required")
    request = audit_pb2.ListApprovalsRequest()
    if session_id:
        request.session_id = session_id
    else:
        request.decision_id = decision_id
    return Operation(
        method=_method("ListApprovals", audit_pb2.ListApprovalsResponse),
        request=request,
        read=lambda reply: tuple(_told(reply, on_lacking).approvals),
    )


def list_touched(
    which: audit_pb2.RecordFilter | None, *, page_size: int, page_token: str, on_lacking: OnLacking
) -> Operation[audit_pb2.ListTouchedResponse, Page[audit_pb2.Touch]]:
    """List one page of what was reached or tried."""
    return Operation(
        method=_method("ListTouched", audit_pb2.ListTouchedResponse),
        request=audit_pb2.ListTouchedRequest(filter=which, page_size=page_size, page_token=page_token),
        read=lambda reply: Page(items=_told(reply, on_lacking).touched, next_token=reply.next_page_token),
    )


def verify_segment(segment: str) -> Operation[audit_pb2.VerifySegmentResponse, audit_pb2.VerifySegmentResponse]:
    """Say whether one segment of the log is as it was written."""
    return Operation(
        method=_method("VerifySegment", audit_pb2.VerifySegmentResponse),
        request=audit_pb2.VerifySegmentRequest(segment=segment),
        read=lambda reply: reply,
    )


def plan_revocation(
    wanted: audit_pb2.PlanRevocationRequest, *, page_token: str, on_lacking: OnLacking
) -> Operation[audit_pb2.PlanRevocationResponse, Page[audit_pb2.PlannedRevocation]]:
    """Name one page of the live sessions to revoke."""
    request = audit_pb2.PlanRevocationRequest()
    request.CopyFrom(wanted)
    request.page_token = page_token
    return Operation(
        method=_method("PlanRevocation", audit_pb2.PlanRevocationResponse),
        request=request,
        read=lambda reply: Page(items=_told(reply, on_lacking).sessions, next_token=reply.next_page_token),
    )


def _told(reply: Answer, on_lacking: OnLacking) -> Answer:
    if on_lacking is not None and reply.HasField("lacking"):
        on_lacking(reply.lacking)
    return reply


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.AuditService/{name}", reply=reply)
