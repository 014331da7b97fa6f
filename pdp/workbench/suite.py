"""The model of policy tests: suites, sessions, calls, cases and their expectations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pdp.model import Basis, Obligation, Outcome, SessionState
from pdp.policy.directory import Directory
from pdp.policy.schema import APPROVE_CALL, APPROVE_SESSION, DELEGATE_SESSION, REQUEST_SESSION


class Step(Enum):
    """A step in the life of a session that the policies decide about; the value is its action.

    APPROVE_CALL is about a call in it.
    """

    REQUEST = REQUEST_SESSION
    APPROVE = APPROVE_SESSION
    DELEGATE = DELEGATE_SESSION
    APPROVE_CALL = APPROVE_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSession:
    """A session that cases use: its user and agent, its purpose, and the state that a case needs.

    `duration` is seconds, None for the bundle's default. `attributes` is what the gateway vouches for about the
    user. `approver` decides about it and `gateway` requests it and makes its calls.
    """

    name: str
    line: int
    user: str
    agent: str
    tools: tuple[str, ...]
    purpose: str
    state: SessionState = SessionState.ACTIVE
    parent: str = ""
    grants: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    environment: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    terms_json: bytes = field(default=b"", repr=False)
    duration: float | None = None
    may_delegate: bool = False
    approver: str = "approver"
    gateway: str = "gateway"
    authenticated_ago: float | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCall:
    """A call that cases make. `definition_digest` is None for the tool's definition in the catalogue."""

    name: str
    line: int
    server: str
    tool: str
    arguments_json: bytes = field(default=b"", repr=False)
    facts_json: bytes = field(default=b"", repr=False)
    definition_digest: str | None = None

    @property
    def action(self) -> str:
        """Return the action's id, `server/tool`."""
        return f"{self.server}/{self.tool}"


@dataclass(frozen=True, slots=True)
class ExpectedObligation:
    """An obligation that a case expects; without `parameters_json` any parameters fit."""

    id: str
    parameters_json: str = ""

    def fits(self, obligation: Obligation) -> bool:
        """Return whether an obligation is the expected one."""
        return self.id == obligation.id and self.parameters_json in ("", obligation.parameters_json)

    def __str__(self) -> str:
        return f"{self.id} {self.parameters_json}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The expected decision of a case; None is not checked. Policies and errors are sorted ids.

    `obligations` are all that an allow must have: an id for any parameters, or with its parameters as JSON.
    """

    outcome: Outcome | None = None
    basis: Basis | None = None
    policies: tuple[str, ...] | None = None
    errors: tuple[str, ...] | None = None
    obligations: tuple[ExpectedObligation, ...] | None = None

    def __str__(self) -> str:
        words = [one.value for one in (self.outcome, self.basis) if one]
        words += [f"{what} [{', '.join(ids)}]" for what, ids in self._lists() if ids is not None]
        return " ".join(words)

    def _lists(self) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
        obligations = None if self.obligations is None else tuple(map(str, self.obligations))
        return ("policies", self.policies), ("errors", self.errors), ("obligations", obligations)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCall:
    """A call that the session has made before that of a case: its name, and what its gateway reports of it.

    With `labels`, `failed` or `result_json`, what the tool returned, there is a report.
    """

    call: str
    labels: tuple[str, ...] = ()
    failed: bool = False
    result_json: str = field(default="", repr=False)

    @property
    def reported(self) -> bool:
        """Say whether there is a report."""
        return bool(self.labels or self.failed or self.result_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One decision and its expectation: a call in a session, or a step of a session.

    A table is expanded: each of its cells is a separate case, which `name` identifies. `line` is the line of the
    expectation, `now` is unix seconds. One of `call` (a name) and `step` is given, and with Step.APPROVE_CALL both.
    `after` are the calls that the session makes before, in order, and `approvals` the calls that a person approves each
    time one is asked; with Step.APPROVE_CALL, calls of `after`. `by` is the user who approves a call, empty for the
    session's approver.
    """

    file: str
    line: int
    name: str
    now: float
    session: str
    call: str = ""
    after: tuple[EarlierCall, ...] = ()
    approvals: tuple[str, ...] = ()
    step: Step | None = None
    by: str = ""
    expect: Expectation

    @property
    def id(self) -> str:
        """Return the unique id of the case: its file and its name."""
        return f"{self.file}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One test file. `directory` holds the users, agents and entities that override the bundle's."""

    file: str
    name: str
    directory: Directory
    sessions: Mapping[str, NamedSession]
    calls: Mapping[str, NamedCall]
    cases: tuple[Case, ...]
