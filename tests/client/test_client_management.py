"""Management calls reach their RPC with what was asked, and raise one exception class per status."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp import client as library
from pdp import errors
from pdp.client import AsyncClient, Client, ListedTool
from pdp.model import Visibility
from pdp.v1 import audit_pb2, authorization_pb2, explain_pb2, policy_pb2, session_pb2
from pdp.v1.session_pb2 import Session

if TYPE_CHECKING:
    from tests.client.conftest import ScriptedServer

SESSION = Session(session_id="ses_1", user="alice")
RECORD = audit_pb2.AuditRecord(record_json=b"{}\n", segment="a", place=7)
FILTER = audit_pb2.RecordFilter(session_id="ses_1", delegated=True)
LINK = policy_pb2.TemplateLink(template_id="t", new_id="n")

# One row per RPC: what is called, what the server gets, what it says, and what the caller gets.
CALLS: dict[str, tuple[Callable[[Any], Any], Message, Message, Any]] = {
    "ListTools": (
        lambda client: client.list_tools("pdps_1", session_id="ses_1"),
        authorization_pb2.ListToolsRequest(session_handle="pdps_1"),
        authorization_pb2.ListToolsResponse(
            session_id="ses_1",
            tools=[
                authorization_pb2.ToolVisibility(
                    server="files",
                    tool="a",
                    visibility=authorization_pb2.VISIBILITY_ALWAYS,
                    definition_digest="sha256:a",
                ),
                authorization_pb2.ToolVisibility(
                    server="files", tool="b", visibility=authorization_pb2.VISIBILITY_DEPENDS
                ),
                authorization_pb2.ToolVisibility(
                    server="files", tool="c", visibility=authorization_pb2.VISIBILITY_NEVER
                ),
                authorization_pb2.ToolVisibility(server="files", tool="d"),
                authorization_pb2.ToolVisibility(server="files", tool="e", visibility=77),  # type: ignore[arg-type]  # from the future
            ],
        ),
        (
            ListedTool(server="files", tool="a", visibility=Visibility.ALWAYS, definition_digest="sha256:a"),
            ListedTool(server="files", tool="b", visibility=Visibility.DEPENDS, definition_digest=""),
            ListedTool(server="files", tool="c", visibility=Visibility.NEVER, definition_digest=""),
            ListedTool(server="files", tool="d", visibility=Visibility.NEVER, definition_digest=""),
            ListedTool(server="files", tool="e", visibility=Visibility.NEVER, definition_digest=""),
        ),
    ),
    "RequestSession": (
        lambda client: client.request_session(
            user="alice",
            agent="coder",
            purpose="mend",
            tools=["files/*"],
            duration=90.5,
            parent_session_handle="pdps_0",
            environment="test",
            user_attributes={"team": "a"},
            labels=["l"],
            may_delegate=True,
        ),
        session_pb2.RequestSessionRequest(
            user="alice",
            agent="coder",
            purpose="mend",
            tool_patterns=["files/*"],
            duration=Duration(seconds=90, nanos=500_000_000),
            parent_session_handle="pdps_0",
            environment="test",
            user_attributes_json=b'{"team":"a"}',
            labels=["l"],
            may_delegate=True,
        ),
        session_pb2.RequestSessionResponse(session=SESSION, session_handle="pdps_1"),
        session_pb2.RequestSessionResponse(session=SESSION, session_handle="pdps_1"),
    ),
    "ApproveSession": (
        lambda client: client.approve_session("ses_1", request_digest="sha256:r", grants=["merge"]),
        session_pb2.ApproveSessionRequest(session_id="ses_1", request_digest="sha256:r", grants=["merge"]),
        session_pb2.ApproveSessionResponse(session=SESSION),
        SESSION,
    ),
    "DenySession": (
        lambda client: client.deny_session("ses_1", reason="no"),
        session_pb2.DenySessionRequest(session_id="ses_1", reason="no"),
        session_pb2.DenySessionResponse(session=SESSION),
        SESSION,
    ),
    "EndSession": (
        lambda client: client.end_session("pdps_1"),
        session_pb2.EndSessionRequest(session_handle="pdps_1"),
        session_pb2.EndSessionResponse(session=SESSION),
        SESSION,
    ),
    "RevokeSessions": (
        lambda client: client.revoke_sessions(agent="coder", reason="stolen"),
        session_pb2.RevokeSessionsRequest(agent="coder", reason="stolen"),
        session_pb2.RevokeSessionsResponse(session_ids=["ses_1", "ses_2"]),
        ("ses_1", "ses_2"),
    ),
    "ReviewSession": (
        lambda client: client.review_session("ses_1", grants=["merge"]),
        session_pb2.ReviewSessionRequest(session_id="ses_1", grants=["merge"]),
        session_pb2.ReviewSessionResponse(session=SESSION, known_grants=["merge"]),
        session_pb2.ReviewSessionResponse(session=SESSION, known_grants=["merge"]),
    ),
    "GetSession": (
        lambda client: client.get_session("ses_1"),
        session_pb2.GetSessionRequest(session_id="ses_1"),
        session_pb2.GetSessionResponse(session=SESSION),
        SESSION,
    ),
    "ListSessions": (
        lambda client: client.list_sessions(state="active", user="alice", agent="coder", page_size=2),
        session_pb2.ListSessionsRequest(
            state=session_pb2.SESSION_STATE_ACTIVE, user="alice", agent="coder", page_size=2
        ),
        session_pb2.ListSessionsResponse(sessions=[SESSION]),
        [SESSION],
    ),
    "NarrowSession": (
        lambda client: client.narrow_session("ses_1", tools=["files/read"], expires_at=12.25, labels=["l"]),
        session_pb2.NarrowSessionRequest(
            session_id="ses_1",
            tool_patterns=["files/read"],
            expire_time=Timestamp(seconds=12, nanos=250_000_000),
            labels=["l"],
        ),
        session_pb2.NarrowSessionResponse(session=SESSION),
        SESSION,
    ),
    "ListBundles": (
        lambda client: client.list_bundles(),
        policy_pb2.ListBundlesRequest(),
        policy_pb2.ListBundlesResponse(bundles=[policy_pb2.Bundle(version="sha256:v")]),
        (policy_pb2.Bundle(version="sha256:v"),),
    ),
    "ActivateBundle": (
        lambda client: client.activate_bundle("sha256:v", reason="the new one fails"),
        policy_pb2.ActivateBundleRequest(version="sha256:v", reason="the new one fails"),
        policy_pb2.ActivateBundleResponse(changed=True),
        policy_pb2.ActivateBundleResponse(changed=True),
    ),
    "GetBundle": (
        lambda client: client.get_bundle(),
        policy_pb2.GetBundleRequest(),
        policy_pb2.GetBundleResponse(load_errors=["x"]),
        policy_pb2.GetBundleResponse(load_errors=["x"]),
    ),
    "ReloadBundle": (
        lambda client: client.reload_bundle(),
        policy_pb2.ReloadBundleRequest(),
        policy_pb2.ReloadBundleResponse(changed=True),
        policy_pb2.ReloadBundleResponse(changed=True),
    ),
    "CheckBundle": (
        lambda client: client.check_bundle({"b.cedar": b"2", "a.cedar": b"1"}),
        policy_pb2.CheckBundleRequest(
            files=[
                policy_pb2.BundleFile(path="a.cedar", content=b"1"),
                policy_pb2.BundleFile(path="b.cedar", content=b"2"),
            ]
        ),
        policy_pb2.CheckBundleResponse(version="sha256:v"),
        policy_pb2.CheckBundleResponse(version="sha256:v"),
    ),
    "Evaluate": (
        lambda client: client.evaluate(
            [{"context": {}}, '{"as": "text"}'],
            policies="permit(principal, action, resource);",
            entities=[{"uid": 1}],
            schema={"": {}},
            template_links=[LINK],
            validate=True,
            skip_request_validation=True,
        ),
        policy_pb2.EvaluateRequest(
            policies="permit(principal, action, resource);",
            schema_json='{"": {}}',
            entities_json='[{"uid": 1}]',
            template_links=[LINK],
            validate=True,
            requests_json=['{"context": {}}', '{"as": "text"}'],
            skip_request_validation=True,
        ),
        policy_pb2.EvaluateResponse(valid=True),
        policy_pb2.EvaluateResponse(valid=True),
    ),
    "Explain": (
        lambda client: client.explain(
            "files",
            "read",
            {"path": "a"},
            session_id="ses_1",
            definition_digest="sha256:d",
            facts={"level": 1},
            caller_id="gateway",
            at=12.25,
        ),
        explain_pb2.ExplainRequest(
            session_id="ses_1",
            server="files",
            tool="read",
            arguments_json=b'{"path":"a"}',
            definition_digest="sha256:d",
            facts_json=b'{"level":1}',
            caller_id="gateway",
            time=Timestamp(seconds=12, nanos=250_000_000),
        ),
        explain_pb2.ExplainResponse(summary="allowed"),
        explain_pb2.ExplainResponse(summary="allowed"),
    ),
    "GetRecord": (
        lambda client: client.get_records("dec_1"),
        audit_pb2.GetRecordRequest(decision_id="dec_1"),
        audit_pb2.GetRecordResponse(record=RECORD, records=[RECORD, RECORD]),
        (RECORD, RECORD),
    ),
    "ListRecords": (
        lambda client: client.list_records(FILTER, page_size=2),
        audit_pb2.ListRecordsRequest(filter=FILTER, page_size=2),
        audit_pb2.ListRecordsResponse(records=[RECORD]),
        [RECORD],
    ),
    "ListApprovals": (
        lambda client: client.list_approvals(decision_id="dec_1"),
        audit_pb2.ListApprovalsRequest(decision_id="dec_1"),
        audit_pb2.ListApprovalsResponse(approvals=[audit_pb2.Approval(session_id="ses_1")]),
        (audit_pb2.Approval(session_id="ses_1"),),
    ),
    "ListTouched": (
        lambda client: client.list_touched(FILTER, page_size=2),
        audit_pb2.ListTouchedRequest(filter=FILTER, page_size=2),
        audit_pb2.ListTouchedResponse(touched=[audit_pb2.Touch(tool="read")]),
        [audit_pb2.Touch(tool="read")],
    ),
    "PlanRevocation": (
        lambda client: client.plan_revocation(audit_pb2.PlanRevocationRequest(agent="coder", page_size=2)),
        audit_pb2.PlanRevocationRequest(agent="coder", page_size=2),
        audit_pb2.PlanRevocationResponse(sessions=[audit_pb2.PlannedRevocation(session_id="ses_1")]),
        [audit_pb2.PlannedRevocation(session_id="ses_1")],
    ),
}


def _sync(address: str, call: Callable[[Any], Any]) -> Any:
    with Client(address) as client:
        result = call(client)
        return list(result) if hasattr(result, "__next__") else result


def _async(address: str, call: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with AsyncClient(address) as client:
            result = call(client)
            return [each async for each in result] if hasattr(result, "__anext__") else await result

    return asyncio.run(run())


both = pytest.mark.parametrize("run", [_sync, _async], ids=["sync", "async"])
Run = Callable[[str, Callable[[Any], Any]], Any]


@both
@pytest.mark.parametrize("method", CALLS)
def test_a_management_call_travels_and_returns(server: ScriptedServer, address: str, run: Run, method: str) -> None:
    """Each wrapper sends exactly its request to its RPC and returns what matters of the reply."""
    call, request, reply, result = CALLS[method]
    server.scripts[method] = lambda _, __: reply

    found = run(address, call)

    assert server.requests == [(method, request)]
    assert found == result


def test_every_rpc_has_its_row() -> None:
    """A new RPC needs a wrapper, and a wrapper its row."""
    files = (authorization_pb2.DESCRIPTOR, session_pb2.DESCRIPTOR, policy_pb2.DESCRIPTOR, audit_pb2.DESCRIPTOR)
    rpcs = {rpc.name for file in files for service in file.services_by_name.values() for rpc in service.methods}

    assert rpcs - CALLS.keys() == {"Authorize", "BatchAuthorize", "AuthorizeStream"}
    assert CALLS.keys() <= rpcs


CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: library.InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: library.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: library.PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: library.NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: library.WrongStateError,
    grpc.StatusCode.ABORTED: library.ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: library.RequestIdConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: library.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: library.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: library.UnavailableError,
}


@both
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_each_status_has_its_exception(server: ScriptedServer, address: str, run: Run, code: grpc.StatusCode) -> None:
    """A failed management call raises the class of its status, with the status and one line."""
    server.scripts["GetSession"] = lambda _, context: context.abort(code, "why\nnot")

    with pytest.raises(library.PDPClientError) as caught:
        run(address, lambda client: client.get_session("ses_1"))

    assert type(caught.value) is CLASSES.get(code, library.PDPClientError)
    assert (caught.value.code, str(caught.value)) == (code, f"{code.name.lower()}: why not")


@pytest.mark.parametrize("name", [name for name in library.__all__ if name.endswith("Error")])
def test_there_is_one_exception_tree(name: str) -> None:
    """What the client raises is a `PDPError`, and where the core has a class of the same name it is that as well."""
    kind = getattr(library, name)

    assert issubclass(kind, getattr(errors, name, library.PDPClientError))
    assert issubclass(kind, errors.PDPError)


@both
def test_sessions_are_listed_over_all_pages(server: ScriptedServer, address: str, run: Run) -> None:
    """The listing follows the page tokens to the end."""
    second, third = "two", "three"
    pages = {
        "": session_pb2.ListSessionsResponse(sessions=[Session(session_id="ses_1")], next_page_token=second),
        second: session_pb2.ListSessionsResponse(sessions=[Session(session_id="ses_2")], next_page_token=third),
        third: session_pb2.ListSessionsResponse(),
    }
    server.scripts["ListSessions"] = lambda request, _: pages[request.page_token]

    found = run(address, lambda client: client.list_sessions())

    assert [session.session_id for session in found] == ["ses_1", "ses_2"]


@both
def test_answers_about_the_record_are_read_over_all_pages(server: ScriptedServer, address: str, run: Run) -> None:
    """Records, what was touched, and the plan follow the page tokens to the end."""
    pages = {"": "two", "two": "three", "three": ""}
    server.scripts["ListRecords"] = lambda request, _: audit_pb2.ListRecordsResponse(
        records=[RECORD], next_page_token=pages[request.page_token]
    )
    server.scripts["ListTouched"] = lambda request, _: audit_pb2.ListTouchedResponse(
        touched=[audit_pb2.Touch()], next_page_token=pages[request.page_token]
    )
    server.scripts["PlanRevocation"] = lambda request, _: audit_pb2.PlanRevocationResponse(
        sessions=[audit_pb2.PlannedRevocation()], next_page_token=pages[request.page_token]
    )

    found = [
        run(address, lambda client: client.list_records()),
        run(address, lambda client: client.list_touched()),
        run(address, lambda client: client.plan_revocation(audit_pb2.PlanRevocationRequest(user="alice"))),
    ]

    assert [3, 3, 3] == [len(one) for one in found]
    assert {"alice"} == {request.user for request in server.sent("PlanRevocation")}


@both
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda client: client.revoke_sessions(reason="why"), "exactly one of"),
        (lambda client: client.revoke_sessions(reason="why", user="alice", agent="coder"), "exactly one of"),
        (lambda client: client.list_approvals(), "exactly one of"),
        (lambda client: client.list_approvals(session_id="ses_1", decision_id="dec_1"), "exactly one of"),
        (lambda client: client.list_sessions(state="living"), "unknown session state: `living`"),
        (lambda client: client.narrow_session("ses_1", tools="files/read"), "a list of texts is needed"),
        (
            lambda client: client.request_session(user="a", agent="b", purpose="c", tools="files/*"),
            "a list of texts is needed",
        ),
        (
            lambda client: client.request_session(
                user="a", agent="b", purpose="c", tools=["files/*"], user_attributes={"n": float("nan")}
            ),
            "`user_attributes`",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_it_is_sent(
    server: ScriptedServer, address: str, run: Run, call: Callable[[Any], Any], text: str
) -> None:
    """Wrong use is an exception and sends nothing."""
    with pytest.raises(library.InvalidRequestError, match=text):
        run(address, call)

    assert server.requests == []


@both
def test_a_listing_about_another_session_is_an_error(server: ScriptedServer, address: str, run: Run) -> None:
    """A listing that names another session is not believed."""
    server.scripts["ListTools"] = lambda _, __: authorization_pb2.ListToolsResponse(session_id="ses_2")

    with pytest.raises(library.PDPClientError, match="another session"):
        run(address, lambda client: client.list_tools("pdps_1", session_id="ses_1"))


@both
def test_without_policies_the_running_bundle_is_evaluated(server: ScriptedServer, address: str, run: Run) -> None:
    """No policies and empty policies are two things."""
    server.scripts["Evaluate"] = lambda _, __: policy_pb2.EvaluateResponse()

    run(address, lambda client: client.evaluate(["{}"]))
    run(address, lambda client: client.evaluate(["{}"], policies=""))

    assert [request.running_bundle for request in server.sent("Evaluate")] == [True, False]


@both
def test_a_large_bundle_goes_in_several_messages(server: ScriptedServer, address: str, run: Run) -> None:
    """No message is larger than a server takes by default, and together they hold every file."""
    files = {"a.cedar": b"a" * 100_000, "b.cedar": b"", "c.cedar": b"c"}
    server.scripts["CheckBundle"] = lambda _, __: policy_pb2.CheckBundleResponse(version="sha256:v")

    run(address, lambda client: client.check_bundle(files))
    [sent] = server.sent("CheckBundle")

    pieces = [(file.path, file.content) for message in sent for file in message.files]
    assert max(message.ByteSize() for message in sent) < 64 * 1024
    assert files == {path: b"".join(content for of, content in pieces if of == path) for path in files}


def test_closing_an_async_client_fails_what_is_under_way(server: ScriptedServer, address: str) -> None:
    """A management call that `close` cuts off raises what every failed one raises: its task was not cancelled."""
    arrived = threading.Event()

    def hang(*_: Any) -> session_pb2.GetSessionResponse:
        arrived.set()
        server.released.wait()
        return session_pb2.GetSessionResponse()

    server.scripts["GetSession"] = hang

    async def run() -> None:
        client = AsyncClient(address)
        asking = asyncio.create_task(client.get_session("ses_1"))
        await asyncio.to_thread(arrived.wait, 10)
        await client.close()
        await asking

    with pytest.raises(library.PDPClientError, match="the connection was closed"):
        asyncio.run(run())
