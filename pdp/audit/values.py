"""An investigator's questions and answers, as frozen values. Times are unix seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pdp.errors import InvalidRequestError

DECISION = "decision"

_JSON = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False)


class State(Enum):
    """The state of a session by the record. UNKNOWN: its beginning is not in the remaining record."""

    REQUESTED = "requested"
    ACTIVE = "active"
    DENIED = "denied"
    ENDED = "ended"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


# In doubt a session is live: one revocation too many is harmless.
LIVE_STATES = frozenset({State.REQUESTED, State.ACTIVE, State.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time: from `since_at`, before `until_at`. None leaves a side open."""

    since_at: float | None = None
    until_at: float | None = None

    @property
    def open(self) -> bool:
        """Say whether both sides are open."""
        return self.since_at is None and self.until_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Selects records. Empty fields do not filter; `outcome` is `allow` or `deny` and selects decisions.

    `delegated` counts sessions below `session_id` as well. `tenant` None means all of them. `tool` is `server/tool`,
    and `resource` an id, or its digest as recorded. `arguments` are names with values, which the record must hold of
    the arguments of a call: see `logged_values`.
    """

    session_id: str = ""
    user: str = ""
    agent: str = ""
    caller_id: str = ""
    outcome: str = ""
    kind: str = ""
    window: Window = Window()
    delegated: bool = False
    tenant: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    server: str = ""
    tool: str = ""
    resource: str = ""
    basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mark:
    """The position of a record in the one order of all segments: by time, then segment, then position in bytes.

    `at` is microseconds since 1970.
    """

    at: int
    segment: str
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One record: its position, and its line as it was written."""

    mark: Mark
    line: bytes = field(repr=False)

    def record(self) -> dict[str, Any]:
        """Return the record as an object."""
        found: dict[str, Any] = json.loads(self.line)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """A tool that was reached or tried, with the resource that its calls were mapped to.

    `resource_id` is a keyed digest where the catalogue keeps the id out of the record.
    """

    server: str
    tool: str
    resource_type: str
    resource_id: str
    allowed: int
    denied: int
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """How one session was approved. `approved_by` is a person, or the parent session's id when it was `delegated`.

    What was requested and approved is as recorded; `tools` are those that the patterns meant, empty before that.
    `attributes` and `attribute_digests` are the user's, by name, as the requester vouched for them; `terms` and
    `term_digests` are those of the session.
    """

    session_id: str
    user: str
    agent: str
    state: State
    parent_id: str = ""
    requested_by: str = ""
    requested_at: float = 0.0
    approved_by: str = ""
    approved_at: float = 0.0
    delegated: bool = False
    grants: tuple[str, ...] = ()
    expires_at: float = 0.0
    purpose: str = ""
    environment: str = ""
    labels: tuple[str, ...] = ()
    tool_patterns: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    attribute_digests: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)
    term_digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSession:
    """One live session to revoke. `matched` is False when it is listed only because a session above it is."""

    session_id: str
    user: str
    agent: str
    state: State
    matched: bool
    parent_id: str
    expires_at: float
    allowed: int
    denied: int
    last_call_at: float


SELECTOR_KINDS = ("session", "user", "agent", "pep", "approver", "tool", "server", "resource", "argument", "bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """The sessions of a plan: all given fields must match.

    `tool` (`server/tool`), `server`, `resource` (an id, or its digest as recorded), `argument` (`NAME=VALUE`, of those
    that are recorded) and `bundle` (a version) are about one call of the session, an allowed one unless `tried` counts
    denied ones too; `approver` is about its approval; `pep` about the same call, or else about any call or the request.
    The window bounds the same call or approval, and without one of those any record of the session.
    """

    session: str = ""
    user: str = ""
    agent: str = ""
    pep: str = ""
    approver: str = ""
    tool: str = ""
    server: str = ""
    resource: str = ""
    argument: str = ""
    bundle: str = ""
    window: Window = Window()
    tried: bool = False
    tenant: str | None = None

    @property
    def empty(self) -> bool:
        """Say whether no field is given, so that it would select every session."""
        return self.window.open and not any(getattr(self, kind) for kind in SELECTOR_KINDS)

    @property
    def about_calls(self) -> bool:
        """Say whether it is about one call of a session."""
        return bool(self.tool or self.server or self.resource or self.argument or self.bundle)


def argument_of(field: str, text: str) -> tuple[str, str]:
    """Read the name and the value of an argument, `NAME=VALUE`. Raise `InvalidRequestError` naming `field`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequestError(field, "an argument must have the form `NAME=VALUE`")
    return name, value


def logged_values(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a record's logged arguments as name and text, and each element of a list.

    A text is itself, anything else its JSON, such as `5`, `true` or `["a","b"]`.
    """
    arguments = record.get("arguments")
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        for one in (value, *value) if isinstance(value, list) else (value,):
            yield name, one if isinstance(one, str) else _JSON.encode(one)


def listed(facts: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list from an event's facts; older records hold a text with commas."""
    value = facts.get(name, ())
    values = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(str(one) for one in values if one)


def selector_of(texts: tuple[str, ...], *, window: Window, tried: bool = False, tenant: str | None = None) -> Selector:
    """Read selectors such as `agent:coder`; `InvalidRequestError` names a wrong one."""
    named: dict[str, str] = {}
    for text in texts:
        kind, colon, value = text.partition(":")
        if kind not in SELECTOR_KINDS or not colon or not value:
            raise InvalidRequestError(
                "selector",
                f"`{text}` must have the form `KIND:VALUE`, where the kind is one of {', '.join(SELECTOR_KINDS)}",
            )
        if kind == "tool" and "/" not in value:
            raise InvalidRequestError("selector", f"`{text}` must have the form `tool:SERVER/TOOL`")
        if kind == "argument":
            argument_of("selector", value)
        if named.setdefault(kind, value) != value:
            raise InvalidRequestError("selector", f"`{kind}` appears twice, but no session has both")
    selector = Selector(window=window, tried=tried, tenant=tenant, **named)
    if selector.empty:
        raise InvalidRequestError("selector", "name at least one, or a window; otherwise every session is selected")
    return selector
