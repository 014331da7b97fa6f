"""A real MCP server, the proxy before it and the PDP behind that, all over HTTP in one process."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from unittest.mock import patch

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from pydantic import Field

from pdp.calltokens.asgi import CallTokenMiddleware
from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.requests import Guard
from pdp.client import AsyncClient, CallTokenRequest
from pdp.doors.feeds import SessionsFeed
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.http import HTTPDoor
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.mcp.site import PATH, ServerBehind
from pdp.doors.mcp.upstream import Upstream
from pdp.doors.session import GivenSession
from pdp.doors.tokensessions import TokenSessions
from pdp.observer import DoorObserver
from pdp.serving import weblistener
from pdp.serving.web import Doorstep
from pdp.serving.weblistener import Listener
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import LEGACY, MODERN, PATIENCE, STATED
from tests.machinery.credentials.issuer import ISSUER

HANDLE = "X-PDP-Session"
ORIGIN = "https://door.example.org"
# What is asked is in plain HTTP: without this each client would read all roots that the machine trusts.
ROOTLESS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
RESOURCE = f"{ORIGIN}/mcp"
SECRET = "tok-8e1f0a6c5b"  # noqa: S105 - of a test
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
GREETING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
_DIRECTORY = """
users: {alice: {}, bob: {}, approver: {}}
agents: {coder: {ceiling: ["desk/*"]}}
"""
_POLICIES = """
@id("desk/everything") permit (principal, action, resource == Server::"desk");
@id("desk/never") forbid (principal, action == Action::"desk/hidden", resource);
@id("desk/not-bob") forbid (principal == User::"bob", action == Action::"desk/reflect", resource);
@id("desk/asked") @step_up("Ask a person.") forbid (principal, action == Action::"desk/asked", resource);
"""


@dataclass
class Desk:
    """What the tools of the server have seen: how often each has run, and the headers of the last request."""

    ran: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


class KeptEvents(EventStore):
    """The events of all streams, in order, so that a client can ask for the rest of one."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep an event, and return its id."""
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came after an event on its stream."""
        stream = self.kept[int(last_event_id) - 1][0]
        for number, (one, message) in enumerate(self.kept, 1):
            if one == stream and number > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def desk_server(desk: Desk) -> MCPServer:
    """Return a server whose tools count how often they run."""
    server = MCPServer("desk")

    @server.tool()
    def echo(text: str) -> str:
        """Return the text."""
        desk.ran["echo"] += 1
        desk.texts.append(text)
        return text

    @server.tool()
    def hidden() -> str:
        """Do what no policy permits."""
        desk.ran["hidden"] += 1
        return "hidden"

    @server.tool()
    def asked() -> str:
        """Do what a person must approve first."""
        desk.ran["asked"] += 1
        return "asked"

    @server.tool()
    def routed(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
        shard: Annotated[int, Field(json_schema_extra={"x-mcp-header": "Shard"})] = 0,
    ) -> str:
        """Be routed by arguments that headers repeat."""
        desk.ran["routed"] += 1
        return f"{region} {shard}"

    @server.tool()
    def reflect(how: str) -> str:
        """Return a header of the request."""
        desk.ran["reflect"] += 1
        token = desk.headers.get("authorization") or desk.headers[HEADER]
        return base64.b64encode(f"it is {token}!".encode()).decode() if how == "base64" else f"it is {token}"

    @server.tool()
    async def slow(steps: int, ctx: Context[Any, Any]) -> str:
        """Report progress, and wait."""
        desk.ran["slow"] += 1
        for step in range(steps):
            await ctx.report_progress(step, steps)
        desk.begun.set()
        await desk.go_on.wait()
        desk.ran["slow to the end"] += 1
        return "done"

    @server.tool()
    async def polled(ctx: Context[Any, Any]) -> str:
        """Close the stream, and have the client ask for the rest."""
        desk.ran["polled"] += 1
        await ctx.report_progress(1, 2)
        await ctx.close_sse_stream()
        await ctx.report_progress(2, 2)
        return "after all"

    @server.tool()
    async def question(ctx: Context[Any, Any]) -> str:
        """Ask the client's person."""
        desk.ran["question"] += 1
        roots = await ctx.session.list_roots()
        return str(len(roots.roots))

    return server


def desk_bundle(labels: Iterable[str] = ("tainted",), overlay: str = "") -> dict[str, bytes]:
    """Return a bundle whose catalogue holds the tools as the server lists them.

    With a label the PDP takes reports of what came of calls.
    """
    listed = asyncio.run(desk_server(Desk()).list_tools())
    tools = [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed]
    return bundle_files(
        policies={"desk": _POLICIES},
        tools={"desk": tools},
        overlays={"desk": overlay} if overlay else {},
        directory=_DIRECTORY,
        labels=labels,
    )


@dataclass(frozen=True, kw_only=True)
class World:
    """The proxy that runs, and what stands behind it."""

    pdp: RunningServer
    desk: Desk
    server: MCPServer
    url: str
    listener: Listener

    def at(self, url: str) -> World:
        """Return the same with another proxy."""
        return replace(self, url=url)

    def session(self, user: str = "alice") -> tuple[str, str]:
        """Return id and handle of an active session for all tools."""
        opened = self.pdp.client("pep").request_session(user=user, agent="coder", purpose="to try", tools=("desk/*",))
        shown = opened.session
        self.pdp.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
        return shown.session_id, opened.session_handle

    def revoke(self, session_id: str) -> None:
        """Revoke a session."""
        self.pdp.client("approver").revoke_sessions(session_id=session_id, reason="enough")

    @asynccontextmanager
    async def client(self, era: str, handle: str, **more: Any) -> AsyncIterator[Client]:
        """Connect the real client of MCP."""
        async with httpx2.AsyncClient(headers={HANDLE: handle} if handle else {}, timeout=60, verify=ROOTLESS) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=MODERN if era == MODERN else "legacy", **more) as client:
                yield client

    async def call(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, handle: str, **headers: str
    ) -> httpx2.Response:
        """Call a tool with one message of the era without a handshake; `headers` replace those that it needs."""
        params = {"name": tool, "arguments": dict(arguments or {}), "_meta": STATED}
        sent = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await self.post(body, {name: value for name, value in sent.items() if value}, handle=handle)

    async def post(
        self, body: bytes | dict[str, Any], headers: Mapping[str, str] | None = None, *, handle: str = ""
    ) -> httpx2.Response:
        """Send one message as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"accept": "application/json, text/event-stream", "content-type": "application/json", **(headers or {})}
        sent |= {HANDLE: handle} if handle else {}
        async with httpx2.AsyncClient(timeout=60, verify=ROOTLESS) as http:
            return await http.post(self.url, content=content, headers=sent)

    async def waiting(self, session_id: str) -> str:
        """Return the id of the call of a session that waits for a person, as soon as there is one."""
        approver = self.pdp.client("approver")
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await asyncio.to_thread(lambda: list(approver.list_access_requests(session_id=session_id)))
                if found:
                    return str(found[0].access_request_id)

    async def approve_a_call(self, session_id: str) -> None:
        """Approve the call of a session that waits."""
        number = await self.waiting(session_id)
        approver = self.pdp.client("approver")
        shown = approver.get_access_request(number)
        approver.approve_call(number, request_digest=shown.request_digest)

    async def until_answered(self, handle: str) -> None:
        """Wait until a call runs."""
        async with asyncio.timeout(PATIENCE):
            while message_of(await self.call("echo", {"text": "again"}, handle=handle))["result"]["isError"]:
                pass

    def reported(self, session_id: str) -> list[str]:
        """Return what was reported of the calls of a session."""
        return [
            one["facts"]["status"]
            for one in self.pdp.evidence.records
            if one["kind"] == "call.reported" and one["session_id"] == session_id
        ]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.to_thread(lambda: None)


@asynccontextmanager
async def world(
    pdp: RunningServer,
    *,
    credentials: Credentials | None = None,
    passes: frozenset[str] = frozenset(),
    call_token: CallTokenRequest | None = None,
    guard: Guard | None = None,
    upstream: str = "",
    address: str = "",
    json_answers: bool = False,
    events: EventStore | None = None,
    wait: float = 0.0,
    tokens_of: Callable[[AsyncClient], TokenSessions] | None = None,
    observer: DoorObserver | None = None,
    name: str = "",
    paths: Mapping[str, str] = MappingProxyType({"desk": PATH}),
) -> AsyncIterator[World]:
    """Run the server and the proxy before it, which knows it by each of the names in `paths`.

    The proxy may be called by `name` too, and from pages of that host. With a `guard` the server takes no call without
    a call token, which any process on the machine may present.
    """
    desk = Desk()
    tools = desk_server(desk)
    async with AsyncExitStack() as opened:
        # On a machine that is busy with other tests, a late answer must not become a deny.
        opened.enter_context(patch("pdp.doors.mcp.parties._LOOK_SECONDS", PATIENCE))
        opened.enter_context(patch("pdp.doors.session._MOST_START_SECONDS", PATIENCE))
        opened.enter_context(patch("pdp.doors.session._MOST_END_SECONDS", PATIENCE))
        # Streams must hear of changes from the feed.
        opened.enter_context(patch("pdp.doors.mcp.streams._LOOK_SECONDS", 10 * PATIENCE))
        if not upstream:
            app = tools.streamable_http_app(json_response=json_answers, event_store=events, retry_interval=100)
            guarded = app if guard is None else CallTokenMiddleware(app, guard, presenter=lambda _: Presenter())
            upstream = await opened.enter_async_context(behind(desk, guarded))
        client = await opened.enter_async_context(
            AsyncClient(address or pdp.address, token=pdp.token("pep"), plaintext=True, timeout=PATIENCE)
        )
        behind_it = await opened.enter_async_context(
            Upstream(upstream, credentials=credentials or Credentials(call_tokens=call_token is not None))
        )
        listener = opened.enter_context(Listener("127.0.0.1:0"))
        names = {f"{name}:{listener.port}"} if name else set()
        tokens = tokens_of(client) if tokens_of else None
        if tokens is not None:
            opened.push_async_callback(tokens.close)
        feed = SessionsFeed(lambda since: client.watch_sessions(since_revision=since))
        opened.push_async_callback(feed.close)
        door = HTTPDoor(
            [
                ServerBehind(
                    name=server,
                    path=path,
                    upstream=behind_it,
                    passes=passes,
                    call_token=call_token,
                    resource=ProtectedResource(url=ORIGIN + path, issuer=ISSUER) if tokens else None,
                )
                for server, path in paths.items()
            ],
            session_of=lambda handle: GivenSession(client.attach(handle, wait_for_approval=wait), feed),
            doorstep=Doorstep(
                hosts=listener.hosts | names, origins=listener.origins | {f"http://{one}" for one in names}
            ),
            pdp_command="pdp {}".format,
            tokens=tokens,
            observer=observer,
        )
        serving = asyncio.ensure_future(weblistener.serve(door, listener))
        try:
            yield World(pdp=pdp, desk=desk, server=tools, url=listener.url + paths["desk"], listener=listener)
        finally:
            desk.go_on.set()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
            await door.close()


@asynccontextmanager
async def behind(desk: Desk, app: Any) -> AsyncIterator[str]:
    """Serve an application as the server behind the proxy, and provide its URL."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            desk.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(noting, port=0, log_config=None, timeout_graceful_shutdown=1))
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    with Listener("127.0.0.1:0") as listener:
        serving = asyncio.ensure_future(server.serve(sockets=[listener.socket]))
        try:
            yield f"http://127.0.0.1:{listener.port}/mcp"
        finally:
            server.should_exit = True
            await serving


def _no_signals() -> Any:
    return nullcontext()


def message_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the message in an answer, or the last one of a stream."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
    message: dict[str, Any] = json.loads(text)
    return message


def text_of(result: Any) -> str:
    """Return the first text of a result."""
    return str(result.content[0].text)


def private_file(folder: Path, text: str) -> Path:
    """Return a file that nobody else can read."""
    file = folder / "headers"
    file.write_text(text, encoding="ascii")
    file.chmod(0o600)
    return file
