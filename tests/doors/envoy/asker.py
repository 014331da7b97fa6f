"""The door of Envoy in this process, and what asks it as Envoy does: a request runs only when the door lets it pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from pdp.client import AsyncClient
from pdp.doors.asking import Asking
from pdp.doors.envoy.door import EnvoyDoor
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse, HeaderMap, RawHeader
from pdp.doors.envoy.httprequests import HTTPRequests
from pdp.doors.envoy.mcprequests import MCPRequests
from pdp.doors.envoy.tables import Table
from pdp.observer import DoorObserver
from pdp.testing.inprocess import RunningServer
from tests.doors.loop import LOOP, SECONDS

CHECK = "/envoy.service.auth.v3.Authorization/Check"
HANDLE = "x-pdp-session"
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
STATED = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
# The desk as an HTTP service.
TABLE = """
desk:
  GET /: {tool: desk/note}
  GET /notes/{text}: {tool: desk/note, query: [amount, value], integers: [amount]}
  DELETE /amounts/{amount}: {tool: desk/note, integers: [amount]}
  POST /notes: {tool: desk/note, body: true}
  PUT /notes/{text}/entries: {tool: desk/note, body: true}
  GET /closed: {tool: desk/closed}
  GET /people: {tool: desk/people}
  POST /pay/{amount}: {tool: desk/pay, integers: [amount]}
  GET /both/{text}: {tool: desk/note}
  GET /both/me: {tool: desk/note}
"""
ROUTE = {"table": "desk"}


def opened(server: RunningServer, tools: str = "desk/*", user: str = "alice") -> tuple[str, str]:
    """Return id and handle of a new session that a person has approved."""
    wanted = server.client("pep").request_session(user=user, agent="coder", purpose="Test", tools=[tools])
    shown = wanted.session
    server.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return shown.session_id, wanted.session_handle


def request(method: str, params: Any = None, number: Any = 1) -> bytes:
    """Return a request of the era with a handshake."""
    said = {"jsonrpc": "2.0", "id": number, "method": method, **({} if params is None else {"params": params})}
    return json.dumps(said).encode()


def call(name: str, arguments: Any = None, **more: Any) -> bytes:
    """Return a call of a tool."""
    return request("tools/call", {"name": name, "arguments": {} if arguments is None else arguments, **more})


@dataclass(frozen=True, kw_only=True)
class Told:
    """What Envoy is told: to send the request on, or what to answer in place of the upstream."""

    allowed: bool
    status: int = 200
    text: str = field(default="", repr=False)
    headers: Mapping[str, str]
    removed: tuple[str, ...] = ()
    set: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any]

    @property
    def body(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)

    @property
    def shown(self) -> str:
        """Return what a model sees of a denied call."""
        assert not self.allowed
        assert 200 == self.status
        result = self.body["result"]
        assert result["isError"] is True
        return str(result["content"][0]["text"])


class Asker:
    """Asks the door as Envoy does, and keeps in `ran` what was sent on."""

    def __init__(
        self, address: str, handle: str, route: Mapping[str, str], channel: grpc.Channel | None = None
    ) -> None:
        self.handle = handle
        self.address = address
        self.ran: list[bytes] = []
        self.shown: list[str] = []
        self._route = route
        self._channel = channel or grpc.insecure_channel(address)
        self._check = self._channel.unary_unary(
            CHECK, request_serializer=CheckRequest.SerializeToString, response_deserializer=CheckResponse.FromString
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def http(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        route: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        number: str = "",
        began: int = 0,
    ) -> Told:
        """Ask about any request, with the number and the time of it. An empty value leaves a header out."""
        sent = {HANDLE: self.handle, "x-envoy-auth-partial-body": "false", ":method": method, ":path": path}
        if body:
            sent |= {"content-type": "application/json", "content-length": str(len(body))}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        question = CheckRequest()
        seen = question.attributes.request.http
        seen.method, seen.path, seen.raw_body, seen.id = method, path, body, number
        if began:
            question.attributes.request.time.seconds = began
        seen.headers.update({name: value for name, value in sent.items() if value})
        question.attributes.context_extensions.update(self._route if route is None else route)
        return self.ask(question, metadata)

    def ask(self, question: CheckRequest, metadata: Mapping[str, str] | None = None) -> Told:
        """Ask a question as it is."""
        answer = self._check(question, metadata=tuple((metadata or {}).items()), timeout=SECONDS)
        self.shown.append(str(answer))
        if 0 == answer.status.code and answer.HasField("ok_response"):
            self.ran.append(question.attributes.request.http.raw_body)
        denied = answer.denied_response
        added = denied.headers or answer.ok_response.response_headers_to_add
        return Told(
            allowed=answer.HasField("ok_response") and 0 == answer.status.code,
            status=denied.status.code or 200,
            text=denied.body,
            headers={one.header.key: one.header.value for one in added},
            removed=tuple(answer.ok_response.headers_to_remove),
            set={one.header.key: one.header.value for one in answer.ok_response.headers},
            metadata={name: value.string_value for name, value in answer.dynamic_metadata.fields.items()},
        )

    def raw(self, method: str, path: str, body: bytes, pairs: Iterable[tuple[str, bytes]] = (), **text: str) -> Told:
        """Ask as Envoy does with `encode_raw_headers`; `text` are headers that are shown as text, too."""
        sent = {":method": method, ":path": path, HANDLE: self.handle, "content-type": "application/json"}
        every = [*((name, value.encode()) for name, value in sent.items()), *pairs]
        question = CheckRequest()
        seen = question.attributes.request.http
        seen.method, seen.path, seen.raw_body = method, path, body
        seen.headers.update(text)
        seen.header_map = HeaderMap(
            headers=[RawHeader(key=name, raw_value=value) for name, value in every]
        ).SerializeToString()
        question.attributes.context_extensions.update(self._route)
        return self.ask(question)

    def post(self, body: bytes, **headers: str) -> Told:
        """Ask about a message of MCP. Of names of headers, `_` is `-`."""
        return self.http("POST", "/mcp", body, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def door(
    server: RunningServer | None,
    handle: str = "",
    *,
    address: str = "",
    route: Mapping[str, str] | None = None,
    passes: frozenset[str] = frozenset(),
    tables: Mapping[str, Table] | None = None,
    caller: str = "pep",
    timeout: float = SECONDS,
    observer: DoorObserver | None = None,
) -> Iterator[Asker]:
    """Run the door before a server, and provide what asks it."""
    token = server.token(caller) if server else "sesame"
    address = address or (server.address if server else "")

    async def begin() -> tuple[AsyncExitStack, str]:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(AsyncClient(address, token=token, plaintext=True, timeout=timeout))
        asking = Asking(client=client, observer=observer)
        app = EnvoyDoor(
            mcp=MCPRequests(asking=asking, passes=passes), http=HTTPRequests(asking=asking, tables=tables or {})
        )
        return stack, await stack.enter_async_context(app.serving("127.0.0.1:0"))

    stack, listens = LOOP.run(begin())
    try:
        with Asker(listens, handle, {"server": "desk"} if route is None else route) as asker:
            yield asker
    finally:
        LOOP.run(stack.aclose())
