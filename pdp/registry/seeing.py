"""Which sessions a caller may see: people those of their tenant, a gateway those that it opened."""

from __future__ import annotations

from pdp.model import Caller, Role, Session

_SEEING = frozenset({Role.APPROVER, Role.AUDITOR, Role.ADMIN})


def sees_all(caller: Caller) -> bool:
    """Say whether a caller may see what gateways other than itself have asked for, in its tenant."""
    return not caller.roles.isdisjoint(_SEEING)


def sees(caller: Caller, session: Session) -> bool:
    """Say whether a caller may see a session."""
    return session.tenant == caller.tenant and (sees_all(caller) or session.opened_by == caller.id)
