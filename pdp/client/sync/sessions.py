# Generated from pdp/client/aio/sessions.py by `make client`; never edited.

"""Request, approve, end and look at sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pdp.client import fencing, operations, threads
from pdp.client.sync.calls import Calls
from pdp.client.sync.underway import HEARTBEAT_SECONDS
from pdp.client.values import ListedTool
from pdp.v1 import reach_pb2, session_pb2


class SessionCalls:
    """The calls of a client about sessions. Ending them goes to the control address first."""

    _calls: Calls

    def request_session(
        self,
        *,
        user: str,
        agent: str,
        purpose: str,
        tools: Sequence[str],
        duration: float | None = None,
        parent_session_handle: str = "",
        environment: str = "",
        user_attributes: Mapping[str, Any] | bytes | None = None,
        labels: Sequence[str] = (),
        may_delegate: bool = False,
        terms: Mapping[str, Any] | bytes | None = None,
    ) -> session_pb2.RequestSessionResponse:
        """Ask for a session; the reply has its secret handle, shown only here.

        `duration` is seconds. `terms` are those that the bundle declares; write them as bytes to keep the digits of a
        decimal. What is cancelled or interrupted meanwhile withdraws the request: a person could approve what nobody
        holds.
        """
        operation = operations.request_session(
            user=user,
            agent=agent,
            purpose=purpose,
            tools=tools,
            duration=duration,
            parent_session_handle=parent_session_handle,
            environment=environment,
            user_attributes=user_attributes,
            labels=labels,
            may_delegate=may_delegate,
            terms=terms,
        )
        return threads.undone_if_cancelled(
            partial(self._calls.manage, operation), lambda opened: self.end_session(opened.session_handle)
        )

    def approve_session(
        self,
        session_id: str,
        *,
        request_digest: str,
        grants: Sequence[str] = (),
        tools: Sequence[str] = (),
        duration: float | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
        id_token: str = "",
        on_fence: fencing.OnFence = None,
    ) -> session_pb2.Session:
        """Approve exactly what was shown, or less: only `tools` that match, a shorter `duration`, smaller `terms`.

        `request_digest` comes from `review_session` with the same values; for the whole request without grants also
        from `get_session`. `duration` is seconds. `id_token`, that of the person's log-in, says when that was.
        `on_fence`, here and in the other changes, is called with what the change has waited for until every server
        answers by it, and with its revision.
        """
        return self._calls.manage(
            operations.approve_session(
                session_id,
                request_digest=request_digest,
                grants=grants,
                tools=tools,
                duration=duration,
                terms=terms,
                id_token=id_token,
                on_fence=on_fence,
            )
        )

    def deny_session(self, session_id: str, *, reason: str = "") -> session_pb2.Session:
        """Deny a requested session."""
        return self._calls.manage(operations.deny_session(session_id, reason=reason))

    def end_session(self, session_handle: str, *, on_fence: fencing.OnFence = None) -> session_pb2.Session:
        """End a session and all below it."""
        return self._calls.manage(operations.end_session(session_handle, on_fence=on_fence))

    def revoke_sessions(
        self,
        *,
        reason: str,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        tenant: str = "",
        of_tenant: str = "",
        on_fence: fencing.OnFence = None,
    ) -> tuple[str, ...]:
        """Revoke the sessions of exactly one selector and all below them.

        `of_tenant` is the tenant of the session, user or agent; a caller of several tenants must say it of a user or
        agent. Return the ids of those that were live.
        """
        return self._calls.manage(
            operations.revoke_sessions(
                session_id=session_id,
                user=user,
                agent=agent,
                tenant=tenant,
                of_tenant=of_tenant,
                reason=reason,
                on_fence=on_fence,
            )
        )

    def preview_revocation(
        self, *, session_id: str = "", user: str = "", agent: str = "", tenant: str = "", of_tenant: str = ""
    ) -> session_pb2.RevokeSessionsResponse:
        """Return how many sessions `revoke_sessions` would revoke now, and the newest of them. Nothing is revoked."""
        return self._calls.manage(
            operations.preview_revocation(
                session_id=session_id, user=user, agent=agent, tenant=tenant, of_tenant=of_tenant
            )
        )

    def review_session(
        self,
        session_id: str,
        *,
        grants: Sequence[str] = (),
        tools: Sequence[str] = (),
        duration: float | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
    ) -> session_pb2.ReviewSessionResponse:
        """Return a session as `approve_session` with the same values would make it, and what the policies then decide.

        `session.request_digest` is the digest to approve it with.
        """
        return self._calls.manage(
            operations.review_session(session_id, grants=grants, tools=tools, duration=duration, terms=terms)
        )

    def get_reach(
        self,
        *,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        asked_now: bool = False,
        terms: Mapping[str, Any] | bytes | None = None,
        used_days: int = 0,
        page_size: int = 0,
        page_token: str = "",
        former_version: str = "",
    ) -> reach_pb2.GetReachResponse:
        """Return a page of the tools that can be called in a session, or in those of a user, of an agent, or of both.

        With `asked_now` it is a session that the agent asks for now, for the user, with these `terms`. When a tool was
        last allowed is told for the last `used_days`, 0 for 30; `page_token` is that of the page before. With a
        `former_version` of the bundle, each tool also says how far that would let it be reached.
        """
        return self._calls.manage(
            operations.get_reach(
                session_id=session_id,
                user=user,
                agent=agent,
                asked_now=asked_now,
                terms=terms,
                used_days=used_days,
                page_size=page_size,
                page_token=page_token,
                former_version=former_version,
            )
        )

    def get_session(self, session_id: str, *, min_revision: str = "") -> session_pb2.Session:
        """Return one session. `min_revision` is that of a `ToolCall`."""
        return self._calls.manage(operations.get_session(session_id, min_revision))

    def list_sessions(
        self,
        *,
        state: str = "",
        user: str = "",
        agent: str = "",
        tenant: str = "",
        summaries: bool = False,
        page_size: int = 0,
    ) -> Iterator[session_pb2.Session]:
        """Yield sessions, newest first, page by page.

        `state` is a name such as `active`; empty does not filter. With `summaries` they come without their tools and
        other details, much faster.
        """
        return self._calls.pages(
            lambda token: operations.list_sessions(
                state=state,
                user=user,
                agent=agent,
                tenant=tenant,
                summaries=summaries,
                page_size=page_size,
                page_token=token,
            )
        )

    def narrow_session(
        self,
        session_id: str,
        *,
        tools: Sequence[str] = (),
        expires_at: float | None = None,
        labels: Sequence[str] = (),
        on_fence: fencing.OnFence = None,
    ) -> session_pb2.Session:
        """Narrow an active session: keep only matching tools, end it earlier, add labels.

        The new end is in unix seconds.
        """
        return self._calls.manage(
            operations.narrow_session(session_id, tools=tools, expires_at=expires_at, labels=labels, on_fence=on_fence)
        )

    def watch_sessions(
        self, *, since_revision: str = "", session_id: str = "", heartbeat: float | None = None
    ) -> Iterator[session_pb2.WatchSessionsResponse]:
        """Yield what changes of the sessions that the caller may see, until the server or the caller ends it.

        The first message comes at once, and holds what has changed since a revision, that of an earlier message. After
        a message with `reset` read again what you need. There is one at least every `heartbeat` seconds, None for 15.
        Nothing in it says that a call is allowed. Raise `PDPClientError` when the watch breaks.
        """
        request = operations.watch_sessions(since_revision, session_id, heartbeat)
        feed = self._calls.feed(operations.WATCH_SESSIONS, request)
        try:
            while (message := self._calls.next_of(feed)) is not None:
                yield message
        finally:
            feed.cancel()

    def list_tools(self, session_handle: str, *, session_id: str = "") -> tuple[ListedTool, ...]:
        """Return every tool of the catalogue as a session sees it. Being listed gives no authority."""
        _, tools = self.identified_tools(session_handle, session_id=session_id)
        return tools

    def identified_tools(self, session_handle: str, *, session_id: str = "") -> tuple[str, tuple[ListedTool, ...]]:
        """Return the public id of a session, and every tool of the catalogue as it sees it."""
        return self._calls.manage(operations.list_tools(session_handle, session_id))

    def _begin_following(self, revision: str) -> threads.Feed:
        return self._calls.feed(operations.WATCH_SESSIONS, operations.watch_sessions(revision, "", HEARTBEAT_SECONDS))

    def _read_session(self, session_id: str, within: float) -> session_pb2.Session:
        return self._calls.manage(operations.get_session(session_id), within=within)
