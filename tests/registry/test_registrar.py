"""How sessions come to be and change: rules that no policy lifts, and what policies decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.clock import utc_text
from pdp.errors import (
    BundleUnavailableError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PDPError,
    PermissionDeniedError,
    StoreUnavailableError,
    UnknownRevisionError,
    WrongStateError,
)
from pdp.limits import DEFAULT_LIMITS
from pdp.model import AT_EACH_CALL, Bounds, Call, Caller, CallRequest, Role, Session, SessionState
from pdp.registry.words import Selector, SessionRequest, SessionView
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
OTHER_PEP = replace(PEP, id="other-pep")
APPROVER = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
FOREIGN = replace(APPROVER, id="foreign", tenant="elsewhere")

WANTED = SessionRequest(user="alice", agent="worker", purpose="Work", tool_patterns=("files/*",))
DIRECTORY = """
users: {alice: {}, bob: {}}
agents:
  worker: {ceiling: ["files/*"]}
  reader: {ceiling: ["files/read"]}
"""
SESSIONS = (
    OPEN_SESSIONS
    + """
@id("sessions/readers")
permit (principal, action == Action::"pdp/approve_session", resource) when { context.grants.contains(Grant::"read") };
@id("sessions/merge-needs-purpose")
forbid (principal, action == Action::"pdp/approve_session", resource)
when { context.grants.contains(Grant::"merge") && resource.purpose != "Merge" };
@id("sessions/no-delegated-writes")
forbid (principal, action == Action::"pdp/delegate_session", resource)
when { context.risks.contains("mutating") };
"""
)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Yield what keeps the record."""
    evidence = Evidence(tmp_path_factory.mktemp("record"))
    yield evidence
    evidence.close()


@pytest.fixture
def pdp(tmp_path: Path, clock: FakeClock, evidence: Evidence) -> Embedded:
    """Return a PDP with a reading and a writing tool."""
    files = bundle_files(
        policies={"files": '@id("files/all") permit (principal, action, resource is Server);'},
        tools={"files": [tool("read"), tool("write"), tool("wipe")]},
        overlays={"files": "tools: {read: {risk: read_only}, write: {risk: mutating}}"},
        directory=DIRECTORY,
        sessions=SESSIONS,
        labels=("seen",),
    )
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return open_embedded(
        tmp_path,
        clock=clock,
        observer=evidence,
        compile_files=compile_once_here,
        trusted_attributes=frozenset({"team"}),
    )


def approved(pdp: Embedded, wanted: SessionRequest = WANTED) -> tuple[str, str]:
    """Return the id and handle of an approved session."""
    view, handle = pdp.registrar.request(wanted, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    return view.session.id, handle


def shown(pdp: Embedded, session_id: str, *grants: str) -> str:
    """Return the digest of what an approver who considers these grants is shown."""
    return pdp.registrar.proposal(session_id, grants=grants, caller=APPROVER).request_digest


def basis(pdp: Embedded, handle: str, name: str = "read") -> str:
    """Return what a call's decision rests on."""
    return pdp.authorizer.authorize(
        CallRequest(call=Call(session_handle=handle, server="files", tool=name)), PEP
    ).ruling.basis.value


def test_what_is_parsed_for_a_step_of_a_session_is_not_kept(pdp: Embedded) -> None:
    """A gateway that goes on requesting sessions pushes out nothing that calls need; calls of a session keep theirs."""
    memory = pdp.keeper._bundles._memory
    kept = [len(memory.of_actions._values)]
    _, handle = approved(pdp)
    kept.append(len(memory.of_actions._values) + len(memory.of_sessions._values))
    assert "permit" == basis(pdp, handle)

    assert [0, 0, 1, 1] == [*kept, len(memory.of_actions._values), len(memory.of_sessions._values)]


def test_approval_is_bound_to_what_was_shown(pdp: Embedded) -> None:
    """An approver who saw something else approves nothing."""
    view, handle = pdp.registrar.request(WANTED, PEP)

    with pytest.raises(WrongStateError, match="request digest does not match"):
        pdp.registrar.approve(view.session.id, request_digest="sha256:" + "0" * 64, grants=(), caller=APPROVER)

    assert "session_not_approved" == basis(pdp, handle)


@pytest.mark.parametrize("name", ["pep", "reader", "worker"])
def test_neither_who_asks_nor_an_agent_approves(pdp: Embedded, name: str) -> None:
    """The caller that asks, the session's agent and those above it: even as an approver whom policies permit."""
    _, handle = approved(pdp)
    wanted = replace(WANTED, agent="reader", tool_patterns=("files/read",), parent_session_handle=handle)
    view, _ = pdp.registrar.request(wanted, PEP)
    approve = partial(pdp.registrar.approve, view.session.id, request_digest=view.request_digest, grants=())

    with pytest.raises(PermissionDeniedError) as refused:
        approve(caller=replace(APPROVER, id=name))

    assert "a session is approved by a person, not by the caller or agent that asks for it" == str(refused.value)
    assert SessionState.ACTIVE is approve(caller=APPROVER).state


def test_a_session_that_would_have_too_many_tools_now_is_not_approved(pdp: Embedded) -> None:
    """The approver asked for nothing wrong: no field of the approval is invalid, but the session's state is."""
    view, handle = pdp.registrar.request(WANTED, PEP)
    pdp.registrar._limits = replace(DEFAULT_LIMITS, session_tools=2)  # the same registrar under other limits

    with pytest.raises(WrongStateError, match=r"now match 3 tools, more than 2 \(limit `session_tools`\)"):
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)

    assert "session_not_approved" == basis(pdp, handle)


@pytest.mark.parametrize("roles", [{Role.PEP}, {Role.PEP, Role.APPROVER}, {Role.ADMIN}, {Role.ADMIN, Role.APPROVER}])
def test_gateways_and_admins_decide_about_no_session(pdp: Embedded, roles: set[Role]) -> None:
    """Whoever asks for calls, or runs the server, approves and refuses no session, whatever other roles it has."""
    view, handle = pdp.registrar.request(WANTED, PEP)
    caller = replace(APPROVER, roles=frozenset(roles))

    with pytest.raises(PermissionDeniedError):
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=caller)
    with pytest.raises(PermissionDeniedError):
        pdp.registrar.deny(view.session.id, reason="", caller=caller)

    assert "session_not_approved" == basis(pdp, handle)


# (seconds since the approver authenticated, None for one of whom nobody knows; tools; what a call rests on then)
PRESENCE = [
    (0.0, "files/*", "permit"),
    (-30.0, "files/*", "permit"),
    (300.0, "files/*", "permit"),
    (301.0, "files/*", "session_not_approved"),
    (None, "files/*", "session_not_approved"),
    (301.0, "files/write", "permit"),
    (None, "files/write", "permit"),
]


@pytest.mark.parametrize(("seconds", "tools", "expected"), PRESENCE)
def test_who_approves_what_cannot_be_undone_is_there(
    pdp: Embedded, clock: FakeClock, seconds: float | None, tools: str, expected: str
) -> None:  # fmt: skip
    """With a destructive tool in scope the approver has authenticated in the last five minutes; no policy lifts it."""
    view, handle = pdp.registrar.request(replace(WANTED, tool_patterns=(tools,)), PEP)
    at = 0.0 if seconds is None else clock.now().wall_at - seconds
    caller = replace(APPROVER, authenticated_at=at)

    refused = nullcontext() if expected == "permit" else pytest.raises(PermissionDeniedError, match="`wipe` is destr")
    with refused:
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=caller)

    assert expected == basis(pdp, handle, "write")


def test_policies_decide_about_grants(pdp: Embedded) -> None:
    """A grant that the policies refuse is not given, and the session waits on."""
    view, _ = pdp.registrar.request(WANTED, PEP)

    digest = shown(pdp, view.session.id, "merge")
    with pytest.raises(PermissionDeniedError, match="sessions/merge-needs-purpose"):
        pdp.registrar.approve(view.session.id, request_digest=digest, grants=("merge",), caller=APPROVER)

    assert SessionState.REQUESTED is pdp.registrar.get(view.session.id, caller=APPROVER).state


def answers(evidence: Evidence) -> list[tuple[str, str, str, str]]:
    """Return what the policies said about sessions, as it was recorded: to what, with which outcome, by which."""
    recorded = [record["facts"] for record in evidence.records if record["kind"] == "session.decided"]
    return [(one["action"], one["outcome"], one["basis"], " ".join(one.get("policies", ()))) for one in recorded]


def test_every_answer_of_the_policies_is_recorded(pdp: Embedded, evidence: Evidence) -> None:
    """Requests, approvals and delegations are decisions: allowed or denied, the record names the policies."""
    view, _ = pdp.registrar.request(WANTED, PEP)
    digest = shown(pdp, view.session.id, "merge")
    with pytest.raises(PermissionDeniedError):
        pdp.registrar.approve(view.session.id, request_digest=digest, grants=("merge",), caller=APPROVER)
    _, handle = approved(pdp, replace(WANTED, may_delegate=True))
    pdp.registrar.request(replace(WANTED, parent_session_handle=handle), PEP)

    request, approve, delegate = (f"pdp/{verb}_session" for verb in ("request", "approve", "delegate"))
    permitted = ("allow", "permit", "sessions/all")
    assert [
        (request, *permitted),
        (approve, "deny", "forbid", "sessions/merge-needs-purpose"),
        (request, *permitted),
        (approve, *permitted),
        (request, *permitted),
        (delegate, "deny", "forbid", "sessions/no-delegated-writes"),
    ] == answers(evidence)


def test_a_recorded_answer_says_who_asked_whom_about_what(pdp: Embedded, evidence: Evidence) -> None:
    """The record of an approval has the session, the principal, what was given, the bundle, and an id of its own."""
    view, _ = pdp.registrar.request(WANTED, PEP)
    digest, trace = shown(pdp, view.session.id, "read"), {"tracelink": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    pdp.registrar.approve(view.session.id, request_digest=digest, grants=("read",), caller=APPROVER, trace=trace)

    record = [record for record in evidence.records if record["kind"] == "session.decided"][-1]
    assert ("approver", view.session.id, "alice", "worker", "default") == tuple(
        record[name] for name in ("caller_id", "session_id", "user", "agent", "tenant")
    )
    decision_id = record["facts"].pop("decision_id")
    assert decision_id.startswith("dec_")
    assert record["facts"] == {
        "action": "pdp/approve_session",
        "basis": "permit",
        "bundle_version": pdp.keeper.current().version,
        "duration": "3600",
        "grants": ["read"],
        "opened_by": "pep",
        "outcome": "allow",
        "policies": ["sessions/all", "sessions/readers"],
        "principal": "approver",
        "purpose": "Work",
        "tool_patterns": ["files/*"],
        "tools": ["files/read", "files/wipe", "files/write"],
        **trace,
    }


def test_a_grant_that_nobody_asks_for_is_refused(pdp: Embedded, evidence: Evidence) -> None:
    """A misspelt grant is no approval with less than was meant, and what was meant is named."""
    view, _ = pdp.registrar.request(WANTED, PEP)

    with pytest.raises(InvalidRequestError, match=r"`grants\[1\]`: no policy asks for `raed`; did you mean `read`\?"):
        pdp.registrar.approve(
            view.session.id, request_digest=view.request_digest, grants=("merge", "raed"), caller=APPROVER
        )

    assert pdp.registrar.get(view.session.id, caller=APPROVER).state is SessionState.REQUESTED
    assert ["pdp/request_session"] == [
        one["facts"]["action"] for one in evidence.records if one["kind"] == "session.decided"
    ]


def test_a_refused_request_is_recorded_without_a_session(
    tmp_path: Path, clock: FakeClock, evidence: Evidence
) -> None:  # fmt: skip
    """What the policies refuse leaves no session, and the record of it who wanted one for whom."""
    files = bundle_files(policies={}, tools={"files": [tool("read")]}, directory=DIRECTORY, sessions="")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    strict = open_embedded(tmp_path, clock=clock, observer=evidence, compile_files=compile_once_here)

    with pytest.raises(PermissionDeniedError, match="default_deny"):
        strict.registrar.request(WANTED, PEP)

    (record,) = [record for record in evidence.records if record["kind"] == "session.decided"]
    assert ("", "alice", "worker", "pep") == tuple(
        record[name] for name in ("session_id", "user", "agent", "caller_id")
    )
    assert [("pdp/request_session", "deny", "default_deny", "")] == answers(evidence)


# (seconds since the approver authenticated, None for one of whom nobody knows; whether the policies permit)
AGES = [(0.0, True), (60.0, True), (60.9, True), (61.0, False), (None, False)]


@pytest.mark.parametrize(("seconds", "permitted"), AGES)
def test_policies_see_when_the_approver_authenticated(
    tmp_path: Path, clock: FakeClock, seconds: float | None, *, permitted: bool
) -> None:  # fmt: skip
    """`context.authenticated_ago` is whole seconds, and absent where nobody knows."""
    strict = (
        SESSIONS
        + """
@id("sessions/presence")
forbid (principal, action == Action::"pdp/approve_session", resource)
unless { context has authenticated_ago && context.authenticated_ago <= 60 };
"""
    )
    files = bundle_files(
        policies={},
        tools={"files": [tool("read")]},
        overlays={"files": "risk: read_only"},
        directory=DIRECTORY,
        sessions=strict,
    )
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    registrar = open_embedded(tmp_path, clock=clock, compile_files=compile_once_here).registrar
    view, _ = registrar.request(WANTED, PEP)
    caller = replace(APPROVER, authenticated_at=0.0 if seconds is None else clock.now().wall_at - seconds)

    with nullcontext() if permitted else pytest.raises(PermissionDeniedError, match="sessions/presence"):
        registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=caller)


# (what is changed in the request, the field that the refusal names)
REFUSED = [
    ({"user": "nobody"}, "user"),
    ({"agent": "nobody"}, "agent"),
    ({"tool_patterns": ()}, "tool_patterns"),
    ({"tool_patterns": ("*",)}, "tool_patterns[0]"),
    ({"tool_patterns": ("*/read",)}, "tool_patterns[0]"),
    ({"tool_patterns": ("files/read", "files/nothing")}, "tool_patterns[1]"),
    ({"tool_patterns": ("files/write",), "agent": "reader"}, "tool_patterns[0]"),
    ({"tool_patterns": ("files/read",) * 65}, "tool_patterns"),
    ({"duration": 8 * 3600 + 1.0}, "duration"),
    ({"duration": 0.0}, "duration"),
    ({"user_attributes_json": b'{"level": 1}'}, "user_attributes_json"),
    ({"user_attributes_json": b'{"team": 5}'}, "user_attributes_json"),
    ({"user_attributes_json": b"{"}, "user_attributes_json"),
    ({"user_attributes_json": b'{"team": {"__entity": 1}}'}, "user_attributes_json"),
]


@pytest.mark.parametrize(("changes", "field"), REFUSED)
def test_refused_request_names_the_field(pdp: Embedded, changes: dict[str, object], field: str) -> None:
    """A request that cannot be is refused with the field to mend."""
    with pytest.raises(InvalidRequestError) as caught:
        pdp.registrar.request(replace(WANTED, **changes), PEP)  # type: ignore[arg-type]  # a table of single changes

    assert field == caught.value.attribute


def test_scope_is_what_the_agent_may_have(pdp: Embedded) -> None:
    """Patterns mean the tools within the agent's ceiling, and the approver sees these."""
    view, _ = pdp.registrar.request(replace(WANTED, agent="reader"), PEP)

    assert ["read"] == [one.tool for one in view.tools]


def test_delegation_without_a_person_needs_every_condition(pdp: Embedded) -> None:
    """A child is active at once only when the parent may delegate, the user is the same and policies permit."""
    plain, plain_handle = approved(pdp)
    _, handle = approved(pdp, replace(WANTED, may_delegate=True))
    reading = replace(WANTED, agent="reader", parent_session_handle=handle)

    def state(wanted: SessionRequest) -> SessionState:
        return pdp.registrar.request(wanted, PEP)[0].state

    assert SessionState.ACTIVE is state(reading)
    assert SessionState.REQUESTED is state(replace(reading, parent_session_handle=plain_handle))
    assert SessionState.REQUESTED is state(replace(reading, user="bob"))
    assert SessionState.REQUESTED is state(replace(reading, agent="worker"))  # a policy: no delegated writes
    assert plain


def test_what_is_over_by_the_boot_clock_alone_is_ended_for_good(pdp: Embedded, clock: FakeClock) -> None:
    """After a reboot only the wall clock can tell, and that was set back: whoever ended it counts on that."""
    session_id, handle = approved(pdp)
    clock.step_wall(-5)
    clock.advance(pdp.registrar.get(session_id, caller=PEP).session.duration)
    assert SessionState.EXPIRED is pdp.registrar.get(session_id, caller=PEP).state
    assert SessionState.ENDED is pdp.registrar.end(handle, caller=PEP).state
    clock.reboot()

    assert "session_ended" == basis(pdp, handle)


@pytest.mark.parametrize("users", [{"alice"}, {"bob"}])
def test_a_gateway_whose_bounds_have_shrunk_ends_what_it_has_opened(pdp: Embedded, users: set[str]) -> None:
    """It may ask about no call of the session any more; what it holds can still be ended, by it alone."""
    session_id, handle = approved(pdp)
    bounded = replace(PEP, bounds=Bounds(tenants=frozenset({"default"}), users=frozenset(users)))
    with pytest.raises(NotFoundError):
        pdp.registrar.end(handle, caller=replace(bounded, id="other-pep"))

    assert SessionState.ENDED is pdp.registrar.end(handle, caller=bounded).state
    assert SessionState.ENDED is pdp.registrar.again(session_id, caller=bounded).state


def test_what_is_over_by_the_boot_clock_alone_can_be_narrowed(pdp: Embedded, clock: FakeClock) -> None:
    """It may come back after a reboot, and then with no more than was left to it."""
    session_id, handle = approved(pdp)
    clock.step_wall(-5)
    clock.advance(pdp.registrar.get(session_id, caller=PEP).session.duration)
    narrow = partial(pdp.registrar.narrow, tool_patterns=("files/write",), expires_at=None, labels=(), caller=PEP)
    assert SessionState.EXPIRED is narrow(session_id).state
    clock.reboot()

    assert "out_of_scope" == basis(pdp, handle)


def test_what_nobody_answered_by_the_boot_clock_alone_is_denied_for_good(pdp: Embedded, clock: FakeClock) -> None:
    """It would wait again after a reboot, and another could approve it."""
    view, _ = pdp.registrar.request(WANTED, PEP)
    clock.step_wall(-5)
    clock.advance(view.session.deadline.wall_at - view.session.requested_at)
    assert SessionState.EXPIRED is pdp.registrar.get(view.session.id, caller=PEP).state
    pdp.registrar.deny(view.session.id, reason="", caller=APPROVER)
    clock.reboot()

    assert SessionState.DENIED is pdp.registrar.get(view.session.id, caller=PEP).state


def test_child_never_outlives_or_outreaches_its_parent(pdp: Embedded, clock: FakeClock) -> None:
    """A child's end and tools are within its parent's, also when the parent is narrowed later."""
    parent, handle = approved(pdp, replace(WANTED, may_delegate=True, duration=600.0))
    child, child_handle = pdp.registrar.request(
        replace(WANTED, agent="reader", parent_session_handle=handle, duration=3600.0), PEP
    )

    assert child.session.deadline.wall_at == pdp.registrar.get(parent, caller=PEP).session.deadline.wall_at
    pdp.registrar.narrow(parent, tool_patterns=("files/write",), expires_at=None, labels=(), caller=PEP)
    assert "ancestor_denied" == basis(pdp, child_handle)
    clock.advance(600)
    assert "session_expired" == basis(pdp, child_handle)


def test_depth_of_delegation_is_bounded(pdp: Embedded) -> None:
    """A fourth session above is one too many."""
    _, handle = approved(pdp, replace(WANTED, may_delegate=True))
    for _ in range(3):
        wanted = replace(WANTED, agent="reader", parent_session_handle=handle, may_delegate=True)
        _, handle = pdp.registrar.request(wanted, PEP)

    with pytest.raises(InvalidRequestError, match="delegation_depth"):
        pdp.registrar.request(replace(WANTED, agent="reader", parent_session_handle=handle), PEP)


def test_end_and_revocation_take_everything_below(pdp: Embedded) -> None:
    """Whoever ends a session ends what it delegated; nobody has to clean up."""
    parent, handle = approved(pdp, replace(WANTED, may_delegate=True))
    child, child_handle = pdp.registrar.request(replace(WANTED, agent="reader", parent_session_handle=handle), PEP)

    revoked = pdp.registrar.revoke(Selector(kind="session", value=parent), reason="test", caller=APPROVER)

    assert sorted([parent, child.session.id]) == list(revoked)
    assert ["session_revoked", "session_revoked"] == [basis(pdp, handle), basis(pdp, child_handle)]


@pytest.mark.parametrize("kind", ["session", "user", "agent", "tenant"])
def test_a_revocation_is_recorded_before_it_waits_for_others(pdp: Embedded, evidence: Evidence, kind: Any) -> None:
    """The wait can take seconds, and the server be killed in it; nobody would make the event up for it."""
    session_id, _ = approved(pdp)
    recorded: list[bool] = []

    @contextmanager
    def fencing(_: object) -> Iterator[None]:
        yield
        found = [(one["kind"], one.get("session_id")) for one in evidence.records]
        recorded.append(("session.revoked", session_id) in found)

    selected = {"session": session_id, "user": WANTED.user, "agent": WANTED.agent, "tenant": "default"}[kind]
    with patch.object(pdp.sessions, "fencing", fencing):
        pdp.registrar.revoke(Selector(kind=kind, value=selected), reason="x", caller=APPROVER)

    assert [True] == recorded


def test_what_ends_authority_needs_no_bundle(pdp: Embedded) -> None:
    """A server that has not loaded the active one, or cannot, allows nothing; its gateways can still end sessions."""
    waiting = pdp.registrar.request(WANTED, PEP)[0].session.id
    ending, handle = approved(pdp)
    with patch.object(pdp.registrar, "_bundle", side_effect=BundleUnavailableError("no bundle")):
        denied = pdp.registrar.deny(waiting, reason="No", caller=APPROVER)
        narrowed = [narrow(pdp, ending), pdp.registrar.again(ending, caller=APPROVER)]
        with pytest.raises(BundleUnavailableError):
            narrow(pdp, ending, labels=("seen",))
        ended = pdp.registrar.end(handle, caller=PEP)
        again = pdp.registrar.again(ending, caller=PEP)

    assert [(waiting, SessionState.DENIED, ())] == [(denied.session.id, denied.state, denied.tools)]
    assert [["files/read"]] * 2 == [[one.action for one in view.tools] for view in narrowed]
    assert [(ending, SessionState.ENDED, ())] * 2 == [(one.session.id, one.state, one.tools) for one in (ended, again)]


@pytest.mark.parametrize("kind", ["session", "user", "agent", "tenant"])
def test_a_preview_names_what_a_revocation_revokes(pdp: Embedded, evidence: Evidence, kind: Any) -> None:
    """The same selector reaches the same sessions, those below them too; before, nothing is changed or recorded."""
    parent, handle = approved(pdp, replace(WANTED, may_delegate=True))
    pdp.registrar.request(replace(WANTED, agent="reader", user="bob", parent_session_handle=handle), PEP)
    pdp.registrar.end(approved(pdp)[1], caller=PEP)
    pdp.registrar.request(replace(WANTED, user="bob"), PEP)
    value = {"session": parent, "user": "alice", "agent": "worker", "tenant": "default"}[kind]
    selector = Selector(kind=kind, value=value)
    before = pdp.sessions.head(), len(evidence.records)

    found = pdp.registrar.revocable(selector, caller=APPROVER)
    after = pdp.sessions.head(), len(evidence.records)
    revoked = pdp.registrar.revoke(selector, reason="test", caller=APPROVER)

    assert before == after
    assert (len(revoked), list(revoked)) == (found.count, sorted(view.session.id for view in found.newest))
    assert pdp.registrar.revocable(selector, caller=APPROVER).count == 0


def test_a_preview_has_the_authority_of_a_revocation(pdp: Embedded) -> None:
    """What a caller cannot revoke, it cannot count either."""
    session_id, _ = approved(pdp)

    assert 0 == pdp.registrar.revocable(Selector(kind="user", value="alice"), caller=FOREIGN).count
    with pytest.raises(NotFoundError):
        pdp.registrar.revocable(Selector(kind="session", value=session_id), caller=FOREIGN)
    with pytest.raises(PermissionDeniedError):
        pdp.registrar.revocable(Selector(kind="tenant", value="default"), caller=FOREIGN)


@pytest.mark.parametrize("caller", [FOREIGN, OTHER_PEP])
def test_foreign_sessions_look_unknown(pdp: Embedded, caller: Caller) -> None:
    """Another tenant's session, and another gateway's, cannot be told from one that does not exist."""
    session_id, _ = approved(pdp)

    def refusal(wanted: str) -> str:
        with pytest.raises(NotFoundError) as caught:
            pdp.registrar.get(wanted, caller=caller)
        return str(caught.value)

    assert refusal("ses_" + "a" * 26) == refusal(session_id)


def test_foreign_tenant_is_not_revoked(pdp: Embedded) -> None:
    """Selectors reach the caller's own tenant only."""
    _, handle = approved(pdp)

    assert () == pdp.registrar.revoke(Selector(kind="user", value="alice"), reason="test", caller=FOREIGN)
    with pytest.raises(PermissionDeniedError):
        pdp.registrar.revoke(Selector(kind="tenant", value="default"), reason="test", caller=FOREIGN)
    assert "permit" == basis(pdp, handle)


def test_narrowing_never_widens(pdp: Embedded, clock: FakeClock) -> None:
    """Tools go, labels come, the end comes nearer; what is asked beyond changes nothing."""
    session_id, handle = approved(pdp)
    before = pdp.registrar.get(session_id, caller=PEP).session

    later = clock.now().wall_at + 9 * 3600
    view = pdp.registrar.narrow(
        session_id, tool_patterns=("files/read",), expires_at=later, labels=("seen",), caller=APPROVER
    )

    assert (["read"], ("seen",), before.deadline) == (
        [one.tool for one in view.tools],
        view.session.labels,
        view.session.deadline,
    )
    assert ["permit", "out_of_scope"] == [basis(pdp, handle), basis(pdp, handle, "write")]


def narrow(pdp: Embedded, session_id: str, labels: tuple[str, ...] = ()) -> SessionView:
    """Narrow a session to one tool."""
    return pdp.registrar.narrow(
        session_id, tool_patterns=("files/read",), expires_at=None, labels=labels, caller=APPROVER
    )


def test_a_session_is_shown_as_it_is_after_a_change(pdp: Embedded) -> None:
    """Who has heard of the change gets no earlier state, and no answer from a store that does not have it."""
    session_id, _ = approved(pdp)
    known = pdp.sessions.head()

    assert session_id == pdp.registrar.get(session_id, caller=PEP, least=known).session.id
    with pytest.raises(UnknownRevisionError):
        pdp.registrar.get(session_id, caller=PEP, least=replace(known, revision=known.revision + 1))


def test_what_is_found_done_is_answered_when_all_know_it(pdp: Embedded) -> None:
    """Another may have done it who has no answer yet: narrowed, ended or denied; or ended what is to be narrowed."""
    (narrowed, _), (over, ended) = approved(pdp), approved(pdp)
    denied = pdp.registrar.request(WANTED, PEP)[0].session.id
    narrow(pdp, narrowed)
    pdp.registrar.end(ended, caller=PEP)
    deny = partial(pdp.registrar.deny, denied, reason="No", caller=APPROVER)
    deny()
    again = [partial(narrow, pdp, narrowed), partial(narrow, pdp, over), partial(pdp.registrar.end, ended, caller=PEP)]
    unknown = StoreUnavailableError("a server may not know it")
    with (
        patch.object(pdp.sessions, "outwait", side_effect=unknown),
        patch.object(pdp.sessions, "change_tree", side_effect=unknown),
    ):
        for one in (*again, deny):
            with pytest.raises(StoreUnavailableError, match="a server may not know it"):
                one()


def test_list_pages_and_knows_expiry(pdp: Embedded, clock: FakeClock) -> None:
    """Pages join without gap or overlap, and expired sessions are found by their state now."""
    made = []
    for number in range(7):
        clock.advance(1)
        view, _ = pdp.registrar.request(replace(WANTED, duration=60.0 if number % 2 else 3600.0), PEP)
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
        made.append(view.session.id)
    clock.advance(100)

    def listed(state: SessionState | None) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            views, token = pdp.registrar.list(
                state=state, user="", agent="", page_size=2, page_token=token, caller=APPROVER
            )
            found += [view.session.id for view in views]
            if not token:
                return found

    assert made[::-1] == listed(None)
    assert made[1::2][::-1] == listed(SessionState.EXPIRED)
    assert made[0::2][::-1] == listed(SessionState.ACTIVE)


def test_summaries_are_the_same_list_without_details(pdp: Embedded, clock: FakeClock) -> None:
    """Order, pages, states and filters are those of the whole list; only what takes long to make is left out."""
    for user in ("alice", "bob", "alice"):
        approved(pdp, replace(WANTED, user=user))
        clock.advance(1)
    pdp.registrar.request(WANTED, PEP)

    def pages(*, summaries: bool, **which: Any) -> list[tuple[str, SessionState]]:
        found: list[SessionView] = []
        token = ""
        while page := pdp.registrar.list(
            **{"state": None, "user": "", "agent": "", **which},
            summaries=summaries,
            page_size=2,
            page_token=token,
            caller=APPROVER,
        ):
            found += page[0]
            token = page[1]
            if not token:
                break
        assert all(bool(view.tools) is not summaries for view in found)
        return [(view.session.id, view.state) for view in found]

    whole = pages(summaries=False)
    assert 4 == len(whole)
    assert whole == pages(summaries=True) == pages(summaries=True, tenant="default")
    assert pages(summaries=False, user="alice") == pages(summaries=True, user="alice")
    assert [] == pages(summaries=True, tenant="elsewhere")


def test_terminal_states_absorb(pdp: Embedded) -> None:
    """What is over stays over: nothing ends, revokes, narrows or approves it again."""
    session_id, handle = approved(pdp)
    pdp.registrar.end(handle, caller=PEP)
    tries: list[Callable[[], object]] = [
        lambda: pdp.registrar.end(handle, caller=PEP),
        lambda: pdp.registrar.deny(session_id, reason="", caller=APPROVER),
        lambda: pdp.registrar.narrow(session_id, tool_patterns=(), expires_at=None, labels=("seen",), caller=PEP),
        lambda: pdp.registrar.approve(session_id, request_digest="", grants=(), caller=APPROVER),
    ]

    for attempt in tries:
        with pytest.raises(PDPError):
            attempt()
    assert () == pdp.registrar.revoke(Selector(kind="session", value=session_id), reason="x", caller=APPROVER)
    assert SessionState.ENDED is pdp.registrar.get(session_id, caller=PEP).state


def test_the_record_says_when_a_session_is_over(pdp: Embedded, evidence: Evidence) -> None:
    """Request, approval and narrowing are recorded with the end that they set, and with what may be reached."""
    session_id, _ = approved(pdp)
    pdp.registrar.narrow(
        session_id, tool_patterns=("files/read",), expires_at=1_767_225_700.0, labels=(), caller=APPROVER
    )

    facts = [
        record["facts"]
        for record in evidence.records
        if record["session_id"] == session_id and "action" not in record["facts"]
    ]
    assert ["2026-01-01T01:00:00.000000Z"] * 2 + ["2026-01-01T00:01:40.000000Z"] == [one["expires_at"] for one in facts]
    assert ["files/*"] == facts[0]["tool_patterns"]
    assert 3 == len({one.get("scope_id") for one in facts})


@pytest.mark.usefixtures("pdp")
def test_a_gateway_has_only_so_many_live_sessions(tmp_path: Path) -> None:
    """Those that wait and those that are active count, of this gateway alone; one that is over makes room."""
    few = open_embedded(tmp_path, compile_files=compile_once_here, limits=replace(DEFAULT_LIMITS, live_sessions=2))
    _, handle = few.registrar.request(WANTED, PEP)
    few.registrar.request(WANTED, PEP)

    with pytest.raises(OverloadedError, match=r"`pep` has 2 live sessions, the most allowed \(limit `live_sessions`\)"):
        few.registrar.request(WANTED, PEP)
    few.registrar.request(WANTED, OTHER_PEP)
    few.registrar.end(handle, caller=PEP)
    few.registrar.request(WANTED, PEP)


def test_a_revocation_ends_while_others_are_requested(pdp: Embedded, clock: FakeClock) -> None:
    """A gateway that goes on requesting sessions keeps no revocation from its end, and these are not revoked by it."""
    handles = [approved(pdp)[1] for _ in range(3)]
    change, later = pdp.sessions.change_where, list[str]()

    def request_another(*args: Any, **more: Any) -> tuple[Session, ...]:
        if len(later) < 20:
            clock.advance(0.001)
            later.append(pdp.registrar.request(WANTED, PEP)[0].session.id)
        return change(*args, **more)

    with patch.object(pdp.sessions, "change_where", request_another):
        revoked = pdp.registrar.revoke(Selector(kind="user", value="alice"), reason="enough", caller=APPROVER)

    assert (3, 2) == (len(revoked), len(later))
    assert ["session_revoked"] * 3 == [basis(pdp, handle) for handle in handles]
    assert {SessionState.REQUESTED} == {pdp.registrar.get(one, caller=APPROVER).state for one in later}


def test_many_sessions_are_revoked_at_once(pdp: Embedded, evidence: Evidence) -> None:
    """Whoever looks after the first row is written sees them revoked; each is then written down and recorded."""
    handles = [approved(pdp)[1] for _ in range(7)]
    seen: list[str] = []
    change = pdp.sessions.change_where

    def look(*args: Any, **more: Any) -> tuple[Session, ...]:
        seen.extend(basis(pdp, handle) for handle in handles)
        return change(*args, **more)

    with patch.object(pdp.sessions, "change_where", look), patch("pdp.registry.ending._AT_ONCE", 3):
        revoked = pdp.registrar.revoke(Selector(kind="user", value="alice"), reason="enough", caller=APPROVER)

    assert ["session_revoked"] * 28 == seen
    assert 7 == len(revoked)
    assert ["session_revoked"] * 7 == [basis(pdp, handle) for handle in handles]
    told = [one["session_id"] for one in evidence.records if one["kind"] == "session.revoked"]
    assert sorted(told) == list(revoked)


def test_a_revocation_that_was_cut_short_is_finished(pdp: Embedded, clock: FakeClock, evidence: Evidence) -> None:
    """A minute later, by whichever process looks first: each session is stored and recorded as it was revoked."""
    for _ in range(5):
        approved(pdp)
    revoked_at = clock.now().wall_at
    killed = patch.object(pdp.sessions, "change_where", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        pdp.registrar.revoke(Selector(kind="user", value="alice"), reason="enough", caller=APPROVER)
    clock.advance(59.0)
    early = pdp.registrar.finish_revocations()
    clock.advance(1.0)
    counts = [pdp.registrar.finish_revocations() for _ in range(2)]

    told = [one for one in evidence.records if one["kind"] == "session.revoked"]
    assert (0, [5, 0], ()) == (early, counts, pdp.sessions.cuts())
    assert [(utc_text(revoked_at), APPROVER.id, "enough")] * 5 == [
        (one["time"], one["caller_id"], one["facts"]["reason"]) for one in told
    ]
