"""Issues call tokens for allowed calls, publishes their keys, and says whether a token still counts."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Final

from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import MOST_SECONDS, CallClaims, Presenter, encoded
from pdp.calltokens.keys import CallKey, PublicCallKey, claims_of, key_named_by
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import SKEW_SECONDS
from pdp.clock import Clock, Instant, no_earlier
from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.errors import PDPError
from pdp.foundation.jsontext import canonical, digest
from pdp.model import Call, Caller, CallRequest, Decision, Head
from pdp.observer import Event, EventKind, Observer
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import earliest_end
from pdp.sessions.store import HighWaterMark
from pdp.sessions.values import PublishedKey
from pdp.sessions.writes import Write

# How long a worker signs with a key: a stolen one forges for no longer.
KEY_SECONDS: Final = 3600.0
# Far more than workers that were restarted within the hour have.
MOST_KEYS: Final = 1000
_SALT_BYTES = 16
# A longer id of a resource is stated as its digest: a token has a bound.
_MOST_RESOURCE_CHARACTERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What a gateway asks for: where the token is to be presented, and by whom; None for the same machine."""

    audience: str
    presenter: Presenter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token and its end in unix seconds, or in one line why there is none."""

    audience: str
    token: str = field(default="", repr=False)
    ends_at: float = 0.0
    refusal: str = ""


class CallTokens:
    """The call tokens of one process. Safe for threads.

    `issuer` names the deployment; empty means that there are none. A token is good for `seconds`, 60 at most. The key
    is made in memory when the first token is asked for, and its public half stored before it signs.
    """

    def __init__(
        self,
        *,
        issuer: str,
        seconds: int,
        snapshots: Snapshots,
        sessions: HighWaterMark,
        history: SessionHistory,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.issuer = issuer
        self._seconds = seconds
        self._snapshots = snapshots
        self._sessions = sessions
        self._history = history
        self._clock = clock
        self._observer = observer
        self._lock = Lock()
        self._key: tuple[CallKey, PublishedKey] | None = None

    def issue(
        self, decision: Decision, request: CallRequest, wanted: Sequence[TokenRequest], caller: Caller
    ) -> tuple[IssuedToken, ...]:
        """Return a token, or why there is none, for each one wanted; nothing for a deny.

        INVARIANT: the decision is recorded. Each token is recorded before it is returned.
        """
        if not decision.allowed:
            return ()
        return tuple(self._issued(decision, request, one, caller) for one in wanted)

    def check(self, token: str, caller: Caller, least: Head | None = None) -> float:
        """Return until when the session of a token can live, if all that it states still holds.

        Raise `CallTokenRefusedError` if not. `least` is a change that the answer must know, with all before it.

        Whether it was used is for the verifier to know. Raise `UnavailableError` when the store does not answer.
        """
        key = self._history.call_token_keys().get(key_named_by(token))
        # It stays in the store until the next one is published, which may be never.
        if key is None or key.ends_at <= self._now().wall_at or not self.issuer:
            raise CallTokenRefusedError(Reason.UNKNOWN_KEY, "signed by a key that is not published")
        claims = claims_of(token, PublicCallKey(content=key.content))
        snapshot = self._snapshots.of_session(claims.session_id, caller, least)
        try:
            self._require_standing(claims, key, snapshot)
        except CallTokenRefusedError as error:
            self._tell(EventKind.CALL_TOKEN_REFUSED, claims, caller, {"reason": error.reason}, snapshot)
            raise
        return earliest_end(snapshot.chain, snapshot.now).wall_at

    def published(self) -> tuple[PublishedKey, ...]:
        """Return the keys of all tokens that can still be met, newest first."""
        if not self.issuer:
            return ()
        return self._history.call_token_keys().published(wall_at=self._now().wall_at, limit=MOST_KEYS)

    def written(self, write: Write) -> tuple[str, ...] | None:
        """Return the id of the key that the caller has withdrawn before; None when that is not known.

        Raise `RequestIdConflictError` when something else was asked for under the same request id.
        """
        return self._history.access().written(write, wall_at=self._now().wall_at)

    def withdraw(self, key_id: str, *, reason: str, caller: Caller, write: Write | None = None) -> bool:
        """Withdraw a key: no token that it has signed counts from now on. Return False when there is none.

        With a `write` it is remembered, so that it can be asked for again: see `written`.
        """
        now = self._now()
        known = self._history.call_token_keys().withdraw(key_id, wall_at=now.wall_at, write=write)
        self._observer.event(key_withdrawn_event(key_id, caller, now.wall_at, reason=reason, known=known))
        return known

    def _issued(self, decision: Decision, request: CallRequest, wanted: TokenRequest, caller: Caller) -> IssuedToken:
        try:
            snapshot = self._snapshots.of_session(decision.matter.session_id, caller)
            claims = self._claims(decision, request, wanted, caller, snapshot)
            key, published = self._signing_key()
            token = key.signed(claims)
        except (CallTokenRefusedError, PDPError) as error:
            # The call is allowed all the same: it only cannot be made where a token is needed.
            return IssuedToken(audience=wanted.audience, refusal=str(error))
        self._tell(EventKind.CALL_TOKEN_ISSUED, claims, caller, {"key_id": published.id}, snapshot)
        return IssuedToken(audience=wanted.audience, token=token, ends_at=claims.expires_at)

    def _claims(
        self, decision: Decision, request: CallRequest, wanted: TokenRequest, caller: Caller, snapshot: Snapshot
    ) -> CallClaims:
        if not self.issuer:
            raise _no_token("this server issues none: it has no `call_tokens.issuer`")
        tool = snapshot.bundle.catalogue.tool(decision.matter.server, decision.matter.tool)
        if not snapshot.chain or tool is None or snapshot.bundle.version != decision.matter.bundle_version:
            raise _no_token("the session or the bundle has changed since the decision; ask again")
        if snapshot.freeze is not None:
            raise _no_token(f"{snapshot.freeze.what} frozen since the decision")
        if wanted.audience not in tool.audiences:
            raise _no_token(f"not an audience of `{tool.action}`: its overlay does not name it in `audiences`")
        salt = secrets.token_bytes(_SALT_BYTES)
        issued_at = int(snapshot.now.wall_at)
        expires_at = min(issued_at + self._seconds, math.floor(earliest_end(snapshot.chain, snapshot.now).wall_at))
        if expires_at <= issued_at:
            raise _no_token("the session ends within a second")
        return CallClaims(
            issuer=self.issuer,
            audience=wanted.audience,
            id=_token_id(decision, request, wanted, caller),
            issued_at=issued_at,
            expires_at=expires_at,
            decision_id=decision.id,
            session_id=decision.matter.session_id,
            session_epoch=decision.matter.session_epoch,
            ancestor_ids=decision.matter.ancestor_ids,
            user=decision.matter.user,
            agent=decision.matter.agent,
            tenant=decision.matter.tenant,
            environment=decision.matter.environment,
            server=decision.matter.server,
            tool=decision.matter.tool,
            definition_digest=decision.matter.catalogue_digest,
            arguments_digest=arguments_digest(request.call.arguments_json, salt),
            salt=salt,
            resource_type=decision.ruling.resource_type,
            resource_id=_resource_id(decision),
            bundle_version=decision.matter.bundle_version,
            presenter=wanted.presenter,
            # INVARIANT: the gate has compared it, by the same bundle, with what was approved.
            connection=tool.connection.kind if tool.connection else "",
            scopes=tool.connection.scopes if tool.connection else (),
        )

    def _require_standing(self, claims: CallClaims, key: PublishedKey, snapshot: Snapshot) -> None:
        """Raise unless the gate would let the call pass now."""
        if key.withdrawn:
            raise CallTokenRefusedError(Reason.REVOKED, "its key is withdrawn")
        now = self._now().wall_at
        if claims.issuer != self.issuer:
            raise CallTokenRefusedError(Reason.ISSUER, "of another issuer")
        if not claims.issued_at - SKEW_SECONDS <= now < claims.expires_at + SKEW_SECONDS:
            raise CallTokenRefusedError(Reason.TIME, "over, or from the future")
        if tuple(one.id for one in snapshot.chain) != (claims.session_id, *claims.ancestor_ids):
            raise CallTokenRefusedError(Reason.REVOKED, "no such session")
        if snapshot.bundle.version != claims.bundle_version:
            raise CallTokenRefusedError(Reason.REVOKED, "another bundle is active")
        # The handle is not known here, and the gate does not ask for it: the chain is that of the session.
        call = Call(
            session_handle="", server=claims.server, tool=claims.tool, definition_digest=claims.definition_digest
        )
        passed = gate(snapshot, call)
        if isinstance(passed, Refusal):
            raise CallTokenRefusedError(Reason.REVOKED, f"the call is denied now: {passed.ruling.basis.value}")

    def _signing_key(self) -> tuple[CallKey, PublishedKey]:
        """Return the key to sign with, a new one every hour and after a withdrawal."""
        keys, now = self._history.call_token_keys(), self._now().wall_at
        with self._lock:
            if self._key is not None and now < self._key[1].published_at + KEY_SECONDS:
                stored = keys.get(self._key[1].id)
                if stored is not None and not stored.withdrawn:
                    return self._key
            key = CallKey()
            ends_at = now + KEY_SECONDS + MOST_SECONDS + SKEW_SECONDS
            public = key.public
            published = PublishedKey(id=public.id, content=public.content, published_at=now, ends_at=ends_at)
            # INVARIANT: it is stored before it signs.
            keys.publish(published)
            self._key = key, published
            return self._key

    def _tell(
        self, kind: EventKind, claims: CallClaims, caller: Caller, more: dict[str, str], snapshot: Snapshot
    ) -> None:
        facts = {"token_id": claims.id, "decision_id": claims.decision_id, "audience": claims.audience, **more}
        facts["action"] = f"{claims.server}/{claims.tool}"
        self._observer.event(
            Event(
                kind=kind,
                at=snapshot.wall_at,
                caller_id=caller.id,
                session_id=claims.session_id,
                user=claims.user,
                agent=claims.agent,
                tenant=claims.tenant,
                facts=facts,
            )
        )

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())


def key_withdrawn_event(key_id: str, caller: Caller, at: float, *, reason: str, known: bool) -> Event:
    """Return the event of a key that was withdrawn; it is not `known` when there was none."""
    facts = {"key_id": key_id, "reason": reason, "known": str(known).lower()}
    kind = EventKind.CALL_TOKEN_KEY_WITHDRAWN
    return Event(kind=kind, at=at, caller_id=caller.id, tenant=caller.tenant, facts=facts)


def _token_id(decision: Decision, request: CallRequest, wanted: TokenRequest, caller: Caller) -> str:
    """Return the id of a token, which is the same for a retry of the same call, at any worker."""
    bound = wanted.presenter
    said = [
        caller.tenant,
        caller.id,
        request.request_id or decision.id,
        decision.matter.session_id,
        decision.matter.server,
        decision.matter.tool,
        decision.matter.arguments_digest,
        wanted.audience,
        [bound.certificate, bound.key] if bound else [],
    ]
    return encoded(sha256(canonical(said)).digest())


def _resource_id(decision: Decision) -> str:
    ruling = decision.ruling
    plain = ruling.log_resource and len(ruling.resource_id) <= _MOST_RESOURCE_CHARACTERS
    return ruling.resource_id if plain or not ruling.resource_id else digest(ruling.resource_id.encode())


def _no_token(why: str) -> CallTokenRefusedError:
    return CallTokenRefusedError(Reason.UNAVAILABLE, why)
