"""The door of AuthZEN in this process, and a gateway before it that runs a tool only for a true decision."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, Self

import httpx2

from pdp.client import AsyncClient
from pdp.doors.authzen.door import AuthZENDoor, CallerToken
from pdp.doors.authzen.mapping import Mapped
from pdp.observer import DoorObserver
from pdp.serving import weblistener
from pdp.serving.web import Doorstep
from pdp.serving.weblistener import Listener
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer

HANDLE = "X-PDP-Session"
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
_SECONDS = 60.0
# What is asked is in plain HTTP: without this each client would read all roots that the machine trusts.
_ROOTLESS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_ANY = {"id": {"type": "string"}, "status": {"type": "string"}, "soft": {"type": "boolean"}}
# What the scenario of AuthZEN's certification asks for.
_POLICIES = """
@id("record/read") permit (principal, action == Action::"record/read", resource);
@id("record/write") permit (principal == User::"alice", action == Action::"record/write", resource)
unless { context.input has status && context.input.status == "archived" };
@id("record/archive") permit (principal == User::"bob", action == Action::"record/write", resource)
when {
  context.input has status && context.input.status == "archived" &&
  context.caller has role && context.caller.role == "admin"
};
@id("record/delete") permit (principal == User::"alice", action == Action::"record/delete", resource)
when { context.input has soft && context.input.soft };
"""


def record_files() -> dict[str, bytes]:
    """Return the bundle of the certification's scenario."""
    return bundle_files(
        policies={"record": _POLICIES},
        tools={"record": [tool(name, _ANY, ["id"]) for name in ("read", "write", "delete")]},
        overlays={"record": "risk: mutating"},
        directory="users: {alice: {}, bob: {}}\nagents: {coder: {ceiling: ['record/*']}}\n",
        manifest="name: record\ncaller_facts: {properties: {role: {type: string}}}\n",
    )


def opened(server: RunningServer, tools: str, user: str = "alice", caller: str = "pep") -> tuple[str, str]:
    """Return id and handle of a new session that a person has approved."""
    wanted = server.client(caller).request_session(user=user, agent="coder", purpose="Test", tools=[tools])
    shown = wanted.session
    server.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return shown.session_id, wanted.session_handle


class _Loop:
    """One event loop for all doors: gRPC's own thread still speaks to that of an earlier one when it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="doors").start()

    def run(self, work: Any) -> Any:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)


_LOOP = _Loop()


class Gateway:
    """Asks the door as a gateway does, and counts in `ran` what it runs."""

    def __init__(self, url: str, token: str, handle: str) -> None:
        self.url = url
        self.handle = handle
        self.token = token
        self.ran: list[tuple[str, Any]] = []
        self.shown: list[str] = []
        self.http = httpx2.Client(base_url=url, timeout=_SECONDS, verify=_ROOTLESS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """Send a body, as it is if it is bytes. Of names of headers, `_` is `-`; an empty one is left out."""
        sent = {"content-type": "application/json", **self._own()}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.http.post(path, content=content, headers={name: value for name, value in sent.items() if value})
        self.shown.append(answer.text)
        return answer

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """Get what is at a path, or at a URL of the door."""
        sent = self._own()
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.get(path, headers={name: value for name, value in sent.items() if value})
        self.shown.append(answer.text)
        return answer

    def _own(self) -> dict[str, str]:
        own = {"authorization": f"Bearer {self.token}" if self.token else "", HANDLE.lower(): self.handle}
        return {name: value for name, value in own.items() if value}

    def call(self, name: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
        """Ask about a call of a tool, and run it only if the decision is true; return the answer's body."""
        question = call_of(name, arguments, **more)
        answer = self.post(EVALUATION, question)
        body: dict[str, Any] = answer.json()
        if 200 == answer.status_code and body["decision"] is True:
            self.ran.append((name, question["context"].get("arguments")))
        return body


def call_of(name: str, arguments: Any = None, *, user: str = "alice", **context: Any) -> dict[str, Any]:
    """Return the question about a call of a tool."""
    if arguments is not None:
        context["arguments"] = arguments
    return {
        "subject": {"type": "user", "id": user},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": name},
        "context": context,
    }


@contextmanager
def door(
    server: RunningServer | None,
    handle: str = "",
    *,
    address: str = "",
    caller: str = "pep",
    token: str = "",
    own_caller: bool = False,
    objects: Mapping[str, tuple[str, ...]] | None = None,
    facts: tuple[str, ...] = (),
    base: str = "",
    timeout: float = _SECONDS,
    seconds: float = _SECONDS,
    observer: DoorObserver | None = None,
) -> Iterator[Gateway]:
    """Run the door before a server, and provide a gateway that asks as one of its callers."""
    token = token or (server.token(caller) if server else "sesame")
    passed = None if own_caller else CallerToken()
    address = address or (server.address if server else "")

    async def begin() -> tuple[AsyncExitStack, Listener]:
        opened = AsyncExitStack()
        client = await opened.enter_async_context(
            AsyncClient(address, token=passed or token, plaintext=True, timeout=timeout)
        )
        listener = opened.enter_context(Listener("127.0.0.1:0"))
        app = AuthZENDoor(
            client=client,
            base=base or listener.url,
            doorstep=Doorstep(hosts=listener.hosts, origins=listener.origins),
            mapped=Mapped(objects=objects or {}, facts=facts),
            caller=passed,
            seconds=seconds,
            observer=observer,
        )
        opened.push_async_callback(_stop, asyncio.ensure_future(weblistener.serve(app, listener)))
        return opened, listener

    stack, listener = _LOOP.run(begin())
    try:
        with Gateway(listener.url, "" if own_caller else token, handle) as gateway:
            yield gateway
    finally:
        _LOOP.run(stack.aclose())


async def _stop(serving: asyncio.Future[None]) -> None:
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
