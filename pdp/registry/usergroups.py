"""The groups that a person's own token puts them in, among those that a bundle declares."""

from __future__ import annotations

from dataclasses import replace

from pdp.errors import WrongStateError
from pdp.limits import MOST_USER_GROUPS
from pdp.model import Caller, Session
from pdp.policy.bundle import Bundle


def groups_shown(caller: Caller, user: str, bundle: Bundle) -> tuple[str, ...] | None:
    """Return the declared groups in which a caller's token puts a user; None when it says nothing of this user.

    A token speaks of its holder alone.
    """
    if caller.user_groups is None or caller.id != user:
        return None
    return tuple(name for name in caller.user_groups if ("UserGroup", name) in bundle.directory.entities)


def owned(session: Session, caller: Caller, bundle: Bundle) -> Session:
    """Return a waiting session as this caller would approve it: with the groups of its user's token of now."""
    shown = groups_shown(caller, session.user, bundle)
    return session if shown is None else replace(session, user_groups=shown)


def require_few(session: Session) -> None:
    """Raise `WrongStateError` when a session would have more groups than it may."""
    if len(session.user_groups) > MOST_USER_GROUPS:
        raise WrongStateError(
            f"the token of `{session.user}` names {len(session.user_groups)} user groups that the bundle declares, "
            f"more than {MOST_USER_GROUPS}"
        )
