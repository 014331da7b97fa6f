"""Read sessions, cuts, freezes and activations from the rows of a store, in any engine."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from pdp.errors import StoreUnavailableError
from pdp.model import Scope, Session
from pdp.sessions.freezes import Freeze
from pdp.sessions.rows import scope_from, session_of
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Bindings, Statements
from pdp.sessions.values import ActiveBundle, Cut

Chain = tuple[Session, ...]

BY_ID: Final = "SELECT session_json FROM sessions WHERE id = ?"
_BY_IDS: Final = "SELECT session_json FROM sessions WHERE id IN ({})"
BY_HANDLE: Final = "SELECT session_json FROM sessions WHERE handle_digest = ?"


class RowReader:
    """Builds sessions from rows, on one connection."""

    def __init__(self, connection: Statements, scopes: ScopePool) -> None:
        self._connection = connection
        self._scopes = scopes

    def all(self, sql: str, bindings: Bindings) -> Chain:
        """Return the sessions whose texts a query selects."""
        # Fetch all rows first: a statement that an error leaves open would hold an old snapshot.
        rows = self._connection.execute(sql, bindings).fetchall()
        return tuple(session_of(str(text), self._scope) for (text,) in rows)

    def by_id(self, session_id: str) -> Session | None:
        """Return the session with this id, or None."""
        found = self.all(BY_ID, (session_id,))
        return found[0] if found else None

    def by_ids(self, session_ids: Collection[str]) -> Chain:
        """Return the sessions with these ids, in any order, without those that are not stored."""
        if not session_ids:
            return ()
        return self.all(_BY_IDS.format(", ".join("?" * len(session_ids))), tuple(session_ids))

    def _scope(self, scope_id: str) -> Scope:
        known = self._scopes.find(scope_id)
        if known is not None:
            return known
        text = self._connection.execute("SELECT tools_json FROM scopes WHERE id = ?", (scope_id,)).get
        if text is None:
            raise StoreUnavailableError(f"the session store lacks scope `{scope_id}`")
        return self._scopes.share(scope_from(scope_id, text))


def cuts_on(connection: Statements) -> tuple[Cut, ...]:
    """Return the cuts that a store holds."""
    rows: list[tuple[Any, ...]] = connection.execute(_CUTS).fetchall()
    return tuple(
        Cut(tenant=tenant, user=user, agent=agent, at=at, by=by, reason=reason)
        for tenant, user, agent, at, by, reason in rows
    )


def freezes_on(connection: Statements) -> tuple[Freeze, ...]:
    """Return the freezes that a store holds, that of all tenants first."""
    rows: list[tuple[Any, ...]] = connection.execute(_FREEZES).fetchall()
    return tuple(
        Freeze(
            tenant=tenant,
            id=freeze_id,
            set_at=set_at,
            set_by=set_by,
            reason=reason,
            confirmed_at=confirmed_at,
            confirmed_by=confirmed_by,
        )
        for tenant, freeze_id, set_at, set_by, reason, confirmed_at, confirmed_by in rows
    )


def applied(cuts: tuple[Cut, ...], sessions: Iterable[Session]) -> Chain:
    """Return sessions as they are after cuts."""
    found = tuple(sessions)
    for cut in cuts:
        found = tuple(map(cut.applied, found))
    return found


def activation_of(
    version: str,
    activated_at: float,
    activated_by: str,
    reason: str,
    chosen: int,
    number: int,
    signed_by: str,
    counted_json: str = "[]",
) -> ActiveBundle:
    """Return the activation that a row holds."""
    return ActiveBundle(
        version=version,
        activated_at=activated_at,
        activated_by=activated_by,
        reason=reason,
        chosen=bool(chosen),
        number=number,
        signed_by=signed_by,
        counted=_counted(counted_json),
    )


def _counted(text: str) -> tuple[tuple[str, float], ...]:
    try:
        return tuple((str(name), float(since)) for name, since in json.loads(text))
    except (ValueError, TypeError):
        # What is not known to be counted is a deny.
        return ()


_CUTS: Final = 'SELECT tenant, "user", agent, at, by, reason FROM cuts'
_FREEZES: Final = "SELECT tenant, id, set_at, set_by, reason, confirmed_at, confirmed_by FROM freezes ORDER BY tenant"
