"""The rules that every store applies before it writes: what can follow what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pdp.errors import BundleUnavailableError, ConflictError
from pdp.model import Session, SessionState
from pdp.sessions.freezes import Freeze
from pdp.sessions.values import ActiveBundle, Change, Expected

# Enough to roll back by a few activations; older content is in the authors' version control.
BUNDLES_KEPT: Final = 10
# For these no content is kept, only that they were active.
VERSIONS_REMEMBERED: Final = 10_000


def require_new(session: Session, parent: Session | None) -> None:
    """Raise `ConflictError` unless the session may be inserted below `parent`."""
    if session.epoch != 1:
        raise ConflictError(f"a new session has epoch 1: `{session.id}` has `{session.epoch}`")
    if session.parent_id and parent is None:
        raise ConflictError(f"the parent of session `{session.id}` is not stored: `{session.parent_id}`")
    # INVARIANT: a chain is complete, so that no revoked ancestor can be overlooked.
    if session.ancestor_ids != ((parent.id, *parent.ancestor_ids) if parent else ()):
        raise ConflictError(f"the ancestors of session `{session.id}` are not its parent and the parent's ancestors")


def require_successor(stored: Session | None, successor: Session) -> None:
    """Raise `ConflictError` unless `successor` can directly follow the stored session."""
    if stored is None:
        raise ConflictError(f"no session is stored as `{successor.id}`")
    if successor.epoch != stored.epoch + 1:
        raise ConflictError(
            f"session `{stored.id}` was changed meanwhile: epoch `{successor.epoch}` does not follow `{stored.epoch}`"
        )
    if _identity(successor) != _identity(stored):
        raise ConflictError(f"the id, handle and ancestors of a session never change: `{stored.id}`")


def require_renewed(stored: Session | None, successor: Session) -> None:
    """Raise `ConflictError` unless `successor` is a stored session that waits for approval, with another handle."""
    if stored is not None and stored.state is not SessionState.REQUESTED:
        raise ConflictError(f"session `{stored.id}` does not wait for approval any more")
    require_successor(stored, replace(successor, handle_digest=stored.handle_digest if stored else b""))


def require_unchanged(seen: Sequence[Session], stored: Sequence[Session], freeze: Freeze | None) -> None:
    """Raise `ConflictError` unless the stored sessions, with cuts applied, are those that a view has shown.

    `freeze` is what stops their tenant now; the view has shown none.
    """
    if freeze is not None:
        raise ConflictError(f"{freeze.what} frozen since a call was decided")
    # A cut counts as a change: a session that it concerns has the next epoch.
    if [session.epoch for session in seen] != [session.epoch for session in stored]:
        raise ConflictError("a session was changed while a call in it was decided")


def require_expected(active: ActiveBundle | None, expected: Expected | None, turn: str = "") -> None:
    """Raise `ConflictError` unless the active bundle is the one that the activation expects.

    Raise `BundleUnavailableError` when it comes from a turn that is not the present one, `turn`.
    """
    if expected is None:
        return
    if expected.turn not in ("", turn):
        raise BundleUnavailableError("another server follows its source of bundles now")
    if expected.version != (active.version if active else ""):
        raise ConflictError("another bundle was activated meanwhile")


def gives_authority(stored: Session | None, successor: Session) -> bool:
    """Say whether a successor gives authority that the stored session has not."""
    waits = stored is not None and stored.state is SessionState.REQUESTED
    return waits and successor.state is SessionState.ACTIVE


def successor_of(session: Session, change: Change) -> Session | None:
    """Return what `change` makes of a session, or None when it leaves it as it is."""
    successor = change(session)
    if successor is not None:
        require_successor(session, successor)
    return successor


def successors_of(stored: Iterable[Session], change: Change) -> list[Session]:
    """Return the results of `change` for sessions, without those that it leaves as they are."""
    changed = (successor_of(session, change) for session in stored)
    return [successor for successor in changed if successor is not None]


def chain_with(chain: Iterable[Session], written: Iterable[Session]) -> tuple[Session, ...]:
    """Return a chain with the sessions that were written in place of the earlier ones."""
    by_id = {session.id: session for session in written}
    return tuple(by_id.get(session.id, session) for session in chain)


def _identity(session: Session) -> tuple[str, bytes, str, tuple[str, ...]]:
    return session.id, session.handle_digest, session.parent_id, session.ancestor_ids
