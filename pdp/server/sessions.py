"""Answers `SessionService`: the life cycle of sessions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial

from google.protobuf.message import Message

from pdp.errors import InvalidRequestError
from pdp.limits import Limits
from pdp.registry.registrar import Registrar
from pdp.registry.words import SessionView
from pdp.server.fields import moment_of, optional_id, optional_text, require_digest, require_id, require_text
from pdp.server.following import SessionFollowers
from pdp.server.links import NO_LINKS, Links
from pdp.server.messages import (
    grants,
    labels,
    narrowing,
    review_message,
    selector,
    session_message,
    session_request,
    summary_message,
    tool_patterns,
    wanted_state,
)
from pdp.server.repeats import Repeats
from pdp.server.revisions import optional_revision
from pdp.serving.origin import Origin
from pdp.serving.watches import Watch
from pdp.v1 import session_pb2 as sessions

# As in the audit service: clients accept four times as much.
_PAGE_BYTES = 1024 * 1024


class SessionHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def __init__(
        self, registrar: Registrar, limits: Limits, followers: SessionFollowers, links: Links = NO_LINKS
    ) -> None:
        self._registrar = registrar
        self._limits = limits
        self._followers = followers
        self._links = links
        self._repeats = Repeats(registrar.written)

    def request_session(
        self, request: sessions.RequestSessionRequest, origin: Origin
    ) -> sessions.RequestSessionResponse:
        """Open a session that waits for approval."""
        wanted = session_request(request, self._limits)
        view, handle = self._repeats.once(
            request,
            origin,
            lambda write: self._registrar.request(wanted, origin.caller, trace=origin.trace, write=write),
            lambda written: self._registrar.renew(written[0], wanted, caller=origin.caller),
        )
        return sessions.RequestSessionResponse(
            session=session_message(view), session_handle=handle, link=self._links.to_session(view.session.id)
        )

    def approve_session(
        self, request: sessions.ApproveSessionRequest, origin: Origin
    ) -> sessions.ApproveSessionResponse:
        """Approve exactly what was shown."""
        approve = partial(
            self._registrar.approve,
            require_id("session_id", request.session_id),
            request_digest=require_digest("request_digest", request.request_digest),
            grants=grants(request.grants),
            narrowing=narrowing(request, self._limits),
            caller=origin.caller,
            trace=origin.trace,
        )
        view = self._once(request, origin, approve)
        return sessions.ApproveSessionResponse(session=session_message(view))

    def deny_session(self, request: sessions.DenySessionRequest, origin: Origin) -> sessions.DenySessionResponse:
        """Refuse a requested session."""
        deny = partial(
            self._registrar.deny,
            require_id("session_id", request.session_id),
            reason=optional_text("reason", request.reason, self._limits.text_characters),
            caller=origin.caller,
        )
        view = self._once(request, origin, deny)
        return sessions.DenySessionResponse(session=session_message(view))

    def end_session(self, request: sessions.EndSessionRequest, origin: Origin) -> sessions.EndSessionResponse:
        """End a session and all below it."""
        handle = require_id("session_handle", request.session_handle)
        view = self._once(request, origin, partial(self._registrar.end, handle, caller=origin.caller))
        return sessions.EndSessionResponse(session=session_message(view))

    def revoke_sessions(
        self, request: sessions.RevokeSessionsRequest, origin: Origin
    ) -> sessions.RevokeSessionsResponse:
        """Revoke the live sessions that one selector names, or show which these are."""
        if request.validate_only:
            if request.reason:
                raise InvalidRequestError("reason", "must be empty with `validate_only`")
            found = self._registrar.revocable(selector(request), caller=origin.caller)
            return sessions.RevokeSessionsResponse(
                session_count=found.count, sessions=[summary_message(view) for view in found.newest]
            )
        which, reason = selector(request), require_text("reason", request.reason, self._limits.text_characters)
        revoked = self._repeats.once(
            request,
            origin,
            lambda write: self._registrar.revoke(which, reason=reason, caller=origin.caller, write=write),
            lambda written: tuple(sorted(written)),
            idle=operator.not_,
        )
        return sessions.RevokeSessionsResponse(session_ids=revoked)

    def review_session(self, request: sessions.ReviewSessionRequest, origin: Origin) -> sessions.ReviewSessionResponse:
        """Show a session as an approver judges it."""
        review = self._registrar.review(
            require_id("session_id", request.session_id),
            grants=grants(request.grants),
            narrowing=narrowing(request, self._limits),
            caller=origin.caller,
        )
        return review_message(review)

    def get_session(self, request: sessions.GetSessionRequest, origin: Origin) -> sessions.GetSessionResponse:
        """Show one session."""
        session_id = require_id("session_id", request.session_id)
        least = optional_revision("min_revision", request.min_revision)
        view = self._registrar.get(session_id, caller=origin.caller, least=least)
        return sessions.GetSessionResponse(session=session_message(view))

    def list_sessions(self, request: sessions.ListSessionsRequest, origin: Origin) -> sessions.ListSessionsResponse:
        """Show a page of sessions."""
        if request.page_size < 0:
            raise InvalidRequestError("page_size", f"`{request.page_size}` is negative")
        page = _Page(summary_message if request.summaries else session_message)
        _, next_token = self._registrar.list(
            state=wanted_state(request.state),
            user=optional_id("user", request.user),
            agent=optional_id("agent", request.agent),
            tenant=optional_id("tenant", request.tenant),
            summaries=request.summaries,
            page_size=request.page_size,
            page_token=optional_text("page_token", request.page_token, self._limits.text_characters),
            caller=origin.caller,
            fits=page.take,
        )
        return sessions.ListSessionsResponse(sessions=page.messages, next_page_token=next_token)

    def narrow_session(self, request: sessions.NarrowSessionRequest, origin: Origin) -> sessions.NarrowSessionResponse:
        """Narrow an active session."""
        expires = moment_of("expire_time", request.expire_time) if request.HasField("expire_time") else None
        narrow = partial(
            self._registrar.narrow,
            require_id("session_id", request.session_id),
            tool_patterns=tool_patterns(request.tool_patterns, self._limits),
            expires_at=expires,
            labels=labels(request.labels),
            caller=origin.caller,
        )
        view = self._once(request, origin, narrow)
        return sessions.NarrowSessionResponse(session=session_message(view))

    def watch_sessions(self, request: sessions.WatchSessionsRequest, _: Origin, watch: Watch) -> None:
        """Begin to tell what changes of sessions."""
        self._followers.add(request, watch)

    def _once(self, request: Message, origin: Origin, change: Callable[..., SessionView]) -> SessionView:
        """Change one session, or return it as it is when the same was asked before."""
        return self._repeats.once(
            request,
            origin,
            lambda write: change(write=write),
            lambda written: self._registrar.again(written[0], caller=origin.caller),
        )


class _Page:
    """The sessions of one page, small enough for every client."""

    def __init__(self, message_of: Callable[[SessionView], sessions.Session]) -> None:
        self.messages: list[sessions.Session] = []
        self._message_of = message_of
        self._bytes = 0

    def take(self, view: SessionView) -> bool:
        """Add a session if it fits; the first always does."""
        message = self._message_of(view)
        self._bytes += message.ByteSize()
        if self.messages and self._bytes > _PAGE_BYTES:
            return False
        self.messages.append(message)
        return True
