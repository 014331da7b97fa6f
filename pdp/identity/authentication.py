"""Authenticate callers: credentials in, `Caller` out."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pdp.clock import Clock, SystemClock
from pdp.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from pdp.foundation.quickcaches import SmallCache
from pdp.identity.callers import Callers, KnownCallers
from pdp.identity.certificates import SeenCertificates
from pdp.identity.denied import DenyList
from pdp.identity.idtokens import ID_TOKEN_FIELD, IDTokens
from pdp.identity.keysets import KeySet, TrustedKeys
from pdp.identity.persons import NoCallerError, caller_of
from pdp.identity.tokens import (
    TokenRefusedError,
    TokenRules,
    UnknownKeyError,
    VerifiedToken,
    verify,
)
from pdp.model import Caller

Metadata = Sequence[tuple[str, str | bytes]]
# What gRPC knows about the peer of a connection, as proved by TLS.
Peer = Mapping[str, Sequence[bytes]]

# gRPC accepts no more metadata than this.
_BEARER = re.compile(r"Bearer ([\x21-\x7e]{1,8192})")
_MOST_REMEMBERED = 2048


class Authenticator(Protocol):
    """Identifies callers. Safe for threads."""

    def needs_peer(self, metadata: Metadata) -> bool:
        """Say whether the connection proves the caller: `authenticate` then needs the peer."""
        ...

    def authenticate(self, metadata: Metadata, peer: Peer | None = None) -> Caller:
        """Return the caller that an RPC's metadata or peer proves. Raise `UnauthenticatedError` otherwise.

        The answer can change from call to call; it is asked again for each message of a stream.
        """
        ...

    def present(self, caller: Caller, metadata: Metadata) -> Caller:
        """Return the caller that this metadata proved, with the log-in that its ID token shows, if it has one.

        The later log-in counts. Raise `InvalidRequestError` for an ID token that is not accepted.
        """
        ...


class WebTokenAuthenticator:
    """Identifies callers by the JSON Web Tokens of one issuer: by the subject, or else by the groups.

    A token is remembered by its digest, together with the keys that verified it and the callers of that moment; its
    times and the deny-list are checked on each call. The reason for a refusal goes to the log, not to the caller.
    """

    def __init__(
        self,
        callers: KnownCallers,
        keys: TrustedKeys,
        rules: TokenRules,
        *,
        clock: Clock,
        denied: DenyList,
        console_client: str = "",
    ) -> None:
        self._known = callers
        self._trusted = keys
        self._rules = rules
        self._id_tokens = IDTokens(rules, console_client, clock=clock, denied=denied)
        self._clock = clock
        self._denied = denied
        self._memory = _Memory({}, callers.current)

    def authenticate(self, digest: bytes, token: str) -> Caller:
        """Return the caller of a token, given with its SHA-256.

        Raise `UnauthenticatedError`, or `UnavailableError` when the keys are being read again for it.
        """
        keys, callers = self._trusted.current(), self._known.current
        memory = self._memory
        if memory.keys is not keys or memory.callers is not callers:
            memory = self._memory = _Memory(keys, callers)
        try:
            known = memory.tokens.get(digest) or _Known(verify(token, keys, self._rules), callers)
            known.token.require_time(self._clock.now().wall_at)
        except TokenRefusedError as error:
            memory.tokens.pop(digest, None)
            if isinstance(error, UnknownKeyError) and self._trusted.read_again():
                raise _keys_are_read() from None
            raise _web_token_refused(str(error)) from None
        if digest not in memory.tokens:
            memory.tokens.keep(digest, known)
        if known.caller is None:
            raise _web_token_refused(known.refused)
        found = known.token
        return self._denied.require(known.caller, digests=found.digests, jwt_id=found.token_id, subject=found.subject)

    def logged_in_at(self, token: str, id_token: str) -> float:
        """Return when the holder of an accepted token last authenticated, by an ID token.

        Raise `TokenRefusedError`, or `UnavailableError` when the keys are being read again for it.
        """
        keys = self._trusted.current()
        try:
            subject = verify(token, keys, self._rules).subject
            return self._id_tokens.authenticated_at(id_token, keys, subject=subject)
        except UnknownKeyError:
            if self._trusted.read_again():
                raise _keys_are_read() from None
            raise


class _Known:
    """A verified token and its caller, or why it has none."""

    __slots__ = ("caller", "refused", "token")

    def __init__(self, token: VerifiedToken, callers: Callers) -> None:
        self.caller: Caller | None = None
        self.refused = ""
        try:
            self.caller = caller_of(token, callers)
        except NoCallerError as error:
            self.refused = str(error)
        # The groups are not needed any more; there can be thousands, and the token is kept.
        self.token = replace(token, groups=())


class _Memory:
    """Tokens that were verified with one key set and matched to one set of callers."""

    __slots__ = ("callers", "keys", "tokens")

    def __init__(self, keys: KeySet, callers: Callers) -> None:
        self.keys = keys
        self.callers = callers
        self.tokens: SmallCache[bytes, _Known] = SmallCache(_MOST_REMEMBERED)


class TokenAuthenticator:
    """Identifies callers by bearer tokens of 256 random bits, of which it holds only SHA-256 digests.

    A path is read as `KnownCallers` does. Tokens in the form of a JSON Web Token go to `web_tokens`.
    """

    def __init__(
        self,
        callers: KnownCallers | Path,
        *,
        clock: Clock | None = None,
        web_tokens: WebTokenAuthenticator | None = None,
        denied: DenyList | None = None,
    ) -> None:
        self._known = KnownCallers(callers) if isinstance(callers, Path) else callers
        self._clock = clock or SystemClock()
        self._web_tokens = web_tokens
        self._denied = denied or DenyList(None)

    def needs_peer(self, _: Metadata) -> bool:
        """Return False: a token proves the caller alone."""
        return False

    def authenticate(self, metadata: Metadata, _: Peer | None = None) -> Caller:
        """Return the caller of the token in the one `authorization: Bearer …` header."""
        token = _bearer(metadata)
        # Measuring the time of the look-up reveals digests, which reveal nothing about tokens.
        digest = hashlib.sha256(token.encode("ascii")).digest()
        known = self._known.current.by_token.get(digest)
        if known is not None:
            if known.ends_at != math.inf and known.ends_at <= self._clock.now().wall_at:
                raise _token_refused(f"the token of `{known.caller.id}` has expired")
            return self._denied.require(known.caller, digests=(digest,))
        if self._web_tokens is not None and "." in token:
            return self._web_tokens.authenticate(digest, token)
        raise _token_refused(
            "no caller has this token" if token else "`authorization` is not of the form `Bearer TOKEN`"
        )

    def present(self, caller: Caller, metadata: Metadata) -> Caller:
        """Return the caller with the log-in of the one `pdp-id-token`; it counts only beside a JSON Web Token."""
        id_tokens = [value for key, value in metadata if key == ID_TOKEN_FIELD]
        if not id_tokens:
            return caller
        try:
            if len(id_tokens) > 1:
                raise TokenRefusedError(f"it appears {len(id_tokens)} times")
            if self._web_tokens is None or caller.kind != "jwt":
                raise TokenRefusedError("it counts only beside an access token of its issuer")
            at = self._web_tokens.logged_in_at(_bearer(metadata), str(id_tokens[0]))
        except TokenRefusedError as error:
            raise InvalidRequestError(ID_TOKEN_FIELD, f"the ID token is not accepted: {error}") from None
        return replace(caller, authenticated_at=max(caller.authenticated_at, at))

    def reload(self) -> None:
        """Read the callers again. Raise `ConfigurationError` and go on as before when the file is wrong."""
        self._known.reload()


class CertificateAuthenticator:
    """Identifies callers by the SPIFFE id of a certificate that TLS has verified against the trusted roots.

    The id counts only when the certificate holds no other URI. The common name never counts, because any authority can
    fill it in. The reason for a refusal goes to the log; the caller does not see it.
    """

    def __init__(self, callers: KnownCallers, clock: Clock, *, denied: DenyList | None = None) -> None:
        self._known = callers
        self._clock = clock
        self._denied = denied or DenyList(None)
        self._seen = SeenCertificates()

    def authenticate(self, peer: Peer) -> Caller:
        """Return the caller of a connection. Raise `UnauthenticatedError` without an accepted certificate."""
        certificates, ids = peer.get("x509_pem_cert", ()), peer.get("peer_spiffe_id", ())
        if len(certificates) != 1:
            raise _refused("the connection has no certificate")
        certificate = self._seen.read(certificates[0])
        # gRPC and the PDP each parse the certificate, and must agree.
        if not certificate.spiffe_id or [certificate.spiffe_id.encode("ascii")] != list(ids):
            raise _refused("it contains no SPIFFE id, or more than one URI")
        if certificate.signs_others:
            raise _refused(f"it belongs to an authority: `{certificate.spiffe_id}`")
        # TLS checked the times only once, when the connection was opened.
        if not certificate.begins_at <= self._clock.now().wall_at < certificate.ends_at:
            raise _refused(f"it is expired or not yet valid: `{certificate.spiffe_id}`")
        caller = self._known.current.by_spiffe_id.get(certificate.spiffe_id)
        if caller is None:
            raise _refused(f"no caller has this SPIFFE id: `{certificate.spiffe_id}`")
        return self._denied.require(caller)


class CallerAuthenticator:
    """Identifies callers by the credential they present; one credential decides, with no fallback to another.

    A call with `authorization` is judged by that alone, any other call by the certificate of its connection.
    """

    def __init__(self, tokens: TokenAuthenticator, certificates: CertificateAuthenticator | None = None) -> None:
        self._tokens = tokens
        self._certificates = certificates

    def needs_peer(self, metadata: Metadata) -> bool:
        """Say whether the call has no token, and certificates are accepted here."""
        return self._certificates is not None and not any(key == "authorization" for key, _ in metadata)

    def authenticate(self, metadata: Metadata, peer: Peer | None = None) -> Caller:
        """Return the caller of the token, or without a token that of the certificate."""
        if self._certificates is not None and peer is not None and self.needs_peer(metadata):
            return self._certificates.authenticate(peer)
        return self._tokens.authenticate(metadata)

    def present(self, caller: Caller, metadata: Metadata) -> Caller:
        """Return the caller with the log-in of its ID token."""
        return self._tokens.present(caller, metadata)


def _bearer(metadata: Metadata) -> str:
    """Return the token of the one `authorization: Bearer …`, empty if it has another form."""
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1:
        reason = f"`authorization` appears {len(values)} times" if values else "the call has no token"
        raise _token_refused(reason, "`authorization: Bearer …` is needed exactly once")
    match = _BEARER.fullmatch(str(values[0]))
    return match[1] if match else ""


def _keys_are_read() -> UnavailableError:
    return UnavailableError("the keys of the token issuer are being read again; try again")


def _refused(reason: str) -> UnauthenticatedError:
    return UnauthenticatedError("the certificate is not accepted", what="a certificate", reason=reason)


def _token_refused(reason: str, message: str = "the token is not known") -> UnauthenticatedError:
    return UnauthenticatedError(message, what="a bearer token", reason=reason)


def _web_token_refused(reason: str) -> UnauthenticatedError:
    return UnauthenticatedError("the token is not accepted", what="a JSON Web Token", reason=reason)
