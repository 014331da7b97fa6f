"""Who answers access requests, what they see, and what their answers change: the attacks, over gRPC."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import grpc
import pytest

from pdp.app.embedded import Embedded
from pdp.client import Answer
from pdp.clock import Instant
from pdp.decision.stepup import UNASKED
from pdp.errors import StoreUnavailableError, UnavailableError
from pdp.foundation.ids import handle_digest
from pdp.limits import Limits
from pdp.model import AT_EACH_CALL, Ask, Caller, Role
from pdp.serving.rpc import Lane
from pdp.sessions.access import (
    MOST_NOES,
    MOST_OPEN_OF_CALLER,
    MOST_OPEN_OF_SESSION,
    REQUEST_SECONDS,
    AccessRequest,
    Unaskable,
)
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import running_server
from pdp.testing.waiting import wait_until
from pdp.v1.access_pb2 import (
    ACCESS_STATE_APPROVED,
    ACCESS_STATE_DENIED,
    ACCESS_STATE_EXPIRED,
    ACCESS_STATE_OPEN,
    ACCESS_STATE_REVOKED,
    GetAccessRequestRequest,
    WatchAccessRequestsRequest,
    WatchAccessRequestsResponse,
)
from pdp.v1.session_pb2 import SESSION_STATE_REQUESTED, SESSION_STATE_REVOKED
from tests.machinery.servers.desk import APPROVER, CALLERS, FILES, LEADS, SECRET, Desk
from tests.machinery.servers.rawmessages import BUNDLE, PATIENCE
from tests.machinery.servers.running import Running, Serve
from tests.machinery.servers.waitingcalls import QUESTION, a_request, waiting
from tests.machinery.ways.notation import changed, files_of


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """Serve for all of them."""
    with running_server(FILES, callers=CALLERS) as server:
        yield Desk(server)


def test_approver_sees_the_whole_call(desk: Desk) -> None:
    """The session, the arguments, the question and the digest of all of it."""
    request = desk.wait(arguments=SECRET)

    shown = desk.shown(request)

    assert (ACCESS_STATE_OPEN, QUESTION) == (shown.access_request.state, shown.access_request.questions[0].text)
    assert (SECRET, "ada", "to wait") == (shown.arguments_json, shown.session.user, shown.session.purpose)
    assert (1, False, "read_only") == (shown.most_calls, shown.critical, shown.risk)
    assert shown.request_digest.startswith("sha256:")


def test_approval_is_recorded(desk: Desk) -> None:
    """What the policies said, and who approved what, without any argument."""
    request = desk.wait(arguments=SECRET)

    assert desk.approve(request) == "OK"

    assert desk.state(request) == ACCESS_STATE_APPROVED
    decided, approved = desk.records("session.decided")[-1], desk.records("access.approved")[-1]
    assert ("pdp/approve_call", "lead", "allow", request.id) == tuple(
        decided["facts"][name] for name in ("action", "principal", "outcome", "access_request_id")
    )
    assert approved["facts"]["access_request_id"] == request.id
    assert approved["facts"]["forbids"] == ["guardrails/ask"]
    assert b"the-secret-of-the-arguments" not in json.dumps(desk.server.evidence.records).encode()


@pytest.mark.parametrize("by", ["gateway", "sidecar", "auditor", "admin"])
def test_only_approvers_approve(desk: Desk, by: str) -> None:
    """Neither a gateway, its own caller included, nor an auditor or admin."""
    request = desk.wait()

    assert desk.approve(request, by=by).startswith("PERMISSION_DENIED: ")
    assert desk.state(request) == ACCESS_STATE_OPEN


def test_who_asked_does_not_approve(desk: Desk) -> None:
    """A caller that asked about the call is refused, even if it is an approver that policies permit."""
    request = desk.wait(desk.session(), by="both")

    said = desk.approve(request, by="both")

    assert said == "PERMISSION_DENIED: a call is approved by a person, not by the caller or agent that asks for it"


def test_the_agent_does_not_approve(desk: Desk) -> None:
    """A caller with the name of the agent is refused, even if it is an approver that policies permit."""
    assert desk.approve(desk.wait(), by="coder").startswith("PERMISSION_DENIED: a call is approved by a person")


def test_policies_can_refuse(desk: Desk) -> None:
    """Bob is an approver to the server, and not to the policies; that is recorded."""
    request = desk.wait()

    said = desk.approve(request, by="bob")

    assert said == "PERMISSION_DENIED: the policies refuse `pdp/approve_call`: default_deny"
    refused = desk.records("session.decided")[-1]["facts"]
    assert ("deny", "bob", request.id) == (refused["outcome"], refused["principal"], refused["access_request_id"])


def test_an_approver_whom_the_directory_lacks_is_told_so() -> None:
    """A new caller with the role and no entry as a user is in no group, so the basis alone would be a riddle."""
    eve = Caller(id="eve", kind="token", roles=APPROVER, authenticated_at=AT_EACH_CALL)
    with running_server(FILES, callers=(*CALLERS, eve)) as server:
        desk = Desk(server)
        request = desk.wait()

        said = desk.approve(request, by="eve")

        refused = "PERMISSION_DENIED: the policies refuse `pdp/approve_call`: default_deny"
        assert f"{refused}; `eve` is not a user of the bundle's directory" == said


def test_the_user_may_approve(desk: Desk) -> None:
    """The person whom the agent works for is a person like others, if policies permit it."""
    assert desk.approve(desk.wait(), by="ada") == "OK"


@pytest.mark.parametrize("method", ["approve", "see"])
def test_another_tenant_finds_nothing(desk: Desk, method: str) -> None:
    """A request of another tenant is as unknown as one that never was."""
    request = desk.wait()
    message = GetAccessRequestRequest(access_request_id=request.id)

    if method == "approve":
        said = desk.approve(request, by="foreign-lead")
    else:
        said = desk.told("GetAccessRequest", message, "foreign-lead")

    assert said == "NOT_FOUND: no such access request"
    assert list(desk.server.client("foreign-lead").list_access_requests()) == []


def test_another_tenants_approvals_stay(desk: Desk) -> None:
    """An admin of another tenant takes back nothing, by id or by session."""
    request = desk.wait()
    desk.approve(request)
    admin = desk.server.client("foreign-admin")

    for selector in ({"access_request_id": request.id}, {"session_id": request.call.session_id}):
        with pytest.raises(Exception, match="no such"):
            admin.revoke_access(reason="mine", **selector)

    assert desk.state(request) == ACCESS_STATE_APPROVED


def test_another_digest_is_refused(desk: Desk) -> None:
    """An approval is of what was shown, so one of another digest is none."""
    request = desk.wait()

    said = desk.approve(request, digest="sha256:" + "0" * 64)

    assert said.startswith("FAILED_PRECONDITION: the request digest does not match")
    assert desk.state(request) == ACCESS_STATE_OPEN


def test_digest_is_of_this_request(desk: Desk) -> None:
    """The digest of one request approves no other one, with other arguments in the same session."""
    session = desk.session()
    harmless = desk.wait(session, arguments=b'{"repo":"web"}', call={"digest": b"one"})
    harmful = desk.wait(session, arguments=b'{"repo":"attic"}', call={"digest": b"two"})

    assert desk.approve(harmful, digest=desk.shown(harmless).request_digest).startswith("FAILED_PRECONDITION: ")


def test_a_label_in_between_has_to_be_shown(desk: Desk) -> None:
    """A session that has got a label since is not the one that was shown."""
    request = desk.wait()
    digest = desk.shown(request).request_digest
    desk.server.client("gateway").narrow_session(request.call.session_id, labels=["untrusted"])

    assert desk.approve(request, digest=digest).startswith("FAILED_PRECONDITION: the request digest")
    assert desk.approve(request) == "OK"


def test_a_critical_tool_needs_a_fresh_log_in() -> None:
    """A token of `callers.yaml` does not say when its person logged in, so it approves no destructive call."""
    stale = Caller(id="lead", kind="token", roles=APPROVER)
    files = files_of(changed(BUNDLE, {"tools": {"git": {"wipe": {"risk": "destructive", "parameters": {}}}}}))
    callers = (*(one for one in CALLERS if one.id != "lead"), stale)
    with running_server(files, callers=callers) as server:
        desk = Desk(server)
        opened = server.client("gateway").request_session(user="bob", agent="coder", purpose="x", tools=["git/*"])
        shown = opened.session
        server.client("ada").approve_session(shown.session_id, request_digest=shown.request_digest)
        request = desk.wait(shown.session_id, action="git/wipe", arguments=b"{}")

        assert desk.shown(request).critical
        assert desk.approve(request).startswith(
            "PERMISSION_DENIED: `git/wipe` is destructive: its approver must have authenticated in the last 300 s"
        )
        assert desk.approve(request, by="ada") == "OK"


@pytest.mark.parametrize("end", ["revoke", "end", "expire", "narrow"])
def test_what_ends_the_session_ends_the_request(end: str) -> None:
    """A call that can no longer be made is not approved, and its arguments are no longer shown."""
    with running_server(FILES, callers=CALLERS) as server:
        desk = Desk(server)
        opened = server.client("gateway").request_session(
            user="ada", agent="coder", purpose="x", tools=["git/*", "clock/*"], duration=60.0
        )
        shown = opened.session
        server.client("lead").approve_session(shown.session_id, request_digest=shown.request_digest)
        request = desk.wait(shown.session_id)
        digest = desk.shown(request).request_digest
        match end:
            case "revoke":
                server.client("admin").revoke_sessions(session_id=shown.session_id, reason="enough")
            case "end":
                server.client("gateway").end_session(opened.session_handle)
            case "expire":
                server.clock.advance(61.0)
            case "narrow":
                server.client("gateway").narrow_session(shown.session_id, tools=["clock/*"])

        assert desk.approve(request, digest=digest) == "FAILED_PRECONDITION: the access request is expired, not open"
        assert desk.shown(request).arguments_json == b""


def test_another_bundle_ends_the_request() -> None:
    """What is asked under other policies is another question."""
    with running_server(FILES, callers=CALLERS) as server:
        desk = Desk(server)
        request = desk.wait()
        digest = desk.shown(request).request_digest
        server.write_policies(files_of(changed(BUNDLE, {"directory": {"users": {**LEADS, "new": {}}}})))
        server.embedded.keeper.reload(by="test")

        assert desk.approve(request, digest=digest).startswith("FAILED_PRECONDITION: the access request is expired")


def test_second_answers_are_refused(desk: Desk) -> None:
    """A request is answered once; a no stays a no, and a second no changes nothing."""
    request = desk.wait()
    lead = desk.server.client("lead")
    digest = desk.shown(request).request_digest
    lead.deny_call(request.id, reason="not this one")

    assert desk.approve(request, digest=digest) == "FAILED_PRECONDITION: the access request is denied, not open"
    with pytest.raises(Exception, match="denied, not open"):
        lead.deny_call(request.id)
    denied = desk.shown(request).access_request
    assert (ACCESS_STATE_DENIED, "not this one", "lead") == (denied.state, denied.reason, denied.answered_by)
    assert [request.id] == [one["facts"]["access_request_id"] for one in desk.records("access.denied")][-1:]


def test_an_admin_refuses_what_it_may_not_approve(desk: Desk) -> None:
    """Ending always works: an admin finds what waits, sees no argument of it, and its no stands like any other."""
    request = desk.wait(arguments=SECRET)
    admin = desk.server.client("admin")

    found = [one.access_request_id for one in admin.list_access_requests(session_id=request.call.session_id)]
    seen = desk.shown(request, "admin")
    denied = admin.deny_call(request.id, reason="an incident")

    assert [request.id] == found
    assert (b"", False, "") == (seen.arguments_json, seen.HasField("session"), seen.request_digest)
    assert (ACCESS_STATE_DENIED, "admin", "an incident") == (denied.state, denied.answered_by, denied.reason)
    store, clock = desk.server.embedded.history.access(), desk.server.clock
    again = a_request(desk.server.embedded, clock, request.call.session_id, by="gateway")
    assert Unaskable.DENIED is store.ask(again, b"{}", clock.now())


def test_an_approval_is_taken_back_once(desk: Desk) -> None:
    """The same revocation again is the same answer, and takes back nothing."""
    request = desk.wait()
    desk.approve(request)
    admin = desk.server.client("admin")

    first = admin.revoke_access(access_request_id=request.id, reason="changed my mind")
    second = admin.revoke_access(access_request_id=request.id, reason="changed my mind")

    assert ((request.id,), ()) == (first, second)
    assert desk.state(request) == ACCESS_STATE_REVOKED


def test_what_is_found_answered_is_safe_before_it_is_said(desk: Desk) -> None:
    """It can be of a commit that the machine may still lose, and whose writer got no answer."""
    lead, taken_back, denied = desk.server.client("lead"), desk.wait(), desk.wait()
    desk.approve(taken_back)
    again: list[Callable[[], object]] = [
        lambda: lead.revoke_access(access_request_id=taken_back.id, reason="changed my mind"),
        lambda: lead.deny_call(denied.id),
    ]
    for one in again:
        one()

    lost = StoreUnavailableError("the machine may lose it")
    requests = desk.server.embedded.history.access()
    with (
        patch.object(requests, "outwait", side_effect=lost),
        patch.object(requests, "answer_all", side_effect=lost),
    ):
        for one in again:
            with pytest.raises(Exception, match="the machine may lose it"):
                one()


def test_a_session_loses_all_its_approvals(desk: Desk) -> None:
    """One selector takes back what was approved of a session, and leaves what waits."""
    session = desk.session()
    requests = [desk.wait(session, call={"digest": bytes([number])}) for number in range(3)]
    for request in requests[:2]:
        desk.approve(request)

    revoked = desk.server.client("lead").revoke_access(session_id=session, reason="enough")

    assert sorted(request.id for request in requests[:2]) == list(revoked)
    assert desk.state(requests[2]) == ACCESS_STATE_OPEN


def test_a_leaver_keeps_nothing(desk: Desk) -> None:
    """One revocation by user ends their sessions, those below for others, and what waits or was approved for them."""
    gateway, lead = desk.server.client("gateway"), desk.server.client("lead")
    wanted: dict[str, Any] = {"agent": "coder", "purpose": "to wait", "tools": ("git/*",)}
    parent = desk.opened(may_delegate=True)
    below = gateway.request_session(user="bob", parent_session_handle=parent.session_handle, **wanted)
    asked = gateway.request_session(user="ada", **wanted)
    another = gateway.request_session(user="bob", **wanted).session.session_id
    calls = [desk.wait(parent.session.session_id, call={"digest": digest}) for digest in (b"one", b"two")]
    assert "OK" == desk.approve(calls[0])

    revoked = lead.revoke_sessions(user="ada", reason="has left")

    theirs = {one.session.session_id for one in (parent, below, asked)}
    assert theirs <= set(revoked)
    assert {SESSION_STATE_REVOKED} == {gateway.get_session(one).state for one in theirs}
    assert SESSION_STATE_REQUESTED == gateway.get_session(another).state
    assert {ACCESS_STATE_EXPIRED} == {desk.state(call) for call in calls}


def test_a_request_that_was_not_approved_is_not_revoked(desk: Desk) -> None:
    """Who ends authority in a hurry is told what ends this; and a no that came too late, that there is a yes."""
    request, lead = desk.wait(), desk.server.client("lead")

    with pytest.raises(Exception, match="open, not approved; deny it instead"):
        lead.revoke_access(access_request_id=request.id, reason="enough")
    desk.approve(request)
    with pytest.raises(Exception, match="approved, not open; revoke the approval instead"):
        lead.deny_call(request.id)


def test_nobody_else_sees_arguments(desk: Desk) -> None:
    """The auditor sees none; the gateway that asked sees its own, and no session; another gateway sees nothing."""
    request = desk.wait(arguments=SECRET)

    auditor, own = desk.shown(request, "auditor"), desk.shown(request, "gateway")

    assert (b"", False, "") == (auditor.arguments_json, auditor.HasField("session"), auditor.request_digest)
    assert (SECRET, False, "") == (own.arguments_json, own.HasField("session"), own.request_digest)
    with pytest.raises(Exception, match="no such access request"):
        desk.shown(request, "sidecar")
    assert list(desk.server.client("sidecar").list_access_requests(session_id=request.call.session_id)) == []


def test_arguments_are_gone_after_the_answer(desk: Desk) -> None:
    """What was kept for the person is of no use afterwards, and not shown to anybody."""
    request = desk.wait(arguments=SECRET)
    desk.approve(request)

    assert desk.shown(request).arguments_json == b""


def test_more_calls_than_a_run_has_are_refused(desk: Desk) -> None:
    """Without `@step_up_run` an approval is for one call, and with it for so many."""
    one = desk.wait()
    run = desk.wait(call={"run": 3, "digest": b"run", "targets": frozenset({b"t"})})

    assert desk.approve(one, calls=2) == "INVALID_ARGUMENT: `calls`: an approval of this request is for one call"
    assert desk.approve(run, calls=4) == "INVALID_ARGUMENT: `calls`: an approval of this request is for at most 3 calls"
    assert desk.approve(run, calls=3) == "OK"
    assert desk.shown(run).access_request.approved_calls == 3


def test_nothing_is_approved_without_a_record(desk: Desk) -> None:
    """While the record takes no more, a yes is refused; a no, and what takes back a yes, go on."""
    approvals, (approved, waits) = desk.server.embedded.approvals, (desk.wait(), desk.wait())
    desk.approve(approved)
    digest = desk.shown(waits).request_digest
    lead = next(one for one in CALLERS if one.id == "lead")
    approvals._record_permits = lambda: False
    try:
        with pytest.raises(UnavailableError):
            approvals.approve(waits.id, request_digest=digest, caller=lead)
        assert desk.server.client("lead").revoke_access(access_request_id=approved.id, reason="x") == (approved.id,)
        assert desk.server.client("lead").deny_call(waits.id).state == ACCESS_STATE_DENIED
    finally:
        approvals._record_permits = lambda: True


@pytest.mark.parametrize("look", ["list", "watch"])
def test_who_looks_at_what_waits_reads_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    """What has expired is kept for a month, and stored as it was: it is not read to find what is open."""
    desk.wait()
    desk.server.clock.advance(REQUEST_SECONDS)
    request = desk.wait()
    read, select = [], desk.server.embedded.history.access().select

    def counted(*words: Any, **more: Any) -> tuple[AccessRequest, ...]:
        read.append(found := select(*words, **more))
        return found

    monkeypatch.setattr(desk.server.embedded.history.access(), "select", counted)
    lead = desk.server.client("lead")
    seen = list(lead.list_access_requests(state="open")) if look == "list" else [next(lead.watch_access_requests())]

    assert [request.id] == [one.access_request_id for one in seen] == [one.id for page in read for one in page]


STEPPING_UP = """
@id("asking/attic")
@step_up("may the agent look into the attic?")
forbid (principal, action == Action::"git/log", resource) when { context.input.repo like "attic*" };
"""


class Passing(FakeClock):
    """A clock by which no two moments are the same."""

    def now(self) -> Instant:
        """Return the current reading of both clocks, a little later than the one before."""
        self.advance(0.001)
        return super().now()


@pytest.fixture
def asking() -> Iterator[tuple[Desk, str]]:
    """Serve a bundle in which a rule asks a person; return the desk, and the handle of a session."""
    files = files_of(changed(BUNDLE, {"policies": {"asking": STEPPING_UP}, "directory": {"users": LEADS}}))
    with running_server(files, callers=CALLERS, clock=Passing()) as server:
        opened = server.client("gateway").request_session(user="ada", agent="coder", purpose="x", tools=["git/*"])
        shown = opened.session
        server.client("lead").approve_session(shown.session_id, request_digest=shown.request_digest)
        yield Desk(server), opened.session_handle


def in_the_attic(desk: Desk, handle: str, **more: Any) -> Answer:
    """Ask about the call that a person must approve."""
    return desk.server.client("gateway").authorize(handle, "git", "log", {"repo": "attic"}, **more)


def test_a_call_waits_is_approved_and_goes_on(asking: tuple[Desk, str]) -> None:
    """From the gateway's question to the person's answer and the allow; the record tells each step, in order."""
    desk, handle = asking
    lead = desk.server.client("lead")

    def answer() -> None:
        waits = next(lead.watch_access_requests()).access_request_id
        lead.approve_call(waits, request_digest=lead.get_access_request(waits).request_digest)

    person = threading.Thread(target=answer)
    person.start()
    answered = in_the_attic(desk, handle, wait=PATIENCE, request_id="once")
    again = in_the_attic(desk, handle, request_id="once")
    another = in_the_attic(desk, handle)
    person.join(PATIENCE)

    assert ("permit", ("asking/attic",)) == (answered.basis, answered.policies_lifted)
    assert (again.allowed, again.decision_id) == (True, answered.decision_id)
    assert ("approval_required", True) == (another.basis, another.waits)
    # The repeated question has used nothing.
    # Gateway and person are served at once, so the order is that of the times, as for whoever reads the record.
    steps = sorted(desk.server.evidence.records, key=lambda one: str(one["time"]))
    kinds = [one["kind"] for one in steps if one["kind"].startswith("access.")]
    assert kinds == ["access.requested", "access.approved", "access.used", "access.requested"]
    used = desk.records("access.used")[0]["facts"]
    assert (answered.decision_id, "1", "1", "lead") == tuple(
        used[name] for name in ("decision_id", "used", "calls", "approved_by")
    )


def test_a_no_counts_for_the_session(asking: tuple[Desk, str]) -> None:
    """The gateway is told at once, and the same call is a plain deny from then on."""
    desk, handle = asking
    lead = desk.server.client("lead")
    waits = in_the_attic(desk, handle).access_request_id

    def deny() -> None:
        wait_until(lambda: open_watches(desk) == 1)
        lead.deny_call(waits, reason="leave it")

    person = threading.Thread(target=deny)
    person.start()
    refused = in_the_attic(desk, handle, wait=PATIENCE)
    later = in_the_attic(desk, handle)
    person.join(PATIENCE)

    assert refused.advice[0].startswith("a person refused this call (`leave it`)")
    assert ("forbid", False) == (later.basis, later.waits)


def test_people_are_not_asked_without_end(asking: tuple[Desk, str]) -> None:
    """At most eight requests of a session wait, and a hundred of a gateway; another gateway may go on asking."""
    desk, handle = asking

    def ask(handle: str, number: int, by: str = "gateway") -> Answer:
        return desk.server.client(by).authorize(handle, "git", "log", {"repo": f"attic {number}"})

    first = [ask(handle, number) for number in range(MOST_OPEN_OF_SESSION + 1)]
    handles = [desk.opened().session_handle for _ in range(MOST_OPEN_OF_CALLER // MOST_OPEN_OF_SESSION)]
    rest = [ask(one, number) for one in handles for number in range(MOST_OPEN_OF_SESSION)]
    listed = list(desk.server.client("lead").list_access_requests(state="open"))
    other = ask(desk.opened(by="sidecar").session_handle, 0, by="sidecar")

    assert ["approval_required"] * MOST_OPEN_OF_SESSION + ["forbid"] == [one.basis for one in first]
    assert UNASKED[Unaskable.SESSION_ASKS_TOO_MUCH] == first[-1].advice[1]
    assert MOST_OPEN_OF_CALLER == len(listed) == sum(one.waits for one in (*first, *rest))
    assert UNASKED[Unaskable.CALLER_ASKS_TOO_MUCH] == rest[-1].advice[1]
    assert other.waits


def test_three_noes_end_the_questions_of_a_session(asking: tuple[Desk, str]) -> None:
    """Also of those that are delegated from it, without a person."""
    desk, _ = asking
    opened = desk.opened(may_delegate=True)
    gateway, lead = desk.server.client("gateway"), desk.server.client("lead")
    child = gateway.request_session(
        user="ada",
        agent="coder",
        purpose="x",
        tools=["git/log"],
        parent_session_handle=opened.session_handle,
    )
    handles = (opened.session_handle, child.session_handle)
    for number in range(MOST_NOES):
        asked = gateway.authorize(handles[number % 2], "git", "log", {"repo": f"attic {number}"})
        lead.deny_call(asked.access_request_id)

    last = [gateway.authorize(handle, "git", "log", {"repo": "attic"}) for handle in handles]

    assert ["forbid"] * 2 == [one.basis for one in last]
    assert {UNASKED[Unaskable.TOO_MANY_NOES]} == {one.advice[1] for one in last}


def test_what_is_taken_back_allows_nothing(asking: tuple[Desk, str]) -> None:
    """A revoked approval is not used, and neither is that of a session that was revoked."""
    desk, handle = asking
    lead = desk.server.client("lead")
    waits = in_the_attic(desk, handle).access_request_id
    lead.approve_call(waits, request_digest=lead.get_access_request(waits).request_digest)

    lead.revoke_access(access_request_id=waits, reason="no longer")
    answer = in_the_attic(desk, handle)

    assert "approval_required" == answer.basis
    assert answer.access_request_id != waits


class Watching:
    """An open watch, read by hand."""

    def __init__(self, desk: Desk, by: str, **which: str) -> None:
        self._channel = grpc.insecure_channel(desk.server.address)
        call = self._channel.unary_stream("/pdp.v1.AccessService/WatchAccessRequests")
        self.answers = call(
            WatchAccessRequestsRequest(**which).SerializeToString(),
            metadata=(("authorization", f"Bearer {desk.server.token(by)}"),),
            timeout=PATIENCE,
        )

    def next(self) -> WatchAccessRequestsResponse:
        """Return the next message."""
        return WatchAccessRequestsResponse.FromString(next(self.answers))

    def change(self) -> tuple[str, int]:
        """Return id and state of the next request that is sent."""
        while not (message := self.next()).access_requests:
            pass
        request = message.access_requests[0]
        return request.access_request_id, int(request.state)

    def close(self) -> None:
        """End the watch."""
        self.answers.cancel()
        self._channel.close()


@pytest.fixture
def watch(desk: Desk) -> Iterator[Callable[..., Watching]]:
    """Return what opens a watch; it ends with the test."""
    opened: list[Watching] = []

    def start(by: str, **which: str) -> Watching:
        opened.append(Watching(desk, by, **which))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
    # The next test has the whole share of each caller.
    wait_until(lambda: open_watches(desk) == 0)


def open_watches(desk: Desk) -> int:
    """Return how many watches a server has open."""
    lanes = desk.server._server._boundary._lanes
    return sum(lanes[lane]._total for lane in (Lane.ACCESS_WATCHES, Lane.GATEWAY_ACCESS_WATCHES))


def test_a_watch_shows_what_waits_and_then_each_change(desk: Desk, watch: Callable[..., Watching]) -> None:
    """First what is open, then a sign that this was all, then what happens."""
    session = desk.session()
    before = desk.wait(session, call={"digest": b"before"})
    seen = watch("lead", session_id=session)

    first, then = seen.next(), seen.next()
    after = desk.wait(session, call={"digest": b"after"})
    opened = seen.change()
    desk.approve(before)
    approved = seen.change()

    assert [before.id] == [one.access_request_id for one in first.access_requests]
    assert (False, True) == (first.complete, then.complete)
    assert ((after.id, ACCESS_STATE_OPEN), (before.id, ACCESS_STATE_APPROVED)) == (opened, approved)


@pytest.mark.parametrize("by", ["sidecar", "foreign-lead"])
def test_a_watch_shows_only_what_its_caller_may_see(desk: Desk, watch: Callable[..., Watching], by: str) -> None:
    """Neither another gateway nor another tenant is told that anything waits or happens."""
    session = desk.session()
    waits = desk.wait(session)
    seen = watch(by, session_id=session)

    first = seen.next()
    desk.approve(waits)
    threading.Timer(0.5, seen.answers.cancel).start()

    assert (True, 0) == (first.complete, len(first.access_requests))
    with pytest.raises(grpc.RpcError):
        seen.change()


def test_a_caller_has_its_share_of_watches(watch: Callable[..., Watching]) -> None:
    """One more is refused and ends no other; a closed one makes room."""
    mine = [watch("auditor") for _ in range(8)]
    for one in mine:
        one.next()

    with pytest.raises(grpc.RpcError) as caught:
        watch("auditor").next()

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert watch("lead").next() is not None
    mine[0].close()
    deadline = time.monotonic() + PATIENCE
    while not _opens(watch("auditor")):
        assert time.monotonic() < deadline


def test_gateways_do_not_keep_people_from_watching(watch: Callable[..., Watching]) -> None:
    """However many watch, of whatever tenant: they have threads of their own."""
    theirs = [watch(name) for name in ("gateway", "sidecar", "foreign-gateway") for _ in range(8)]
    for one in theirs:
        one.next()

    assert not _opens(watch("spare-gateway"))
    assert _opens(watch("lead"))


def _opens(watching: Watching) -> bool:
    try:
        return watching.next() is not None
    except grpc.RpcError:
        return False


def test_a_watch_ends_when_the_server_stops(serve: Serve) -> None:
    """It ends well within the time that open calls get, and without an error."""
    running = serve()
    call = running.channel.unary_stream("/pdp.v1.AccessService/WatchAccessRequests")
    answers = call(b"", metadata=running.credentials("approver"), timeout=PATIENCE)
    next(answers)

    running.server.stop(grace=PATIENCE)

    assert list(answers) == []


@contextmanager
def advancing(clock: FakeClock) -> Iterator[None]:
    """Advance a clock by a second a hundred times each second."""
    ending = threading.Event()

    def advance() -> None:
        while not ending.wait(0.01):
            clock.advance(1.0)

    thread = threading.Thread(target=advance)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def test_a_watch_says_that_it_lives_and_ends_with_its_caller(serve: Serve, clock: FakeClock) -> None:
    """A sign of life comes when nothing happens, and each message is for a caller that may still call."""
    known: list[Caller] = [Caller(id="lead", kind="token", roles=APPROVER)]

    class Changing:
        def needs_peer(self, _: object) -> bool:
            return False

        def authenticate(self, _: object, __: object = None) -> Caller:
            return known[0]

        def present(self, caller: Caller, _: object) -> Caller:
            return caller

    # However fast time passes here, the watch is not idle.
    running = serve(authenticator=Changing(), limits=Limits(stream_idle_seconds=1e9))
    call = running.channel.unary_stream("/pdp.v1.AccessService/WatchAccessRequests")
    answers = call(b"", timeout=PATIENCE)
    next(answers)
    with advancing(clock):
        alive = WatchAccessRequestsResponse.FromString(next(answers))
        known[0] = Caller(id="lead", kind="token", roles=frozenset({Role.AUTHOR}))
        with pytest.raises(grpc.RpcError) as caught:
            list(answers)

    assert (True, 0) == (alive.complete, len(alive.access_requests))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_watch_that_nobody_reads_ends(serve: Serve, embedded: Embedded, clock: FakeClock) -> None:
    """It keeps nothing back for its caller: it waits at the first message that does not go out, and is idle then."""
    running = serve()
    for _ in range(MOST_OPEN_OF_CALLER // MOST_OPEN_OF_SESSION):
        session = embedded.sessions.view(handle_digest(running.open_session())).chain[0]
        asks = tuple(Ask(session.id, f"guardrails/{place}", "sha256:" + "1" * 64, "?" * 512) for place in range(100))
        for number in range(MOST_OPEN_OF_SESSION):
            large = {"asks": asks, "digest": bytes([number])}
            waiting(embedded, clock, session.id, by="pep", action="git/git_log", call=large)
    # A client that measures how much fits into the connection takes many MiB before it is asked for them.
    with grpc.insecure_channel(running.server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        unread = [_watched(channel, running) for _ in range(8)]
        # Calls begin in any order: all eight have, when the head of each answer has come.
        for one in unread:
            one.initial_metadata()

        assert not _answers(_watched(channel, running))
        began_at = clock.now().boot_at

        while not _answers(_watched(running.channel, running)):
            clock.advance(1.0)

        assert clock.now().boot_at - began_at >= Limits().stream_idle_seconds
        for one in unread:
            one.cancel()


def _watched(channel: grpc.Channel, running: Running) -> Any:
    call = channel.unary_stream("/pdp.v1.AccessService/WatchAccessRequests")
    # Those that are not read are to end by the server's time.
    return call(b"", metadata=running.credentials("approver"), timeout=10 * PATIENCE)


def _answers(watched: Any) -> bool:
    try:
        next(watched)
    except grpc.RpcError:
        return False
    watched.cancel()
    return True
