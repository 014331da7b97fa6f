"""What can be reached: in one session, in the active sessions of a user or agent, or in one that is asked for now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pdp.decision.explainer import SupposedSession, supposed_session
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.visibility import LEAST_FIRST, foreseen, reached
from pdp.errors import InvalidRequestError, NotFoundError, WrongStateError
from pdp.foundation.paging import page_size_of
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller, Scope, Session, SessionState, Visibility
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Foreseen
from pdp.registry.review import ReviewedTool, review
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
    newest first. `former` is the same under another bundle, None if that was not asked.
    """

    tool: ScopedTool
    visibility: Visibility
    policies: tuple[str, ...]
    opened_by: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    former: Foreseen | None = None


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

    A page begins after the action `after`, and has at most `size` tools; 0 means 50. With a bundle `former`, the answer
    also says how far each tool could be reached if that were the active one. Every method raises `UnavailableError`
    when it cannot answer.
    """

    def __init__(self, snapshots: Snapshots, sessions: Sessions) -> None:
        self._snapshots = snapshots
        self._sessions = sessions

    def of_session(
        self, session_id: str, *, caller: Caller, after: str, size: int, former: Bundle | None = None
    ) -> Reach:
        """Return the reach of an active session. Raise `NotFoundError`, and `WrongStateError` for any other state."""
        snapshot = self._snapshots.of_session(session_id, caller)
        if not snapshot.chain:
            raise NotFoundError("no such session")
        state = state_of(snapshot.chain[0], snapshot.now)
        if state is not SessionState.ACTIVE:
            raise WrongStateError(f"the session is {state.value}, not active")
        taken = (replace(snapshot, freeze=None),)
        found = _of_sessions(taken, snapshot.bundle, former, after, size, left_out=False)
        return self._with_freeze(found, caller)

    def of_active(
        self, *, user: str, agent: str, caller: Caller, after: str, size: int, former: Bundle | None = None
    ) -> Reach:
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
        united = _of_sessions(taken, empty.bundle, former, after, size, left_out=len(found) > MOST_SESSIONS)
        return self._with_freeze(united, caller)

    def of_asked_now(
        self, supposed: SupposedSession, *, caller: Caller, after: str, size: int, former: Bundle | None = None
    ) -> Reach:
        """Return the reach of a session that an agent asks for now, as `ceiling` does."""
        empty = self._snapshots.of_session("", caller)
        tenant, at = caller.tenant, empty.wall_at
        found = ceiling(empty.bundle, supposed, tenant=tenant, wall_at=at, after=after, size=size, former=former)
        return self._with_freeze(found, caller)

    def _with_freeze(self, found: Reach, caller: Caller) -> Reach:
        freeze = freeze_of(caller.tenant, self._sessions.freezes())
        return found if freeze is None else replace(found, freeze_id=freeze.id)


def ceiling(
    bundle: Bundle,
    supposed: SupposedSession,
    *,
    tenant: str,
    wall_at: float,
    after: str = "",
    size: int = 0,
    former: Bundle | None = None,
) -> Reach:
    """Return the reach of a session that an agent asks for now, with all tools of its ceiling, by a bundle.

    `wall_at` is the time in unix seconds. Raise `InvalidRequestError` for a user or agent that is not in the directory,
    and for terms that do not fit.
    """
    try:
        session = supposed_session(supposed, bundle, DEFAULT_LIMITS, opened_by="", tenant=tenant)
    except InvalidRequestError as error:
        raise InvalidRequestError(error.attribute.removeprefix("supposed."), error.problem) from None
    within, before = bundle.within_ceiling(supposed.agent), former.within_ceiling(supposed.agent) if former else ()
    page, more = _page(within.union(before), after, size)
    judged = {
        one.tool.action: one
        for one in review((session,), _scope(within.intersection(page), bundle), bundle, wall_at=wall_at)
    }
    seen = _seen_before(former, supposed, page, tenant=tenant, wall_at=wall_at) if former else {}
    tools = tuple(
        # One that is above the ceiling is never reached.
        _asked(judged.get(tool.action) or ReviewedTool(tool=tool, visibility=Visibility.NEVER), seen)
        for tool in scoped_tools(_scope(page, bundle), bundle)
    )
    return Reach(tools=tools, more=more, sessions=0, left_out=False, bundle_version=bundle.version)


def _asked(one: ReviewedTool, before: Mapping[str, Foreseen]) -> ReachedTool:
    """Return a tool as it was judged, and as it would have been before."""
    return ReachedTool(
        tool=one.tool,
        visibility=one.visibility,
        policies=one.policies,
        opened_by=one.opened_by,
        former=before.get(one.tool.action),
    )


def _seen_before(
    former: Bundle, supposed: SupposedSession, page: Iterable[str], *, tenant: str, wall_at: float
) -> Mapping[str, Foreseen]:
    """Return how far a session that is asked for now could reach actions if a bundle were active."""
    seen = dict.fromkeys(page, Foreseen(Visibility.NEVER))
    try:
        session = supposed_session(supposed, former, DEFAULT_LIMITS, opened_by="", tenant=tenant)
    except InvalidRequestError:
        # Its directory or its types of terms know no such session, so it could not be asked for.
        return seen
    for action in former.within_ceiling(supposed.agent).intersection(seen):
        tool = former.catalogue.tools[action]
        seen[action] = foreseen(former, (session,), tool, caller_id=session.opened_by, wall_at=wall_at)
    return seen


def _of_sessions(
    snapshots: Sequence[Snapshot], bundle: Bundle, former: Bundle | None, after: str, size: int, *, left_out: bool
) -> Reach:
    actions = frozenset[str]().union(*(_actions(one.chain[0]) for one in snapshots))
    judged_each = len(snapshots) * (2 if former else 1)
    page, more = _page(actions, after, size, most=_MOST_JUDGED // max(1, judged_each))
    tools = tuple(_united(tool, snapshots, bundle, former) for tool in scoped_tools(_scope(page, bundle), bundle))
    return Reach(tools=tools, more=more, sessions=len(snapshots), left_out=left_out, bundle_version=bundle.version)


def _united(tool: ScopedTool, snapshots: Sequence[Snapshot], bundle: Bundle, former: Bundle | None) -> ReachedTool:
    """Return how far a tool can be reached in any of some sessions."""
    within = [one for one in snapshots if tool.action in _actions(one.chain[0])]
    found = _foreseen(tool.action, within, bundle)
    now = _most_of(found)
    return ReachedTool(
        tool=tool,
        visibility=now.visibility,
        policies=now.policies,
        session_ids=tuple(
            one.chain[0].id for one, seen in zip(within, found, strict=True) if seen.visibility is not Visibility.NEVER
        ),
        former=_most_of(_foreseen(tool.action, within, former)) if former else None,
    )


def _foreseen(action: str, snapshots: Sequence[Snapshot], bundle: Bundle) -> list[Foreseen]:
    """Return how far each of some sessions could reach an action, under a bundle."""
    known = bundle.catalogue.tools.get(action)
    if known is None:
        return [Foreseen(Visibility.NEVER)] * len(snapshots)
    return [reached(replace(one, bundle=bundle), known) for one in snapshots]


def _most_of(found: Sequence[Foreseen]) -> Foreseen:
    """Return the most that any session may do, with the policies that say so."""
    most = max((one.visibility for one in found), key=LEAST_FIRST.index)
    return Foreseen(most, tuple(sorted({policy for one in found if one.visibility is most for policy in one.policies})))


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
    return scope_of({action: tools[action].approval_digest if action in tools else "" for action in actions})


def _actions(session: Session) -> Iterable[str]:
    return session.scope.tools if session.scope else ()
