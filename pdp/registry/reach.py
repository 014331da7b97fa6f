"""What can be reached: in one session, in the active sessions of a user or agent, or in one that is asked for now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pdp.decision.explainer import SupposedSession, supposed_session
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.visibility import LEAST_FIRST, reached
from pdp.errors import InvalidRequestError, NotFoundError, WrongStateError
from pdp.foundation.paging import page_size_of
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller, Scope, Session, SessionState, Visibility
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Foreseen
from pdp.registry.review import review
from pdp.registry.scope import ScopedTool, scope_of, scoped_tools
from pdp.sessions.freezes import freeze_of
from pdp.sessions.lifecycle import state_of
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter

MOST_SESSIONS, MOST_TOOLS = 100, 100
# Each tool of a page is judged in each session, which takes a fraction of a millisecond: the more sessions there are,
# the fewer tools has a page.
_MOST_JUDGED = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedTool:
    """One tool, how visible it is in the session that allows most of it, and the policies that say so.

    `opened_by` are the grants, each of which alone would open more. `session_ids` are the sessions that could call it,
    newest first.
    """

    tool: ScopedTool
    visibility: Visibility
    policies: tuple[str, ...]
    opened_by: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A page of tools, sorted. `sessions` were looked at, and `left_out` says whether there are more.

    `more` says whether a further page begins after the last tool. `freeze_id` is the freeze that denies every call now;
    the reach is what it will be again when that is lifted.
    """

    tools: tuple[ReachedTool, ...]
    more: bool
    sessions: int
    left_out: bool
    bundle_version: str
    freeze_id: str = ""


class Reaching:
    """Answers what can be reached. Safe for threads.

    A page begins after the action `after`, and has at most `size` tools; 0 means 50. Every method raises
    `UnavailableError` when it cannot answer.
    """

    def __init__(self, snapshots: Snapshots, sessions: Sessions) -> None:
        self._snapshots = snapshots
        self._sessions = sessions

    def of_session(self, session_id: str, *, caller: Caller, after: str, size: int) -> Reach:
        """Return the reach of an active session. Raise `NotFoundError`, and `WrongStateError` for any other state."""
        snapshot = self._snapshots.of_session(session_id, caller)
        if not snapshot.chain:
            raise NotFoundError("no such session")
        state = state_of(snapshot.chain[0], snapshot.now)
        if state is not SessionState.ACTIVE:
            raise WrongStateError(f"the session is {state.value}, not active")
        found = _of_sessions((replace(snapshot, freeze=None),), snapshot.bundle, after, size, left_out=False)
        return self._with_freeze(found, caller)

    def of_active(self, *, user: str, agent: str, caller: Caller, after: str, size: int) -> Reach:
        """Return the united reach of the newest active sessions of a user, of an agent, or of an agent for a user."""
        empty = self._snapshots.of_session("", caller)
        which = SessionFilter(
            tenant=caller.tenant,
            user=user,
            agent=agent,
            states=frozenset({SessionState.ACTIVE}),
            ends_after=empty.now.wall_at,
        )
        found = self._sessions.select(which, limit=MOST_SESSIONS + 1)
        chains = (self._sessions.get(one.id) for one in found[:MOST_SESSIONS])
        # One bundle and one time for all of them.
        taken = [replace(empty, chain=chain) for chain in chains if chain]
        united = _of_sessions(taken, empty.bundle, after, size, left_out=len(found) > MOST_SESSIONS)
        return self._with_freeze(united, caller)

    def of_asked_now(self, supposed: SupposedSession, *, caller: Caller, after: str, size: int) -> Reach:
        """Return the reach of a session that an agent asks for now, as `ceiling` does."""
        empty = self._snapshots.of_session("", caller)
        found = ceiling(empty.bundle, supposed, tenant=caller.tenant, wall_at=empty.wall_at, after=after, size=size)
        return self._with_freeze(found, caller)

    def _with_freeze(self, found: Reach, caller: Caller) -> Reach:
        freeze = freeze_of(caller.tenant, self._sessions.freezes())
        return found if freeze is None else replace(found, freeze_id=freeze.id)


def ceiling(
    bundle: Bundle, supposed: SupposedSession, *, tenant: str, wall_at: float, after: str = "", size: int = 0
) -> Reach:
    """Return the reach of a session that an agent asks for now, with all tools of its ceiling, by a bundle.

    `wall_at` is the time in unix seconds. Raise `InvalidRequestError` for a user or agent that is not in the directory,
    and for terms that do not fit.
    """
    try:
        session = supposed_session(supposed, bundle, DEFAULT_LIMITS, opened_by="", tenant=tenant)
    except InvalidRequestError as error:
        raise InvalidRequestError(error.attribute.removeprefix("supposed."), error.problem) from None
    page, more = _page(bundle.within_ceiling(supposed.agent), after, size)
    found = review((session,), _scope(page, bundle), bundle, wall_at=wall_at)
    tools = tuple(
        ReachedTool(tool=one.tool, visibility=one.visibility, policies=one.policies, opened_by=one.opened_by)
        for one in found
    )
    return Reach(tools=tools, more=more, sessions=0, left_out=False, bundle_version=bundle.version)


def _of_sessions(snapshots: Sequence[Snapshot], bundle: Bundle, after: str, size: int, *, left_out: bool) -> Reach:
    actions = frozenset[str]().union(*(_actions(one.chain[0]) for one in snapshots))
    page, more = _page(actions, after, size, most=_MOST_JUDGED // max(1, len(snapshots)))
    tools = tuple(_united(tool, snapshots, bundle) for tool in scoped_tools(_scope(page, bundle), bundle))
    return Reach(tools=tools, more=more, sessions=len(snapshots), left_out=left_out, bundle_version=bundle.version)


def _united(tool: ScopedTool, snapshots: Sequence[Snapshot], bundle: Bundle) -> ReachedTool:
    """Return how far a tool can be reached in any of some sessions."""
    known = bundle.catalogue.tools.get(tool.action)
    within = [one for one in snapshots if tool.action in _actions(one.chain[0])]
    found = [(one, reached(one, known) if known else Foreseen(Visibility.NEVER)) for one in within]
    most = max((seen.visibility for _, seen in found), key=LEAST_FIRST.index)
    return ReachedTool(
        tool=tool,
        visibility=most,
        policies=tuple(sorted({policy for _, seen in found if seen.visibility is most for policy in seen.policies})),
        session_ids=tuple(one.chain[0].id for one, seen in found if seen.visibility is not Visibility.NEVER),
    )


def _page(actions: Iterable[str], after: str, size: int, *, most: int = MOST_TOOLS) -> tuple[tuple[str, ...], bool]:
    """Return the sorted actions of a page, `most` at most, and whether there are more.

    Raise `InvalidRequestError` for a wrong size.
    """
    wanted = page_size_of(size)
    if wanted > MOST_TOOLS:
        raise InvalidRequestError("page_size", f"must be between 0 and {MOST_TOOLS}")
    left, fits = sorted(action for action in actions if action > after), min(wanted, most)
    return tuple(left[:fits]), len(left) > fits


def _scope(actions: Iterable[str], bundle: Bundle) -> Scope:
    """Return actions as a scope, with the definitions of the catalogue; those that are gone have none."""
    tools = bundle.catalogue.tools
    return scope_of({action: tools[action].definition_digest if action in tools else "" for action in actions})


def _actions(session: Session) -> Iterable[str]:
    return session.scope.tools if session.scope else ()
