"""The API as a whole, on a real server with real parts behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.client.uploads import bundle_upload
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import decision_pb2 as decisions
from pdp.v1 import policy_pb2 as policies
from pdp.v1 import reading_pb2 as readings
from pdp.v1 import session_pb2 as sessions
from tests.machinery.servers.running import PATIENCE, Running, a_call

Code = grpc.StatusCode


def ask(running: Running, service: str, method: str, request: Any, caller: str) -> Any:
    """Call a method of a service as a caller."""
    return getattr(getattr(running, service), method)(request, metadata=running.credentials(caller))


def request_session(running: Running, **more: Any) -> sessions.RequestSessionResponse:
    """Request a session of alice and her coder."""
    wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "fix it", "tool_patterns": ["git/*"]}
    request = sessions.RequestSessionRequest(**(wanted | more))
    answer: sessions.RequestSessionResponse = ask(running, "sessions", "RequestSession", request, "pep")
    return answer


def approve(running: Running, session: sessions.Session, **more: Any) -> sessions.Session:
    """Approve what was shown."""
    request = sessions.ApproveSessionRequest(
        session_id=session.session_id, request_digest=session.request_digest, **more
    )
    approved: sessions.Session = ask(running, "sessions", "ApproveSession", request, "approver").session
    return approved


def test_the_life_of_a_session(running: Running) -> None:
    """Requested, approved, used, narrowed, revoked: each step shows, and the next call follows it."""
    now = running.clock.now().wall_at
    opened = request_session(
        running,
        duration=Duration(seconds=600, nanos=500_000_000),
        user_attributes_json=b'{"team": "platform"}',
        labels=["untrusted"],
        environment="test",
        may_delegate=True,
    )
    waiting = opened.session
    before = ask(running, "authorization", "Authorize", a_call(opened.session_handle), "pep").decision
    considered = sessions.ReviewSessionRequest(session_id=waiting.session_id, grants=["destructive-approved"])
    shown = ask(running, "sessions", "ReviewSession", considered, "approver").session
    live = approve(running, shown, grants=["destructive-approved"])
    allowed = ask(running, "authorization", "Authorize", a_call(opened.session_handle), "pep").decision
    narrowing = sessions.NarrowSessionRequest(
        session_id=live.session_id,
        tool_patterns=["git/git_log"],
        expire_time=Timestamp(seconds=int(now) + 60),
        labels=["untrusted"],
    )
    narrow = ask(running, "sessions", "NarrowSession", narrowing, "approver").session
    revoking = sessions.RevokeSessionsRequest(user="alice", reason="enough")
    revoked = ask(running, "sessions", "RevokeSessions", revoking, "admin").session_ids
    after = ask(running, "authorization", "Authorize", a_call(opened.session_handle), "pep").decision
    shown = sessions.GetSessionRequest(session_id=live.session_id)
    over = ask(running, "sessions", "GetSession", shown, "auditor").session

    assert (waiting.state, waiting.user, waiting.agent, waiting.purpose) == (
        sessions.SESSION_STATE_REQUESTED, "alice", "coder", "fix it",
    )  # fmt: skip
    assert (list(waiting.labels), waiting.environment, waiting.opened_by) == (["untrusted"], "test", "pep")
    assert (waiting.tenant, json.loads(waiting.user_attributes_json)) == ("default", {"team": "platform"})
    assert waiting.may_delegate
    assert waiting.duration.ToTimedelta().total_seconds() == 600.5
    assert waiting.request_time.seconds == int(now)
    assert not waiting.HasField("approve_time")
    assert {tool.server for tool in waiting.tools} == {"git"}
    assert {tool.risk for tool in waiting.tools} == {"read_only", "mutating", "destructive"}
    assert (before.outcome, before.basis) == (decisions.OUTCOME_DENY, decisions.BASIS_SESSION_NOT_APPROVED)
    assert (live.state, live.approved_by, list(live.grants)) == (
        sessions.SESSION_STATE_ACTIVE,
        "approver",
        ["destructive-approved"],
    )
    assert live.expire_time.ToNanoseconds() == pytest.approx((now + 600.5) * 1e9)
    assert not live.request_digest
    assert (allowed.outcome, list(allowed.determining_policies)) == (decisions.OUTCOME_ALLOW, ["git/engineers-read"])
    assert (allowed.user, allowed.agent, allowed.session_id) == ("alice", "coder", live.session_id)
    assert allowed.cache_result == decisions.CACHE_RESULT_MISS
    assert allowed.decide_time.seconds == int(now)
    assert [tool.tool for tool in narrow.tools] == ["git_log"]
    assert (narrow.expire_time.seconds, list(narrow.labels)) == (int(now) + 60, ["untrusted"])
    assert list(revoked) == [live.session_id]
    assert (after.outcome, after.basis) == (decisions.OUTCOME_DENY, decisions.BASIS_SESSION_REVOKED)
    assert (over.state, over.reason, over.ended_by) == (sessions.SESSION_STATE_REVOKED, "enough", "admin")
    assert over.end_time.seconds == int(now)
    assert over.epoch == live.epoch + 2


def test_denying_and_ending(running: Running) -> None:
    """An approver refuses what waits; whoever opened a session ends it."""
    refused, ended = request_session(running), request_session(running)
    denying = sessions.DenySessionRequest(session_id=refused.session.session_id, reason="no")
    denied = ask(running, "sessions", "DenySession", denying, "approver").session
    ending = sessions.EndSessionRequest(session_handle=ended.session_handle)
    done = ask(running, "sessions", "EndSession", ending, "pep").session

    with pytest.raises(grpc.RpcError) as caught:
        ask(running, "sessions", "DenySession", denying, "approver")

    assert (denied.state, denied.reason) == (sessions.SESSION_STATE_DENIED, "no")
    assert done.state == sessions.SESSION_STATE_ENDED
    assert caught.value.code() is Code.FAILED_PRECONDITION


def test_a_misspelt_grant_is_refused(running: Running) -> None:
    """INVALID_ARGUMENT names the place and the nearest grant; the approver's review names all, with their policies."""
    waiting = request_session(running).session
    wanted = sessions.ReviewSessionRequest(session_id=waiting.session_id)

    review = ask(running, "sessions", "ReviewSession", wanted, "approver")
    with pytest.raises(grpc.RpcError) as caught:
        approve(running, waiting, grants=["destructive-aproved"])

    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert caught.value.details() == (
        "`grants[0]`: no policy asks for `destructive-aproved`; did you mean `destructive-approved`?"
    )
    uses = {one.grant: list(one.policy_ids) for one in review.grant_uses}
    assert list(uses) == list(review.known_grants)
    assert all(uses.values())


def test_listing_in_pages(running: Running) -> None:
    """Sessions are listed newest first, in pages, by state."""
    opened = []
    for _ in range(3):
        opened.append(request_session(running).session)
        running.clock.advance(1)
    approve(running, opened[0])
    first = ask(running, "sessions", "ListSessions", sessions.ListSessionsRequest(page_size=2), "auditor")
    rest = sessions.ListSessionsRequest(page_size=2, page_token=first.next_page_token)
    second = ask(running, "sessions", "ListSessions", rest, "auditor")
    live = sessions.ListSessionsRequest(state=sessions.SESSION_STATE_ACTIVE, user="alice", agent="coder")
    active = ask(running, "sessions", "ListSessions", live, "pep")

    listed = [session.session_id for page in (first, second, active) for session in page.sessions]
    ids = [session.session_id for session in opened]
    assert listed == [ids[2], ids[1], ids[0], ids[0]]
    assert second.next_page_token == ""


def test_a_child_names_its_ancestor(running: Running) -> None:
    """A delegated session shows its parent, and a deny from above says where it comes from."""
    parent = request_session(running, may_delegate=True)
    approve(running, parent.session)
    child = request_session(
        running, parent_session_handle=parent.session_handle, tool_patterns=["git/git_log"], agent="reviewer"
    )
    revoking = sessions.RevokeSessionsRequest(session_id=parent.session.session_id, reason="x")
    allowed = ask(running, "authorization", "Authorize", a_call(child.session_handle), "pep").decision
    revoked = ask(running, "sessions", "RevokeSessions", revoking, "approver").session_ids

    assert (child.session.state, child.session.depth) == (sessions.SESSION_STATE_ACTIVE, 1)
    assert child.session.parent_session_id == parent.session.session_id
    assert allowed.outcome == decisions.OUTCOME_ALLOW
    assert set(revoked) == {parent.session.session_id, child.session.session_id}


def test_a_batch_is_answered_in_order(running: Running) -> None:
    """Each call of a batch has its own decision, in the order of the calls."""
    handle = running.open_session()
    tools = ("git_log", "git_commit", "git_status", "nothing")
    request = calls.BatchAuthorizeRequest(requests=[a_call(handle, tool=tool) for tool in tools])

    answer = ask(running, "authorization", "BatchAuthorize", request, "pep")

    allow, deny = decisions.OUTCOME_ALLOW, decisions.OUTCOME_DENY
    assert [(one.tool, one.outcome) for one in answer.decisions] == [
        ("git_log", allow), ("git_commit", deny), ("git_status", allow), ("nothing", deny),
    ]  # fmt: skip
    assert len({one.decision_id for one in answer.decisions}) == 4


def test_a_deny_says_what_to_do(running: Running) -> None:
    """The answer to an agent names what to do, and of its arguments the place and the rule, never a value."""
    handle = running.open_session()
    wrong = a_call(handle, arguments_json=b'{"repo_path": "/r", "max_count": "a secret"}')

    denied = ask(running, "authorization", "Authorize", wrong, "pep").decision
    unknown = ask(running, "authorization", "Authorize", a_call(handle, tool="git_burn"), "pep").decision
    allowed = ask(running, "authorization", "Authorize", a_call(handle), "pep").decision

    assert [
        "the arguments do not fit the tool: correct what is named, and call again",
        "`$.max_count`: must be an integer, without fraction and exponent",
    ] == list(denied.advice)
    assert ["there is no such tool: do not retry it; call one that is listed"] == list(unknown.advice)
    assert [] == list(allowed.advice)


def test_request_ids_make_retries_safe(running: Running) -> None:
    """The same id and call give the same decision; another call under the id is refused."""
    handle = running.open_session()
    request = calls.AuthorizeRequest(call=a_call(handle).call, request_id="r-1", tool_call_id="toolu|1")
    other = calls.AuthorizeRequest(call=a_call(handle, tool="git_status").call, request_id="r-1")

    ids = {ask(running, "authorization", "Authorize", request, "pep").decision.decision_id for _ in range(2)}
    with pytest.raises(grpc.RpcError) as caught:
        ask(running, "authorization", "Authorize", other, "pep")

    assert len(ids) == 1
    assert caught.value.code() is Code.ALREADY_EXISTS
    assert running.notes.decisions[0].tool_call_id == "toolu|1"


def test_what_policies_read_of_the_calls_of_a_tool(running: Running) -> None:
    """Bundle and listing say it when they are asked: the class, and each thing that is read with its policies."""
    handle = running.open_session()
    listing = calls.ListToolsRequest(session_handle=handle, with_readings=True)

    shown = ask(running, "policies", "GetBundle", policies.GetBundleRequest(with_readings=True), "author")
    listed = ask(running, "authorization", "ListTools", listing, "pep")

    found = {f"{tool.server}/{tool.tool}": tool.reading for tool in shown.tool_readings}
    assert found == {f"{tool.server}/{tool.tool}": tool.reading for tool in listed.tools}
    assert (readings.CACHE_CLASS_PURE, True) == (found["git/git_diff"].cache_class, found["git/git_diff"].remembered)
    log = found["git/git_log"]
    assert [("context.input.max_count", ["guardrails/short-histories"])] == [
        (one.name, list(one.policy_ids)) for one in log.attributes
    ]
    assert (readings.CACHE_CLASS_INPUT, True) == (log.cache_class, log.remembered)
    assert readings.CACHE_CLASS_TIMED == found["github/merge_pull_request"].cache_class
    assert readings.CACHE_CLASS_UNSPECIFIED not in {one.cache_class for one in found.values()}
    assert not ask(running, "policies", "GetBundle", policies.GetBundleRequest(), "author").tool_readings


def test_listing_tools(running: Running) -> None:
    """A session sees every tool of the catalogue, and which of them it could call."""
    handle = running.open_session()

    listing = ask(running, "authorization", "ListTools", calls.ListToolsRequest(session_handle=handle), "pep")

    seen = {f"{tool.server}/{tool.tool}": tool.visibility for tool in listing.tools}
    assert seen["git/git_status"] == calls.VISIBILITY_ALWAYS
    assert seen["git/git_log"] == calls.VISIBILITY_DEPENDS
    assert seen["git/git_commit"] == calls.VISIBILITY_NEVER
    assert len(seen) == 145
    assert listing.session_id.startswith("ses_")
    assert listing.bundle_version.startswith("sha256:")
    with pytest.raises(grpc.RpcError) as caught:
        ask(running, "authorization", "ListTools", calls.ListToolsRequest(session_handle="pdps_x"), "pep")
    assert caught.value.code() is Code.NOT_FOUND


def test_the_running_bundle(running: Running) -> None:
    """The bundle shows its version, policies and origin; loading the same folder again changes nothing."""
    shown = ask(running, "policies", "GetBundle", policies.GetBundleRequest(), "auditor")
    again = ask(running, "policies", "ReloadBundle", policies.ReloadBundleRequest(), "admin")

    assert (shown.bundle.name, shown.bundle.activated_by, shown.bundle.tool_count) == ("example", "start", 145)
    assert list(shown.load_errors) == []
    first = next(policy for policy in shown.bundle.policies if policy.file == "git.cedar")
    assert (first.policy_id, first.effect) == ("git/engineers-branch", "permit")
    assert first.line > 1
    assert (again.changed, again.bundle.version) == (False, shown.bundle.version)


def test_checking_a_bundle(running: Running, project_root: Path) -> None:
    """A folder is checked as it is, or as it would be with a mistake, and the mistake has file and line."""
    folder = project_root / "policies"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    own = ask(running, "policies", "CheckBundle", iter([policies.CheckBundleRequest()]), "author")
    files["git.cedar"] += b"\npermit (principal, action, resource) when { context.nothing };\n"

    checked = ask(running, "policies", "CheckBundle", iter(bundle_upload(files)), "author")

    assert (list(own.problems), own.version[:7]) == ([], "sha256:")
    assert checked.version == ""
    assert {problem.file for problem in checked.problems} == {"git.cedar"}
    assert all(problem.line > 0 and problem.message for problem in checked.problems)
    assert {policies.SEVERITY_ERROR} == {problem.severity for problem in checked.problems}


def test_checking_a_bundle_warns_too(running: Running, project_root: Path) -> None:
    """What loads and is probably a mistake is told as on the command line: place, code and what to do."""
    folder = project_root / "policies"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["git.cedar"] += b'\n@id("git/all")\npermit (principal, action, resource);\n'

    checked = ask(running, "policies", "CheckBundle", iter(bundle_upload(files)), "author")
    found = next(warning for warning in checked.warnings if warning.code == "open-permit")

    assert ([], "sha256:") == (list(checked.problems), checked.version[:7])
    assert ("git.cedar", files["git.cedar"].count(b"\n"), 1, 6) == (found.file, found.line, found.column, found.width)
    assert policies.SEVERITY_WARNING == found.severity
    assert found.message
    assert found.help


def test_evaluating_plain_cedar(running: Running) -> None:
    """Policies, entities, links and requests of an author are evaluated as the engine has it."""
    request = policies.EvaluateRequest(
        policies='@id("t") permit (principal == ?principal, action, resource);',
        entities_json="[]",
        template_links=[
            policies.TemplateLink(
                template_id="policy0", new_id="link", principal=policies.EntityUid(type="User", id="alice")
            )
        ],
        requests_json=[cedar_request("User", "alice", "view"), cedar_request("User", "bob", "view")],
    )

    answer = ask(running, "policies", "Evaluate", iter([request]), "author")

    assert [(one.decision, list(one.reasons)) for one in answer.evaluations] == [
        (policies.ENGINE_DECISION_ALLOW, ["link"]),
        (policies.ENGINE_DECISION_DENY, []),
    ]


def test_evaluating_with_the_running_bundle(running: Running) -> None:
    """With the running bundle, reasons are its policies' own ids, and it is valid for its schema."""
    entities = [
        {"uid": {"type": "User", "id": "x"}, "attrs": {}, "parents": [{"type": "UserGroup", "id": "approvers"}]},
    ]
    context = {
        "agent": {"__entity": {"type": "Agent", "id": "coder"}},
        "user": {"__entity": {"type": "User", "id": "alice"}},
        "caller": {"id": "x"},
        "grants": [], "tools": [], "risks": [], "duration": 1, "may_delegate": False,
        "now": {"__extn": {"fn": "datetime", "arg": "2026-01-01"}},
    }  # fmt: skip
    request = policies.EvaluateRequest(
        running_bundle=True,
        validate=True,
        entities_json=json.dumps(entities),
        requests_json=[cedar_request("User", "x", "pdp/approve_session", ("Session", "s"), context)],
        skip_request_validation=True,
    )

    answer = ask(running, "policies", "Evaluate", iter([request]), "author")

    assert (answer.valid, list(answer.validation_errors)) == (True, [])
    assert [(one.decision, list(one.reasons)) for one in answer.evaluations] == [
        (policies.ENGINE_DECISION_ALLOW, ["sessions/approvers-approve"])
    ]


def cedar_request(
    kind: str, name: str, action: str, resource: tuple[str, str] = ("Thing", "t"), context: object = None
) -> str:
    """Return a request in Cedar's JSON."""
    return json.dumps(
        {
            "principal": {"type": kind, "id": name},
            "action": {"type": "Action", "id": action},
            "resource": {"type": resource[0], "id": resource[1]},
            "context": context or {},
        }
    )


def test_start_and_stop_are_told(running: Running) -> None:
    """The observer hears when the server starts and, once, when it has stopped; then nobody is served."""
    running.server.stop(1.0)
    running.server.stop()

    kinds = [event.kind for event in running.notes.events if event.kind.startswith("server.")]
    assert kinds == ["server.started", "server.stopped"]
    assert running.server.wait(0)
    with pytest.raises(grpc.RpcError) as caught:
        running.channel.unary_unary("/pdp.v1.AuthorizationService/Authorize")(b"", timeout=PATIENCE)
    assert caught.value.code() is Code.UNAVAILABLE


def test_answers_about_sessions_hang_in_the_callers_trace(running: Running) -> None:
    """The gateway's trace is believed, the approver's is linked, as for everything else."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    wanted = sessions.RequestSessionRequest(
        user="alice", agent="coder", purpose="read", tool_patterns=["git/git_log"]
    ).SerializeToString()
    path = "/pdp.v1.SessionService/"

    made = running.unary(path + "RequestSession", wanted, metadata=(("traceparent", trace),))
    session = sessions.RequestSessionResponse.FromString(made).session
    approval = sessions.ApproveSessionRequest(session_id=session.session_id, request_digest=session.request_digest)
    running.unary(path + "ApproveSession", approval.SerializeToString(), "approver", (("traceparent", trace),))

    told = [event.facts for event in running.notes.events if event.kind == "session.decided"]
    assert [(trace, None), (None, trace)] == [(one.get("traceparent"), one.get("tracelink")) for one in told]


def test_a_page_of_sessions_is_bounded_in_bytes(running: Running) -> None:
    """Sessions of the largest kind fill pages that every client takes; together they are all, once and in order."""
    patterns = ["git/" + "*" * (64 + number) for number in range(64)]
    made = [request_session(running, tool_patterns=patterns).session.session_id for _ in range(150)]
    pages: list[sessions.ListSessionsResponse] = []
    token = ""
    while not pages or token:
        request = sessions.ListSessionsRequest(page_size=1000, page_token=token)
        pages.append(ask(running, "sessions", "ListSessions", request, "pep"))
        token = pages[-1].next_page_token

    assert len(pages) > 1
    assert max(page.ByteSize() for page in pages) < 1024 * 1024 + 1024
    assert sorted(made) == sorted(one.session_id for page in pages for one in page.sessions)
