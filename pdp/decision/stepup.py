"""Step-up: what an approval binds of a call, its use, and the request to a person when there is none."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from pdp.clock import Deadline, Instant
from pdp.decision.budgets import retry_digest
from pdp.decision.snapshot import Snapshot
from pdp.decision.values import names_in_results
from pdp.errors import WrongStateError
from pdp.foundation.ids import new_access_request_id
from pdp.foundation.jsontext import canonical_as_typed, key_paths, parse_object
from pdp.limits import MOST_ADVICE, MOST_POLICIES, Limits
from pdp.model import Ask, Basis, Caller, CallRequest, Ruling, SessionState, Targets
from pdp.policy.provenance import names_outside
from pdp.sessions import access
from pdp.sessions.access import AccessFilter, AccessRequest, AccessState, BoundCall, Unaskable, Use
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import earliest_end, state_of
from pdp.sessions.store import SessionReader

# What the agent reads when no person is asked.
UNASKED = {
    Unaskable.TOO_LARGE: "a person would have to approve this call, and it is too large to be shown to one",
    Unaskable.DENIED: "a person said no to this call, and that counts until the session is over",
    Unaskable.TOO_MANY_NOES: (
        f"people said no {access.MOST_NOES} times in this session and those delegated with it: nothing more is asked"
    ),
    Unaskable.SESSION_ASKS_TOO_MUCH: (
        f"{access.MOST_OPEN_OF_SESSION} calls of this session and those delegated with it wait for a person: nothing "
        "more is asked until one is answered"
    ),
    Unaskable.CALLER_ASKS_TOO_MUCH: (
        f"{access.MOST_OPEN_OF_CALLER} calls of this gateway wait for a person: nothing more is asked until one is "
        "answered"
    ),
}


class Waiting(NamedTuple):
    """A call that a person can allow, at one moment: what an approval binds of it, and what a person is shown."""

    snapshot: Snapshot
    caller: Caller
    ruling: Ruling
    call: BoundCall
    retry_digest: bytes
    arguments: bytes
    targets: tuple[Targets, ...]


class Offer(NamedTuple):
    """The deny of a call that waits: with an access request, or because no person is asked."""

    ruling: Ruling
    request: AccessRequest | None = None


class People:
    """Asks people about calls, and uses what they approve. Safe for threads.

    Every method raises `StoreUnavailableError` and `OverloadedError` when the history does not answer.
    """

    def __init__(self, sessions: SessionReader, history: SessionHistory, limits: Limits) -> None:
        self._sessions = sessions
        self._history = history
        self._limits = limits

    def waiting(self, snapshot: Snapshot, request: CallRequest, caller: Caller, ruling: Ruling) -> Waiting:
        """Return what an approval would bind of a call that a person can allow."""
        tool = snapshot.bundle.catalogue.tools[request.call.action]
        # The arguments were checked before the policies were asked.
        arguments = parse_object(request.call.arguments_json, self._limits)
        written = canonical_as_typed(arguments).encode("utf-8")
        own, root, key = snapshot.chain[0], snapshot.chain[-1], self._history.key()
        bound = (root.id, tool.action, tool.definition_digest)
        names = names_outside(tool, arguments)
        find = names_in_results(self._history, snapshot.chain, request.call.session_handle)
        call = BoundCall(
            session_id=own.id,
            server=tool.server,
            tool=tool.name,
            definition_digest=tool.definition_digest,
            bundle_version=snapshot.bundle.version,
            digest=_digest(key, b"call", *bound, written),
            names=_digest(key, b"names", *bound, *key_paths(arguments)),
            targets=frozenset([_digest(key, b"target", *bound, one.role, one.path, *one.name) for one in names or ()]),
            asks=ruling.asks,
            run=0 if names is None or tool.critical else _run(ruling.asks),
        )
        return Waiting(
            snapshot=snapshot,
            caller=caller,
            ruling=ruling,
            call=call,
            retry_digest=retry_digest(request, caller),
            arguments=written,
            targets=snapshot.bundle.provenances.of(snapshot.chain, tool, arguments, find),
        )

    def have_approved(self, waiting: Waiting) -> bool:
        """Say whether there is an approval to be used for a call."""
        return self._history.access().usable(waiting.call, waiting.retry_digest, waiting.snapshot.now)

    def use(self, waiting: Waiting, decision_id: str) -> Use | None:
        """Use an approval for a call; None without one. A retry gets the use, and the decision id, of the first try."""
        return self._history.access().use(waiting.call, waiting.retry_digest, waiting.snapshot.now, decision_id)

    def give_back(self, use: Use) -> None:
        """Take back the use of an approval."""
        self._history.access().give_back(use)

    def ask(self, waiting: Waiting, decision_id: str) -> Offer:
        """Open an access request for a call, or find the one that is open; say why when no person is asked."""
        # Of more policies than an answer can name, a person could not tell what they lift.
        if len(waiting.arguments) > access.MOST_ARGUMENT_BYTES or len(waiting.call.asks) > MOST_POLICIES:
            return _unasked(waiting, Unaskable.TOO_LARGE)
        request, now = _request(waiting, decision_id), waiting.snapshot.now
        found = self._history.access().ask(request, waiting.arguments, now)
        if found is Unaskable.CALLER_ASKS_TOO_MUCH and self._lapse_of_ended_sessions(waiting.caller, now):
            found = self._history.access().ask(request, waiting.arguments, now)
        return _unasked(waiting, found) if isinstance(found, Unaskable) else Offer(waiting.ruling, found)

    def _lapse_of_ended_sessions(self, caller: Caller, now: Instant) -> bool:
        """Let the open requests of a caller lapse whose sessions are over; say whether there was any."""
        requests = self._history.access()
        its_open = AccessFilter(asked_by=caller.id, states=frozenset({AccessState.OPEN}), ends_after=now.wall_at)
        lapsed = False
        for one in requests.select(its_open, limit=access.MOST_OPEN_OF_CALLER):
            chain = self._sessions.get(one.call.session_id)
            if chain and all(state_of(session, now) is SessionState.ACTIVE for session in chain):
                continue
            # Somebody may have answered it meanwhile: then it is open no longer.
            with suppress(WrongStateError):
                requests.answer(one.id, partial(access.lapse, now=now))
                lapsed = True
        return lapsed


def _request(waiting: Waiting, decision_id: str) -> AccessRequest:
    snapshot, own = waiting.snapshot, waiting.snapshot.chain[0]
    return AccessRequest(
        id=new_access_request_id(),
        call=waiting.call,
        tenant=own.tenant,
        user=own.user,
        agent=own.agent,
        ancestor_ids=own.ancestor_ids,
        asked_by=waiting.caller.id,
        decision_id=decision_id,
        asked_at=snapshot.now.wall_at,
        deadline=Deadline.after(snapshot.now, access.REQUEST_SECONDS).earliest(
            earliest_end(snapshot.chain, snapshot.now)
        ),
        ends_at=snapshot.chain[-1].deadline.wall_at,
        provenance=tuple(sorted({word for seen in waiting.targets for word in seen.provenance})),
        links=tuple(sorted({word for seen in waiting.targets for word in seen.links})),
    )


def _unasked(waiting: Waiting, why: Unaskable) -> Offer:
    said = UNASKED[why]
    advice = (said, *waiting.ruling.advice)[:MOST_ADVICE]
    return Offer(replace(waiting.ruling, basis=Basis.FORBID, asks=(), otherwise=None, advice=advice, detail=said))


def _run(asks: Sequence[Ask]) -> int:
    """Return how many calls one answer can cover: as many as each forbid allows, 0 when one of them allows no run."""
    return min(ask.run for ask in asks)


def _digest(key: bytes, kind: bytes, *parts: str | bytes) -> bytes:
    """Return an HMAC over some parts, which tells nothing without the key."""
    written = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    # The lengths separate the parts.
    lengths = " ".join(str(len(part)) for part in written).encode("ascii")
    return hmac.digest(key, b"\n".join((b"access", kind, lengths, *written)), "sha256")
