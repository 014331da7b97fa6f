"""Which sessions a caller may see.

People see those of their tenant, a tool server or revoker those of its tenants, a gateway those that it opened and may
ask about.
"""

from __future__ import annotations

from pdp.model import Asked, Caller, Role, Session
from pdp.sessions.access import AccessRequest

_SEEING = frozenset({Role.APPROVER, Role.AUDITOR, Role.ADMIN, Role.BROKER, Role.REVOKER})


def sees_all(caller: Caller) -> bool:
    """Say whether a caller may see what gateways other than itself have asked for."""
    return not caller.roles.isdisjoint(_SEEING)


def sees(caller: Caller, session: Session) -> bool:
    """Say whether a caller may see a session."""
    return _sees(caller, session, session.opened_by)


def sees_request(caller: Caller, request: AccessRequest) -> bool:
    """Say whether a caller may see an access request."""
    return _sees(caller, request, request.asked_by)


def tenant_seen(caller: Caller) -> str:
    """Return the tenant to which a list can be restricted before `sees` is asked; empty for several."""
    return caller.tenant if caller.bounds is None else ""


def _sees(caller: Caller, asked: Asked, by: str) -> bool:
    return caller.may_ask_about(asked) and (sees_all(caller) or by == caller.id)
