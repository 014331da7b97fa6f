"""The targets of the gateway: which servers of the catalogue they are, and what their tools are called in lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from pdp.calltokens.claims import AUDIENCE
from pdp.client import CallTokenRequest, ListedTool
from pdp.client.errors import one_line
from pdp.doors.calltokens import wanted_by
from pdp.errors import ConfigurationError
from pdp.model import Visibility

# What the gateway puts between a target's name and that of a tool. It takes the first one for the end of the target's.
_BETWEEN: Final = "_"
_SHOWN: Final = 64


class Prefix(Enum):
    """When names in lists begin with that of their target: the gateway's `prefixMode`."""

    CONDITIONAL = "conditional"
    ALWAYS = "always"
    NEVER = "never"


class UnknownTargetError(Exception):
    """The gateway names no target, or one that the door has no entry for. The message is for the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Servers of the catalogue by the names of targets.

    `audiences` are those of the call tokens that the calls of a target carry. `certificate` is the `x5t#S256` of the
    one that the gateway presents to them; without it the targets take tokens from a process on their machine.
    """

    servers: Mapping[str, str]
    prefix: Prefix = Prefix.CONDITIONAL
    audiences: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""

    def call_token(self, service: str) -> CallTokenRequest | None:
        """Return the call token with which calls of a target are sent on; None for none."""
        return wanted_by(self.audiences.get(service, ""), certificate_thumbprint=self.certificate)

    def servers_of(self, services: Collection[str]) -> tuple[str, ...]:
        """Return the servers that these targets are. Raise `UnknownTargetError`."""
        if not services or len(set(services)) < len(services):
            raise UnknownTargetError("the gateway names no target, or one twice")
        if unknown := sorted(set(services) - self.servers.keys()):
            raise UnknownTargetError(f"this door has no entry for the target `{one_line(unknown[0][:_SHOWN])}`")
        return tuple(self.servers[one] for one in services)

    def listed(self, tools: Iterable[ListedTool], services: Collection[str]) -> frozenset[str]:
        """Return the names that tools which a session can see have in a list of these targets.

        Raise `UnknownTargetError`, also for targets whose tools cannot be told apart in such a list.
        """
        servers = self.servers_of(services)
        seen = [(one.server, one.tool) for one in tools if one.visibility is not Visibility.NEVER]
        if self.prefix is Prefix.NEVER or (self.prefix is Prefix.CONDITIONAL and len(services) == 1):
            return frozenset(tool for server, tool in seen if server in servers)
        if any(_BETWEEN in one for one in services):
            raise UnknownTargetError(f"the name of a target has a `{_BETWEEN}`: its tools cannot be told apart")
        pairs = [(service, tool) for service in services for server, tool in seen if server == self.servers[service]]
        return frozenset(f"{service}{_BETWEEN}{tool}" for service, tool in pairs)


def target_table(rows: Iterable[str]) -> Mapping[str, str]:
    """Return servers of the catalogue by target, from rows such as `git=git`. Case counts, and names are never split.

    Raise `ConfigurationError` for what is no such row, for a target with two entries, and for no rows.
    """
    table: dict[str, str] = {}
    for row in rows:
        target, _, server = row.partition("=")
        if not (target and server) or "=" in server:
            raise ConfigurationError(f"not a target and its server in the catalogue, such as `git=git`: `{row}`")
        if target in table:
            raise ConfigurationError(f"the target `{target}` has two entries: each is one server")
        table[target] = server
    if not table:
        raise ConfigurationError("no target has an entry, so each request would be denied: pass --target TARGET=SERVER")
    return MappingProxyType(table)


def audience_table(rows: Iterable[str], servers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the audiences of call tokens by target, from rows such as `git=https://git.example.org`.

    Raise `ConfigurationError` for what is no such row, and for a target that is unknown or has two.
    """
    table: dict[str, str] = {}
    for row in rows:
        target, _, audience = row.partition("=")
        if not AUDIENCE.fullmatch(audience):
            raise ConfigurationError(f"not a target and an audience, such as `git=https://git.example.org`: `{row}`")
        if target not in servers or target in table:
            raise ConfigurationError(f"the target `{target}` has no entry, or two audiences")
        table[target] = audience
    return MappingProxyType(table)
