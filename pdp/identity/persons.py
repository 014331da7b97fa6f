"""Find the caller of a verified token: by its subject, or else by its groups."""

from __future__ import annotations

import logging
from dataclasses import replace

from pdp.identity.callers import CALLER_ID, Callers
from pdp.identity.tokens import VerifiedToken
from pdp.model import NEVER_APPROVERS, Caller, Role

_LOG = logging.getLogger("pdp.server")


class NoCallerError(Exception):
    """A valid token has no caller; the message says why, for the log."""


def caller_of(token: VerifiedToken, callers: Callers) -> Caller:
    """Return the caller of a token. Raise `NoCallerError`.

    A subject with its own entry has what that entry gives, and its groups do not count. An approver must be a person:
    without a positive sign of a person in the token that role is removed, and the others stay.
    """
    caller = callers.by_jwt_subject.get(token.subject) or _by_groups(token, callers)
    lost = token.no_person or _beside_approver(caller)
    if Role.APPROVER in caller.roles and lost:
        _LOG.warning("`%s` cannot approve with this token: %s", caller.id, lost)
        caller = replace(caller, roles=caller.roles - {Role.APPROVER})
    return replace(caller, authenticated_at=token.authenticated_at, user_groups=token.user_groups)


def _by_groups(token: VerifiedToken, callers: Callers) -> Caller:
    entries = [callers.by_jwt_group[group] for group in token.groups if group in callers.by_jwt_group]
    if not entries:
        raise NoCallerError("no caller has its subject" + (" or one of its groups" if callers.by_jwt_group else ""))
    names = ", ".join(f"`{entry.id}`" for entry in entries)
    if len({entry.tenant for entry in entries}) > 1:
        raise NoCallerError(f"its groups belong to several tenants: {names}")
    if len({entry.bounds for entry in entries}) > 1:
        raise NoCallerError(f"its groups give a gateway different bounds: {names}")
    if not CALLER_ID.fullmatch(token.name):
        raise NoCallerError(f"the claim that `jwt.id_claim` names is not a caller id; its groups are {names}")
    if token.name in callers.ids:
        raise NoCallerError(f"`{token.name}` is the id of another caller; its groups are {names}")
    roles = frozenset[Role]().union(*(entry.roles for entry in entries))
    return Caller(id=token.name, kind="jwt", roles=roles, tenant=entries[0].tenant, bounds=entries[0].bounds)


def _beside_approver(caller: Caller) -> str:
    """Return why a caller's other roles forbid approving. The groups of a token can add up to them."""
    beside = ", ".join(f"`{role.value}`" for role in NEVER_APPROVERS if role in caller.roles)
    return f"its groups also make it {beside}" if beside else ""
