"""Takes the reports of what came of allowed calls, and gives out the tokens that they need."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pdp.clock import Clock, Instant, no_earlier
from pdp.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError, WrongStateError
from pdp.foundation.jsontext import canonical
from pdp.foundation.quickcaches import SmallCache
from pdp.limits import MOST_LABELS
from pdp.model import Caller, CallStatus, Decision, Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.registry.labels import require_labels
from pdp.registry.readings import NO_VALUES, ReportedValues, ResultReading, lesser, reads_of, require_values
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import state_of
from pdp.sessions.store import Sessions
from pdp.sessions.valuekeys import key_of
from pdp.sessions.values import Report

# How long after its decision a call can be reported.
REPORT_SECONDS = 900.0

_PREFIX, _MAC_BYTES = "pdpo_", 16
_TRIES = 4
_MOST_RECORDED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReport:
    """What a gateway says came of an allowed call. `outcome_token` came with the decision."""

    outcome_token: str = field(repr=False)
    status: CallStatus
    labels: tuple[str, ...] = ()
    values: ReportedValues = field(default=NO_VALUES, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a report has changed: the labels that were new to the session or to one above it, sorted."""

    session: Session
    decision_id: str
    labels_added: tuple[str, ...]


class _Allowed(NamedTuple):
    """What a token says of its decision. `decided_at` is unix milliseconds, as text.

    `reads` says in which class the values of the result count; empty when a report can bring none. `counted_as` holds
    the names under which the call is counted.
    """

    decision_id: str
    session_id: str
    action: str
    arguments_digest: str
    decided_at: str
    # A token of an earlier release says neither.
    reads: str = ""
    counted_as: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> _Allowed:
        """Return what a text says that `written` has returned."""
        decision_id, session_id, action, arguments_digest, decided_at, *others = text.split("\n")
        reads, *counted_as = others or ("",)
        return cls(decision_id, session_id, action, arguments_digest, decided_at, reads, tuple(counted_as))

    def written(self) -> str:
        """Return it as a text. No id and no name holds a line break."""
        return "\n".join((*self[:6], *self.counted_as))

    @property
    def ends_at(self) -> float:
        """Return until when the call can be reported, in unix seconds."""
        return int(self.decided_at) / 1000 + REPORT_SECONDS


class Outcomes:
    """Takes reports about calls in sessions. Safe for threads.

    A token is an HMAC under a key that all processes share, and names the caller that asked. Every method raises
    `UnavailableError` when it cannot answer.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        history: SessionHistory,
        bundle: Callable[[], Bundle],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._bundle = bundle
        self._clock = clock
        self._observer = observer
        # Read when it is first needed: a server starts without its history.
        self._known_key = b""
        self._recorded: SmallCache[str, None] = SmallCache(_MOST_RECORDED)

    def token(self, decision: Decision) -> str:
        """Return what a report about a decision must bring; empty when it cannot be reported."""
        # The record can have turned an allow into a deny.
        if not (decision.reportable and decision.allowed):
            return ""
        # A clock that was set back does not make the token old before its report.
        return self._token(decision, max(decision.decided_at, self._sessions.high_water_at()), self._reads(decision))

    def gives_tokens_at_once(self, bundle: Bundle) -> bool:
        """Say whether `token_at_once` has all that it needs for decisions of a bundle."""
        return bool(self._known_key) and not bundle.takes_values

    def token_at_once(self, decision: Decision, latest_at: float) -> str:
        """Return what `token` returns, without a look at the store: `latest_at` is the time of the decision's snapshot.

        INVARIANT: `gives_tokens_at_once` is true for its bundle.
        """
        return self._token(decision, latest_at, "") if decision.reportable and decision.allowed else ""

    def _token(self, decision: Decision, decided_at: float, reads: str) -> str:
        said = _Allowed(
            decision_id=decision.id,
            session_id=decision.matter.session_id,
            action=_action(decision),
            arguments_digest=decision.matter.arguments_digest,
            decided_at=str(int(decided_at * 1000)),
            reads=reads,
            counted_as=decision.counted_as,
        )
        text = said.written().encode()
        return _PREFIX + urlsafe_b64encode(self._mac(decision.caller, text) + text).decode("ascii")

    def reading(self, decision: Decision, handle: str) -> ResultReading | None:
        """Return how to read the result of an allowed call for its report, a secret; `handle` is the call's session's.

        None when a report could bring no values, and when the session cannot be read now: values are then unseen.
        """
        bundle = self._bundle_of(decision)
        if not (decision.reportable and decision.allowed and bundle and bundle.takes_values):
            return None
        try:
            chain = self._sessions.get(decision.matter.session_id)
            key = key_of(chain[0], handle) if chain else b""
        except UnavailableError:
            return None
        tool, kinds = bundle.catalogue.tools[_action(decision)], bundle.target_kinds
        return ResultReading(key=key, trusted=tool.trusted, issues=tool.issues, kinds=kinds) if key else None

    def report(self, report: OutcomeReport, caller: Caller) -> Reported:
        """Take a report. The same again is the same answer.

        Raise `InvalidRequestError` naming the attribute, also for a token that this caller did not get;
        `AlreadyReportedError` when the call was reported otherwise; `WrongStateError` when the session is over, or the
        call too old; `ConflictError` when the session changes too fast.
        """
        allowed, bundle, now = self._read(report.outcome_token, caller), self._bundle(), self._now()
        if now.wall_at >= allowed.ends_at:
            raise WrongStateError(f"the call was allowed more than {REPORT_SECONDS:.0f} s ago")
        chain, labels = self._live(allowed, caller, now), frozenset(report.labels)
        # INVARIANT: what one session of the chain has, the others may not have been approved for.
        present = frozenset.intersection(*(frozenset(session.labels) for session in chain))
        require_labels(report.labels, bundle.labels, present=present, reported=True)
        _require_few(labels, chain)
        require_values(report.values, report.status, allowed.reads)
        digest = hashlib.sha256(canonical(_said(report))).digest()
        failed = [(one.id, name) for one in chain for name in allowed.counted_as if report.status is CallStatus.FAILED]
        self._history.keep_report(
            Report(decision_id=allowed.decision_id, digest=digest, reported_at=now.wall_at, failed=tuple(failed))
        )
        session, added = self._label(allowed, labels, chain, caller, now)
        # INVARIANT: a label forbids, and a value can permit: at no moment does it count without the label.
        if report.values:
            reads = lesser(allowed.reads, bundle, allowed.action)
            self._history.values().keep(report.values.held(chain[-1].id, reads))
        self._record(allowed, report, session, added, caller, now)
        return Reported(session=session, decision_id=allowed.decision_id, labels_added=added)

    def _reads(self, decision: Decision) -> str:
        bundle = self._bundle_of(decision)
        return reads_of(bundle, bundle.catalogue.tools[_action(decision)]) if bundle else ""

    def _bundle_of(self, decision: Decision) -> Bundle | None:
        """Return the bundle that has decided; None when another one is active now, which may trust other tools."""
        bundle = self._bundle()
        return bundle if bundle.version == decision.matter.bundle_version else None

    def _label(
        self, allowed: _Allowed, labels: frozenset[str], chain: tuple[Session, ...], caller: Caller, now: Instant
    ) -> tuple[Session, tuple[str, ...]]:
        """Add labels to a session and all above it; return the session, and the labels that were new."""
        for _ in range(_TRIES):
            fresh = sorted({label for session in chain for label in labels.difference(session.labels)})
            if not fresh:
                if labels:
                    # An earlier try of the same report can still wait for those who do not know them yet.
                    self._sessions.outwait()
                return chain[0], ()
            try:
                written = self._sessions.settle(chain, labels, by=allowed.decision_id, wall_at=now.wall_at)
            except ConflictError:
                chain = self._live(allowed, caller, now)
            else:
                return written[0], tuple(fresh)
        raise ConflictError("the session changes too fast; try again")

    def _record(
        self,
        allowed: _Allowed,
        report: OutcomeReport,
        session: Session,
        added: tuple[str, ...],
        caller: Caller,
        now: Instant,
    ) -> None:
        """Record a report once in this process: a gateway can repeat it, also one whose record was lost in a crash."""
        if not added and allowed.decision_id in self._recorded:
            return
        self._recorded.keep(allowed.decision_id, None)
        # Also those that an earlier try of the same report has added.
        owned = tuple(
            sorted(one for one in set(report.labels) if session.label_origins.get(one) == allowed.decision_id)
        )
        self._observer.event(_event(allowed, report, session, added or owned, caller, now.wall_at))

    def _live(self, allowed: _Allowed, caller: Caller, now: Instant) -> tuple[Session, ...]:
        chain = self._sessions.get(allowed.session_id)
        if not chain or not caller.may_ask_about(chain[0]):
            raise NotFoundError("no such session")
        for session in chain:
            state = state_of(session, now)
            if state is not SessionState.ACTIVE:
                raise WrongStateError(f"the session is {state.value}, not active")
        return chain

    def _read(self, token: str, caller: Caller) -> _Allowed:
        try:
            content = urlsafe_b64decode(token.removeprefix(_PREFIX)) if token.startswith(_PREFIX) else b""
        except (Base64Error, ValueError):
            content = b""
        mac, text = content[:_MAC_BYTES], content[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(caller, text)):
            raise InvalidRequestError("outcome_token", "was not given to this caller")
        return _Allowed.read(text.decode())

    def _mac(self, caller: Caller, text: bytes) -> bytes:
        # No id holds a line break.
        return hmac.digest(self._key(), f"{caller.tenant}\n{caller.id}\n".encode() + text, "sha256")[:_MAC_BYTES]

    def _key(self) -> bytes:
        if not self._known_key:
            self._known_key = self._history.key()
        return self._known_key

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())


def _action(decision: Decision) -> str:
    return f"{decision.matter.server}/{decision.matter.tool}"


def _said(report: OutcomeReport) -> list[Any]:
    """Return all that a report says, for its digest."""
    said: list[Any] = [report.status.value, sorted(set(report.labels))]
    return [*said, *report.values.said()] if report.values else said


def _require_few(labels: frozenset[str], chain: tuple[Session, ...]) -> None:
    if any(len(labels.union(session.labels)) > max(MOST_LABELS, len(session.labels)) for session in chain):
        raise InvalidRequestError("labels", f"more than {MOST_LABELS} together")


def _event(
    allowed: _Allowed, report: OutcomeReport, session: Session, added: tuple[str, ...], caller: Caller, at: float
) -> Event:
    facts = {"decision_id": allowed.decision_id, "action": allowed.action, "status": report.status.value}
    lists = {"labels_added": added, "ancestors": session.ancestor_ids}
    return Event.of_session(
        EventKind.CALL_REPORTED,
        session,
        at=at,
        caller_id=caller.id,
        facts=facts,
        lists={name: values for name, values in lists.items() if values},
    )
