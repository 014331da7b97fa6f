"""Access requests: the offer to a person to lift some forbids for one call, its states, and what an approval covers.

OPEN → APPROVED → USED | REVOKED | EXPIRED; OPEN → DENIED | EXPIRED. All but OPEN and APPROVED are final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from pdp.clock import Deadline, Instant
from pdp.errors import InvalidRequestError, WrongStateError
from pdp.model import Ask

# How long a person has for an answer, and an agent for the use of an approval.
REQUEST_SECONDS: Final = 900.0
APPROVAL_SECONDS: Final = 600.0
# Bounds on what agents can ask of people.
MOST_OPEN_OF_SESSION: Final = 8
MOST_OPEN_OF_CALLER: Final = 100
MOST_NOES: Final = 3
MOST_ARGUMENT_BYTES: Final = 16 * 1024
# The most calls that one answer can cover.
MOST_RUN: Final = 20


class AccessState(Enum):
    """The state of an access request. EXPIRED is never stored: it is computed when read."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"
    REVOKED = "revoked"
    EXPIRED = "expired"


_NOTHING_ELSE: Final[Mapping[AccessState, str]] = MappingProxyType({})
_LIVE: Final = frozenset({AccessState.OPEN, AccessState.APPROVED})


class Unaskable(Enum):
    """Why no person is asked about a call."""

    TOO_LARGE = "too_large"
    DENIED = "denied"
    TOO_MANY_NOES = "too_many_noes"
    SESSION_ASKS_TOO_MUCH = "session_asks_too_much"
    CALLER_ASKS_TOO_MUCH = "caller_asks_too_much"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCall:
    """A call, as an approval binds it. What could show a value of the arguments is an HMAC under the history's key.

    `definition_digest` is that of the catalogue. `digest` covers action, definition, canonical arguments and the root
    of the session's tree: a call has the same in all sessions of a tree. `names` covers the paths of all keys in the
    arguments. `targets` holds a digest of each target with its parameter, and of each link; it is empty when one of
    them has no canonical name. `asks` are the forbids to be lifted, sorted. `run` is how many calls like this one
    answer can cover, 0 when it covers only this one.
    """

    session_id: str
    server: str
    tool: str
    definition_digest: str
    bundle_version: str
    digest: bytes
    names: bytes
    targets: frozenset[bytes]
    asks: tuple[Ask, ...]
    run: int = 0

    @property
    def action(self) -> str:
        """Return the action's id, `server/tool`."""
        return f"{self.server}/{self.tool}"

    @property
    def forbids(self) -> frozenset[tuple[str, str, str]]:
        """Return what must be lifted."""
        return frozenset([one.forbid for one in self.asks])


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One access request. Its arguments are not part of it: a store keeps them apart, and only while it is open.

    `tenant`, `user` and `agent` are those of the session, `ancestor_ids` the sessions above it, nearest first.
    `asked_by` is the caller that made the call, `decision_id` the decision that opened the request. `provenance` and
    `links` say where the names of its targets and links come from, in any session of the chain, see `model.Targets`.
    `deadline` is the end of the present state: of the request while OPEN, of the approval while APPROVED. `ends_at` is
    when the tree of the session is over at the latest. `..._at` are unix seconds, 0.0 when it has not happened.
    `most_uses` is how many calls the approval covers, `used` how many were made. `revision` is higher after each
    change, and no two changes have the same. `state` is as stored; `state_of` returns the present one.
    """

    id: str
    call: BoundCall
    tenant: str
    user: str
    agent: str
    ancestor_ids: tuple[str, ...] = ()
    asked_by: str
    decision_id: str
    asked_at: float
    deadline: Deadline
    ends_at: float
    provenance: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    state: AccessState = AccessState.OPEN
    revision: int = 0
    most_uses: int = 0
    used: int = 0
    answered_at: float = 0.0
    answered_by: str = ""
    reason: str = field(default="", repr=False)

    @property
    def tree_id(self) -> str:
        """Return the id of the root session above."""
        return self.ancestor_ids[-1] if self.ancestor_ids else self.call.session_id


class Use(NamedTuple):
    """The use of an approval by one call: the request as it is afterwards, and when it was used, unix seconds.

    `retry_digest` is the same for each retry of the call, and empty when it cannot be retried. `decision_id` is the
    decision that allowed the call; its retries get the same.
    """

    request: AccessRequest
    retry_digest: bytes
    used_at: float
    decision_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFilter:
    """Which access requests to list. Empty fields do not filter; `states` are compared as stored.

    `ends_after` leaves out those whose deadline on the wall clock has come by then; 0.0 leaves out none.
    """

    tenant: str = ""
    session_id: str = ""
    user: str = ""
    asked_by: str = ""
    states: frozenset[AccessState] = frozenset()
    ends_after: float = 0.0

    def matches(self, request: AccessRequest) -> bool:
        """Say whether to list a request."""
        return (
            self.tenant in ("", request.tenant)
            and self.session_id in ("", request.call.session_id)
            and self.user in ("", request.user)
            and self.asked_by in ("", request.asked_by)
            and (not self.states or request.state in self.states)
            and (not self.ends_after or request.deadline.wall_at > self.ends_after)
        )


def state_of(request: AccessRequest, now: Instant, *, bundle_version: str = "", live: bool = True) -> AccessState:
    """Return the present state of a request.

    It has also expired when its session, or one above it, is no longer `live`, and under another bundle than its own:
    `bundle_version` is the active one, empty to leave it out.
    """
    over = request.deadline.passed(now) or not live or bundle_version not in ("", request.call.bundle_version)
    return AccessState.EXPIRED if over and request.state in _LIVE else request.state


def is_open(request: AccessRequest, now: Instant) -> bool:
    """Say whether a request can be answered."""
    return state_of(request, now) is AccessState.OPEN


def approve(request: AccessRequest, now: Instant, *, by: str, session_end: Deadline, uses: int = 1) -> AccessRequest:
    """Return the approved request, for so many calls; its time to be used starts, and ends with the session.

    `session_end` is the earliest end of the session and its ancestors. Raise `WrongStateError` unless OPEN, and
    `InvalidRequestError` for more uses than its forbids allow.
    """
    _require(request, now, AccessState.OPEN)
    if not 1 <= uses <= max(1, request.call.run):
        most = f"at most {request.call.run} calls" if request.call.run else "one call"
        raise InvalidRequestError("uses", f"an approval of this request covers {most}")
    deadline = Deadline.after(now, APPROVAL_SECONDS).earliest(session_end)
    return _answered(replace(request, deadline=deadline, most_uses=uses), AccessState.APPROVED, now, by, "")


def deny(request: AccessRequest, now: Instant, *, by: str, reason: str) -> AccessRequest:
    """Return the denied request. Raise `WrongStateError` unless OPEN, or so again after a reboot.

    The no counts in the whole tree of the session, until that is over.
    """
    _require_closable(request, now, AccessState.OPEN, otherwise={AccessState.APPROVED: "revoke the approval"})
    return _answered(request, AccessState.DENIED, now, by, reason)


def revoke(request: AccessRequest, now: Instant, *, by: str, reason: str) -> AccessRequest:
    """Return the request whose approval was taken back.

    Raise `WrongStateError` unless APPROVED, or so again after a reboot.
    """
    _require_closable(request, now, AccessState.APPROVED, otherwise={AccessState.OPEN: "deny it"})
    return _answered(request, AccessState.REVOKED, now, by, reason)


def lapse(request: AccessRequest, now: Instant) -> AccessRequest:
    """Return the request that has expired now. Raise `WrongStateError` unless OPEN."""
    _require(request, now, AccessState.OPEN)
    return replace(request, deadline=Deadline.after(now, 0.0))


def answered(
    requests: Iterable[AccessRequest], change: Callable[[AccessRequest], AccessRequest]
) -> tuple[AccessRequest, ...]:
    """Return what `change` makes of requests, without those for which it raises `WrongStateError`."""

    def successors() -> Iterator[AccessRequest]:
        for request in requests:
            with suppress(WrongStateError):
                yield change(request)

    return tuple(successors())


class Opening(NamedTuple):
    """What comes of asking: the request that is there already, or why none can be opened; None to open it.

    `replaced` holds the open requests of the same call that lift too little: they have expired when another is opened.
    """

    answer: AccessRequest | Unaskable | None = None
    replaced: tuple[AccessRequest, ...] = ()


def opening(known: Iterable[AccessRequest], open_of_caller: int, wanted: AccessRequest, now: Instant) -> Opening:
    """Return what comes of asking for a request.

    `known` are those of the session's tree that are stored as OPEN, APPROVED or DENIED, `open_of_caller` is how many of
    the caller's are open now.

    INVARIANT: what is counted are the sessions of a tree together. A session that is delegated without a person would
    otherwise ask again what a person refused in the one above, and the next one again.
    """
    call = wanted.call
    present = [(state_of(one, now), one) for one in known]
    denied = [one for state, one in present if state is AccessState.DENIED]
    if any(one.call.digest == call.digest for one in denied):
        return Opening(Unaskable.DENIED)
    live = [one for state, one in present if state in _LIVE]
    same = [one for one in live if one.call.digest == call.digest]
    found = next((one for one in same if _lifts(one, call)), None)
    if found is not None:
        return Opening(found)
    if len(denied) >= MOST_NOES:
        return Opening(Unaskable.TOO_MANY_NOES)
    of_session = [one for one in same if one.call.session_id == call.session_id]
    replaced = tuple(lapse(one, now) for one in of_session if one.state is AccessState.OPEN)
    still_open = sum(one.state is AccessState.OPEN for one in live) - len(replaced)
    if still_open >= MOST_OPEN_OF_SESSION:
        return Opening(Unaskable.SESSION_ASKS_TOO_MUCH)
    if open_of_caller - sum(one.asked_by == wanted.asked_by for one in replaced) >= MOST_OPEN_OF_CALLER:
        return Opening(Unaskable.CALLER_ASKS_TOO_MUCH)
    return Opening(replaced=replaced)


def usable(known: Iterable[AccessRequest], call: BoundCall, now: Instant) -> AccessRequest | None:
    """Return the first request whose approval can be used for a call; one for this very call before a run."""
    approved = [one for one in known if state_of(one, now) is AccessState.APPROVED and one.used < one.most_uses]
    covering = [one for one in approved if covers(one, call)]
    return min(covering, key=lambda one: one.call.digest != call.digest, default=None)


def covers(request: AccessRequest, call: BoundCall) -> bool:
    """Say whether a request is about a call, or about a run that the call belongs to; its state does not matter."""
    return _lifts(request, call) and (request.call.digest == call.digest or _in_run(request, call))


def counts_for(request: AccessRequest, call: BoundCall) -> bool:
    """Say whether a use of an approval still counts for a retry of the call."""
    return request.state in (AccessState.APPROVED, AccessState.USED) and covers(request, call)


def used(request: AccessRequest) -> AccessRequest:
    """Return the request after one use of its approval."""
    count = request.used + 1
    return replace(request, used=count, state=AccessState.USED if count >= request.most_uses else AccessState.APPROVED)


def given_back(request: AccessRequest) -> AccessRequest:
    """Return the request as if one use had not been; an approval that was revoked stays so."""
    state = AccessState.APPROVED if request.state is AccessState.USED else request.state
    return replace(request, used=request.used - 1, state=state)


def _lifts(request: AccessRequest, call: BoundCall) -> bool:
    """Say whether a request is of the same session, bundle and tool, and would lift all that must be lifted."""
    bound = request.call
    return (
        (bound.session_id, bound.bundle_version, bound.action, bound.definition_digest)
        == (call.session_id, call.bundle_version, call.action, call.definition_digest)
        # A forbid that matches in addition has to be asked about.
        and call.forbids <= bound.forbids
    )


def _in_run(request: AccessRequest, call: BoundCall) -> bool:
    bound = request.call
    return (
        request.most_uses > 1
        and call.run > 0
        and bound.names == call.names
        and bool(call.targets)
        and call.targets <= bound.targets
    )


def _require(
    request: AccessRequest, now: Instant, state: AccessState, *, otherwise: Mapping[AccessState, str] = _NOTHING_ELSE
) -> None:
    present = state_of(request, now)
    if present is not state:
        instead = f"; {otherwise[present]} instead" if present in otherwise else ""
        raise WrongStateError(f"the access request is {present.value}, not {state.value}{instead}")


def _require_closable(
    request: AccessRequest, now: Instant, state: AccessState, *, otherwise: Mapping[AccessState, str]
) -> None:
    """Raise as `_require` does, but not for what has expired on the boot clock alone.

    After a reboot only the wall clock can tell, and what was refused or taken back must hold then.
    """
    if request.state is not state or now.wall_at >= request.deadline.wall_at:
        _require(request, now, state, otherwise=otherwise)


def _answered(request: AccessRequest, state: AccessState, now: Instant, by: str, reason: str) -> AccessRequest:
    return replace(request, state=state, answered_at=now.wall_at, answered_by=by, reason=reason)
