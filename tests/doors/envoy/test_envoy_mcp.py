"""What Envoy is told about requests to an MCP server."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pdp.doors.envoy.tables import read_tables
from pdp.model import Bounds, Caller, Role
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from tests.doors.desk import files
from tests.doors.envoy.asker import MODERN, STATED, TABLE, Asker, Told, call, door, opened, request

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


def test_an_allowed_call_is_sent_on(envoy: Asker, server: RunningServer) -> None:
    """The handle stays here, and the agent, the log of Envoy and the record name the same decision."""
    told = envoy.http("POST", "/mcp", call("note", {"text": "hello"}), {"x-pdp-other": "1", "x-kept": "1"})

    record = server.evidence.decision_records[-1]
    assert told.allowed
    assert ("x-pdp-other", "x-pdp-session") == told.removed
    assert {"x-pdp-decision": record["id"]} == told.headers
    assert {"decision_id": record["id"], "basis": "permit"} == {
        name: told.metadata[name] for name in ("decision_id", "basis")
    }


def test_a_denied_call_is_answered_with_a_result(envoy: Asker, server: RunningServer) -> None:
    """Clients show a model the text of a result; the next call runs."""
    told = envoy.post(call("closed"))
    envoy.post(call("note", {"text": "x"}))

    assert "Denied (default_deny): the call of `desk/closed` did not run" in told.shown
    assert 1 == told.body["id"]
    assert told.headers["x-pdp-decision"] in told.shown
    assert "application/json" == told.headers["content-type"]
    assert "default_deny" == told.metadata["basis"]
    assert "desk/" not in str(told.headers)
    assert [call("note", {"text": "x"})] == envoy.ran
    assert told.headers["x-pdp-decision"] in [one["id"] for one in server.evidence.decision_records]


@pytest.mark.parametrize("name", ["unmapped", "nothing", "Note", "desk/note", "note "])
def test_an_unknown_tool_is_a_deny(envoy: Asker, name: str) -> None:
    """Names are never changed to fit."""
    assert "Denied (unknown_tool)" in envoy.post(call(name)).shown
    assert [] == envoy.ran


def test_a_call_that_needs_a_person_says_so(envoy: Asker) -> None:
    """The text names the command by which a person approves it."""
    assert "`pdp approvals approve " in envoy.post(call("pay", {"amount": 1})).shown


def test_an_approved_call_is_sent_on_once(server: RunningServer, desk_door: str) -> None:
    """Exactly this call, and not one with other arguments."""
    session, handle = opened(server)
    approver = server.client("approver")
    with Asker(desk_door, handle, {"server": "desk"}) as asker:
        asker.post(call("pay", {"amount": 1}))
        (waiting,) = approver.list_access_requests(session_id=session)
        shown = approver.get_access_request(waiting.access_request_id)
        approver.approve_call(waiting.access_request_id, request_digest=shown.request_digest)
        other = asker.post(call("pay", {"amount": 2}))
        first = asker.post(call("pay", {"amount": 1}))
        again = asker.post(call("pay", {"amount": 1}))

    assert [False, True, False] == [one.allowed for one in (other, first, again)]
    assert [call("pay", {"amount": 1})] == asker.ran


@pytest.mark.parametrize("as_service", [False, True])
@pytest.mark.parametrize(
    ("numbers", "allowed"),
    [
        ([("7", 5), ("7", 5), ("8", 5)], [True, True, False]),
        ([("7", 5), ("7", 6)], [True, False]),
        ([("7", 0), ("7", 0)], [True, False]),
        ([("", 5), ("", 5)], [True, False]),
        ([("x", 5), ("x", 5)], [True, False]),
    ],
)
def test_a_question_that_is_repeated_is_one_call(
    server: RunningServer, numbers: list[tuple[str, int]], allowed: list[bool], tmp_path: Path, *, as_service: bool
) -> None:
    """By what Envoy draws for each request: an approval is used once for it, and for any other not again."""
    session, handle = opened(server)
    (file := tmp_path / "tables.yaml").write_text(TABLE, encoding="utf-8")
    drawn = str(secrets.randbelow(1_000_000))
    approver, route = server.client("approver"), {"table" if as_service else "server": "desk"}
    with door(server, handle, tables=read_tables(file), route=route) as asker:

        def ask(number: str, began: int) -> Told:
            path, body = ("/pay/1", b"") if as_service else ("/mcp", call("pay", {"amount": 1}))
            return asker.http("POST", path, body, number=number and number + drawn, began=began)

        ask("", 0)
        (waiting,) = approver.list_access_requests(session_id=session)
        shown = approver.get_access_request(waiting.access_request_id)
        approver.approve_call(waiting.access_request_id, request_digest=shown.request_digest)
        told = [ask(*one) for one in numbers]

    assert allowed == [one.allowed for one in told]


@pytest.mark.parametrize("name", ["people", "access", "big"])
def test_an_obligation_is_a_deny(envoy: Asker, name: str) -> None:
    """This door sees no results and shows no notices, so it knows none."""
    assert "did not run" in envoy.post(call(name)).shown
    assert [] == envoy.ran


@pytest.mark.parametrize("handle", ["", "pdps_unknown", "a,b", "a b", "x" * 513])
def test_a_request_without_a_session_is_not_sent_on(desk_door: str, handle: str) -> None:
    """A header that was sent twice is no handle."""
    with Asker(desk_door, handle, {"server": "desk"}) as asker:
        assert "did not run" in (told := asker.post(call("note")).shown) or "needs the handle" in told
        assert -31001 == asker.post(request("tools/list")).body["error"]["code"]
        assert [] == asker.ran


@pytest.mark.parametrize("over", ["revoked", "ended", "expired"])
def test_a_session_that_is_over_runs_nothing(over: str) -> None:
    """The next call is denied, and so is what passes without a decision."""
    with running_server(files()) as server:
        number, handle = opened(server)
        with door(server, handle) as asker:
            asker.post(call("note"))
            if over == "revoked":
                server.client("approver").revoke_sessions(session_id=number, reason="enough")
            elif over == "ended":
                server.client("pep").end_session(handle)
            else:
                server.clock.advance(100_000)
            assert f"session_{over}" in asker.post(call("note")).shown
            assert "not active" in asker.post(request("tools/list")).text
            assert 403 == asker.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').status
            assert [call("note")] == asker.ran


def test_a_frozen_tenant_runs_nothing() -> None:
    """Nor does what passes without a decision; after the freeze the same session goes on."""
    with running_server(files()) as server:
        _, handle = opened(server)
        with door(server, handle) as asker:
            freeze = server.client("admin").set_freeze(tenant="default", reason="acts strangely")
            denied = asker.post(call("note")).shown
            passed = asker.post(request("tools/list")).text
            status = asker.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').status
            server.embedded.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)
            asker.post(call("note"))

            assert ("Denied (frozen)" in denied, "stopped all calls" in passed, status) == (True, True, 403)
            assert [call("note")] == asker.ran


def test_what_is_reported_is_denied() -> None:
    """Where labels come by report, the server is told that the call was not made."""
    with running_server(files(reports=True)) as server:
        _, handle = opened(server)
        with door(server, handle) as asker:
            told = asker.post(call("note"))

    assert "what it brings into the session cannot be reported from here" in told.shown
    assert [] == asker.ran


def test_an_entry_says_that_the_door_sees_no_results() -> None:
    """Then only calls that must be reported are denied, by the server itself; the others run."""
    bundle = {
        **files(reports=True),
        "tools/desk.yaml": b"risk: mutating\ntools: {note: {risk: mutating, adds_labels: [untrusted]}}",
    }
    unseeing = Caller(
        id="envoy",
        kind="token",
        roles=frozenset({Role.PEP}),
        bounds=Bounds(tenants=frozenset({"default"}), sees_results=False),
    )
    with running_server(bundle, callers=(*ONE_OF_EACH_ROLE, unseeing)) as server:
        _, handle = opened(server)
        with door(server, handle, caller="envoy") as asker:
            told = asker.post(call("people"))
            asker.post(call("note"))

    assert "result_unseen" in told.shown
    assert [call("note")] == asker.ran


METHODS: dict[str, bool] = {
    "initialize": True,
    "ping": True,
    "tools/list": True,
    "resources/list": True,
    "server/discover": True,
    "subscriptions/listen": True,
    "resources/subscribe": False,
    "tasks/get": False,
    "Tools/Call": False,
    "tools/call ": False,
    "unknown": False,
}


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_pass_by_the_table(envoy: Asker, method: str) -> None:
    """What the table does not have is an error that clients understand."""
    told = envoy.post(request(method, {}))

    assert METHODS[method] is told.allowed
    if told.allowed:
        assert ("x-pdp-session",) == told.removed
    else:
        assert (200, -32601) == (told.status, told.body["error"]["code"])


@pytest.mark.parametrize(
    ("method", "params"), [("resources/read", {"uri": "file:///a"}), ("prompts/get", {"name": "a"})]
)
def test_content_is_asked_about(envoy: Asker, method: str, params: dict[str, Any]) -> None:
    """The desk has no such tool, so it is denied, as an error."""
    told = envoy.post(request(method, params))

    assert -31001 == told.body["error"]["code"]
    assert "unknown_tool" in told.body["error"]["message"]
    assert [] == envoy.ran


def test_an_operator_may_let_a_method_pass(server: RunningServer) -> None:
    """By its name."""
    _, handle = opened(server)
    with door(server, handle, passes=frozenset({"resources/subscribe"})) as asker:
        assert asker.post(request("resources/subscribe", {"uri": "a"})).allowed


@pytest.mark.parametrize(
    ("message", "passes", "status"),
    [
        ({"method": "notifications/initialized"}, (), 0),
        ({"method": "notifications/cancelled", "params": {"requestId": 1}}, (), 0),
        ({"method": "notifications/anything"}, (), 202),
        ({"method": "tools/call", "params": {"name": "note"}}, (), 202),
        ({"id": 7, "result": {}}, (), 0),
        ({"id": 7, "result": {"roots": []}}, (), 403),
        ({"id": 7, "error": {"code": 1, "message": "no"}}, (), 403),
        ({"id": 7, "result": {"roots": []}}, ("roots/list",), 0),
    ],
)
def test_what_is_no_request_passes_by_the_table(
    server: RunningServer, message: dict[str, Any], passes: tuple[str, ...], status: int
) -> None:
    """An answer that holds nothing is that to a ping; any other needs a server that may ask."""
    _, handle = opened(server)
    with door(server, handle, passes=frozenset(passes)) as asker:
        told = asker.post(json.dumps({"jsonrpc": "2.0", **message}).encode())

    assert (not status, status or 200) == (told.allowed, told.status)


BARE: dict[str, tuple[str, dict[str, str], int]] = {
    "the stream of a session": ("GET", {"mcp-session-id": "s1"}, 0),
    "the end of a session": ("DELETE", {"mcp-session-id": "s1", "mcp-protocol-version": "2025-11-25"}, 0),
    "no session of MCP": ("GET", {}, 405),
    "two sessions of MCP": ("DELETE", {"mcp-session-id": "s1, s2"}, 405),
    "the era without a handshake": ("GET", {"mcp-session-id": "s1", "mcp-protocol-version": MODERN}, 405),
    "no handle": ("GET", {"mcp-session-id": "s1", "x-pdp-session": ""}, 403),
    "an unknown handle": ("DELETE", {"mcp-session-id": "s1", "x-pdp-session": "pdps_unknown"}, 403),
    "another method": ("PUT", {"mcp-session-id": "s1"}, 405),
    "a method in small letters": ("get", {"mcp-session-id": "s1"}, 405),
    "CONNECT": ("CONNECT", {"mcp-session-id": "s1"}, 400),
    "an upgrade": ("GET", {"mcp-session-id": "s1", "upgrade": "websocket"}, 400),
}


@pytest.mark.parametrize("name", BARE)
def test_what_has_no_message_passes_by_the_table(envoy: Asker, name: str) -> None:
    """Only the stream and the end of a session of MCP, in a session that lives."""
    method, headers, status = BARE[name]

    told = envoy.http(method, "/mcp", headers=headers)

    assert (not status, status or 200) == (told.allowed, told.status)


BODIES: dict[str, bytes] = {
    "empty": b"",
    "broken": b'{"jsonrpc":"2.0","id":1,"method":"tools/call"',
    "a batch": b"[" + call("note") + b"]",
    "UTF-16": call("note").decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + call("note"),
    "no UTF-8": call("note", {"text": "@"}).replace(b"@", b"\xff"),
    "`name` twice": call("note").replace(b'"name"', b'"name":"closed","name"'),
    "`method` twice": call("note").replace(b'"params"', b'"method":"ping","params"'),
    "`params` twice": call("note").replace(b'"params"', b'"params":{},"params"'),
    "`Method` beside": call("note").replace(b'"params"', b'"Method":"ping","params"'),
    "a key of an argument twice": call("note", {"text": "a"}).replace(b'"text"', b'"text":"b","text"'),
    "NaN": call("note", {"value": float("nan")}),
    "a lone surrogate": call("note", {"text": "\ud800"}),
    "depth 300": call("note", {"value": "@"}).replace(b'"@"', b"[" * 300 + b"]" * 300),
    "another version": call("note").replace(b"2.0", b"1.0"),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(20),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_not_sent_on(envoy: Asker, name: str) -> None:
    """The next call runs."""
    told = envoy.http("POST", "/mcp", BODIES[name], {"content-type": "application/json"})
    envoy.post(call("note"))

    assert (400, -32700) == (told.status, told.body["error"]["code"])
    assert [call("note")] == envoy.ran


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": ["note"]},
        {"name": "note", "arguments": []},
        {"name": "note", "arguments": None},
        {"name": "note", "task": {}},
        {"name": "note", "Name": "closed"},
        {"name": "tools/list", "x": 1},
        {"name": "resources/read"},
    ],
)
def test_parameters_that_say_two_things_are_refused(envoy: Asker, params: dict[str, Any]) -> None:
    """With the error that the MCP proxy gives."""
    assert -32602 == envoy.post(request("tools/call", params)).body["error"]["code"]
    assert [] == envoy.ran


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": ""}, 415),
        ({"content_type": "application/json; charset=utf-16"}, 415),
        ({"content_type": "application/json,application/json"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"content_encoding": "identity, gzip"}, 415),
        ({"x_envoy_auth_partial_body": "true"}, 413),
        ({"x_envoy_auth_partial_body": "false,true"}, 413),
        ({"upgrade": "h2c"}, 400),
        ({"mcp_method": "tools/list"}, 400),
        ({"mcp_name": "closed"}, 400),
        ({"mcp_name": "note,note"}, 400),
        ({"mcp_method": "tools/call", "mcp_name": "=?base64?bm90ZQ==?="}, 0),
        ({"content_type": "Application/JSON; charset=utf-8"}, 0),
    ],
)
def test_headers_must_fit_the_message(envoy: Asker, headers: dict[str, str], status: int) -> None:
    """What a server could read in another way is not sent on."""
    told = envoy.post(call("note"), **headers)

    assert (not status, status or 200) == (told.allowed, told.status)


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "note"}, True),
        ({"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "closed"}, False),
        ({"mcp-protocol-version": MODERN, "mcp-method": "tools/call"}, False),
        ({"mcp-protocol-version": MODERN, "mcp-name": "note"}, False),
        ({"mcp-protocol-version": "2025-11-25", "mcp-method": "tools/call", "mcp-name": "note"}, False),
        ({"mcp-method": "tools/call", "mcp-name": "note"}, False),
    ],
)
def test_the_era_without_a_handshake_needs_its_headers(envoy: Asker, headers: dict[str, str], fits: bool) -> None:  # noqa: FBT001 - a row of the table
    """They must all be there and say what the message says."""
    told = envoy.http("POST", "/mcp", call("note", _meta=STATED), headers)

    assert fits is told.allowed
    assert fits or (400, -32020) == (told.status, told.body["error"]["code"])


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("Zürich", False),
        ("=?base64?WsO8cmljaA==?=", True),
        ("=?base64?WsO8cmljaA=?=", False),
        ("7", True),
        ("1.50", True),
        ("true", True),
        ("inside", True),
        ("elsewhere", False),
        ("region", False),
        ("7,7", False),
        ("a!b", False),
        ("=?base64?YSFi?=", True),
        ("a,b", False),
        ("=?base64?YSxi?=", True),
    ],
)
def test_a_header_that_repeats_an_argument_must_repeat_one(envoy: Asker, value: str, fits: bool) -> None:  # noqa: FBT001 - a row of the table
    """What is in front of a server may go by it. Envoy shows an `!` or a comma for what is something else."""
    given = {"region": "Zürich", "shard": 7, "share": 1.5, "on": True, "more": {"x": "inside", "y": "a!b", "z": "a,b"}}
    body = call("note", {"value": given}).replace(b"1.5", b"1.50")

    told = envoy.http("POST", "/mcp", body, {"mcp-param-region": value.encode().decode("latin-1")})

    assert fits is told.allowed
    assert fits or (400, -32020) == (told.status, told.body["error"]["code"])


REGION = "mcp-param-region"


@pytest.mark.parametrize(
    ("pairs", "fits"),
    [
        ([(REGION, b"a!b")], True),
        ([(REGION, b"a,b")], True),
        ([(REGION, b" a,b\t")], True),
        ([(REGION, "Zürich".encode())], True),
        ([(REGION, b"a"), (REGION, b"b")], False),
        ([(REGION, b"a"), (REGION, b"a")], False),
        ([(REGION, b"a!b"), ("mcp-name", b"note"), ("mcp-name", b"note")], False),
        ([(REGION, b"a\xffb")], False),
        ([(REGION, b"elsewhere")], False),
        ([(REGION, "\u2003a".encode())], False),
        ([(":path", b"/other")], False),
        ([("upgrade", b"websocket")], False),
        ([("x-original-url", b"/other")], False),
        ([("x-big", b"a" * (256 * 1024))], False),
        ([("x-many", b"")] * 1000, False),
    ],
)
def test_raw_headers_tell_one_from_another(envoy: Asker, pairs: list[tuple[str, bytes]], fits: bool) -> None:  # noqa: FBT001 - a row of the table
    """With `encode_raw_headers` Envoy shows each header as it came."""
    given = {"region": "Zürich", "y": "a!b", "z": "a,b", "odd": "a\ufffdb", "a": "a"}

    told = envoy.raw("POST", "/mcp", call("note", {"value": given}), pairs)

    assert fits is told.allowed
    assert fits or 400 == told.status


def test_headers_in_two_forms_are_refused(envoy: Asker) -> None:
    """One of them is not what is sent on."""
    told = envoy.raw("POST", "/mcp", call("note"), accept="*/*")

    assert (False, 400) == (told.allowed, told.status)


@pytest.mark.parametrize(
    "route",
    [{}, {"server": ""}, {"server": "elsewhere"}, {"Server": "desk"}, {"server": "desk", "more": "x"}],
)
def test_a_route_names_its_server(envoy: Asker, route: dict[str, str]) -> None:
    """A route that does not, or that names one that the catalogue does not know, sends nothing on."""
    told = envoy.http("POST", "/mcp", call("note"), {"server": "desk", "x-server": "desk"}, route=route)

    assert not told.allowed
    assert [] == envoy.ran


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/mcp?project=other", {}),
        ("/mcp?", {}),
        ("/mcp", {"x-original-url": "/other/mcp"}),
        ("/mcp", {"x-http-method-override": "DELETE"}),
    ],
)
def test_nothing_besides_the_message_names_another_server(envoy: Asker, target: str, headers: dict[str, str]) -> None:
    """Neither a query nor a header by which some servers take another path or method."""
    calling, ending = envoy.http("POST", target, call("note"), headers), {"mcp-session-id": "s1", **headers}
    bare = envoy.http("DELETE", target, headers=ending)

    assert (400, 400) == (calling.status, bare.status)
    assert [] == envoy.ran


def test_a_call_is_sent_on_once_and_to_the_server(envoy: Asker) -> None:
    """Without the headers by which a client can have Envoy repeat it, or choose its server or host."""
    hosts = ["forwarded", "x-forwarded-host", "x-forwarded-server", "x-host", "x-original-host"]
    names = [f"x-envoy-{name}" for name in ("hedge-on-per-try-timeout", "max-retries", "original-dst-host")]
    names += ["x-envoy-retry-grpc-on", "x-envoy-retry-on"]
    told = envoy.http("POST", "/mcp", call("note"), dict.fromkeys([*hosts, *names], "5xx"))

    assert sorted([*hosts, *names, "x-pdp-session"]) == list(told.removed)


def test_a_body_that_is_not_shown_is_refused(envoy: Asker) -> None:
    """So is one that Envoy hands over as text, which may have been changed."""
    told = envoy.http("GET", "/mcp", headers={"content-length": "7", "mcp-session-id": "s1"})
    chunked = envoy.http("GET", "/mcp", headers={"transfer-encoding": "chunked", "mcp-session-id": "s1"})

    assert (400, 400) == (told.status, chunked.status)


@pytest.mark.parametrize(
    ("inside", "around", "joins"),
    [
        (TRACE, "", TRACE),
        (TRACE, OTHER, TRACE),
        ("", OTHER, OTHER),
        ("broken", OTHER, OTHER),
        ([TRACE], OTHER, OTHER),
        (TRACE.replace("a", "0"), OTHER, OTHER),
        ("broken", "broken", ""),
    ],
)
def test_a_decision_joins_the_agents_trace(
    envoy: Asker, server: RunningServer, inside: Any, around: str, joins: str
) -> None:
    """That of the message if it is valid, else that of Envoy."""
    envoy.http(
        "POST", "/mcp", call("note", _meta={"traceparent": inside}), metadata={"traceparent": around} if around else {}
    )

    trace = server.evidence.decision_records[-1]["trace_id"]
    assert [call("note", _meta={"traceparent": inside})] == envoy.ran
    assert trace == joins.split("-")[1] if joins else trace not in TRACE + OTHER


def test_calls_of_two_sessions_are_not_mixed_up(server: RunningServer, desk_door: str) -> None:
    """Each decision names the session of its own call, fifty at a time."""
    sessions = [opened(server) for _ in range(2)]
    askers = [Asker(desk_door, handle, {"server": "desk"}) for _, handle in sessions]

    def ask(number: int) -> bool:
        told = askers[number % 2].post(call("note" if number % 5 else "closed", {"text": str(number)}))
        return told.allowed is bool(number % 5) and told.metadata["session_id"] == sessions[number % 2][0]

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(ask, range(50)))
    for asker in askers:
        with asker:
            pass
