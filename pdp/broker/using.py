"""Use the secret of a connection for one call that was allowed, once.

The order is the promise: the call token is verified, offline and live; it is used up, durably; one secret is opened;
the use is recorded; and then one request is sent. Whatever fails on the way, nothing has left. Once it has, a lost
answer is an unknown outcome, and never a second try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from pdp.broker.headers import HeadersError, with_secret
from pdp.broker.rules import LOCAL, ServerRules
from pdp.broker.sending import Answer, Sender
from pdp.broker.templates import UpstreamRequest
from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError
from pdp.broker.words import Connection, Mode, Secret
from pdp.calltokens.claims import CallClaims, Presenter
from pdp.calltokens.keys import claims_of, key_named_by
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import Keys, Verifier
from pdp.errors import PDPError, PermissionDeniedError, UnavailableError
from pdp.foundation.egress import Egress, Roots
from pdp.observer import Event, EventKind

T = TypeVar("T")

# Sends a prepared request. As `Sender.send` from its fourth parameter on.
Send = Callable[..., Any]


class Connections(Protocol):
    """Where the broker finds connections and their secrets: the vault. Safe for threads."""

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return the user's connection of a kind, or else the tenant's. Raise `UnknownConnectionError`."""
        ...

    def connection(self, connection_id: str, *, tenant: str, compartment: str) -> Connection:
        """Return a connection by its id. Raise `UnknownConnectionError`."""
        ...

    def open(self, connection: Connection) -> Secret:
        """Open the present secret of a connection. Raise `PDPError`."""
        ...


class Record(Protocol):
    """The broker's own record."""

    @property
    def permits(self) -> bool:
        """Say whether records can be written."""
        ...

    def event(self, event: Event) -> None:
        """Record an event. Never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for the use of a secret: for which tool server, by whom, with which call token, and what is to be sent.

    `tool` is empty where a tool server asks, which has checked tool and arguments itself. `origin` is where the request
    was meant to go, or empty.
    """

    server: str
    token: str = field(repr=False)
    presenter: Presenter | None
    request: UpstreamRequest
    mode: Mode
    tool: str = ""
    arguments: bytes | dict[str, Any] = field(default=b"", repr=False)
    origin: str = ""


class Broker:
    """Uses secrets for calls. Safe for threads; each use takes one for as long as its answer lasts."""

    def __init__(
        self,
        *,
        rules: Mapping[str, ServerRules],
        verifier: Verifier,
        keys: Keys,
        connections: Connections,
        record: Record,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self._roots = {name: Roots(str(one.tls_roots or "")) for name, one in rules.items()}
        self._verifier = verifier
        self._keys = keys
        self._connections = connections
        self._record = record
        self._wall = wall

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
        rules = self.rules[asked.server]
        claims = self._verified(asked)
        verified(claims)
        about = _about(asked.presenter, claims)
        try:
            _require_agreed(claims, rules)
            connection = self._connections.of_kind(claims.tenant, claims.environment, rules.kind, claims.user)
            _require_scopes(claims, connection)
            send, version = self._prepared(asked, connection, rules)
        except PDPError:
            self._tell(EventKind.CALL_TOKEN_REFUSED, about, reason="connection")
            raise
        about = about.with_facts(connection=connection, version=version, mode=asked.mode)
        self._tell(EventKind.CALL_TOKEN_USED, about)
        return self._sent(send, take, opened, about)

    def greet(self, asked: Asked, take: Callable[[Answer], T], *, opened: Callable[[Egress], object] = id) -> T:
        """Send what calls no tool of a server of MCP, such as `initialize`, with the secret that the rules name for it.

        Raise `PermissionDeniedError` for a presenter that they do not name, and what `use` raises.
        """
        rules = self.rules[asked.server]
        mcp = rules.proxy.mcp if rules.proxy else None
        if mcp is None or _shown(asked.presenter) not in mcp.presenters:
            raise PermissionDeniedError("without a call token, and `mcp.presenters` does not name who presents it")
        connection = self._connections.connection(mcp.connection, tenant=mcp.tenant, compartment=mcp.compartment)
        send, version = self._prepared(asked, connection, rules)
        about = _About(facts={"presenter": _shown(asked.presenter), "server": asked.server}, tenant=mcp.tenant)
        about = about.with_facts(connection=connection, version=version, mode=asked.mode)
        self._tell(EventKind.CONNECTION_USED, about)
        return self._sent(send, take, opened, about)

    def _verified(self, asked: Asked) -> CallClaims:
        try:
            if asked.mode is Mode.PROXY and not asked.tool:
                return self._verifier.verify_behind(asked.token, server=asked.server, presenter=asked.presenter)
            return self._verifier.verify(
                asked.token,
                server=asked.server,
                tool=asked.tool,
                arguments=asked.arguments,
                presenter=asked.presenter,
            )
        except CallTokenRefusedError as error:
            kind = EventKind.CALL_TOKEN_REPLAYED if error.reason is Reason.USED else EventKind.CALL_TOKEN_REFUSED
            self._tell(kind, _about(asked.presenter, self._signed(asked.token)), reason=error.reason.value)
            raise

    def _signed(self, token: str) -> CallClaims | None:
        """Return what a refused token states, if its signature is good: else anyone could write into the record."""
        try:
            return claims_of(token, self._keys.key(key_named_by(token)))
        except CallTokenRefusedError:
            return None

    def _prepared(self, asked: Asked, connection: Connection, rules: ServerRules) -> tuple[Send, int]:
        """Return what sends the request with the secret, once all that can be refused has been, and its version."""
        if asked.mode not in connection.modes:
            raise PermissionDeniedError(f"connection `{connection.id}` may not be used in mode `{asked.mode}`")
        try:
            upstream = Upstream.read(connection.upstream)
            target = upstream.target_of(f"{asked.origin}{asked.request.target}")
            # To open it can mean to ask a provider of tokens.
            self._require_record()
            secret = self._connections.open(connection)
            credential = with_secret(connection.header, connection.scheme, secret.reveal())
        except (HeadersError, ForeignTargetError, UpstreamError) as error:
            raise PermissionDeniedError(str(error)) from None
        # Whatever the caller has in this header is not sent beside the secret.
        own = connection.header.lower()
        sent = {name: value for name, value in asked.request.headers.items() if name != own}
        sender = Sender(upstream=upstream, rules=rules, roots=self._roots[asked.server])
        send = partial(sender.send, replace(asked.request, target=target, headers=sent), credential, secret.reveal())
        return send, secret.version

    def _sent(self, send: Send, take: Callable[[Answer], T], opened: Callable[[Egress], object], about: _About) -> T:
        self._require_record()
        seen = _Seen()
        try:
            found: T = send(seen.through(take), opened=opened)
            return found
        finally:
            self._tell(EventKind.CALL_TOKEN_ANSWERED, about, **seen.facts)

    def _require_record(self) -> None:
        if not self._record.permits:
            raise UnavailableError("the record cannot be written, so no secret is used")

    def _tell(self, kind: EventKind, about: _About, **facts: str) -> None:
        self._record.event(
            Event(
                kind=kind,
                at=self._wall(),
                facts={**about.facts, **facts},
                session_id=about.session_id,
                user=about.user,
                agent=about.agent,
                tenant=about.tenant,
            )
        )


def _require_agreed(claims: CallClaims, rules: ServerRules) -> None:
    """Raise unless the approver of the session saw that the call uses a connection of this kind."""
    if claims.connection != rules.kind:
        raise PermissionDeniedError(
            f"the call may use no connection of kind `{rules.kind}`: see `connection` in overlays"
        )


def _require_scopes(claims: CallClaims, connection: Connection) -> None:
    """Raise unless the secret has all scopes that the call may use. One with more cannot be narrowed here."""
    if missing := sorted({*claims.scopes} - {*connection.scopes}):
        raise PermissionDeniedError(f"the secret of connection `{connection.id}` lacks the scope `{missing[0]}`")


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What every record about one use says."""

    facts: Mapping[str, str]
    session_id: str = ""
    user: str = ""
    agent: str = ""
    tenant: str = ""

    def with_facts(self, *, connection: Connection, version: int, mode: Mode) -> _About:
        known = {"connection": connection.id, "version": str(version), "upstream": connection.upstream}
        return replace(self, facts={**self.facts, **known, "mode": mode.value})


def _about(presenter: Presenter | None, claims: CallClaims | None) -> _About:
    facts = {"presenter": _shown(presenter)}
    if claims is None:
        return _About(facts=facts)
    action = f"{claims.server}/{claims.tool}"
    facts |= {"token_id": claims.id, "decision_id": claims.decision_id, "action": action}
    return _About(facts=facts, session_id=claims.session_id, user=claims.user, agent=claims.agent, tenant=claims.tenant)


def _shown(presenter: Presenter | None) -> str:
    """Return how a presenter is named: by a thumbprint, or as a process of this machine."""
    return LOCAL if presenter == Presenter() else (presenter.certificate or presenter.key) if presenter else ""


class _Seen:
    """What is recorded of an answer: its status and size. Without a status there was none that was handed on."""

    def __init__(self) -> None:
        self._status, self._bytes, self._whole = 0, 0, False

    @property
    def facts(self) -> dict[str, str]:
        outcome = "whole" if self._whole else "broken" if self._status else "unknown"
        return {"status": str(self._status), "bytes": str(self._bytes), "outcome": outcome}

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
