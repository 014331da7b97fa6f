"""The contract of a session store: what the rest of the PDP relies on, one protocol for each capability.

What uses a store asks for the smallest protocol that it needs; `SessionStore` is all of them on the same data. For each
there is a class of published tests in `pdp/testing/stores/`. They all promise, for every implementation and any number
of threads and processes on the same data:

- A call that begins after a write was acknowledged, in any process, sees that write. A write is acknowledged when its
  method returns. What else a look may miss is said for each capability.
- When the data cannot be read or written, `StoreUnavailableError`; never a guess, never an old answer. A write that
  raises it may have been made or not.
- When others write for too long, `OverloadedError`, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pdp.clock import Instant
from pdp.model import Session, SessionState
from pdp.sessions.lifecycle import revoke


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveBundle:
    """The bundle that all workers must decide by, and how it came to be that. `activated_at` is unix seconds.

    `reason` is what was said when it was activated. `chosen` says that somebody chose it by its version, and no
    source brought it. `number` and `signed_by` (the id of a key) come with its signature; 0 and empty without one.
    """

    version: str
    activated_at: float
    activated_by: str
    reason: str = ""
    chosen: bool = False
    number: int = 0
    signed_by: str = ""

    def same_as(self, other: ActiveBundle | None) -> bool:
        """Say whether another activation would change nothing but who made it, when and why."""
        return other is not None and (self.version, self.chosen, self.number, self.signed_by) == (
            other.version,
            other.chosen,
            other.number,
            other.signed_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePast:
    """What is remembered of earlier activations, whether or not content was kept.

    `was_active` is about one version. `highest_number` is the highest of all bundles that ever were active.
    """

    was_active: bool
    highest_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """One consistent look at the store, for one decision.

    `chain` holds the session and then its ancestors, nearest first; empty when no session has the handle.
    `bundle` is None before the first activation. `high_water_at` is the latest wall time that was ever stored.
    """

    chain: tuple[Session, ...]
    bundle: ActiveBundle | None
    high_water_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions to list. Empty fields do not filter; `state` is compared as stored.

    `ends_after` leaves out those whose deadline on the wall clock has come by then, and `requested_until` those that
    were requested later; 0.0 none.
    """

    tenant: str = ""
    user: str = ""
    agent: str = ""
    opened_by: str = ""
    states: frozenset[SessionState] = frozenset()
    ends_after: float = 0.0
    requested_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The revocation of all sessions of a tenant that were requested until `at`, or of those of one user or agent.

    `at` is unix seconds, `by` who revoked them and `reason` why.
    """

    tenant: str
    user: str = ""
    agent: str = ""
    at: float
    by: str
    reason: str

    def applied(self, session: Session) -> Session:
        """Return the session as it is after this revocation."""
        named = self.user in ("", session.user) and self.agent in ("", session.agent)
        if session.tenant != self.tenant or not named or session.requested_at > self.at:
            return session
        now = Instant(wall_at=self.at, boot_at=0.0, boot_id="")
        return revoke(now, by=self.by, reason=self.reason)(session) or session


Change = Callable[[Session], Session | None]
# What is known of a user and an agent, as `Session.entities_json` holds it; None when either is unknown.
Captured = Callable[[str, str], str | None]


class HighWaterMark(Protocol):
    """The latest wall time that was ever stored: it shows a clock that was set back.

    The mark never falls. Every write raises it, in its own transaction, to at least the time that it was given. The
    mark is as old as the last write; that it is close to the present time is not promised.
    """

    def high_water_at(self) -> float:
        """Return the high-water mark, unix seconds, as every view holds it."""
        ...


class SessionReader(HighWaterMark, Protocol):
    """Sessions one by one, as decisions need them: each call of a tool takes this path.

    A look is consistent: all that it returns was so at one moment. Two looks are two moments, so a decision takes the
    session, the active bundle and the high-water mark from one `view`. A chain is complete: no session comes without
    its ancestors. Sessions with equal scope content share one `Scope` object within a process.

    A store may answer from memory as long as it can tell that no later write was acknowledged. What happens behind its
    back (its data moved away, or written by a foreign program) it may notice later, by a bound that its docstring
    names.
    """

    def view(self, handle_digest: bytes) -> StoreView:
        """Return the session with this handle digest (SHA-256, 32 bytes), its ancestors and the active bundle."""
        ...

    def get(self, session_id: str) -> tuple[Session, ...]:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        ...


class SessionLists(Protocol):
    """Sessions by what they have in common, for people and for limits; no decision about a call rests on these.

    Each call is a look of its own at what is stored. So a session that is inserted between two pages may be on neither;
    one that matches all the while is on exactly one. A count is true at its moment: when two callers count before
    either inserts, both may pass a limit that leaves room for one.
    """

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Return matching sessions, newest first (by `requested_at`, then id, both descending).

        `before` is (`requested_at`, `id`) of the last session of the page before.
        """
        ...

    def count_live(self, opened_by: str, *, wall_at: float) -> int:
        """Return how many sessions of a caller are stored as REQUESTED or ACTIVE and have not expired by a moment."""
        ...

    def count_by_state(self) -> dict[SessionState, int]:
        """Return how many sessions are stored in each state, as stored."""
        ...


class SessionWriter(Protocol):
    """Changes of sessions. Each method is one transaction: it happens as a whole or not at all.

    An acknowledged write is not lost: it survives the sudden end of the process. (A memory store promises this for as
    long as its process lives.) A session is written only as the direct successor of what is stored: `epoch` is one
    more. Otherwise `ConflictError`, and nothing is written. An inserted session has `epoch` 1. `wall_at`, in unix
    seconds, raises the high-water mark.
    """

    def insert(self, session: Session, *, wall_at: float) -> None:
        """Add a new session. `ConflictError` when its id or handle exists."""
        ...

    def update(self, sessions: Sequence[Session], *, wall_at: float) -> None:
        """Replace sessions, all or none; each must be the direct successor of what is stored."""
        ...

    def change_tree(self, session_id: str, change: Change, *, wall_at: float) -> tuple[Session, ...]:
        """Apply `change` to one session and all its descendants in one transaction, as `change_where` does.

        Return the successors that were written; empty as well when there is no such session.
        """
        ...

    def change_where(
        self, which: SessionFilter, change: Change, *, wall_at: float, limit: int | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to every matching session and all their descendants in one transaction.

        With a `limit`, to so many of the matching sessions, newest first, and their descendants.

        `change` returns the successor, or None to leave the session as it is; it is called in an order in which
        ancestors come before descendants. It must be pure: what changes meanwhile is asked about once more. Return the
        successors that were written.
        """
        ...

    def cut(self, cut: Cut) -> None:
        """Revoke sessions at once, however many: every look at one that the cut concerns sees it revoked.

        What is stored of them says so only when it is changed as well; `lift` then takes the cut away. A cut of the
        same tenant, user and agent takes the place of an earlier one.
        """
        ...

    def lift(self, cut: Cut) -> None:
        """Take a cut away; what is stored of the sessions it concerns counts again."""
        ...

    def purge(self, *, over_before: float, limit: int, wall_at: float) -> int:
        """Remove sessions that were over before a moment, and scopes that no session has; return how many sessions.

        A session is over since it was closed, or since its deadline on the wall clock. The oldest go first, at most
        `limit`; none goes that is not over at `wall_at`, and none below which another session is stored. Afterwards
        nothing tells it from a session that never was.
        """
        ...

    def touch(self, *, wall_at: float) -> None:
        """Write the time alone: raise the high-water mark, and prove that the store can be written."""
        ...


class BundleHistory(HighWaterMark, Protocol):
    """Which bundle is active, which ones were, and their content.

    An activation is one transaction, and is not lost once it is acknowledged. `active_bundle` may come from memory, as
    the looks of a `SessionReader` may; everything else is read from what is stored. Content is dropped from the oldest
    activation on, so a version that was listed may have none by the time that it is asked for.
    """

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        ...

    def activate_bundle(
        self,
        bundle: ActiveBundle,
        content: bytes,
        change: Change,
        *,
        captured: Captured | None = None,
        expected: str | None = None,
    ) -> tuple[Session, ...]:
        """Make a bundle the active one, keep its content, and apply `change` to all sessions, in one transaction.

        `change` sees every session whose stored state is REQUESTED or ACTIVE; with `captured` it need not see those
        whose `entities_json` is what that returns for their user and agent. A bundle that is `same_as` the active one
        changes nothing and returns (). `expected` is the version that must be active, empty for none; otherwise
        `ConflictError`. Return the successors that were written.
        """
        ...

    def bundle_content(self, version: str) -> bytes | None:
        """Return the kept content of a bundle, or None. At least the active one is kept."""
        ...

    def kept_bundles(self) -> tuple[ActiveBundle, ...]:
        """Return the latest activation of each bundle whose content is kept, newest first: the active one."""
        ...

    def bundle_past(self, version: str) -> BundlePast:
        """Return what is remembered of earlier activations; at least the last thousand versions are."""
        ...


class Sessions(SessionReader, SessionLists, SessionWriter, Protocol):
    """All about sessions and nothing about bundles."""


class SessionStore(Sessions, BundleHistory, Protocol):
    """All capabilities on the same data.

    An activation changes sessions in its own transaction: no `view` holds the new bundle with a session as it was
    before, or the old bundle with a session that was changed for the new one.
    """

    def close(self) -> None:
        """Release what the store holds. Calling it twice is harmless."""
        ...
