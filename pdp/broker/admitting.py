"""Admit whoever presents a call token to one connection, once, and only while the call still counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pdp.broker.rules import LOCAL, ServerRules
from pdp.broker.words import Connection, Mode, Secret
from pdp.calltokens.claims import CallClaims, Presenter
from pdp.calltokens.keys import claims_by
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import Keys, Verifier
from pdp.errors import PDPError, PermissionDeniedError, UnavailableError
from pdp.observer import Event, EventKind


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
class Presented:
    """A call token that is presented: for which tool server, by whom, and for which mode.

    `tool` is empty where a tool server asks, which has checked tool and arguments itself.
    """

    server: str
    token: str = field(repr=False)
    presenter: Presenter | None
    mode: Mode
    tool: str = ""
    arguments: bytes | dict[str, Any] = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What every record about one use says."""

    facts: Mapping[str, str]
    session_id: str = ""
    user: str = ""
    agent: str = ""
    tenant: str = ""

    def with_facts(self, *, connection: Connection, version: int, mode: Mode) -> About:
        """Return the same with what is used, and how. `version` is that of the secret."""
        known = {"connection": connection.id, "version": str(version), "upstream": connection.upstream}
        return replace(self, facts={**self.facts, **known, "mode": mode.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What an admitted call token states, and the connection that it may use."""

    claims: CallClaims
    rules: ServerRules
    connection: Connection
    about: About


class Admission:
    """Admits the presenters of call tokens, and records what becomes of them. Safe for threads."""

    def __init__(
        self,
        *,
        rules: Mapping[str, ServerRules],
        verifier: Verifier,
        keys: Keys,
        connections: Connections,
        record: Record,
        wall: Callable[[], float],
    ) -> None:
        self.rules, self.connections, self.wall = rules, connections, wall
        self._verifier, self._keys, self._record = verifier, keys, record

    @contextmanager
    def admitted(self, asked: Presented, verified: Callable[[CallClaims], object]) -> Iterator[Admitted]:
        """Provide what is admitted. That the block raises an error is recorded as a refusal.

        `verified` gets what the call token states, and can refuse it. Raise `CallTokenRefusedError`, and `PDPError`.
        """
        rules = self.rules[asked.server]
        claims = self._verified(asked)
        about = about_of(asked.presenter, claims)
        try:
            verified(claims)
            _require_agreed(claims, rules)
            connection = self.connections.of_kind(claims.tenant, claims.environment, rules.kind, claims.user)
            _require_scopes(claims, connection)
            require_mode(asked.mode, connection)
            yield Admitted(claims=claims, rules=rules, connection=connection, about=about)
        except PDPError:
            self.tell(EventKind.CALL_TOKEN_REFUSED, about, reason="connection")
            raise

    def require_record(self) -> None:
        """Raise `UnavailableError` unless records can be written."""
        if not self._record.permits:
            raise UnavailableError("the record cannot be written, so no secret is used")

    def note_use(self, kind: EventKind, about: About) -> None:
        """Record a use before it happens. Raise `UnavailableError` when that cannot be: then it must not happen."""
        self.require_record()
        self.tell(kind, about)
        # Whether a record was written is known only now.
        self.require_record()

    def tell(self, kind: EventKind, about: About, **facts: str) -> None:
        """Record an event about one use."""
        self._record.event(
            Event(
                kind=kind,
                at=self.wall(),
                facts={**about.facts, **facts},
                session_id=about.session_id,
                user=about.user,
                agent=about.agent,
                tenant=about.tenant,
            )
        )

    def _verified(self, asked: Presented) -> CallClaims:
        try:
            if asked.mode is not Mode.CONNECTOR and not asked.tool:
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
            self.tell(kind, about_of(asked.presenter, self._signed(asked.token)), reason=error.reason.value)
            raise

    def _signed(self, token: str) -> CallClaims | None:
        """Return what a refused token states, if its signature is good: else anyone could write into the record."""
        try:
            return claims_by(token, self._keys.key)
        except CallTokenRefusedError:
            return None


def about_of(presenter: Presenter | None, claims: CallClaims | None) -> About:
    """Return what records say of a presenter, and of a call token whose signature is good."""
    facts = {"presenter": shown(presenter)}
    if claims is None:
        return About(facts=facts)
    action = f"{claims.server}/{claims.tool}"
    facts |= {"token_id": claims.id, "decision_id": claims.decision_id, "action": action}
    return About(facts=facts, session_id=claims.session_id, user=claims.user, agent=claims.agent, tenant=claims.tenant)


def shown(presenter: Presenter | None) -> str:
    """Return how a presenter is named: by a thumbprint, or as a process of this machine."""
    return LOCAL if presenter == Presenter() else (presenter.certificate or presenter.key) if presenter else ""


def require_mode(mode: Mode, connection: Connection) -> None:
    """Raise `PermissionDeniedError` unless a connection may be used in a mode."""
    if mode not in connection.modes:
        raise PermissionDeniedError(f"connection `{connection.id}` may not be used in mode `{mode}`")


def _require_agreed(claims: CallClaims, rules: ServerRules) -> None:
    """Raise unless the approver of the session saw that the call uses a connection of this kind."""
    if claims.connection != rules.kind:
        raise PermissionDeniedError(
            f"the call may use no connection of kind `{rules.kind}`: see `connection` in overlays"
        )


def _require_scopes(claims: CallClaims, connection: Connection) -> None:
    """Raise unless the connection has all scopes that the call may use."""
    if missing := sorted({*claims.scopes} - {*connection.scopes}):
        raise PermissionDeniedError(f"the secret of connection `{connection.id}` lacks the scope `{missing[0]}`")
