"""Use the secret of a connection for one call that was allowed, once.

The order is the promise: the call token is verified, offline and live; it is used up, durably; one secret is opened;
the use is recorded; and then one request is sent. Whatever fails on the way, nothing has left. Once it has, a lost
answer is an unknown outcome, and never a second try.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pdp.broker.admitting import About, Admission, Admitted, Presented, require_mode, shown
from pdp.broker.checkouts.sessiontokens import SessionTokens
from pdp.broker.headers import HeadersError, with_secret
from pdp.broker.rules import ServerRules
from pdp.broker.sending import Answer, Sender, UpstreamFailedError
from pdp.broker.templates import UpstreamRequest
from pdp.broker.underway import Running, UnderWay
from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError
from pdp.broker.words import Connection, Secret
from pdp.calltokens.claims import CallClaims
from pdp.errors import PermissionDeniedError
from pdp.foundation.egress import Egress, Roots
from pdp.observer import EventKind

T = TypeVar("T")

# Sends a prepared request. As `Sender.send` from its fourth parameter on.
Send = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Presented):
    """A request for the use of a secret: by a call token, and what is to be sent.

    `origin` is where the request was meant to go, or empty.
    """

    request: UpstreamRequest
    origin: str = ""


class Broker:
    """Uses secrets for calls. Safe for threads; each use takes one for as long as its answer lasts.

    `tokens` makes tokens for sessions; without it, connections that need them are refused. What is `under_way` for a
    session can be ended with it.
    """

    def __init__(
        self, admission: Admission, tokens: SessionTokens | None = None, under_way: UnderWay | None = None
    ) -> None:
        self.rules, self.under_way = admission.rules, under_way or UnderWay()
        self._admission, self._tokens = admission, tokens
        self._roots = {name: Roots(str(one.tls_roots or "")) for name, one in self.rules.items()}

    def use(
        self,
        asked: Asked,
        take: Callable[[Answer], T],
        *,
        verified: Callable[[CallClaims], object] = id,
        opened: Callable[[Egress], object] = id,
    ) -> T:
        """Send what is asked with the secret that it needs, and return what `take` makes of the answer.

        `verified` gets what the call token states, and `opened` what ends the request from another thread. Raise
        `CallTokenRefusedError` and `PDPError` before anything was sent, and `UpstreamFailedError` afterwards.
        """
        with ExitStack() as until_sent:
            with self._admission.admitted(asked, verified) as admitted:
                claims = admitted.claims
                # Before all that takes long: from now on, the end of its session ends it, and a freeze.
                ids = claims.session_id, *claims.ancestor_ids
                running = until_sent.enter_context(self.under_way.noted(ids, tenant=claims.tenant))
                secret = partial(self._secret_for, asked, admitted)
                seconds = self.under_way.seconds_left(claims.session_id, most=admitted.rules.answer_seconds)
                rules = replace(admitted.rules, answer_seconds=seconds)
                send, version = self._prepared(asked, admitted.connection, rules, secret)
            about = admitted.about.with_facts(connection=admitted.connection, version=version, mode=asked.mode)
            self._admission.note_use(EventKind.CALL_TOKEN_USED, about)
            return self._sent(send, take, opened, about, running)

    def greet(
        self,
        asked: Asked,
        take: Callable[[Answer], T],
        *,
        of_tenant: Callable[[str], object] = id,
        opened: Callable[[Egress], object] = id,
    ) -> T:
        """Send what calls no tool of a server of MCP, such as `initialize`, with the secret that the rules name for it.

        `of_tenant` gets the tenant that they name. Raise `PermissionDeniedError` for a presenter that they do not name,
        and what `use` raises.
        """
        rules = self.rules[asked.server]
        mcp = rules.proxy.mcp if rules.proxy else None
        if mcp is None or shown(asked.presenter) not in mcp.presenters:
            raise PermissionDeniedError("without a call token, and `mcp.presenters` does not name who presents it")
        of_tenant(mcp.tenant)
        connection = self._admission.connections.connection(
            mcp.connection, tenant=mcp.tenant, compartment=mcp.compartment
        )
        require_mode(asked.mode, connection)
        if connection.is_for_sessions:
            raise PermissionDeniedError(
                f"connection `{connection.id}` makes a token for each session, and without a call token there is none"
            )
        secret = partial(self._admission.connections.open, connection)
        send, version = self._prepared(asked, connection, rules, secret)
        about = About(facts={"presenter": shown(asked.presenter), "server": asked.server}, tenant=mcp.tenant)
        about = about.with_facts(connection=connection, version=version, mode=asked.mode)
        self._admission.note_use(EventKind.CONNECTION_USED, about)
        return self._sent(send, take, opened, about, Running())

    def _secret_for(self, asked: Asked, admitted: Admitted) -> Secret:
        connection = admitted.connection
        if not connection.is_for_sessions:
            return self._admission.connections.open(connection)
        if self._tokens is None:
            raise PermissionDeniedError(f"connection `{connection.id}` needs a token for each session")
        return self._tokens.open(admitted, asked.token, asked.mode)

    def _prepared(
        self, asked: Asked, connection: Connection, rules: ServerRules, opened: Callable[[], Secret]
    ) -> tuple[Send, int]:
        """Return what sends the request with the secret, once all that can be refused has been, and its version."""
        try:
            upstream = Upstream.read(connection.upstream)
            target = asked.request.target
            # INVARIANT: what is sent is what was let pass. An origin with a path of its own would change it.
            if upstream.target_of(f"{asked.origin}{target}") != target:
                raise ForeignTargetError(f"not for `{upstream.origin}`: what names it holds a path")
            # To open it can mean to ask a provider of tokens.
            self._admission.require_record()
            secret = opened()
            credential = with_secret(connection.header, connection.scheme, secret.reveal())
        except (HeadersError, ForeignTargetError, UpstreamError) as error:
            raise PermissionDeniedError(str(error)) from None
        # Whatever the caller has in this header is not sent beside the secret.
        own = connection.header.lower()
        sent = {name: value for name, value in asked.request.headers.items() if name != own}
        sender = Sender(upstream=upstream, rules=rules, roots=self._roots[asked.server])
        send = partial(sender.send, replace(asked.request, headers=sent), credential, secret.reveal())
        return send, secret.version

    def _sent(
        self,
        send: Send,
        take: Callable[[Answer], T],
        opened: Callable[[Egress], object],
        about: About,
        running: Running,
    ) -> T:
        seen = _Seen()

        def begun(egress: Egress) -> None:
            opened(egress)
            running.opened(egress)

        try:
            found: T = send(seen.through(take), opened=begun)
        except UpstreamFailedError as error:
            seen.problem = "is no longer heard: the session has ended, or is frozen" if running.ended else str(error)
            raise UpstreamFailedError(seen.problem) from None
        else:
            return found
        finally:
            self._admission.tell(EventKind.CALL_TOKEN_ANSWERED, about, **seen.facts)


class _Seen:
    """What is recorded of an answer: its status and size. Without a status there was none that was handed on.

    `problem` is what the upstream did instead.
    """

    def __init__(self) -> None:
        self._status, self._bytes, self._whole = 0, 0, False
        self.problem = ""

    @property
    def facts(self) -> dict[str, str]:
        outcome = "whole" if self._whole else "broken" if self._status else "unknown"
        facts = {"status": str(self._status), "bytes": str(self._bytes), "outcome": outcome, "problem": self.problem}
        return {name: fact for name, fact in facts.items() if fact}

    def through(self, take: Callable[[Answer], T]) -> Callable[[Answer], T]:
        """Return what notes what `take` takes."""

        def taking(answer: Answer) -> T:
            self._status = answer.status
            found = take(replace(answer, pieces=map(self._counted, answer.pieces)))
            self._whole = True
            return found

        return taking

    def _counted(self, piece: bytes) -> bytes:
        self._bytes += len(piece)
        return piece
