"""Answers `AccessService`: the calls that wait for people, and their answers."""

from __future__ import annotations

import json
import math
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from google.protobuf.message import Message

from pdp.audit.comparison import NOTHING_EARLIER, WaitingCall, asked, last_like
from pdp.audit.searchable import SearchableRecord
from pdp.clock import Clock
from pdp.errors import InvalidRequestError, UnavailableError
from pdp.limits import Limits
from pdp.registry.access import Approvals
from pdp.registry.accessreview import AccessView
from pdp.server.accessmessages import access_message, access_review, access_selector, access_state, comparison_message
from pdp.server.fields import optional_id, optional_text, require_digest, require_id, require_text
from pdp.server.repeats import Repeats
from pdp.serving.origin import Origin
from pdp.v1 import access_pb2 as access

# As in the other services: clients accept four times as much.
_PAGE_BYTES = 1024 * 1024
# The longest time between two messages of a watch, and between a change and its message, in seconds.
_SIGN_OF_LIFE_SECONDS, _LOOK_SECONDS = 15.0, 0.25


class AccessHandlers:
    """One method for each RPC; each takes the message and its origin.

    A watch looks for changes at least every `every` seconds, and ends with `end`.
    """

    def __init__(
        self,
        approvals: Approvals,
        limits: Limits,
        clock: Clock,
        *,
        every: float,
        searchable: SearchableRecord | None = None,
    ) -> None:
        self._approvals = approvals
        self._repeats = Repeats(approvals.written)
        self._searchable = searchable
        self._limits = limits
        self._clock = clock
        self._every = min(every, _LOOK_SECONDS)
        self._alive = min(_SIGN_OF_LIFE_SECONDS, limits.stream_idle_seconds / 3)
        self._latest = _Latest(approvals)
        self._ending = threading.Event()

    def end(self) -> None:
        """End all watches within a moment: the server stops."""
        self._ending.set()

    def approve_call(self, request: access.ApproveCallRequest, origin: Origin) -> access.ApproveCallResponse:
        """Approve exactly what was shown."""
        if request.calls < 0:
            raise InvalidRequestError("calls", f"`{request.calls}` is negative")
        approve = partial(
            self._approvals.approve,
            require_id("access_request_id", request.access_request_id),
            request_digest=require_digest("request_digest", request.request_digest),
            calls=request.calls,
            caller=origin.caller,
            trace=origin.trace,
        )
        return access.ApproveCallResponse(access_request=access_message(self._once(request, origin, approve)))

    def deny_call(self, request: access.DenyCallRequest, origin: Origin) -> access.DenyCallResponse:
        """Refuse a call."""
        deny = partial(
            self._approvals.deny,
            require_id("access_request_id", request.access_request_id),
            reason=optional_text("reason", request.reason, self._limits.text_characters),
            caller=origin.caller,
        )
        return access.DenyCallResponse(access_request=access_message(self._once(request, origin, deny)))

    def _once(self, request: Message, origin: Origin, change: Callable[..., AccessView]) -> AccessView:
        """Answer an access request, or return it as it is when the same was asked before."""
        return self._repeats.once(
            request,
            origin,
            lambda write: change(write=write),
            lambda written: self._approvals.again(written[0], caller=origin.caller),
        )

    def revoke_access(self, request: access.RevokeAccessRequest, origin: Origin) -> access.RevokeAccessResponse:
        """Take back approvals that are not used up."""
        revoke = partial(
            self._approvals.revoke,
            access_selector(request),
            reason=require_text("reason", request.reason, self._limits.text_characters),
            caller=origin.caller,
        )
        # What is remembered are the ids of all that was taken back.
        revoked = self._repeats.once(
            request, origin, lambda write: revoke(write=write), lambda ids: tuple(sorted(ids)), idle=operator.not_
        )
        return access.RevokeAccessResponse(access_request_ids=revoked)

    def get_access_request(
        self, request: access.GetAccessRequestRequest, origin: Origin
    ) -> access.GetAccessRequestResponse:
        """Show one request."""
        request_id = require_id("access_request_id", request.access_request_id)
        return access_review(self._approvals.get(request_id, caller=origin.caller))

    def compare_call(self, request: access.CompareCallRequest, origin: Origin) -> access.CompareCallResponse:
        """Compare a call that waits with the last one like it. What the record does not answer is no error."""
        request_id = require_id("access_request_id", request.access_request_id)
        reviewed = self._approvals.waiting(request_id, caller=origin.caller)
        waiting = reviewed.view.request
        call = WaitingCall(
            decision_id=waiting.decision_id,
            session_id=waiting.call.session_id,
            user=waiting.user,
            agent=waiting.agent,
            tenant=waiting.tenant,
            tool=waiting.call.action,
            names=frozenset(json.loads(reviewed.arguments_json or b"{}")),
        )
        if self._searchable is None:
            return access.CompareCallResponse(not_compared="this server keeps no record")
        try:
            search = self._searchable.search()
            earlier = last_like(search, call, self._clock.now().wall_at)
            if earlier is None:
                return access.CompareCallResponse(not_compared=NOTHING_EARLIER)
            return comparison_message(call, asked(search, call), earlier)
        except UnavailableError as error:
            return access.CompareCallResponse(not_compared=str(error))

    def list_access_requests(
        self, request: access.ListAccessRequestsRequest, origin: Origin
    ) -> access.ListAccessRequestsResponse:
        """Show a page of requests."""
        if request.page_size < 0:
            raise InvalidRequestError("page_size", f"`{request.page_size}` is negative")
        page = _Page()
        _, next_token = self._approvals.list(
            state=access_state(request.state),
            session_id=optional_id("session_id", request.session_id),
            user=optional_id("user", request.user),
            page_size=request.page_size,
            page_token=optional_text("page_token", request.page_token, self._limits.text_characters),
            caller=origin.caller,
            fits=page.take,
        )
        return access.ListAccessRequestsResponse(access_requests=page.messages, next_page_token=next_token)

    def watch_access_requests(
        self, request: access.WatchAccessRequestsRequest, origin: Origin, over: threading.Event
    ) -> Iterator[access.WatchAccessRequestsResponse]:
        """Yield what is open, then each change, until `over`; from time to time a sign of life."""
        session_id, user = optional_id("session_id", request.session_id), optional_id("user", request.user)
        # INVARIANT: the revision is older than all that is read afterwards, so no change is left out.
        seen = self._approvals.revision()
        opened = self._approvals.open_now(session_id=session_id, user=user, caller=origin.caller)
        yield from _messages(opened)
        yield access.WatchAccessRequestsResponse(complete=True)
        said_at = self._clock.now().boot_at
        while not (over.wait(self._every) or self._ending.is_set()):
            now = self._clock.now().boot_at
            latest = self._latest.revision(self._every)
            if latest > seen:
                changed = self._approvals.changed(after=seen, session_id=session_id, user=user, caller=origin.caller)
                seen = latest
                for message in _messages(changed):
                    said_at = now
                    message.complete = True
                    yield message
            if now - said_at >= self._alive:
                said_at = now
                yield access.WatchAccessRequestsResponse(complete=True)


class _Latest:
    """The latest revision, read once for all watches in an interval. Safe for threads."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals
        self._lock = threading.Lock()
        self._revision, self._read_at = 0, -math.inf

    def revision(self, every: float) -> int:
        """Return the latest revision, at most `every` seconds old."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= every:
                self._revision, self._read_at = self._approvals.revision(), now
            return self._revision


class _Page:
    """The requests of one page, small enough for every client."""

    def __init__(self) -> None:
        self.messages: list[access.RequestedAccess] = []
        self._bytes = 0

    def take(self, view: AccessView) -> bool:
        """Add a request if it fits; the first always does."""
        message = access_message(view)
        self._bytes += message.ByteSize()
        if self.messages and self._bytes > _PAGE_BYTES:
            return False
        self.messages.append(message)
        return True


def _messages(views: Iterable[AccessView]) -> Iterator[access.WatchAccessRequestsResponse]:
    """Yield the messages of a watch for some requests: one for many small ones."""
    page = _Page()
    for view in views:
        if not page.take(view):
            yield access.WatchAccessRequestsResponse(access_requests=page.messages)
            page = _Page()
            page.take(view)
    if page.messages:
        yield access.WatchAccessRequestsResponse(access_requests=page.messages)
