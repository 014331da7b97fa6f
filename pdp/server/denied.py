"""Who and what is refused at once, whatever it proves: a file that counts from the moment it is read again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pdp.errors import ConfigurationError, Problem, UnauthenticatedError
from pdp.model import Caller
from pdp.server.callers import CALLER_ID, DIGEST, SUBJECT, read_private

_LOG = logging.getLogger("pdp.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """Ids of callers, `jti` of JSON Web Tokens, and SHA-256 of tokens of either kind."""

    callers: frozenset[str] = frozenset()
    jwt_ids: frozenset[str] = frozenset()
    tokens: frozenset[bytes] = field(default=frozenset(), repr=False)


class DenyList:
    """The list of a file, as `current`; without a file nobody is denied. Raise `ConfigurationError` when it is wrong.

    The file may hold three lists: `callers`, `jwt_ids` and `token_sha256`.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._told = ""
        self.current = Denied() if path is None else _read(path)

    def require(self, caller: Caller, *, digest: bytes = b"", jwt_id: str = "") -> Caller:
        """Return the caller. Raise `UnauthenticatedError` when the caller is denied, or what it presented is."""
        denied = self.current
        if caller.id in denied.callers:
            problem = "the caller"
        elif digest in denied.tokens:
            problem = "the token"
        elif jwt_id and jwt_id in denied.jwt_ids:
            problem = "the token, by its `jti`"
        else:
            return caller
        _LOG.warning("`%s` was refused: %s is on the deny-list", caller.id, problem)
        raise UnauthenticatedError("the credential is not accepted any more")

    def refresh(self) -> None:
        """Read the file again; go on with the list as it was when it is wrong, and say so once. Never raises."""
        if self._path is None:
            return
        problem = ""
        try:
            self.current = _read(self._path)
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._told:
            _LOG.error("the deny-list was not read again, the last good one stays: %s", problem)
        self._told = problem


def _read(path: Path) -> Denied:
    section = read_private(path, "anyone could lift a denial")
    patterns = {"callers": CALLER_ID, "jwt_ids": SUBJECT, "token_sha256": DIGEST}
    problems: list[Problem] = section.unknown_keys(patterns)
    for name, pattern in patterns.items():
        values = section.get(name, [])
        if not isinstance(values, list):
            problems.append(section.problem(f"`{name}` must be a list", name))
            continue
        wrong = [value for value in values if not isinstance(value, str) or not pattern.fullmatch(value)]
        problems += [section.problem(f"`{name}` holds something that is none", name)] if wrong else []
    if problems:
        raise ConfigurationError("; ".join(str(problem) for problem in problems))
    return Denied(
        callers=frozenset(section.get("callers", ())),
        jwt_ids=frozenset(section.get("jwt_ids", ())),
        tokens=frozenset(bytes.fromhex(digest) for digest in section.get("token_sha256", ())),
    )
