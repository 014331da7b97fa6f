"""What all ways of a case share: who appears, what is seen, and how the notation's words are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pdp.foundation.jsontext import definition_digest
from pdp.model import AT_EACH_CALL, Bounds, Caller, Role, Visibility
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from tests.machinery.ways.notation import Step, definition_of


def _caller(name: str, role: Role, tenant: str = "default") -> Caller:
    return Caller(id=name, kind="token", roles=frozenset({role}), tenant=tenant, authenticated_at=AT_EACH_CALL)


# Everybody who appears in a case. Sessions belong to the gateway unless the case says otherwise.
CALLERS: Mapping[str, Caller] = {
    caller.id: caller
    for caller in (
        _caller("gateway", Role.PEP),
        _caller("sidecar", Role.PEP),
        _caller("lead", Role.APPROVER),
        _caller("ada", Role.APPROVER),
        _caller("auditor", Role.AUDITOR),
        _caller("admin", Role.ADMIN),
        _caller("author", Role.AUTHOR),
        _caller("operator", Role.OPERATOR),
        _caller("deputy", Role.OPERATOR),
        _caller("night-shift", Role.OPERATOR),
        _caller("broker", Role.BROKER),
        replace(_caller("blind", Role.PEP), bounds=Bounds(tenants=frozenset({"default"}), sees_results=False)),
        _caller("foreign-gateway", Role.PEP, "elsewhere"),
        _caller("foreign-lead", Role.APPROVER, "elsewhere"),
    )
}

UNKNOWN_HANDLE = "pdps_" + "u" * 43


class RefusedError(Exception):
    """A step got no answer: `kinds` are the names of the error's classes, from the narrowest on."""

    def __init__(self, kinds: tuple[str, ...], text: str) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kinds = kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is said about a call; sessions by the name that the case gives them.

    `cache`, `debits` or `question` None: nothing is said of it.
    `obligations` are ids with their parameters as JSON, `advice` only what policies say.
    `question` is what a person is asked about the call, or was, by the name that the case gives it, and `lifted` the
    forbids that the answer lifts.
    `partly` holds attributes of the span as far as a way without spans knows them.
    """

    allowed: bool
    basis: str
    policies: tuple[str, ...]
    session: str
    ancestor: str
    ancestor_basis: str
    labels_added: tuple[str, ...] = ()
    obligations: tuple[tuple[str, str], ...] = ()
    advice: tuple[str, ...] = ()
    question: str | None = ""
    lifted: tuple[str, ...] = ()
    cache: str | None = None
    debits: Mapping[str, int | str] | None = None
    user: str | None = None
    agent: str | None = None
    partly: Mapping[str, Any] = field(default_factory=dict)


class Way(Protocol):
    """One way in which a case can run."""

    def take(self, step: Step) -> Mapping[str, Any]:
        """Take a step that is no call; return what came of it. Raise `RefusedError`."""
        ...

    def call(self, step: Step, request_id: str) -> Seen:
        """Ask about a call. Raise `RefusedError` when there is no answer."""
        ...


class ProductWay(Way, Protocol):
    """A way that leads through the product, and leaves a trace and a record."""

    remembers: bool
    serves: bool
    evidence: Evidence
    ids: dict[str, str]
    questions: dict[str, str]


class Sessions:
    """What the case's names for sessions stand for, and those for what people are asked."""

    def __init__(self) -> None:
        self.questions: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.handles: dict[str, str] = {"": ""}
        self.shown: dict[str, str] = {}

    def add(self, name: str, session_id: str, handle: str, request_digest: str) -> None:
        """Keep a session that was requested."""
        self.ids[name] = session_id
        self.handles[name] = handle
        self.shown[name] = request_digest

    def named(self, session_id: str) -> str:
        """Return the case's name for a session."""
        return next((name for name, one in self.ids.items() if one == session_id), session_id)

    def asked(self, request_id: str, step: Step) -> str:
        """Return the case's name for what a person is asked about a call; what is new gets the name in the step."""
        name = step.given.get("question", "")
        if request_id and name and request_id not in self.questions.values():
            self.questions.setdefault(name, request_id)
        return next((name for name, one in self.questions.items() if one == request_id), request_id)


def move_time(clock: FakeClock, step: Step) -> bool:
    """Move the clock if that is what the step says; say whether it was."""
    if step.verb == "advance":
        clock.advance(step.subject)
    elif step.verb == "step_wall":
        clock.step_wall(step.subject)
    elif step.verb == "reboot":
        clock.reboot()
    else:
        return False
    return True


def ends_at(clock: FakeClock, step: Step) -> float | None:
    """Return the end that a narrowing asks for, in unix seconds; the case states seconds from now."""
    seconds = step.given.get("ends_in")
    return None if seconds is None else clock.now().wall_at + float(seconds)


def stated_digest(bundle: Mapping[str, Any], step: Step) -> str:
    """Return the digest of a tool's definition as the gateway sees it: as it is listed now, changed, or not stated."""
    said = step.given.get("digest", "")
    if said == "as listed":
        server, _, tool = step.subject.partition("/")
        return definition_digest(definition_of(tool, bundle["tools"][server][tool]))
    return "sha256:" + "0" * 64 if said == "another" else ""


class Listed(Protocol):
    """One tool as a session sees it, whoever says so."""

    @property
    def server(self) -> str:
        """Return its server."""

    @property
    def tool(self) -> str:
        """Return its name."""

    @property
    def visibility(self) -> Visibility:
        """Return whether calls of it could be allowed."""


def listed(tools: Iterable[Listed]) -> Mapping[str, Any]:
    """Return the tools of a listing by their visibility; those that never can be called are all the others."""
    found: dict[str, list[str]] = {visibility.value: [] for visibility in Visibility}
    for tool in tools:
        found[tool.visibility.value].append(f"{tool.server}/{tool.tool}")
    return found


def kinds_of(error: Exception) -> tuple[str, ...]:
    """Return the names of an error's classes, from the narrowest on."""
    return tuple(kind.__name__ for kind in type(error).__mro__)
