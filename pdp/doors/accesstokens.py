"""Access tokens of agents: whose user and which agent one stands for, by a file of the operator's.

Nothing in a token is taken for a name that the policy decision point knows: who is not in the file is nobody.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdp.clock import Clock
from pdp.doors.session import CredentialRefusedError, NoSessionError
from pdp.errors import ConfigurationError, Problem, UnavailableError
from pdp.foundation.quickcaches import SmallCache
from pdp.foundation.yamltext import Section
from pdp.identity.callers import SUBJECT, read_private
from pdp.identity.denied import DenyList
from pdp.identity.keysets import KeySet, TrustedKeys
from pdp.identity.tokens import TokenRefusedError, TokenRules, UnknownKeyError, VerifiedToken, verify

_LOG = logging.getLogger(__name__)

_MOST_REMEMBERED = 1024
_TABLES = ("users", "agents")
_SESSION_TEXTS = ("purpose", "environment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Whom a token stands for: `user` and `agent` as the PDP names them, and the token as the issuer wrote it."""

    token: VerifiedToken
    user: str
    agent: str

    @property
    def subject(self) -> str:
        """Return the user as the issuer names it."""
        return self.token.subject

    @property
    def client(self) -> str:
        """Return the agent as the issuer names it."""
        return self.token.client


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """The file: users by subject, agents by client id, and what a session is asked for."""

    users: Mapping[str, str]
    agents: Mapping[str, str]
    purpose: str
    tools: tuple[str, ...]
    environment: str


class AccessTokens:
    """Verifies the access tokens of one issuer for this door. For one thread.

    `rules` are for all audiences: each server of a door has its own. A token is remembered with the audience and the
    keys for which it was verified; its times and the deny-list are checked each time.
    """

    def __init__(
        self, keys: TrustedKeys, rules: TokenRules, identities: Identities, *, clock: Clock, denied: DenyList
    ) -> None:
        self._trusted = keys
        self._rules = rules
        self._identities = identities
        self._clock = clock
        self._denied = denied
        self._keys: KeySet | None = None
        self._known: SmallCache[tuple[bytes, str], VerifiedToken] = SmallCache(_MOST_REMEMBERED)

    def claimant(self, token: str, audience: str) -> Claimant:
        """Return whom a token for an audience stands for.

        Raise `CredentialRefusedError` for one that is not valid, `NoSessionError` for one that stands for nobody here,
        and `UnavailableError` without keys.
        """
        try:
            verified = self._verified(token, audience)
        except TokenRefusedError as error:
            _LOG.warning("an access token is not accepted: %s", error)
            raise CredentialRefusedError from None
        if part := self._part_denied(verified):
            _LOG.warning("an access token is not accepted: the %s is on the deny-list", part)
            raise CredentialRefusedError
        user, agent = self._identities.users.get(verified.subject), self._identities.agents.get(verified.client)
        if user is None:
            raise NoSessionError("This proxy knows no user for the subject of the access token. Tell the user.")
        if agent is None:
            raise NoSessionError("This proxy knows no agent for the client id of the access token. Tell the user.")
        return Claimant(token=verified, user=user, agent=agent)

    def denied(self, token: VerifiedToken) -> bool:
        """Say whether a token that was accepted is on the deny-list by now."""
        return bool(self._part_denied(token))

    def _part_denied(self, token: VerifiedToken) -> str:
        return self._denied.token(digests=token.digests, jwt_id=token.token_id, subject=token.subject)

    def _verified(self, token: str, audience: str) -> VerifiedToken:
        keys = self._trusted.current()
        if keys is not self._keys:
            self._keys, self._known = keys, SmallCache(_MOST_REMEMBERED)
        key = hashlib.sha256(token.encode("utf-8")).digest(), audience
        found = self._known.get(key)
        if found is None:
            try:
                found = verify(token, keys, replace(self._rules, audience=audience))
            except UnknownKeyError:
                if self._trusted.read_again():
                    raise UnavailableError("the keys of the token issuer are being read again; try again") from None
                raise
            self._known.keep(key, found)
        found.require_time(self._clock.now().wall_at)
        return found


def read_identities(path: Path, servers: Sequence[str]) -> Identities:
    """Read the file of a door before these servers. Raise `ConfigurationError` naming every problem."""
    top = read_private(path, "anyone could become a user")
    problems = top.unknown_keys((*_TABLES, "session"))
    for table in _TABLES:
        problems += _table_problems(top, table)
    session = top.get("session", Section(str(path), 0))
    if isinstance(session, Section):
        problems += _session_problems(session)
    else:
        problems.append(top.problem("`session` must be a mapping", "session"))
    if problems:
        raise ConfigurationError("; ".join(map(str, problems)))
    return Identities(
        users=dict(top["users"]),
        agents=dict(top["agents"]),
        purpose=session.get("purpose", f"Work with the tools of {', '.join(servers)}"),
        tools=tuple(session.get("tools", [f"{server}/*" for server in servers])),
        environment=session.get("environment", ""),
    )


def _table_problems(top: Section, table: str) -> list[Problem]:
    entries = top.get(table)
    if not isinstance(entries, Section) or not entries:
        return [top.problem(f"`{table}` must be a mapping that is not empty", table)]
    return [
        entries.problem(f"`{table}`: the value of each entry must be a name", name)
        for name, value in entries.items()
        if not (_is_text(value) and SUBJECT.fullmatch(name))
    ]


def _session_problems(session: Section) -> list[Problem]:
    problems = session.unknown_keys((*_SESSION_TEXTS, "tools"))
    problems += [
        session.problem(f"`{name}` must be a text", name)
        for name in _SESSION_TEXTS
        if name in session and not _is_text(session[name])
    ]
    tools = session.get("tools", ["*"])
    if not isinstance(tools, list) or not tools or not all(map(_is_text, tools)):
        problems.append(session.problem("`tools` must be a list of patterns such as `git/*`", "tools"))
    return problems


def _is_text(value: Any) -> bool:  # noqa: ANN401 - any YAML value
    return isinstance(value, str) and bool(SUBJECT.fullmatch(value))
