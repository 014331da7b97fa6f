"""The real Envoy sends on what the PDP has allowed, byte for byte, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecuritySettings

from pdp.calltokens.claims import HEADER, Presenter
from pdp.doors.grpcport import Method
from pdp.testing.inprocess import RunningServer, running_server
from pdp.testing.otlp import OTLPReceiver
from tests.doors.desk import files
from tests.doors.envoy.asker import MODERN, STATED, call, door, opened, request
from tests.doors.envoy.real.world import MCP, PAGE, PROGRAM, Backend, Envoy, Reply, running_envoy, tracing
from tests.doors.mcp.webworld import Desk, behind, desk_bundle, desk_server, text_of
from tests.doors.noting import AGENTS, OLD, Noted
from tests.machinery.calltokens import AUDIENCE, ISSUER, refusal_of, server_verifier
from tests.machinery.pages import blocks
from tests.machinery.ports import free_port

pytestmark = pytest.mark.doors

AT_MOST = 262_144


@dataclass(frozen=True, kw_only=True)
class World:
    """Envoy, the door beside it and its observer, the PDP, the server behind, and the handle of a session."""

    envoy: Envoy
    pdp: RunningServer
    backend: Backend
    noted: Noted
    session: str
    handle: str

    def post(self, body: bytes, headers: dict[str, str] | None = None, *, chunked: bool = False) -> Reply:
        """Send a message of MCP. An empty value leaves a header out."""
        sent = {"x-pdp-session": self.handle, "content-type": "application/json", **(headers or {})}
        return self.envoy.send(
            "POST", "/mcp", body, {name: value for name, value in sent.items() if value}, chunked=chunked
        )


@pytest.fixture(scope="module")
def running(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Envoy, Backend, Noted]]:
    """Return one Envoy for all tests."""
    backend, noted = Backend(), Noted()
    with (
        door(server, observer=noted) as asker,
        running_envoy(
            tmp_path_factory.mktemp("envoy"), door=int(asker.address.rpartition(":")[2]), backend=backend.port
        ) as envoy,
    ):
        yield envoy, backend, noted
    backend.close()


@pytest.fixture
def world(server: RunningServer, running: tuple[Envoy, Backend, Noted]) -> World:
    """Return it with a session of its own."""
    envoy, backend, noted = running
    backend.got.clear()
    session, handle = opened(server)
    return World(envoy=envoy, pdp=server, backend=backend, noted=noted.anew(), session=session, handle=handle)


def bodies(world: World) -> list[bytes]:
    """Return what ran."""
    return [one.body for one in world.backend.got]


def test_envoy_accepts_the_page(tmp_path: Path) -> None:
    """As it is; the other tests run it with other ports and another server."""
    (text,) = blocks(PAGE, "yaml envoy")
    written = tmp_path / "envoy.yaml"
    written.write_text(text, encoding="utf-8")

    done = subprocess.run([PROGRAM, "--mode", "validate", "-c", written], capture_output=True, text=True, check=False)

    assert f"configuration '{written}' OK\n" == done.stdout
    assert "deprecated" not in done.stderr.lower()


def test_an_allowed_call_runs_as_it_was_asked_about(world: World) -> None:
    """Byte for byte, without the handle; the agent and the access log name the decision."""
    body = call("note", {"text": "é \u202e \U0001f600 \u0000"}).replace(b"{", b"{ ").replace(b'"id": 1', b'"id" : 1')
    body = body.replace(b'"arguments": { ', b'"arguments": {"value": [1, 1.0, 9007199254740993, -0], ')
    said = world.post(body, {"x-pdp-more": "1", "X-PDP-Decision": "dec_forged", "traceparent": "00-x"})

    (got,) = world.backend.got
    record = world.pdp.evidence.decision_records[-1]
    assert "ran" == said.shown
    assert body == got.body
    assert [] == [name for name in got.headers if name.startswith("x-pdp")]
    assert record["id"] == said.headers["x-pdp-decision"]
    assert world.session == record["session_id"]


@pytest.mark.parametrize(("meta", "parent", "linked"), [({"traceparent": AGENTS}, AGENTS, OLD), ({}, OLD, "")])
def test_a_call_is_between_the_agent_and_the_decision(
    world: World, meta: dict[str, str], parent: str, linked: str
) -> None:
    """Of an Envoy that traces nothing itself: below the span that the message names, or else the header."""
    said = world.post(call("note", _meta=meta), {"traceparent": OLD})

    assert "ran" == said.shown
    world.noted.require_between(parent, linked, world.pdp)
    world.noted.require_nothing_of(world.handle)


def test_the_span_of_an_envoy_that_traces_is_between(
    server: RunningServer, receiver: OTLPReceiver, tmp_path: Path
) -> None:
    """It is in the metadata of Envoy's question, and counts before the header that it was made of."""
    backend, noted = Backend(), Noted()
    changes = tracing(int(receiver.endpoint.rpartition(":")[2]))
    with (
        door(server, observer=noted) as asker,
        running_envoy(
            tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port, changes=changes
        ) as envoy,
    ):
        sent = {"x-pdp-session": opened(server)[1], "content-type": "application/json", "traceparent": AGENTS}
        said = envoy.send("POST", "/mcp", call("note"), sent)
    backend.close()

    (span,) = noted.spans
    assert "ran" == said.shown
    assert AGENTS.split("-")[1] == span.trace_id
    assert span.parent_id not in AGENTS
    noted.require_between(f"00-{span.trace_id}-{span.parent_id}-01", noted.calls[0].linked.traceparent, server)


def test_the_access_log_names_the_decision(world: World) -> None:
    """And not the handle."""
    said = world.post(call("note"))
    for _ in range(1000):  # Envoy writes its log a moment later
        log = world.envoy.log.read_text(encoding="utf-8")
        if said.headers["x-pdp-decision"] in log:
            break
        world.post(request("ping"))

    assert f"POST 200 {said.headers['x-pdp-decision']}" in log
    assert world.handle not in log


def test_a_denied_call_does_not_run_and_the_next_one_does(world: World) -> None:
    """Envoy answers in place of the server, with status 200."""
    said = world.post(call("closed"))
    world.post(call("note"))

    assert "Denied (default_deny)" in said.shown
    assert said.headers["x-pdp-decision"] in said.shown
    assert "application/json" == said.headers["content-type"]
    assert [call("note")] == bodies(world)


@pytest.mark.parametrize(
    ("chunked", "more", "status"), [(False, 0, 200), (False, 1, 413), (True, 0, 200), (True, 1, 413)]
)
def test_a_huge_body(world: World, chunked: bool, more: int, status: int) -> None:  # noqa: FBT001 - a row of the table
    """At the bound it is asked about, and above it is refused by Envoy."""
    asked = len(world.pdp.evidence.decision_records)
    said = world.post(call("note").ljust(AT_MOST + more), chunked=chunked)

    assert status == said.status
    assert [AT_MOST] * (not more) == [len(one) for one in bodies(world)]
    assert asked + (not more) == len(world.pdp.evidence.decision_records)


MALFORMED: dict[str, tuple[bytes, dict[str, str], int]] = {
    "a batch": (b"[" + call("note") + b"]", {}, 400),
    "broken JSON": (call("note")[:-1], {}, 400),
    "UTF-16": (call("note").decode().encode("utf-16"), {}, 400),
    "a byte order mark": (b"\xef\xbb\xbf" + call("note"), {}, 400),
    "`name` twice": (call("note").replace(b'"name"', b'"name":"closed","name"'), {}, 400),
    "gzip": (gzip.compress(call("note")), {"content-encoding": "gzip"}, 415),
    "text/plain": (call("note"), {"content-type": "text/plain"}, 415),
    "a name in the header that is another": (call("note"), {"mcp-name": "closed"}, 400),
    "the era without a handshake without headers": (call("note", _meta=STATED), {}, 400),
    "an upgrade": (call("note"), {"upgrade": "websocket", "connection": "upgrade"}, 403),
    "a header with an underscore": (call("note"), {"x_pdp_session": "a"}, 400),
    "nothing": (b"", {}, 400),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_does_not_run(world: World, name: str) -> None:
    """Refused by the door or by Envoy, and the next call runs."""
    body, headers, status = MALFORMED[name]

    said = world.post(body, headers)
    world.post(call("note"))

    assert status == said.status
    assert [call("note")] == bodies(world)


def test_the_era_without_a_handshake_is_asked_about(world: World) -> None:
    """With its headers, which reach the server."""
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "note"}
    world.post(call("note", _meta=STATED), headers)

    (got,) = world.backend.got
    assert headers == {name: got.headers[name] for name in headers}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"mcp-session-id": "s1"}, 200),
        ("DELETE", {"mcp-session-id": "s1"}, 200),
        ("GET", {}, 405),
        ("GET", {"mcp-session-id": "s1", "mcp-protocol-version": MODERN}, 405),
        ("GET", {"mcp-session-id": "s1", "x-pdp-session": "pdps_unknown"}, 403),
        ("PUT", {"mcp-session-id": "s1"}, 405),
        ("OPTIONS", {"mcp-session-id": "s1"}, 405),
    ],
)
def test_what_has_no_message_passes_by_the_table(
    world: World, method: str, headers: dict[str, str], status: int
) -> None:
    """The stream and the end of a session of MCP."""
    said = world.envoy.send(method, "/mcp", headers={"x-pdp-session": world.handle, **headers})

    assert status == said.status
    assert (200 == status) is bool(world.backend.got)


def test_a_put_with_a_call_does_not_run(world: World) -> None:
    """And a GET with one does not either."""
    for method in ("PUT", "GET", "DELETE"):
        headers = {"x-pdp-session": world.handle, "mcp-session-id": "s1", "content-type": "application/json"}
        assert world.envoy.send(method, "/mcp", call("note"), headers).status in (400, 405)

    assert [] == world.backend.got


def test_two_handles_are_none(world: World) -> None:
    """Envoy joins headers of one name, so neither counts."""
    pairs = [("x-pdp-session", world.handle), ("X-PDP-Session", world.handle), ("content-type", "application/json")]
    said = world.envoy.send("POST", "/mcp", call("note"), pairs)

    assert "needs the handle" in said.shown
    assert [] == world.backend.got


def test_an_agent_cannot_speak_for_envoy(world: World) -> None:
    """What it says of the body's wholeness, or of the server, is not heard."""
    said = world.post(call("closed"), {"x-envoy-auth-partial-body": "false", "server": "other"})
    world.post(call("note"), {"x-envoy-auth-partial-body": "true"})

    assert "Denied (default_deny)" in said.shown
    assert [call("note")] == bodies(world)


def test_an_agent_cannot_have_a_call_repeated(server: RunningServer, tmp_path: Path) -> None:
    """An Envoy that takes agents for its own kind hears from them how often it is to try."""
    backend = Backend(status=503)
    internal = "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}"
    changes = {**MCP, "stat_prefix: agents": f"stat_prefix: agents\n{' ' * 16}{internal}"}
    with (
        door(server) as asker,
        running_envoy(
            tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port, changes=changes
        ) as envoy,
    ):
        sent = {"x-pdp-session": opened(server)[1], "content-type": "application/json", "x-forwarded-for": "10.0.0.1"}
        said = envoy.send("POST", "/mcp", call("note"), {**sent, "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"})
    backend.close()

    assert 503 == said.status
    assert [call("note")] == [one.body for one in backend.got]


@pytest.mark.parametrize("target", ["/mcp/", "/", "/mcp2", "/MCP", "/mcp%2f..", "//"])
def test_a_path_without_a_route_leads_nowhere(world: World, target: str) -> None:
    """Only the route of the server has one."""
    assert world.envoy.send("POST", target, call("note"), {"x-pdp-session": world.handle}).status in (400, 403, 404)
    assert [] == world.backend.got


def test_a_revoked_session_runs_nothing_more(world: World) -> None:
    """From the next call on."""
    world.post(call("note"))
    world.pdp.client("approver").revoke_sessions(session_id=world.session, reason="enough")

    assert "session_revoked" in world.post(call("note")).shown
    assert 1 == len(world.backend.got)


def test_calls_of_two_sessions_are_not_mixed_up(world: World) -> None:
    """Fifty at a time, each with its own answer."""
    handles = [world.handle, opened(world.pdp)[1]]

    def one(number: int) -> tuple[bool, str]:
        name = "note" if number % 3 else "closed"
        said = world.post(call(name, {"text": str(number)}), {"x-pdp-session": handles[number % 2]})
        return bool(number % 3) is (said.shown == "ran"), said.headers["x-pdp-decision"]

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(one, range(50)))

    assert all(fits for fits, _ in found)
    assert 50 == len({decision for _, decision in found})
    assert {call("note", {"text": str(number)}) for number in range(50) if number % 3} == set(bodies(world))


def test_a_door_that_is_away_stops_everything(tmp_path: Path) -> None:
    """Envoy answers 503, and sends nothing on."""
    backend = Backend()
    with running_envoy(tmp_path, door=free_port(), backend=backend.port) as envoy:
        said = envoy.send("POST", "/mcp", call("note"), {"content-type": "application/json"})
    backend.close()

    assert 503 == said.status
    assert [] == backend.got


def test_a_pdp_that_is_away_is_told(tmp_path: Path) -> None:
    """With a result, so that the model hears of it."""
    backend = Backend()
    with (
        door(None, "pdps_secret", address="127.0.0.1:1", timeout=1.0) as asker,
        running_envoy(tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port) as envoy,
    ):
        headers = {"content-type": "application/json", "x-pdp-session": "pdps_secret"}
        said = envoy.send("POST", "/mcp", call("note"), headers)
    backend.close()

    assert "Try again later, or tell the user." in said.shown
    assert [] == backend.got


@pytest.mark.parametrize("era", [MODERN, "legacy"])
def test_the_real_client_of_mcp_sees_denies(tmp_path: Path, era: str) -> None:
    """Before a real server, in both eras: an allowed call runs once, and a denied one is told to the model."""
    with running_server(desk_bundle(labels=())) as pdp, door(pdp) as asker:
        _, handle = opened(pdp)
        found = asyncio.run(_with_real_client(tmp_path, int(asker.address.rpartition(":")[2]), handle, era))

    listed, denied, allowed, ran = found
    # This door cannot filter lists.
    assert {"echo", "hidden"} <= listed
    assert "Denied (forbid): the call of `desk/hidden` did not run" in denied
    assert "grüße 🙂" == allowed
    assert {"echo": 1} == ran


async def _with_real_client(
    folder: Path, port: int, handle: str, era: str
) -> tuple[set[str], str, str, dict[str, int]]:
    desk = Desk()
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = desk_server(desk).streamable_http_app(transport_security=security)
    async with behind(desk, app) as url:
        backend = int(url.split(":")[2].partition("/")[0])
        with running_envoy(folder, door=port, backend=backend) as envoy:
            async with httpx2.AsyncClient(headers={"x-pdp-session": handle}, timeout=60) as http:
                transport = streamable_http_client(f"http://127.0.0.1:{envoy.port}/mcp", http_client=http)
                async with Client(transport, mode=MODERN if era == MODERN else "legacy") as client:
                    listed = {tool.name for tool in (await client.list_tools()).tools}
                    denied = await client.call_tool("hidden")
                    allowed = await client.call_tool("echo", {"text": "grüße 🙂"})
    assert "x-pdp-session" not in desk.headers
    assert denied.is_error
    return listed, text_of(denied), text_of(allowed), dict(desk.ran)


def test_a_call_has_its_token_and_no_other(tmp_path: Path) -> None:
    """What the agent says there, once or twice, is not what the server gets."""
    overlay, backend = f"audiences: ['{AUDIENCE}']", Backend()
    route = {"context_extensions: {server: git}": f"context_extensions: {{server: desk, call_token: '{AUDIENCE}'}}"}
    with running_server(files(overlay=overlay), call_token_issuer=ISSUER) as server, door(server) as asker:
        _, handle = opened(server)
        port = int(asker.address.rpartition(":")[2])
        with running_envoy(tmp_path, door=port, backend=backend.port, changes=route) as envoy:
            pairs = [("x-pdp-session", handle), ("content-type", "application/json")]
            theirs = [(HEADER, "first"), (HEADER, "second")]
            envoy.send("POST", "/mcp", call("note", {"text": "x"}), [*pairs, *theirs])
            envoy.send("POST", "/mcp", request("tools/list"), [*pairs, *theirs])
        called, listed = backend.got
        made = {"server": "desk", "tool": "note", "arguments": {"text": "x"}, "presenter": Presenter()}

        assert refusal_of(server_verifier(server), called.headers[HEADER], **made) is None
        assert HEADER not in listed.headers
    backend.close()


def test_a_question_that_envoy_repeats_is_one_call(server: RunningServer, tmp_path: Path) -> None:
    """Its first answer is lost, after an approval was used: the second one lets the same request run, and no other."""
    session, handle = opened(server)
    approver, backend, lost = server.client("approver"), Backend(), list[bytes]()
    sent = {"x-pdp-session": handle, "content-type": "application/json", "x-request-id": "7"}
    answered = Method.answered

    async def losing_one(method: Method, wire: bytes, context: Any) -> bytes:
        answer = await answered(method, wire, context)
        if approved and not lost:
            lost.append(answer)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
        return answer

    approved = False
    asked = "grpc_service:\n"
    repeats = {asked: f"{asked}{' ' * 24}retry_policy: {{retry_on: unavailable, num_retries: 1}}\n"}
    with (
        patch.object(Method, "answered", losing_one),
        door(server) as asker,
        running_envoy(
            tmp_path,
            door=int(asker.address.rpartition(":")[2]),
            backend=backend.port,
            changes={**MCP, **repeats},
        ) as envoy,
    ):
        envoy.send("POST", "/mcp", call("pay", {"amount": 1}), sent)
        (waiting,) = approver.list_access_requests(session_id=session)
        shown = approver.get_access_request(waiting.access_request_id)
        approver.approve_call(waiting.access_request_id, request_digest=shown.request_digest)
        approved = True
        first, again = (envoy.send("POST", "/mcp", call("pay", {"amount": 1}), sent) for _ in range(2))
    backend.close()

    assert 1 == len(lost)
    assert "ran" == first.shown
    assert "a person must approve" in again.shown
    assert 1 == len(backend.got)
