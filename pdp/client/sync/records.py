# Generated from pdp/client/aio/records.py by `make client`; never edited.

"""Read the record: who was allowed what, and who approved it."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.client import auditing
from pdp.client.sync.calls import Calls
from pdp.v1 import audit_pb2


class RecordCalls:
    """The calls of a client about the record."""

    _calls: Calls

    def get_records(
        self, decision_id: str, *, on_lacking: auditing.OnLacking = None
    ) -> tuple[audit_pb2.AuditRecord, ...]:
        """Return the records of a decision, in order of time: the last answer is last.

        Where several servers keep records, `on_lacking` is called with what the answer lacks, if it lacks something. So
        it is in the other questions about the record.
        """
        return self._calls.manage(auditing.get_records(decision_id, on_lacking=on_lacking))

    def list_records(
        self,
        which: audit_pb2.RecordFilter | None = None,
        *,
        page_size: int = 0,
        on_lacking: auditing.OnLacking = None,
    ) -> Iterator[audit_pb2.AuditRecord]:
        """Yield records in order of time, page by page."""
        return self._calls.pages(
            lambda token: auditing.list_records(which, page_size=page_size, page_token=token, on_lacking=on_lacking)
        )

    def list_approvals(
        self, *, session_id: str = "", decision_id: str = "", on_lacking: auditing.OnLacking = None
    ) -> tuple[audit_pb2.Approval, ...]:
        """Return the approvals of a session and of every session above it, nearest first.

        The id of a decision means its session.
        """
        return self._calls.manage(
            auditing.list_approvals(session_id=session_id, decision_id=decision_id, on_lacking=on_lacking)
        )

    def list_touched(
        self,
        which: audit_pb2.RecordFilter | None = None,
        *,
        page_size: int = 0,
        on_lacking: auditing.OnLacking = None,
    ) -> Iterator[audit_pb2.Touch]:
        """Yield the tools and resources that were reached or tried, page by page."""
        return self._calls.pages(
            lambda token: auditing.list_touched(which, page_size=page_size, page_token=token, on_lacking=on_lacking)
        )

    def verify_segment(self, segment: str) -> audit_pb2.VerifySegmentResponse:
        """Say whether one segment of the log is as it was written, as far as the server reads it."""
        return self._calls.manage(auditing.verify_segment(segment))

    def plan_revocation(
        self, wanted: audit_pb2.PlanRevocationRequest, *, on_lacking: auditing.OnLacking = None
    ) -> Iterator[audit_pb2.PlannedRevocation]:
        """Yield exactly the live sessions to revoke, page by page. Nothing is revoked."""
        return self._calls.pages(
            lambda token: auditing.plan_revocation(wanted, page_token=token, on_lacking=on_lacking)
        )
