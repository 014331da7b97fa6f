"""All that a client and a server see otherwise with the proxy between them, when every call is allowed: a closed table.

A row changes what was seen without the proxy into what must be seen with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GREETINGS = ("initialize", "server/discover")
MODERN = "io.modelcontextprotocol/protocolVersion"
# One that the session of these tests must not see.
MOST_TTL = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One line that a side got, with its value and the request that it answers, if any."""

    line: bytes
    value: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """Return the method of the request that the line answers well; empty for another line."""
        return str(self.request.get("method", "")) if "result" in self.value else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One difference for the client's side: `change` edits the value of a line for which `fits` holds."""

    what: str
    fits: Callable[[Seen], bool]
    change: Callable[[dict[str, Any], str], None]


def _announced(value: dict[str, Any], _: str) -> None:
    value["result"]["capabilities"]["tools"]["listChanged"] = True


def _filtered(value: dict[str, Any], hidden: str) -> None:
    value["result"]["tools"] = [one for one in value["result"]["tools"] if one["name"] != hidden]


def _kept_briefly(value: dict[str, Any], _: str) -> None:
    lasting = value["result"].get("ttlMs", MOST_TTL)
    value["result"] |= {"ttlMs": min(lasting, MOST_TTL), "cacheScope": "private"}


CLIENT = (
    Row(
        what="a greeting says that the list of tools can change",
        fits=lambda one: one.asked in GREETINGS and "tools" in one.value["result"]["capabilities"],
        change=_announced,
    ),
    Row(
        what="a list of tools has those that the session can see",
        fits=lambda one: one.asked == "tools/list",
        change=_filtered,
    ),
    Row(
        what="a list of tools may be kept for a moment, by this client alone",
        fits=lambda one: one.asked == "tools/list" and MODERN in one.request.get("params", {}).get("_meta", {}),
        change=_kept_briefly,
    ),
)
# What the server's side gets beside: lines whose id begins so, each a list of tools.
SERVER = "the proxy lists the tools itself before the first call of one"
OWN = "pdp-"


def seen(lines: list[bytes], sent: list[bytes]) -> list[Seen]:
    """Return what a side got, with what it had sent."""
    requests = {one["id"]: one for one in map(json.loads, sent) if "id" in one and "method" in one}
    found = []
    for line in lines:
        value = json.loads(line)
        request = requests.get(value.get("id"), {}) if "method" not in value else {}
        found.append(Seen(line=line, value=value, request=request))
    return found
