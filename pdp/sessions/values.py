"""What a session store takes and returns beside sessions, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from pdp.clock import Instant
from pdp.model import Head, Session, SessionState, ValueClass
from pdp.quickvalues import quickly_made
from pdp.sessions.freezes import Freeze
from pdp.sessions.lifecycle import LIVE, revoke

# What a store says of a change that it does not have.
NOT_ITS_OWN: Final = "the session store has no such revision in its history: forget it, and read again what rests on it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveBundle:
    """The bundle that all workers must decide by, and its origin. `activated_at` is unix seconds.

    `reason` is the reason given for the activation. `chosen` says that a person chose the bundle by its version, rather
    than that a source delivered it. `number` and `signed_by` (the id of a key) come with its signature; 0 and empty
    without one. `counted` holds the names under which the calls of sessions are counted, each with since when this has
    been so without a gap: a session that was approved later has a count of all its calls.
    """

    version: str
    activated_at: float
    activated_by: str
    reason: str = ""
    chosen: bool = False
    number: int = 0
    signed_by: str = ""
    counted: tuple[tuple[str, float], ...] = ()

    def counting_on(self, before: ActiveBundle | None, mark: float) -> ActiveBundle:
        """Return the activation with the times of what is counted, as of the transaction that stores it.

        What `before` counts goes on. For all else, `mark` is the latest time that was stored: no session that is
        approved already was approved after it.
        """
        known = dict(before.counted) if before is not None else {}
        begins = max(self.activated_at, mark)
        return replace(self, counted=tuple((name, known.get(name, begins)) for name, _ in self.counted))

    def named_after(self, before: ActiveBundle | None) -> tuple[str, ...]:
        """Return what is remembered of the activation under a request id: the version, and that of `before`, if any."""
        return (self.version, before.version) if before is not None else (self.version,)

    def same_as(self, other: ActiveBundle | None) -> bool:
        """Say whether another activation differs only in who made it, when and why."""
        return other is not None and (self.version, self.chosen, self.number, self.signed_by) == (
            other.version,
            other.chosen,
            other.number,
            other.signed_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must be so for a bundle to be activated: the version that is active, empty for none.

    `turn` is that in which the source was read, where servers take turns; it must be the present one. Empty for any.
    """

    version: str
    turn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKey:
    """The public half of a key of call tokens. Times are unix seconds; `ends_at` is that of the last token by it.

    `withdrawn` says that no token by it counts any longer.
    """

    id: str
    content: bytes
    published_at: float
    ends_at: float
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePast:
    """What is known about earlier activations, whether or not content was kept.

    `was_active` is about one version. `highest_number` is the highest of all bundles that were ever active.
    """

    was_active: bool
    highest_number: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """One consistent read of the store, for one decision.

    `chain` holds the session and then its ancestors, nearest first; empty when no session has the handle.
    `bundle` is None before the first activation. `high_water_at` is the latest wall time that was ever stored.
    `freeze` stops the tenant of the session; None when there is none. Labels that calls have added are missing when
    `labelled` is False.
    """

    chain: tuple[Session, ...]
    bundle: ActiveBundle | None
    high_water_at: float
    freeze: Freeze | None = None
    labelled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed up to `head`: the sessions, as they are now; the active bundle's version, and all freezes."""

    head: Head
    sessions: tuple[Session, ...]
    bundle_version: str
    freezes: tuple[Freeze, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions to list. Empty fields do not filter; `id` is that of one session, `states` are those stored.

    `ends_after` leaves out sessions whose deadline on the wall clock has come by then, `requested_until` those that
    were requested later; 0.0 leaves out none.
    """

    id: str = ""
    tenant: str = ""
    user: str = ""
    agent: str = ""
    opened_by: str = ""
    states: frozenset[SessionState] = frozenset()
    ends_after: float = 0.0
    requested_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The revocation of all sessions that were requested until `at`: of a tenant, or of one user or agent in it.

    `at` is unix seconds, `by` the caller that revoked them, and `reason` why.
    """

    tenant: str
    user: str = ""
    agent: str = ""
    at: float
    by: str
    reason: str

    @property
    def made(self) -> Instant:
        """The moment of this revocation, of a boot that nobody knows."""
        return Instant(wall_at=self.at, boot_at=0.0, boot_id="")

    def live(self) -> SessionFilter:
        """Return the sessions that this revokes and that were live: later requests are not among them."""
        return SessionFilter(
            tenant=self.tenant,
            user=self.user,
            agent=self.agent,
            states=LIVE,
            ends_after=self.at,
            requested_until=self.at,
        )

    def covers(self, session: Session) -> bool:
        """Say whether a session is one of those that this revokes, if it was live."""
        named = self.user in ("", session.user) and self.agent in ("", session.agent)
        return named and session.tenant == self.tenant and session.requested_at <= self.at

    def applied(self, session: Session) -> Session:
        """Return the session after this revocation."""
        if not self.covers(session):
            return session
        return revoke(self.made, by=self.by, reason=self.reason)(session) or session


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report of what came of a call: of which decision, and the digest of all that it says.

    `reported_at` is unix seconds. `failed` holds the counts in which a call that failed is one: of which session, and
    under which name.
    """

    decision_id: str
    digest: bytes
    reported_at: float
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValues:
    """Digests of values that one result held, in the tree of sessions whose root has the id `tree_id`."""

    tree_id: str
    issued: tuple[bytes, ...] = ()
    clean: tuple[bytes, ...] = ()
    tainted: tuple[bytes, ...] = ()

    def classes(self) -> Iterator[tuple[bytes, ValueClass]]:
        """Yield each digest and its class, the best class last."""
        for digests, found in (
            (self.tainted, ValueClass.TAINTED),
            (self.clean, ValueClass.CLEAN),
            (self.issued, ValueClass.ISSUED),
        ):
            yield from ((digest, found) for digest in digests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Debit:
    """What a call takes of one budget of a session: `amount`, if no more than `most` is used up afterwards.

    `window` is higher for later times, and the budget begins anew with a higher one. `ends_at` is when the session is
    over at the latest, unix seconds. A history that is shared may take a `slice` of so many at once, of which later
    calls take theirs; 0 for an exact budget.
    """

    session_id: str
    budget: str
    amount: int
    most: int
    window: int
    ends_at: float
    slice: int = 0


class Count(NamedTuple):
    """How many calls were allowed in a session and below it under one name, and how many were reported as failed."""

    made: int = 0
    failed: int = 0


class Counts(NamedTuple):
    """Counts by the session and the name, those that are not zero.

    `begun_at` is when the history began to be kept, unix seconds: it knows nothing of calls before. `retried` says that
    the call that asks is already among them.
    """

    of: Mapping[tuple[str, str], Count]
    begun_at: float
    retried: bool = False


class Addend(NamedTuple):
    """One more call of a session under a name. `ends_at` is when the session is over at the latest, unix seconds."""

    session_id: str
    name: str
    ends_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """All that one call takes of budgets and adds to counts, at one moment.

    `retry_digest` is the same for each retry of the call, and for no other call; empty when it cannot be retried.
    `seen` holds the counts for which the call was allowed, by the session and the name. All of it is of one tree of
    sessions, whose root has the id `tree_id`: charges of different trees may be written at the same time. Those
    without one wait for each other.
    """

    debits: tuple[Debit, ...]
    retry_digest: bytes
    now: Instant
    addends: tuple[Addend, ...] = ()
    seen: Mapping[tuple[str, str], Count] = field(default_factory=dict)
    tree_id: str = ""

    @property
    def at(self) -> float:
        """Return the moment in unix seconds."""
        return self.now.wall_at

    @property
    def sliced(self) -> bool:
        """Say whether it takes of nothing but budgets that may be taken in slices."""
        # What must be written anyway is written exactly, in one transaction.
        return bool(self.debits) and not self.addends and not self.seen and all(one.slice for one in self.debits)


class Charged(NamedTuple):
    """What came of a charge: `used` of each budget afterwards, in the order of the debits.

    It is empty when nothing was taken: `exhausted` is the first debit for which too little is left, and without one the
    call is a retry. `charged_at` is the time of the charge that counts, for `take_back`.
    """

    used: tuple[int, ...] = ()
    exhausted: Debit | None = None
    charged_at: float = 0.0


class Used(NamedTuple):
    """What is used up of a budget in a window; so much of it is `held` in slices, for calls at other servers."""

    used: int
    window: int
    held: int = 0


Change = Callable[[Session], Session | None]
# The directory's data for a user and an agent, as in `Session.entities_json`; None when either is unknown.
Captured = Callable[[str, str], str | None]
