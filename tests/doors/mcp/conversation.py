"""A client and a small tool server with the proxy between them, and a real PDP behind it, all in one process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pdp.client import AsyncClient, CallTokenRequest
from pdp.doors.mcp.proxy import Proxy
from pdp.doors.session import DoorSession, GivenSession
from pdp.observer import DoorObserver
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.toolserver import METHODS, TOOLS, ToolServer

# Long enough for a busy machine; nothing waits for it to pass.
PATIENCE = 60.0
LEGACY, MODERN = "2025-11-25", "2026-07-28"
ERAS = (LEGACY, MODERN)
STATED = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "small", "version": "1"},
}

DIRECTORY = """
users: {alice: {}, bob: {}, approver: {}}
agents: {coder: {ceiling: ["files/*"]}}
"""
OVERLAY = """
tools:
  read: {risk: read_only}
  write: {risk: mutating}
  people: {risk: read_only}
  large: {risk: read_only}
  reset: {risk: mutating}
  hidden: {risk: read_only}
  resources/read: {risk: read_only}
  prompts/get: {risk: read_only}
"""
POLICIES = {
    "files": """
@id("files/read")
permit (principal, action in [Action::"files/read", Action::"files/prompts/get"], resource);

@id("files/resources")
permit (principal, action == Action::"files/resources/read", resource) when { context.input.uri == "file:///open" };

@id("files/write-when-granted")
permit (principal, action == Action::"files/write", resource) when { context.session in Grant::"writing" };

@id("files/people")
@obligation("redact_result: {fields: ['[].email']}")
permit (principal, action == Action::"files/people", resource);

@id("files/large")
@obligation("max_result_bytes: {bytes: 200}")
permit (principal, action == Action::"files/large", resource);

@id("files/reset")
permit (principal, action == Action::"files/reset", resource);
""",
    "guardrails": """
@id("guardrails/ask")
@step_up("May the agent reset it?")
forbid (principal, action == Action::"files/reset", resource);
""",
}
FILES = bundle_files(
    policies=POLICIES,
    tools={"files": [*TOOLS, *METHODS]},
    overlays={"files": OVERLAY},
    directory=DIRECTORY,
    labels=("tainted",),  # so that the PDP takes reports of what came of calls
)


def approved(server: RunningServer, *tools: str, user: str = "alice", **approval: Any) -> Any:
    """Return what a gateway gets for an approved session: its handle and its public id."""
    pep, approver = server.client("pep"), server.client("approver")
    opened = pep.request_session(user=user, agent="coder", purpose="to test", tools=tools or ("files/*",))
    approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest, **approval)
    return opened


def approve(pdp: RunningServer, session_id: str) -> str:
    """Approve the call of a session that waits; return the id of its request."""
    approver = pdp.client("approver")
    (request,) = approver.list_access_requests(state="open", session_id=session_id)
    shown = approver.get_access_request(request.access_request_id)
    approver.approve_call(request.access_request_id, request_digest=shown.request_digest)
    return request.access_request_id


class Conversation:
    """What one client says and sees, beside the server and the proxy.

    `seen` holds every line that the client got, `told` those that answer nothing.
    """

    def __init__(self, server: ToolServer, era: str) -> None:
        self.server = server
        self.era = era
        self.seen: list[bytes] = []
        self.proxy: Proxy
        self._numbers = itertools.count(1)
        self._arrived = asyncio.Condition()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def told(self) -> list[Any]:
        """Return what the client got that answers nothing."""
        return [one for one in map(json.loads, self.seen) if "method" in one]

    def request(self, method: str, params: dict[str, Any] | None = None, number: Any = None) -> dict[str, Any]:
        """Return a request as a client of the era writes it."""
        params = dict(params or {})
        if self.era == MODERN:
            params["_meta"] = {**STATED, **params.get("_meta", {})}
        number = next(self._numbers) if number is None else number
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}

    async def say(self, message: Any) -> None:
        """Have the client write a line, given as bytes or as a value."""
        line = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()
        await self.proxy.from_client(line)

    async def ask(self, method: str, params: dict[str, Any] | None = None, number: Any = None) -> Any:
        """Have the client ask, and return the answer that it gets."""
        request = self.request(method, params, number)
        await self.say(request)
        return await self.answer(request["id"])

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, number: Any = None, **more: Any) -> Any:
        """Have the client call a tool, and return the answer that it gets."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments or {}, **more}, number)

    async def answer(self, number: Any) -> Any:
        """Wait until the client has the answer to a request; return it."""
        return json.loads(await self.line(lambda one: one.get("id") == number and "method" not in one))

    async def line(self, wanted: Callable[[Any], bool]) -> bytes:
        """Wait until the client has a line whose value is wanted; return it."""

        def found() -> bytes | None:
            return next((line for line in self.seen if wanted(json.loads(line))), None)

        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: found() is not None)
        return found() or b""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - of what other threads do too
                await asyncio.sleep(0.005)

    async def greet(self) -> Any:
        """Begin as a client of the era does, and return the server's greeting."""
        if self.era == MODERN:
            return await self.ask("server/discover")
        said = await self.ask("initialize", {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {}})
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return said

    async def to_client(self, line: bytes | str) -> None:
        """Take what the proxy writes to the client."""
        async with self._arrived:
            self.seen.append(line.encode() if isinstance(line, str) else line)
            self._arrived.notify_all()

    async def to_server(self, line: bytes | str) -> None:
        """Take what the proxy writes to the server."""
        for out in self.server.take(line.encode() if isinstance(line, str) else line):
            self._out.put_nowait(out)

    async def write(self, message: Any) -> None:
        """Have the server write a line, given as bytes or as a value."""
        self._out.put_nowait(message if isinstance(message, bytes) else json.dumps(message).encode())

    async def carry(self) -> None:
        """Carry what the server writes to the proxy, in order, until cancelled."""
        while True:
            await self.proxy.from_server(await self._out.get())


@asynccontextmanager
async def conversation(
    pdp: RunningServer | str,
    era: str = LEGACY,
    *,
    handle: str = "",
    tools: Iterable[str] = (),
    server: ToolServer | None = None,
    passes: Iterable[str] = (),
    wait: float = 0.0,
    greeted: bool = True,
    watched: bool = False,
    door: DoorSession | None = None,
    token: str = "",
    patience: float = PATIENCE,
    call_token: CallTokenRequest | None = None,
    observer: DoorObserver | None = None,
) -> AsyncIterator[Conversation]:
    """Put the proxy between a client of an era and a server; in an approved session by default.

    `pdp` is a server in process, or an address. `patience` is how long a question may take, in seconds.
    """
    if isinstance(pdp, RunningServer):
        address, token = pdp.address, token or pdp.token("pep")
        handle = handle or approved(pdp, *tools).session_handle
    else:
        address = pdp
    async with AsyncClient(
        address,
        token=token,
        plaintext=True,
        timeout=patience,
        data_dir=Path("/nonexistent"),
    ) as client:
        it = Conversation(server or ToolServer(), era)
        session = door or GivenSession(client.attach(handle, wait_for_approval=wait))
        it.proxy = Proxy(
            server="files",
            session=session,
            to_client=it.to_client,
            to_server=it.to_server,
            pdp_command="pdp {}".format,
            passes=frozenset(passes),
            call_token=call_token,
            observer=observer,
        )
        tasks = [asyncio.ensure_future(it.carry())]
        if watched:
            tasks.append(asyncio.ensure_future(it.proxy.watch_session()))
        try:
            if greeted:
                await it.greet()
            yield it
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await it.proxy.close()
            await session.close()
