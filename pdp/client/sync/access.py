# Generated from pdp/client/aio/access.py by `make client`; never edited.

"""Answer access requests: calls that wait for a person."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.client import approvals, threads
from pdp.client.sync.calls import Calls
from pdp.v1 import access_pb2


class AccessCalls:
    """The calls of a client about access requests."""

    _calls: Calls

    def approve_call(
        self, access_request_id: str, *, request_digest: str, calls: int = 1, id_token: str = ""
    ) -> access_pb2.RequestedAccess:
        """Approve exactly the call that was shown; `request_digest` comes from `get_access_request`.

        `calls` is how many calls like it to approve, where its `most_calls` allows more than one. `id_token`, that of
        the person's log-in, says when that was.
        """
        return self._calls.manage(
            approvals.approve_call(access_request_id, request_digest=request_digest, calls=calls, id_token=id_token)
        )

    def deny_call(self, access_request_id: str, *, reason: str = "") -> access_pb2.RequestedAccess:
        """Refuse a call: in its session it is not asked for again."""
        return self._calls.manage(approvals.deny_call(access_request_id, reason=reason))

    def revoke_access(self, *, reason: str, access_request_id: str = "", session_id: str = "") -> tuple[str, ...]:
        """Take back approvals that are not used up: that of one request, or all of a session.

        Return the ids of their requests.
        """
        return self._calls.manage(
            approvals.revoke_access(access_request_id=access_request_id, session_id=session_id, reason=reason)
        )

    def get_access_request(self, access_request_id: str) -> access_pb2.GetAccessRequestResponse:
        """Return one access request, with all that this caller may see."""
        return self._calls.manage(approvals.get_access_request(access_request_id))

    def compare_call(self, access_request_id: str) -> access_pb2.CompareCallResponse:
        """Compare a call that waits with the last one like it that was allowed, as far as the record holds both."""
        return self._calls.manage(approvals.compare_call(access_request_id))

    def list_access_requests(
        self, *, state: str = "", session_id: str = "", user: str = "", page_size: int = 0
    ) -> Iterator[access_pb2.RequestedAccess]:
        """Yield access requests, newest first, page by page.

        `state` is a name such as `open`; empty does not filter.
        """
        return self._calls.pages(
            lambda token: approvals.list_access_requests(
                state=state, session_id=session_id, user=user, page_size=page_size, page_token=token
            )
        )

    def watch_access_requests(self, *, session_id: str = "", user: str = "") -> Iterator[access_pb2.RequestedAccess]:
        """Yield the access requests that are open, and then each that changes, until the server or the caller ends it.

        Raise `PDPClientError` when the watch breaks. A new one begins with all that is open then.
        """
        feed = self._begin_watch(session_id, user)
        try:
            while (message := self._calls.next_of(feed)) is not None:
                for request in message.access_requests:
                    yield request
        finally:
            feed.cancel()

    def _begin_watch(self, session_id: str = "", user: str = "") -> threads.Feed:
        return self._calls.feed(approvals.WATCH, approvals.watch_access_requests(session_id=session_id, user=user))

    def _read_access(self, access_request_id: str, within: float) -> access_pb2.RequestedAccess:
        found = self._calls.manage(approvals.get_access_request(access_request_id), within=within)
        return found.access_request
