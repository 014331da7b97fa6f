"""Who is calling: credentials in, `Caller` out."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pdp.errors import BundleError, ConfigurationError, Problem, UnauthenticatedError
from pdp.model import Caller, Role
from pdp.policy.yamltext import Section, load_section, unknown

Metadata = Sequence[tuple[str, str | bytes]]

CALLERS_FILE = "callers.yaml"
TOKENS_FOLDER = "tokens"

_BEARER = re.compile(r"Bearer ([\x21-\x7e]{1,512})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CALLER_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")


class Authenticator(Protocol):
    """Tells who a caller is. Safe to use from many threads."""

    def authenticate(self, metadata: Metadata) -> Caller:
        """Return the caller that the metadata of an RPC proves. Raise `UnauthenticatedError` for anything else.

        The answer may change from call to call; it is asked again for each message of a stream.
        """
        ...


class TokenAuthenticator:
    """Knows callers by bearer tokens of 256 random bits, of which it holds only SHA-256 digests.

    The file maps caller ids to `token_sha256` (hex), `roles` and, optionally, `tenant`.
    Raise `ConfigurationError` naming every problem of the file.
    """

    def __init__(self, callers_file: Path) -> None:
        self._file = callers_file
        self._callers = _read_callers(callers_file)

    def authenticate(self, metadata: Metadata) -> Caller:
        """Return the caller whose token stands in `authorization: Bearer …`, exactly once."""
        values = [value for key, value in metadata if key == "authorization"]
        if len(values) != 1:
            raise UnauthenticatedError("`authorization: Bearer …` is needed exactly once")
        match = _BEARER.fullmatch(str(values[0]))
        # Whoever measures how long the look-up takes learns about digests, which say nothing about tokens.
        caller = self._callers.get(hashlib.sha256(match[1].encode("ascii")).digest()) if match else None
        if caller is None:
            raise UnauthenticatedError("the token is not known")
        return caller

    def reload(self) -> None:
        """Read the file again. Raise `ConfigurationError` and go on with the callers as they were when it is wrong."""
        self._callers = _read_callers(self._file)


def init_callers(folder: Path) -> Path:
    """Create a caller with a random token for each role, and return the file that `TokenAuthenticator` reads.

    Tokens go to `tokens/<caller>.token` (mode 0600 in a folder of mode 0700), digests to `callers.yaml`.
    Raise `ConfigurationError` when there are callers already.
    """
    callers_file, tokens = folder / CALLERS_FILE, folder / TOKENS_FOLDER
    if callers_file.exists():
        raise ConfigurationError(f"callers exist already: `{callers_file}`")
    try:
        tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens.chmod(0o700)
        lines = ["# Who may call, by the SHA-256 of a bearer token. The tokens stand in `tokens/`."]
        for role in Role:
            token = "pdpt_" + secrets.token_urlsafe(32)
            _write_secret(tokens / f"{role.value}.token", token + "\n")
            digest = hashlib.sha256(token.encode("ascii")).hexdigest()
            lines += [f"{role.value}:", f"  token_sha256: {digest!r}", f"  roles: [{role.value}]", "  tenant: default"]
        # Last, so that what was interrupted is begun again.
        _write_secret(callers_file, "\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write `{error.filename}`: {(error.strerror or 'input or output failed').lower()}"
        ) from None
    return callers_file


def _write_secret(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    partial.replace(path)


def _read_callers(path: Path) -> Mapping[bytes, Caller]:
    try:
        if path.stat().st_mode & 0o022:
            raise ConfigurationError(f"others may write to `{path}`: anyone could become a caller; `chmod go-w` it")
        section = load_section(str(path), path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot read `{path}`: {(error.strerror or 'input or output failed').lower()}"
        ) from None
    except BundleError as error:
        raise ConfigurationError(str(error)) from None
    callers: dict[bytes, Caller] = {}
    problems: list[Problem] = []
    for caller_id, entry in section.items():
        found = _caller_problems(section, caller_id, entry)
        problems += found
        if found:
            continue
        digest = bytes.fromhex(entry["token_sha256"])
        if digest in callers:
            problems.append(section.problem(f"`{caller_id}` has the token of `{callers[digest].id}`", caller_id))
        roles = frozenset(Role(role) for role in entry["roles"])
        callers[digest] = Caller(id=caller_id, kind="token", roles=roles, tenant=entry.get("tenant", "default"))
    if not callers and not problems:
        problems.append(Problem(str(path), 0, "no callers"))
    if problems:
        raise ConfigurationError("; ".join(str(problem) for problem in problems))
    return callers


def _caller_problems(section: Section, caller_id: str, entry: object) -> list[Problem]:
    if not _CALLER_ID.fullmatch(caller_id):
        return [section.problem(f"`{caller_id}` is no caller id: {_CALLER_ID.pattern}", caller_id)]
    if not isinstance(entry, Section):
        return [section.problem(f"`{caller_id}` must be a mapping", caller_id)]
    problems = entry.unknown_keys(("token_sha256", "roles", "tenant"))
    if not _matches(_DIGEST, entry.get("token_sha256")):
        problems.append(entry.problem("`token_sha256` must be 64 hex digits in lower case, in quotes", "token_sha256"))
    if not _matches(_CALLER_ID, entry.get("tenant", "default")):
        problems.append(entry.problem(f"`tenant` must match {_CALLER_ID.pattern}", "tenant"))
    known = [role.value for role in Role]
    roles = entry.get("roles")
    if not isinstance(roles, list) or not roles:
        return [*problems, entry.problem("`roles` must be a list of roles", "roles")]
    wrong = [role for role in roles if role not in known]
    return problems + [entry.problem(unknown("role", str(role), known), "roles") for role in wrong]


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
