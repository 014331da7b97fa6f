"""Who may call: the file that maps credentials to callers, by exact match and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.model import AT_EACH_CALL, NEVER_APPROVERS, Caller, Role
from pdp.policy.yamltext import Section, load_section, unknown

CALLERS_FILE = "callers.yaml"
TOKENS_FOLDER = "tokens"

SUBJECT = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
CALLER_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# A trust domain and a path, as the SPIFFE standard has them.
SPIFFE_ID = re.compile(r"spiffe://(?=.{1,2039}\Z)[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+")


class _Credential(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    form: str
    what: str


_CREDENTIALS: Mapping[str, _Credential] = {
    "token_sha256": _Credential("token", DIGEST, "64 hex digits in lower case, in quotes", "token"),
    "spiffe_id": _Credential("spiffe", SPIFFE_ID, "a SPIFFE id such as `spiffe://example.org/gateway`", "SPIFFE id"),
    "jwt_subject": _Credential("jwt", SUBJECT, "the `sub` of a token: up to 255 printable characters", "subject"),
}
_Found = dict[str, Caller]
_FOR_DEVELOPMENT = (
    "is for development, and others can reach this server: give it a credential of its own and remove `development`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Everybody who may call, by what they prove: a token's SHA-256, a SPIFFE id, the subject of a JSON Web Token."""

    by_token: Mapping[bytes, Caller] = field(repr=False)
    by_spiffe_id: Mapping[str, Caller]
    by_jwt_subject: Mapping[str, Caller]


class KnownCallers:
    """The callers of a file, as `current`, until `reload`. Raise `ConfigurationError` naming every problem of the file.

    The file maps caller ids to one credential (`token_sha256` in hex, `spiffe_id` or `jwt_subject`), `roles` and,
    optionally, `tenant` and `development`. Callers for development are known to a server only that others cannot
    reach, which says so by `development`; any other refuses the file.
    """

    def __init__(self, callers_file: Path, *, development: bool = False) -> None:
        self._file = callers_file
        self._development = development
        self.current = _read_callers(callers_file, development=development)

    def reload(self) -> None:
        """Read the file again. Raise `ConfigurationError` and go on with the callers as they were when it is wrong."""
        self.current = _read_callers(self._file, development=self._development)


def init_callers(folder: Path, *, development: bool = False) -> Path:
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
        if development:
            lines.append("# For development on this machine alone: a server that others can reach refuses these.")
        for role in Role:
            token = "pdpt_" + secrets.token_urlsafe(32)
            _write_secret(tokens / f"{role.value}.token", token + "\n")
            digest = hashlib.sha256(token.encode("ascii")).hexdigest()
            lines += [f"{role.value}:", f"  token_sha256: {digest!r}", f"  roles: [{role.value}]", "  tenant: default"]
            lines += ["  development: true"] if development else []
        # Last, so that what was interrupted is begun again.
        _write_secret(callers_file, "\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write `{error.filename}`: {_reason(error)}") from None
    return callers_file


def _write_secret(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    partial.replace(path)


def _read_callers(path: Path, *, development: bool) -> Callers:
    section = read_private(path, "anyone could become a caller")
    kinds = {name: _Found() for name in _CREDENTIALS}
    problems: list[Problem] = []
    for caller_id, entry in section.items():
        found = _caller_problems(section, caller_id, entry)
        problems += found
        if found:
            continue
        name = next(name for name in _CREDENTIALS if name in entry)
        caller = _caller(caller_id, entry, kind=_CREDENTIALS[name].kind)
        other = kinds[name].setdefault(entry[name], caller)
        if other is not caller:
            what = _CREDENTIALS[name].what
            problems.append(section.problem(f"`{caller_id}` has the {what} of `{other.id}`", caller_id))
        if caller.authenticated_at and not development:
            problems.append(entry.problem(f"`{caller_id}` {_FOR_DEVELOPMENT}", "development"))
    if not section:
        problems.append(Problem(str(path), 0, "no callers"))
    if problems:
        raise ConfigurationError("; ".join(str(problem) for problem in problems))
    return Callers(
        by_token={bytes.fromhex(digest): caller for digest, caller in kinds["token_sha256"].items()},
        by_spiffe_id=kinds["spiffe_id"],
        by_jwt_subject=kinds["jwt_subject"],
    )


def read_private(path: Path, danger: str) -> Section:
    """Read a YAML file that nobody else may write to. Raise `ConfigurationError`; `danger` is what could happen."""
    try:
        if path.stat().st_mode & 0o022:
            raise ConfigurationError(f"others may write to `{path}`: {danger}; `chmod go-w` it")
        return load_section(str(path), path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {_reason(error)}") from None
    except BundleError as error:
        raise ConfigurationError(str(error)) from None


def _caller(caller_id: str, entry: Section, *, kind: str) -> Caller:
    roles = frozenset(Role(role) for role in entry["roles"])
    # Whoever tries things out on their own machine is there.
    authenticated_at = AT_EACH_CALL if entry.get("development", False) else 0.0
    tenant = entry.get("tenant", "default")
    return Caller(id=caller_id, kind=kind, roles=roles, tenant=tenant, authenticated_at=authenticated_at)


def _caller_problems(section: Section, caller_id: str, entry: object) -> list[Problem]:
    if not CALLER_ID.fullmatch(caller_id):
        return [section.problem(f"`{caller_id}` is no caller id: {CALLER_ID.pattern}", caller_id)]
    if not isinstance(entry, Section):
        return [section.problem(f"`{caller_id}` must be a mapping", caller_id)]
    problems = entry.unknown_keys((*_CREDENTIALS, "roles", "tenant", "development"))
    problems += _credential_problems(entry)
    if not _matches(CALLER_ID, entry.get("tenant", "default")):
        problems.append(entry.problem(f"`tenant` must match {CALLER_ID.pattern}", "tenant"))
    if not isinstance(entry.get("development", False), bool):
        problems.append(entry.problem("`development` must be `true` or `false`", "development"))
    return problems + _role_problems(entry)


def _role_problems(entry: Section) -> list[Problem]:
    known = [role.value for role in Role]
    roles = entry.get("roles")
    if not isinstance(roles, list) or not roles:
        return [entry.problem("`roles` must be a list of roles", "roles")]
    wrong = [role for role in roles if role not in known]
    problems = [entry.problem(unknown("role", str(role), known), "roles") for role in wrong]
    if Role.APPROVER.value in roles:
        if "spiffe_id" in entry:
            problems.append(entry.problem("a SPIFFE id names a program, and an `approver` is a person", "roles"))
        beside = [role.value for role in NEVER_APPROVERS if role.value in roles]
        problems += [entry.problem(f"an `approver` cannot be `{role}` as well", "roles") for role in beside]
    return problems


def _credential_problems(entry: Section) -> list[Problem]:
    present = [name for name in _CREDENTIALS if name in entry]
    if len(present) != 1:
        names = ", ".join(f"`{name}`" for name in _CREDENTIALS)
        return [entry.problem(f"exactly one of {names} is needed", present[1] if present else None)]
    (name,) = present
    if not _matches(_CREDENTIALS[name].pattern, entry[name]):
        return [entry.problem(f"`{name}` must be {_CREDENTIALS[name].form}", name)]
    return []


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _reason(error: OSError) -> str:
    return (error.strerror or "input or output failed").lower()
