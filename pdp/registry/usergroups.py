"""The groups that a person's own token puts them in, among those that a bundle declares."""

from __future__ import annotations

from dataclasses import replace

from pdp.errors import WrongStateError
from pdp.limits import MOST_USER_GROUPS
from pdp.model import Caller, Session
from pdp.policy.bundle import Bundle


def groups_shown(caller: Caller, user: str, bundle: Bundle) -> tuple[str, ...] | None:
    """Return the declared groups in which a caller's token puts a user; None when it says nothing of this user.

    A token speaks of its holder alone. Raise `WrongStateError` for more groups than an approval can bind.
    """
    if caller.user_groups is None or caller.id != user:
        return None
    declared = tuple(name for name in caller.user_groups if ("UserGroup", name) in bundle.directory.entities)
    if len(declared) > MOST_USER_GROUPS:
        raise WrongStateError(
            f"the token of `{user}` names {len(declared)} user groups that the bundle declares, "
            f"more than {MOST_USER_GROUPS}"
        )
    return declared


def owned(session: Session, caller: Caller, bundle: Bundle) -> Session:
    """Return a waiting session as this caller would approve it: with the groups of its user's token of now."""
    shown = groups_shown(caller, session.user, bundle)
    return session if shown is None else replace(session, user_groups=shown)
