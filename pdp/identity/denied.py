"""The deny-list: callers and tokens that are refused whatever they prove, as soon as the file is read again."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pdp.errors import ConfigurationError, Problem, UnauthenticatedError
from pdp.identity.callers import CALLER_ID, DIGEST, SUBJECT, read_private
from pdp.model import Caller

_LOG = logging.getLogger("pdp.server")

# The orders of the curves (FIPS 186-5). If the signature (r, s) is valid, (r, order - s) is too, and anyone can
# compute it. Tokens with either must be accepted: most issuers do not choose between the two.
_ORDERS: Mapping[str, int] = {
    "ES256": int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16),
    "ES384": int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
    "ES512": int("1" + "f" * 65 + "a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """Ids of callers, `jti` and `sub` of JSON Web Tokens, and SHA-256 of tokens or of a JWT without its signature."""

    callers: frozenset[str] = frozenset()
    jwt_ids: frozenset[str] = frozenset()
    jwt_subjects: frozenset[str] = frozenset()
    tokens: frozenset[bytes] = field(default=frozenset(), repr=False)

    def __or__(self, other: Denied) -> Denied:
        """Return what either of two lists denies."""
        return Denied(
            callers=self.callers | other.callers,
            jwt_ids=self.jwt_ids | other.jwt_ids,
            jwt_subjects=self.jwt_subjects | other.jwt_subjects,
            tokens=self.tokens | other.tokens,
        )


class DenyList:
    """The list of a file, as `current`; without a file no caller is denied. Raise `ConfigurationError` if invalid.

    The file can hold four lists: `callers`, `jwt_ids`, `jwt_subjects` and `token_sha256`.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reported = ""
        self.current = self._seen = Denied() if path is None else _read(path)

    def require(
        self, caller: Caller, *, digests: Collection[bytes] = (), jwt_id: str = "", subject: str = ""
    ) -> Caller:
        """Return the caller. Raise `UnauthenticatedError` when the caller or its token is denied.

        `digests` are those that can deny its token: the token's own, or `web_token_digests`. `jwt_id` and `subject` are
        the `jti` and `sub` of a JSON Web Token.
        """
        if caller.id in self.current.callers:
            what = f"the caller `{caller.id}`"
        elif part := self.token(digests=digests, jwt_id=jwt_id, subject=subject):
            what = f"the {part} of `{caller.id}`"
        else:
            return caller
        reason = f"{what} is on the deny-list"
        raise UnauthenticatedError("the credential is no longer accepted", what="a credential", reason=reason)

    def token(self, *, digests: Collection[bytes], jwt_id: str = "", subject: str = "") -> str:
        """Name the part of a token that is denied; empty for none. The parameters are those of `require`."""
        denied = self.current
        if denied.tokens and not denied.tokens.isdisjoint(digests):
            return "token"
        if jwt_id and jwt_id in denied.jwt_ids:
            return "`jti` of the token"
        return "`sub` of the token" if subject and subject in denied.jwt_subjects else ""

    def refresh(self) -> None:
        """Read the file again; when it is invalid, keep the former list and log that once. Never raises.

        What is new in it counts at once. What is gone counts no longer once two readings agree: a file that is still
        being written lacks entries, and can be valid.
        """
        if self._path is None:
            return
        problem = ""
        try:
            found = _read(self._path)
            self.current = found if found == self._seen else self.current | found
            self._seen = found
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._reported:
            _LOG.error("the deny-list could not be read again, so the last good one stays in force: %s", problem)
        self._reported = problem


def web_token_digests(token: str, algorithm: str, signature: bytes) -> frozenset[bytes]:
    """Return the digests that can deny a JSON Web Token, whichever form its signature has.

    They are those of the whole token, of the token without its signature, and of the token with the other form of an
    ECDSA signature: the holder of a denied token can write that one.
    """
    signed = token.rpartition(".")[0]
    forms = [token, signed]
    order = _ORDERS.get(algorithm)
    if order is not None:
        half = len(signature) // 2
        other = (order - int.from_bytes(signature[half:], "big")).to_bytes(half, "big")
        forms.append(f"{signed}.{base64.urlsafe_b64encode(signature[:half] + other).decode('ascii').rstrip('=')}")
    return frozenset(hashlib.sha256(form.encode("ascii")).digest() for form in forms)


def _read(path: Path) -> Denied:
    section = read_private(path, "anyone could lift a denial")
    patterns = {"callers": CALLER_ID, "jwt_ids": SUBJECT, "jwt_subjects": SUBJECT, "token_sha256": DIGEST}
    problems: list[Problem] = section.unknown_keys(patterns)
    for name, pattern in patterns.items():
        values = section.get(name, [])
        if not isinstance(values, list):
            problems.append(section.problem(f"`{name}` must be a list", name))
            continue
        wrong = [value for value in values if not isinstance(value, str) or not pattern.fullmatch(value)]
        problems += [section.problem(f"`{name}` contains an invalid entry", name)] if wrong else []
    if problems:
        raise ConfigurationError("; ".join(str(problem) for problem in problems))
    return Denied(
        callers=frozenset(section.get("callers", ())),
        jwt_ids=frozenset(section.get("jwt_ids", ())),
        jwt_subjects=frozenset(section.get("jwt_subjects", ())),
        tokens=frozenset(bytes.fromhex(digest) for digest in section.get("token_sha256", ())),
    )
