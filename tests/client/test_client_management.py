"""Management calls reach their RPC with what was asked, and raise one exception class per status."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pdp import client as library
from pdp import errors
from pdp.client import AsyncClient, Client, tasks
from pdp.testing.waiting import wait_until
from pdp.v1 import audit_pb2, authorization_pb2, policy_pb2, session_pb2
from pdp.v1.session_pb2 import Session
from tests.machinery.rpcs.services import SERVICES
from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.running import PATIENCE

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

RECORD = audit_pb2.AuditRecord(record_json=b"{}\n", segment="a", place=7)


def _silent(server: ScriptedServer) -> Iterator[Any]:
    server.released.wait(PATIENCE)
    yield from ()


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


WRAPPED = {name: row.wrapped for name, row in OWN.items() if row.wrapped}
both = pytest.mark.parametrize("run", [_sync, _async], ids=["sync", "async"])
Run = Callable[[str, Callable[[Any], Any]], Any]


@both
@pytest.mark.parametrize("method", WRAPPED)
def test_a_management_call_travels_and_returns(server: ScriptedServer, address: str, run: Run, method: str) -> None:
    """Each wrapper sends exactly its request to its RPC and returns what matters of the reply."""
    call, request, reply, result = WRAPPED[method]
    server.scripts[method] = lambda _, __: reply

    found = run(address, call)

    [(name, sent)] = server.requests
    if "request_id" in sent.DESCRIPTOR.fields_by_name:
        # A new one for each call.
        assert sent.request_id
        sent.ClearField("request_id")
    assert (method, request) == (name, sent)
    assert found == result


def test_every_rpc_has_its_row() -> None:
    """A new RPC needs a wrapper, and a wrapper its row."""
    rpcs = {rpc.name for service in SERVICES for rpc in service.methods}

    assert rpcs - WRAPPED.keys() == {
        "Authorize",
        "BatchAuthorize",
        "AuthorizeStream",
        "WatchAccessRequests",
        "WatchSessions",
    }
    assert WRAPPED.keys() <= rpcs


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
        (lambda client: client.narrow_session("ses_1", tools="files/read"), "must be a list of texts"),
        (
            lambda client: client.request_session(user="a", agent="b", purpose="c", tools="files/*"),
            "must be a list of texts",
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
        assert await asyncio.to_thread(arrived.wait, PATIENCE)
        await client.close()
        await asking

    with pytest.raises(library.PDPClientError, match="the connection was closed"):
        asyncio.run(run())


@pytest.mark.parametrize("name", ["watch_sessions", "watch_access_requests"])
@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "async"])
def test_a_watch_that_never_begins_breaks_in_time(server: ScriptedServer, address: str, kind: Any, name: str) -> None:
    """The first message comes at once, so a server that is silent from the beginning is not waited for."""
    server.scripts["WatchSessions"] = server.scripts["WatchAccessRequests"] = lambda *_: _silent(server)

    async def run() -> None:
        async with AsyncClient(address, management_timeout=0.5) as client:
            await anext(getattr(client, name)())

    def run_sync() -> None:
        with Client(address, management_timeout=0.5) as client:
            next(getattr(client, name)())

    with pytest.raises(library.UnavailableError, match="has not answered in time"):
        asyncio.run(run()) if kind is AsyncClient else run_sync()


def test_a_watch_that_has_begun_may_be_silent() -> None:
    """Later messages come when something changes."""

    class Call:
        """A watch with a message at once, and another one late."""

        async def read(self) -> str:
            if later:
                await asyncio.sleep(0.3)
            later.append(True)
            return "a message"

    later: list[bool] = []

    async def run() -> list[str]:
        feed = tasks.Feed(Call, first=0.2)
        return [await feed.next(), await feed.next()]

    assert asyncio.run(run()) == ["a message"] * 2


def test_a_watch_that_has_begun_holds_no_second_thread(server: ScriptedServer, address: str) -> None:
    """What waits for the first message in the client for threads has ended."""
    server.scripts["WatchSessions"] = lambda *_: iter([session_pb2.WatchSessionsResponse()])

    with Client(address) as client:
        list(client.watch_sessions())

        wait_until(lambda: all(thread.name != "pdp-first-message" for thread in threading.enumerate()))


def test_a_closed_client_says_that_it_is_closed(address: str) -> None:
    """To calls and to watches, for threads and for asyncio."""
    client = Client(address)
    client.close()
    for ask in (lambda: client.get_session("ses_1"), lambda: next(client.watch_sessions())):
        with pytest.raises(library.PDPClientError, match="the connection was closed"):
            ask()

    async def run(asks: Callable[[AsyncClient], Awaitable[Any]]) -> None:
        client = AsyncClient(address)
        await client.close()
        await asks(client)

    for asks in (lambda client: client.get_session("ses_1"), lambda client: anext(client.watch_sessions())):
        with pytest.raises(library.PDPClientError, match="the connection was closed"):
            asyncio.run(run(asks))


def test_a_client_of_another_event_loop_says_so(address: str) -> None:
    """What gRPC raises there has its own words, and leaves a coroutine behind."""

    async def make() -> AsyncClient:
        client = AsyncClient(address)
        await client.authorize("pdps_secret", "files", "read")
        return client

    client = asyncio.run(make())

    assert "belongs to the event loop in which it was made" in asyncio.run(client.authorize("s", "f", "t")).error
    with pytest.raises(library.PDPClientError, match="belongs to the event loop in which it was made"):
        asyncio.run(client.get_session("ses_1"))
