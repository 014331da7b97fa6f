"""The file of callers: maps credentials to callers, by exact match only."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.foundation.ownership import read_own
from pdp.foundation.yamltext import Section, load_section, unknown
from pdp.model import AT_EACH_CALL, NEVER_APPROVERS, Bounds, Caller, Role

_LOG = logging.getLogger("pdp.server")

CALLERS_FILE = "callers.yaml"

SUBJECT = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
# The last two occur in the ids that issuers give people: `auth0|5f7c`, `alice+work@example.org`.
CALLER_ID = re.compile(r"[A-Za-z0-9._:@/|+-]{1,128}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# A trust domain and a path, as in the SPIFFE standard.
SPIFFE_ID = re.compile(r"spiffe://(?=.{1,2039}\Z)[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+")


class _Credential(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    form: str
    what: str


CREDENTIALS: Mapping[str, _Credential] = {
    "token_sha256": _Credential("token", DIGEST, "64 hex digits in lower case, in quotes", "token"),
    "spiffe_id": _Credential("spiffe", SPIFFE_ID, "a SPIFFE id such as `spiffe://example.org/gateway`", "SPIFFE id"),
    "jwt_subject": _Credential("jwt", SUBJECT, "the `sub` of a token: up to 255 printable characters", "subject"),
    "jwt_group": _Credential("jwt", SUBJECT, "the name of a group in tokens: up to 255 printable characters", "group"),
}
# The keys of an entry other than its credential and its roles.
_MORE = ("tenant", "development", "expires_at", "previous_token_sha256", "previous_expires_at")
# The keys of what bounds a gateway: for whom it may ask, and whether it sees results.
LISTS, SEES_RESULTS = ("users", "agents", "tenants"), "sees_results"
# Who may act for several tenants: programs, each with one task.
_OF_TENANTS = (Role.PEP, Role.BROKER, Role.REVOKER)
_FOR_DEVELOPMENT = (
    "is for development, and others can reach this server: give it a credential of its own and remove `development`"
)


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """The caller of a token, until `ends_at` (unix seconds; infinite for a token that does not expire)."""

    caller: Caller
    ends_at: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """All callers, by what they prove: a token's SHA-256, a SPIFFE id, or a claim of a JSON Web Token.

    `ids` are those of all entries. An entry for a group has an id too, which is no caller's.
    """

    ids: frozenset[str]
    by_token: Mapping[bytes, TokenCaller] = field(repr=False)
    by_spiffe_id: Mapping[str, Caller]
    by_jwt_subject: Mapping[str, Caller]
    by_jwt_group: Mapping[str, Caller]


class KnownCallers:
    """The callers of a file, as `current`, until it is read again. Raise `ConfigurationError` naming every problem.

    The file maps caller ids to one credential (`token_sha256` in hex, `spiffe_id`, `jwt_subject` or `jwt_group`),
    `roles` and, optionally, `tenant`, `development` and, for tokens, `expires_at`. Callers for development are accepted
    only by a server that others cannot reach, which passes `development`; any other server refuses the file.
    """

    def __init__(self, callers_file: Path, *, development: bool = False) -> None:
        self._file = callers_file
        self._development = development
        self._reading = threading.Lock()
        self._taken = self._seen = b""
        self._reported = ""
        self.reload()

    def reload(self) -> int:
        """Read the file again and return the number of its entries.

        When it is invalid, raise `ConfigurationError` and keep the present callers.
        """
        with self._reading:
            taken = self._content()
            self.current = read_callers(self._file, development=self._development)
            self._taken = taken
            return len(self.current.ids)

    def refresh(self) -> None:
        """Check the file, and read it again when it has changed and is the same as at the last check.

        A file that is still being written can already be valid, with other callers. One that was refused is tried again
        each time: its owner or mode can change alone. A problem is logged once, and the callers stay as they were. For
        one thread; never raises.
        """
        found = self._content()
        steady, self._seen = found == self._seen, found
        if not steady:
            return
        problem = ""
        try:
            if found != self._taken:
                count = self.reload()
                _LOG.info("`%s` has changed and was read again; callers: %d", self._file, count)
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._reported:
            _LOG.error("the callers could not be read again and stay as they were: %s", problem)
        self._reported = problem

    def _content(self) -> bytes:
        try:
            return self._file.read_bytes()
        except OSError:
            return b""


def read_callers(path: Path, *, development: bool) -> Callers:
    """Read a file of callers. Raise `ConfigurationError` naming every problem."""
    return callers_of(read_private(path, "anyone could become a caller"), development=development)


def callers_of(section: Section, *, development: bool) -> Callers:
    """Return the callers of a parsed file. Raise `ConfigurationError` naming every problem."""
    kinds = {name: dict[str, TokenCaller]() for name in CREDENTIALS}
    problems: list[Problem] = []
    for caller_id, entry in section.items():
        found = _caller_problems(section, caller_id, entry)
        if not found:
            for name, value, known in _credentials(caller_id, entry):
                other = kinds[name].setdefault(value, known)
                if other is not known:
                    whose = f"`{caller_id}` has the {CREDENTIALS[name].what} of `{other.caller.id}`"
                    found.append(section.problem(whose, caller_id))
            if entry.get("development", False) and not development:
                found.append(entry.problem(f"`{caller_id}` {_FOR_DEVELOPMENT}", "development"))
        problems += found
    if not section:
        problems.append(Problem(section.file, 0, "no callers"))
    if problems:
        raise ConfigurationError("; ".join(str(problem) for problem in problems))
    by_name = {kind: {name: known.caller for name, known in found.items()} for kind, found in kinds.items()}
    return Callers(
        ids=frozenset(section),
        by_token={bytes.fromhex(digest): known for digest, known in kinds["token_sha256"].items()},
        by_spiffe_id=by_name["spiffe_id"],
        by_jwt_subject=by_name["jwt_subject"],
        by_jwt_group=by_name["jwt_group"],
    )


def read_private(path: Path, danger: str) -> Section:
    """Read a YAML file that no other user can change. Raise `ConfigurationError`; `danger` says what could happen."""
    try:
        return load_section(str(path), read_own(path, danger), times_as_text=True)
    except BundleError as error:
        raise ConfigurationError(str(error)) from None


def _credentials(caller_id: str, entry: Section) -> list[tuple[str, str, TokenCaller]]:
    """Return the credentials of an entry: kind, value, and the caller with its end."""
    name = next(name for name in CREDENTIALS if name in entry)
    caller = Caller(
        id=caller_id,
        kind=CREDENTIALS[name].kind,
        roles=frozenset(Role(role) for role in entry["roles"]),
        tenant=entry.get("tenant", "default"),
        # A person who tries things out on their own machine is present.
        authenticated_at=AT_EACH_CALL if entry.get("development", False) else 0.0,
        bounds=_bounds(entry),
    )
    found = [(name, entry[name], TokenCaller(caller, _end(entry, "expires_at")))]
    if "previous_token_sha256" in entry:
        previous = TokenCaller(caller, _end(entry, "previous_expires_at"))
        found.append(("token_sha256", entry["previous_token_sha256"], previous))
    return found


def _bounds(entry: Section) -> Bounds | None:
    lists = {name: frozenset(entry[name]) for name in LISTS if name in entry}
    sees = entry.get(SEES_RESULTS, True)
    if not lists and sees:
        return None
    return Bounds(**{"tenants": frozenset({entry.get("tenant", "default")}), **lists}, sees_results=sees)


def _end(entry: Section, name: str) -> float:
    return time_at(entry[name]) if name in entry else math.inf


def time_at(text: object) -> float:
    """Return unix seconds for a time with a zone, such as `2027-01-31T12:00:00Z`. Raise `ValueError`."""
    moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    if moment is None or moment.tzinfo is None:
        raise ValueError("a time must have a zone")
    return moment.timestamp()


def _caller_problems(section: Section, caller_id: str, entry: object) -> list[Problem]:
    if not CALLER_ID.fullmatch(caller_id):
        return [section.problem(f"`{caller_id}` is not a caller id: it must match {CALLER_ID.pattern}", caller_id)]
    if not isinstance(entry, Section):
        return [section.problem(f"`{caller_id}` must be a mapping", caller_id)]
    problems = entry.unknown_keys((*CREDENTIALS, "roles", *_MORE, *LISTS, SEES_RESULTS))
    problems += _credential_problems(entry)
    problems += _token_problems(entry)
    if not _matches(CALLER_ID, entry.get("tenant", "default")):
        problems.append(entry.problem(f"`tenant` must match {CALLER_ID.pattern}", "tenant"))
    if not isinstance(entry.get("development", False), bool):
        problems.append(entry.problem("`development` must be `true` or `false`", "development"))
    return problems + _role_problems(entry) + _bounds_problems(entry)


def _bounds_problems(entry: Section) -> list[Problem]:
    """Return the problems of what bounds a gateway."""
    problems = []
    for name in (*LISTS, SEES_RESULTS):
        if name not in entry:
            continue
        ids = entry[name]
        if name == SEES_RESULTS:
            if not isinstance(ids, bool):
                problems.append(entry.problem(f"`{name}` must be `true` or `false`", name))
        elif not isinstance(ids, list) or not ids or not all(_matches(CALLER_ID, one) for one in ids):
            problems.append(entry.problem(f"`{name}` must be a list of ids, with one at least", name))
        elif name == "tenants" and entry.get("tenant", "default") not in ids:
            problems.append(entry.problem("`tenants` must hold the caller's own tenant", name))
        # Other roles see all of their tenant: beside one, this would promise too much.
        bounded = _OF_TENANTS if name == "tenants" else (Role.PEP,)
        if entry.get("roles") not in [[role.value] for role in bounded]:
            roles = " or ".join(f"`{role.value}`" for role in bounded)
            problems.append(entry.problem(f"`{name}` is only for a caller whose one role is {roles}", name))
    return problems


def _token_problems(entry: Section) -> list[Problem]:
    """Return the problems of a token's end, and of the token that it has replaced."""
    problems = []
    for name in ("expires_at", "previous_expires_at", "previous_token_sha256"):
        if name in entry and "token_sha256" not in entry:
            problems.append(entry.problem(f"`{name}` needs `token_sha256`", name))
        if name.endswith("_at") and name in entry and not _is_time(entry[name]):
            form = "must be a time with a zone, such as `2027-01-31T12:00:00Z`"
            problems.append(entry.problem(f"`{name}` {form}", name))
    if "previous_token_sha256" in entry and not _matches(DIGEST, entry["previous_token_sha256"]):
        form = CREDENTIALS["token_sha256"].form
        problems.append(entry.problem(f"`previous_token_sha256` must be {form}", "previous_token_sha256"))
    if ("previous_token_sha256" in entry) != ("previous_expires_at" in entry):
        problems.append(entry.problem("`previous_token_sha256` and `previous_expires_at` must be given together"))
    return problems


def _is_time(value: object) -> bool:
    try:
        time_at(value)
    except (ValueError, OverflowError):
        return False
    return True


def _role_problems(entry: Section) -> list[Problem]:
    known = [role.value for role in Role]
    roles = entry.get("roles")
    if not isinstance(roles, list) or not roles:
        return [entry.problem("`roles` must be a list of roles", "roles")]
    wrong = [role for role in roles if role not in known]
    problems = [entry.problem(unknown("role", str(role), known), "roles") for role in wrong]
    if Role.APPROVER.value in roles:
        if "spiffe_id" in entry:
            problems.append(entry.problem("a SPIFFE id names a program, but an `approver` is a person", "roles"))
        beside = [role.value for role in NEVER_APPROVERS if role.value in roles]
        problems += [entry.problem(f"an `approver` cannot also be `{role}`", "roles") for role in beside]
    return problems


def _credential_problems(entry: Section) -> list[Problem]:
    present = [name for name in CREDENTIALS if name in entry]
    if len(present) != 1:
        names = ", ".join(f"`{name}`" for name in CREDENTIALS)
        return [entry.problem(f"exactly one of {names} is needed", present[1] if present else None)]
    (name,) = present
    if not _matches(CREDENTIALS[name].pattern, entry[name]):
        return [entry.problem(f"`{name}` must be {CREDENTIALS[name].form}", name)]
    return []


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
