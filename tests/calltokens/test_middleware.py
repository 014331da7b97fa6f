"""A tool server behind the middleware makes a call only with its token, and everything else as before."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pdp.calltokens import asgi, mcp, wsgi
from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.requests import Guard, Requested
from tests.machinery.calltokens import ARGUMENTS, PRESENTER, token, verifier

PARAMS = {"name": "git_commit", "arguments": ARGUMENTS}
CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": PARAMS}
LIST = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}

# Sends a request with a method, a body, and tokens; returns the status, and the body of the answer.
Sending = Callable[[Guard, str, bytes, list[str], Presenter | None], tuple[int, bytes]]


def over_asgi(
    guard: Guard, method: str, body: bytes, tokens: list[str], presenter: Presenter | None
) -> tuple[int, bytes]:
    """Send a request to an ASGI application that returns what it got, in two parts."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": body[:5], "more_body": True}, {"type": "http.request", "body": body[5:]}]

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(_: Any, receiving: Any, sending: Any) -> None:
        got = await receiving()
        await sending({"type": "http.response.start", "status": 200, "headers": []})
        await sending({"type": "http.response.body", "body": got["body"]})

    headers = [(b"pdp-call-token", one.encode()) for one in tokens]
    scope = {"type": "http", "method": method, "path": "/mcp", "headers": headers}
    served = asgi.CallTokenMiddleware(app, guard, most_bytes=1000, presenter=lambda _: presenter)
    asyncio.run(served(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def over_wsgi(
    guard: Guard, method: str, body: bytes, tokens: list[str], presenter: Presenter | None
) -> tuple[int, bytes]:
    """Send a request to a WSGI application that returns what it got."""
    statuses: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/mcp", "wsgi.input": io.BytesIO(body)}
    environ |= {"CONTENT_LENGTH": str(len(body))} | ({"HTTP_PDP_CALL_TOKEN": ",".join(tokens)} if tokens else {})
    served = wsgi.CallTokenMiddleware(app, guard, most_bytes=1000, presenter=lambda _: presenter)
    answer = served(environ, lambda status, _: statuses.append(status))
    return int(statuses[0][:3]), b"".join(answer)


@pytest.fixture(params=[over_asgi, over_wsgi])
def sending(request: pytest.FixtureRequest) -> Sending:
    """Return what sends a request, by each interface."""
    found: Sending = request.param
    return found


def test_a_call_passes_once_with_its_token(sending: Sending) -> None:
    """The application gets the bytes that were checked."""
    guard, body, text = Guard(verifier=verifier(), server="git"), json.dumps(CALL).encode(), token()
    first = sending(guard, "POST", body, [text], PRESENTER)
    second, answer = sending(guard, "POST", body, [text], PRESENTER)

    assert (200, body) == first
    assert (403, "used", 7) == (second, json.loads(answer)["error"]["data"]["reason"], json.loads(answer)["id"])


@pytest.mark.parametrize(
    ("method", "body", "tokens", "presenter", "status"),
    [
        ("POST", json.dumps(LIST), [], None, 200),
        ("GET", "", [], None, 200),
        ("POST", json.dumps(CALL), [], PRESENTER, 403),
        ("POST", json.dumps(CALL), ["a", "b"], PRESENTER, 403),
        ("POST", json.dumps(CALL), [token()], None, 403),
        ("POST", json.dumps(CALL)[:-1] + ',"method":"tools/list"}', [], PRESENTER, 403),
        ("POST", json.dumps([CALL]), [token()], PRESENTER, 403),
        ("POST", json.dumps({**LIST, "Method": "tools/call", "params": CALL["params"]}), [], None, 403),
        ("POST", json.dumps({**CALL, "params": {**PARAMS, "Name": "git_push"}}), [token()], PRESENTER, 403),
        ("POST", json.dumps({**CALL, "params": {**PARAMS, "argument\u017f": {}}}), [token()], PRESENTER, 403),
        ("POST", "not JSON", [token()], PRESENTER, 403),
        ("POST", " " * 1001, [], PRESENTER, 413),
    ],
)
def test_what_passes(
    sending: Sending, method: str, body: str, tokens: list[str], presenter: Presenter | None, status: int
) -> None:
    """What calls no tool passes; a call without a good token does not, and neither does what cannot be read."""
    guard = Guard(verifier=verifier(), server="git")

    assert status == sending(guard, method, body.encode(), tokens, presenter)[0]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('application/json;charset="UTF-8"', 200),
        ("application/json; charset=utf-7", 403),
        ("application/json; charset=utf-8; charset=utf-7", 403),
        ("application/json; charset*=utf-8''utf-7", 403),
        ("application/json; Charset = utf-16", 403),
    ],
)
def test_a_text_that_others_read_in_other_letters_is_refused(content_type: str, status: int) -> None:
    """In UTF-7 `+ACI-` is a quote, so that a value of this message would be the method of theirs."""
    guard = Guard(verifier=verifier(), server="git")
    body = json.dumps({**LIST, "params": {"x": "+ACIAfQAs-+ACI-method+ACI-:+ACI-tools/call"}}).encode()

    async def app(_: Any, __: Any, sending: Any) -> None:
        await sending({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", content_type.encode())]}
    asyncio.run(asgi.CallTokenMiddleware(app, guard, presenter=lambda _: None)(scope, receive, send))
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    served = wsgi.CallTokenMiddleware(lambda _, start: [start("200 OK", []), b""][1:], guard, presenter=lambda _: None)
    served({**environ, "CONTENT_TYPE": content_type}, lambda status, _: sent.append({"status": int(status[:3])}))

    assert [status, status] == [one["status"] for one in sent if "status" in one]


def test_a_server_of_another_kind_says_what_its_requests_call(sending: Sending) -> None:
    """A function returns the tool and its arguments."""

    def call_of(_: str, __: str, body: bytes) -> Requested:
        return Requested(tool="git_commit", arguments=json.loads(body))

    guard = Guard(verifier=verifier(), server="git", call_of=call_of)

    assert 200 == sending(guard, "PUT", json.dumps(ARGUMENTS).encode(), [token()], PRESENTER)[0]


@pytest.mark.parametrize(
    ("scope", "presenter"),
    [
        ({"server": ("127.0.0.1", 80)}, None),
        ({"server": None}, None),
        ({"server": ("/run/tool.sock", None)}, Presenter()),
    ],
)
def test_a_process_on_the_same_machine_is_known_by_its_socket(scope: Any, presenter: Presenter | None) -> None:
    """Everybody else needs a certificate."""
    assert presenter == asgi.presenter_of(scope)


def test_a_websocket_is_closed() -> None:
    """Nothing here reads the calls in it."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    served = asgi.CallTokenMiddleware(nothing, Guard(verifier=verifier(), server="git"))
    asyncio.run(served({"type": "websocket"}, nothing, send))

    assert "websocket.close" == sent[0]["type"]


@pytest.mark.parametrize(
    ("params", "request_of_transport", "said"),
    [
        ({"name": "git_commit", "arguments": ARGUMENTS, "_meta": {HEADER: token(presenter=None)}}, None, "made"),
        ({"name": "git_commit", "arguments": ARGUMENTS, "_meta": {HEADER: token(presenter=None)}}, "HTTP", "presenter"),
        ({"name": "git_commit", "arguments": ARGUMENTS, "_meta": {HEADER: token()}}, None, "presenter"),
        ({"name": "git_push", "arguments": ARGUMENTS, "_meta": {HEADER: token(presenter=None)}}, None, "tool"),
        ({"name": "git_commit", "_meta": {HEADER: token(presenter=None)}}, None, "arguments"),
        ({"name": "git_commit", "arguments": ARGUMENTS, "_meta": {HEADER: 7}}, None, "malformed"),
        ({"name": "git_commit", "arguments": ARGUMENTS}, None, "malformed"),
        ({"arguments": ARGUMENTS, "_meta": {HEADER: token()}}, None, "malformed"),
        (None, None, "malformed"),
    ],
)
def test_over_pipes_the_token_is_in_the_message(params: Any, request_of_transport: Any, said: str) -> None:
    """It is for a process on the same machine, which is known of pipes alone."""

    async def made(_: Any) -> Any:
        return "made"

    context = SimpleNamespace(method="tools/call", params=params, request=request_of_transport)
    answer = asyncio.run(mcp.CallTokens(verifier(), server="git")(context, made))

    assert said == (answer if answer == "made" else answer["content"][0]["text"].split(": ")[1])


def test_over_pipes_what_calls_no_tool_passes() -> None:
    """It is for the server to answer."""

    async def made(context: Any) -> Any:
        return context.method

    context = SimpleNamespace(method="tools/list", params=None, request=None)

    assert "tools/list" == asyncio.run(mcp.CallTokens(verifier(), server="git")(context, made))
