"""Values of the API in words for people: states, times, durations, terms, risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Protocol, TypeAlias, TypeVar

from pdp.broker.v1.connection_pb2 import (
    CONNECTION_STATE_CONNECTED,
    CONNECTION_STATE_ENDING,
    CONNECTION_STATE_NEEDS_PERSON,
    END_OUTCOME_EXPIRES,
    END_OUTCOME_FAILED,
    END_OUTCOME_REVOKED,
)
from pdp.client.arguments import member_texts
from pdp.v1.caller_pb2 import Caller
from pdp.v1.reach_pb2 import ReachedTool
from pdp.v1.session_pb2 import ReviewedTool, Session

# In the order in which a person reads them: what nobody has judged comes first.
RISKS: Mapping[str, str] = {
    "": "Of unknown risk",
    "destructive": "Destructive",
    "mutating": "Changes something",
    "read_only": "Only reads",
}
COUNTED: Mapping[str, str] = {
    "": "of unknown risk",
    "destructive": "destructive",
    "mutating": "that change something",
    "read_only": "that only read",
}
# Who reads the record, and who revokes. The server decides; these only see the links.
AUDITORS, REVOKERS = frozenset({"auditor", "admin"}), frozenset({"approver", "admin"})
# Who may list the bundles that the server keeps.
BUNDLES_SEEN = AUDITORS | {"author"}
# By the numbers of `connection.proto`.
ACCOUNT_STATES: Mapping[int, str] = {
    CONNECTION_STATE_CONNECTED: "connected",
    CONNECTION_STATE_NEEDS_PERSON: "must be connected again: the provider takes its tokens no longer, or they are lost",
    CONNECTION_STATE_ENDING: "no longer used, and about to be disconnected: if it stays here, disconnect it again",
}
END_FAILED = END_OUTCOME_FAILED
END_OUTCOMES: Mapping[int, str] = {
    END_OUTCOME_REVOKED: "The provider says that the tokens count no longer. They are deleted.",
    END_OUTCOME_EXPIRES: "The provider does not say whether the tokens count. They are deleted here.",
    END_OUTCOME_FAILED: "Nothing is used any more. The provider could not be told: the broker tries again until it is.",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


Judged: TypeAlias = ReviewedTool | ReachedTool
J = TypeVar("J", ReviewedTool, ReachedTool)


class Moment(Protocol):
    """A time of the API, in unix seconds."""

    seconds: int
    nanos: int


def may(caller: Caller, roles: frozenset[str]) -> bool:
    """Say whether a person has one of some roles."""
    return not roles.isdisjoint(caller.roles)


def seconds_of(session: Session) -> float:
    """Return how long the session lives from its approval, in seconds."""
    return float(session.duration.seconds + session.duration.nanos / 1e9)


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `1 h 30 min`."""
    left = max(0, round(seconds))
    parts = []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def unix(moment: Moment) -> float:
    """Return a time in unix seconds."""
    return float(moment.seconds + moment.nanos / 1e9)


def iso(at: float) -> str:
    """Return unix seconds in ISO 8601, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def terms_of(session: Session) -> Mapping[str, str]:
    """Return the terms by name, each exactly as it is written in JSON."""
    return {name: text for name, text in member_texts(session.terms_json) if name}


def reducible(session: Session) -> Mapping[str, str]:
    """Return the terms that an approval can make smaller: targets and limits."""
    return {name: text for name, text in terms_of(session).items() if name == "targets" or name.startswith("max_")}


def attributes_of(session: Session) -> Mapping[str, str]:
    """Return the user's attributes by name, each exactly as it is written in JSON."""
    return {name: text for name, text in member_texts(session.user_attributes_json) if name}


def tool_name(tool: Judged) -> str:
    """Return a tool's name with its server."""
    return f"{tool.tool.server}/{tool.tool.tool}"


def by_risk(tools: Sequence[J]) -> Sequence[tuple[str, str, Sequence[J]]]:
    """Return risk, its words and the tools of each risk group: those that nobody has judged first, then destructive."""
    order = list(RISKS)

    def place(one: J) -> int:
        return order.index(one.tool.risk) if one.tool.risk in RISKS else 0

    ordered = sorted(tools, key=lambda one: (place(one), -one.visibility, one.tool.server, one.tool.tool))
    return [(order[at], RISKS[order[at]], tuple(group)) for at, group in groupby(ordered, key=place)]


def first_line(text: str, most: int = 160) -> str:
    """Return a text in one line, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
