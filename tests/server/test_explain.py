"""`PolicyService.Explain`: for authors and auditors, by public id or for supposed facts, and never a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pdp.client import InvalidRequestError, NotFoundError, PermissionDeniedError
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1 import decision_pb2 as decisions
from pdp.v1 import explain_pb2 as explanations

POLICIES = """
@id("files/staff-write")
permit (principal in UserGroup::"staff", action == Action::"files/write", resource)
when { context.input.n < 10 }
unless { context.session.labels.contains("tainted") || context.caller.id == "other" };
"""
DIRECTORY = """
user_groups: {staff: {}}
users: {ada: {groups: [staff]}, bob: {}}
agents: {worker: {ceiling: ["files/*"]}}
"""
WRITE = tool("write", {"path": {"type": "string"}, "n": {"type": "integer"}}, ["path", "n"])


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Run a server on the policy above."""
    files = bundle_files(policies={"files": POLICIES}, tools={"files": [WRITE]}, directory=DIRECTORY)
    with running_server(files) as running:
        yield running


@pytest.fixture(scope="module")
def session(server: RunningServer) -> str:
    """Return the public id of an approved session of ada."""
    opened = server.client("pep").request_session(user="ada", agent="worker", purpose="test", tools=["files/*"])
    waiting = opened.session
    server.client("approver").approve_session(waiting.session_id, request_digest=waiting.request_digest)
    return str(waiting.session_id)


def explain(server: RunningServer, *, n: int = 3, by: str = "author", **who: Any) -> explanations.ExplainResponse:
    """Explain a call of `files/write`."""
    return server.client(by).explain("files", "write", {"path": "/canary", "n": n}, **who)


@pytest.mark.parametrize("role", ["author", "auditor"])
def test_authors_and_auditors_learn_why(server: RunningServer, session: str, role: str) -> None:
    """The answer holds the sentence, each policy with its place, and each condition with place and value."""
    answer = explain(server, n=50, by=role, session_id=session)

    assert (decisions.OUTCOME_DENY, decisions.BASIS_DEFAULT_DENY) == (answer.outcome, answer.basis)
    assert (
        "denied: no permit matched; the nearest is `files/staff-write` (files.cedar:2): "
        "`context.input.n < 10` (files.cedar:4) does not hold"
    ) == answer.summary
    (one,) = answer.sessions
    assert (session, "ada", "worker", ["files/staff-write"]) == (
        one.session_id,
        one.user,
        one.agent,
        list(one.nearest_permits),
    )
    (policy,) = one.policies
    assert ("files/staff-write", "permit", "files.cedar", 2) == (
        policy.policy_id,
        policy.effect,
        policy.file,
        policy.line,
    )
    values = [(each.kind, each.value, each.alone, each.line, each.column) for each in policy.conditions]
    true, false = explanations.CONDITION_VALUE_TRUE, explanations.CONDITION_VALUE_FALSE
    assert [
        ("principal", true, true, 3, 9),
        ("action", true, true, 3, 42),
        ("when", false, false, 4, 8),
        ("unless", explanations.CONDITION_VALUE_NOT_REACHED, true, 5, 10),
        ("unless", explanations.CONDITION_VALUE_NOT_REACHED, true, 5, 56),
    ] == values


@pytest.mark.parametrize("role", ["pep", "approver", "admin"])
def test_nobody_else_learns_why(server: RunningServer, session: str, role: str) -> None:
    """A gateway could pass the reason on to the agent, so it may not ask."""
    with pytest.raises(PermissionDeniedError):
        explain(server, by=role, session_id=session)


def test_the_call_is_the_gateways(server: RunningServer, session: str) -> None:
    """Policies see the gateway that opened the session, or the one that is named, and never the author."""
    own, other = explain(server, session_id=session), explain(server, session_id=session, caller_id="other")

    assert [decisions.BASIS_PERMIT, decisions.BASIS_DEFAULT_DENY] == [own.basis, other.basis]
    assert (True, False) == (own.sessions[0].policies[0].determining, other.sessions[0].policies[0].determining)


def test_supposed_facts_are_explained(server: RunningServer) -> None:
    """Without a session, user, agent and labels are supposed."""
    free = explain(server, user="ada", agent="worker")
    tainted = explain(server, user="ada", agent="worker", labels=["tainted"])

    assert [decisions.OUTCOME_ALLOW, decisions.OUTCOME_DENY] == [free.outcome, tainted.outcome]
    assert "" == free.sessions[0].session_id
    assert ("Server", "files") == (free.resource_type, free.resource_id)


def test_nothing_is_decided_and_no_argument_is_kept(server: RunningServer, session: str) -> None:
    """An explanation leaves no decision in trace or record, one event that names who asked, and no argument."""
    before = len(server.evidence.decision_records), len(server.evidence.decision_spans)

    explain(server, session_id=session)

    assert before == (len(server.evidence.decision_records), len(server.evidence.decision_spans))
    last = server.evidence.records[-1]
    assert ("call.explained", "author", session, "permit") == (
        last["kind"],
        last["caller_id"],
        last["session_id"],
        last["facts"]["basis"],
    )
    assert "canary" not in str(server.evidence.records)


def test_a_moment_can_be_named(server: RunningServer, session: str) -> None:
    """The answer is about the moment that was asked about, and says so."""
    answer = explain(server, session_id=session, at=1_900_000_000.5)

    assert decisions.BASIS_SESSION_EXPIRED == answer.basis
    assert "expired at 2026-01-01T01:00:00Z" in answer.refusal
    assert (1_900_000_000, 500_000_000) == (answer.explain_time.seconds, answer.explain_time.nanos)


# (what is asked, which field is wrong)
WRONG = [
    ({"session_id": "a b"}, "session_id"),
    ({"user": "nobody", "agent": "worker"}, "supposed.user"),
    ({"user": "ada", "agent": ""}, "supposed.agent"),
    ({"user": "ada", "agent": "worker", "grants": ["a b"]}, "grants[0]"),
    ({"user": "ada", "agent": "worker", "user_attributes": b"[]"}, "supposed.user_attributes_json"),
    ({"user": "ada", "agent": "worker", "facts": {"shift": 3}}, "facts_json"),
    ({"user": "ada", "agent": "worker", "definition_digest": "x"}, "definition_digest"),
    ({"user": "ada", "agent": "worker", "at": -5.0}, "time"),
]


@pytest.mark.parametrize(("who", "field"), WRONG)
def test_wrong_fields_are_named(server: RunningServer, who: dict[str, Any], field: str) -> None:
    """What the asker wrote wrongly is an error that names the field."""
    with pytest.raises(InvalidRequestError, match=field.replace("[", r"\[")):
        explain(server, **who)


@pytest.mark.parametrize("who", [{}, {"session_id": "ses_a", "user": "ada", "agent": "worker"}])
def test_exactly_one_caller_is_asked_about(server: RunningServer, who: dict[str, Any]) -> None:
    """Neither no session nor two: the client says so before it asks."""
    with pytest.raises(InvalidRequestError, match="pass either `session_id`"):
        explain(server, **who)


def test_unknown_sessions_are_not_found(server: RunningServer) -> None:
    """A session that does not exist is an error and no deny: its id was mistyped."""
    with pytest.raises(NotFoundError, match="no such session: `ses_none`"):
        explain(server, session_id="ses_none")


def test_what_the_agent_would_write_is_judged(server: RunningServer) -> None:
    """Arguments that the tool does not take, and a tool that does not exist, are explained and no errors."""
    author = server.client("author")

    wrong = author.explain("files", "write", b"[1", user="ada", agent="worker")
    unknown = author.explain("files", "wipe" * 100, user="ada", agent="worker")

    assert [decisions.BASIS_INVALID_ARGUMENTS, decisions.BASIS_UNKNOWN_TOOL] == [wrong.basis, unknown.basis]
    assert wrong.problem
    assert unknown.refusal.startswith("the catalogue holds no tool")
