"""More policies than are named rest behind one answer: answer, span and record say how many are left out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from pdp.app.embedded import open_embedded
from pdp.limits import MOST_POLICIES
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.registry.words import SessionRequest
from pdp.server.decisionmessages import DecisionMessages
from pdp.telemetry.attributes import decision_attributes
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.decisions import a_decision
from pdp.v1 import decision_pb2

MORE = 6
IDS = [f"files/{number:03}" for number in range(MOST_POLICIES + MORE)]
POLICIES = "".join(f'@id("{name}") permit (principal, action == Action::"files/read", resource);\n' for name in IDS)
SESSIONS = "".join(
    f"""@id("{name.replace("files", "sessions")}") permit (principal, action in [
      Action::"pdp/request_session", Action::"pdp/approve_session"
    ], resource);\n"""
    for name in IDS
)
GATEWAY = Caller(id="gateway", kind="test", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="test", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


def test_policies_are_named_up_to_a_number(tmp_path: Path) -> None:
    """The first 64, sorted, and a count of those behind them: for a call, and for what is said about a session."""
    files = bundle_files(
        policies={"files": POLICIES},
        tools={"files": [tool("read")]},
        directory="{users: {ada: {}, approver: {}}, agents: {coder: {ceiling: ['files/*']}}}",
        overlays={"files": "tools: {read: {risk: read_only}}"},
        sessions=SESSIONS,
    )
    for name, content in files.items():
        (tmp_path / "policies" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "policies" / name).write_bytes(content)
    log = DecisionLog(tmp_path / "record", key=b"k" * 32, signer=SigningKey.generate())
    pdp = open_embedded(tmp_path / "policies", observer=log, compile_files=compile_here)
    with closing(pdp), closing(log):
        wanted = SessionRequest(user="ada", agent="coder", purpose="test", tool_patterns=("files/*",))
        view, handle = pdp.registrar.request(wanted, GATEWAY)
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
        decision = pdp.authorizer.authorize(
            CallRequest(call=Call(session_handle=handle, server="files", tool="read")), GATEWAY
        )
    records = [one.record for one in read_records(tmp_path / "record")]
    [recorded] = [one for one in records if one["kind"] == "decision"]
    [_, said] = [one["facts"] for one in records if one["kind"] == "session.decided"]
    answer = decision_pb2.Decision()
    DecisionMessages().write(decision, answer)
    shown: dict[str, Any] = decision_attributes(decision, b"")

    named = IDS[:MOST_POLICIES]
    assert tuple(IDS) == decision.ruling.policies
    assert (named, MORE) == (recorded["policies"], recorded["policies_left_out"])
    assert (named, MORE) == (list(answer.determining_policies), answer.policies_left_out)
    assert (named, MORE) == (list(shown["pdp.policies"]), shown["pdp.policies_left_out"])
    assert (MOST_POLICIES, str(MORE)) == (len(said["policies"]), said["policies_left_out"])


def test_nothing_is_counted_that_is_named() -> None:
    """With as many policies as are named, answer and span have no count."""
    decision, answer = a_decision(policies=tuple(IDS[:MOST_POLICIES])), decision_pb2.Decision()
    DecisionMessages().write(decision, answer)

    assert 0 == answer.policies_left_out
    assert "pdp.policies_left_out" not in decision_attributes(decision, b"")
