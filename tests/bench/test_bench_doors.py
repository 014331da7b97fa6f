"""Doors and brokers that are measured: what counts as their right answer."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus

import pytest

from pdp.bench.doors import EnvoyDialect
from pdp.bench.failure import WrongAnswerError
from pdp.bench.mcpdoor import MCPDialect, ToolDialect
from pdp.bench.otherside import ANSWER, CLIENT, CLIENT_SECRET, GRANTED, KEY, KEYED, TOKEN_PATH, OtherSide
from pdp.bench.overhttp import HTTPConnections, request
from pdp.bench.plan import Shape
from pdp.bench.questions import Question, question
from pdp.bench.toolserver import answer_to
from pdp.bench.webserver import Request
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse, DeniedResponse, OkResponse

DIALECT = EnvoyDialect(("pdps_first", "pdps_second"))
MCP, TOOLS = (kind("127.0.0.1:1", ("pdps_first", "pdps_second")) for kind in (MCPDialect, ToolDialect))
ALLOWED, DENIED = (question("s", "t", b'{"a": 1}', allowed=allowed, asker=1) for allowed in (True, False))


def told(*, sent_on: bool, basis: str = "") -> CheckResponse:
    """Return an answer of the door, which rests on a decision where there is a basis."""
    found = CheckResponse(ok_response=OkResponse()) if sent_on else CheckResponse(denied_response=DeniedResponse())
    found.status.code = 0 if sent_on else 7
    if basis:
        found.dynamic_metadata.fields["decision_id"].string_value = "dec_1"
        found.dynamic_metadata.fields["basis"].string_value = basis
    return found


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        (ALLOWED, told(sent_on=True, basis="permit"), ""),
        (DENIED, told(sent_on=False, basis="forbid"), ""),
        (ALLOWED, told(sent_on=False, basis="forbid"), "`s/t` must be sent on, and is refused by `forbid`"),
        (DENIED, told(sent_on=True, basis="permit"), "`s/t` must be refused, and is sent on by `permit`"),
        (DENIED, told(sent_on=False), "the door asked nobody about `s/t`"),
        (ALLOWED, told(sent_on=True), "the door asked nobody about `s/t`"),
    ],
)
def test_only_what_rests_on_the_right_decision_is_right(asked: Question, answer: CheckResponse, problem: str) -> None:
    """A door that lets everything pass, or refuses because it reaches no server, is fast and wrong."""
    try:
        DIALECT.check(Shape.UNARY, answer.SerializeToString(), [asked])
        found = ""
    except WrongAnswerError as error:
        found = str(error)

    assert problem == found


def test_bytes_of_something_else_are_no_answer() -> None:
    """What cannot be read is not counted as fast."""
    with pytest.raises(WrongAnswerError, match="not a message of Envoy's API"):
        DIALECT.check(Shape.UNARY, b"\xff", [ALLOWED])


def test_a_question_is_a_call_of_a_tool_in_the_session_of_its_asker() -> None:
    """Tool and arguments are in the body, the server is what the route says, and the handle is a header."""
    asked = CheckRequest.FromString(DIALECT.encode(Shape.UNARY, [ALLOWED]))

    http = asked.attributes.request.http
    assert {"name": "t", "arguments": {"a": 1}} == json.loads(http.raw_body)["params"]
    assert ("pdps_second", {"server": "s"}) == (
        http.headers["x-pdp-session"],
        dict(asked.attributes.context_extensions),
    )


def test_a_door_is_asked_one_by_one() -> None:
    """Envoy has no other way than a question about each request."""
    assert [Shape.UNARY] == [shape for shape in Shape if DIALECT.path(shape)]


def result(text: str, *, failed: bool = False, decision: str = "") -> bytes:
    """Return the result of a call over MCP; the door names the decision of a refusal."""
    said: dict[str, object] = {"content": [{"type": "text", "text": text}], "isError": failed}
    if decision:
        said["_meta"] = {"agent-pdp/decision": {"decision_id": decision, "basis": "forbid"}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": said}).encode()


@pytest.mark.parametrize(
    ("dialect", "asked", "answer", "problem"),
    [
        (MCP, ALLOWED, result('{"a": 1}'), ""),
        (MCP, DENIED, result("no", failed=True, decision="dec_1"), ""),
        (MCP, ALLOWED, result("no", failed=True, decision="dec_1"), "`s/t` must be called, and was refused: no"),
        (MCP, ALLOWED, result('{"a": 2}'), "`s/t` was called with other arguments"),
        (MCP, DENIED, result('{"a": 1}'), "`s/t` must be refused, and was called"),
        (MCP, DENIED, result("no", failed=True), "the door asked nobody about `s/t`"),
        (MCP, ALLOWED, b'{"error": {}}', "the answer is not the result of a call over MCP"),
        (MCP, ALLOWED, b"[]", "the answer is not the result of a call over MCP"),
        (TOOLS, DENIED, result('{"a": 1}'), ""),
        (TOOLS, DENIED, result("no", failed=True, decision="dec_1"), "`s/t` must be called, and was refused: no"),
    ],
)
def test_a_call_over_mcp_reaches_its_tool_or_is_refused(
    dialect: MCPDialect, asked: Question, answer: bytes, problem: str
) -> None:
    """What the tool was sent comes back, and a refusal rests on a decision. Without a door, each call is made."""
    try:
        dialect.check(Shape.MCP, answer, [asked])
        found = ""
    except WrongAnswerError as error:
        found = str(error)

    assert problem == found


def test_the_tool_server_answers_what_the_door_is_sent() -> None:
    """What is written as a request is a call of the tool, in the session of its asker."""
    head, _, body = MCP.encode(Shape.MCP, [ALLOWED]).decode().partition("\r\n\r\n")

    assert TOOLS.check(Shape.MCP, answer_to(body.encode(), []), [ALLOWED]) == 0
    lines = head.split("\r\n")
    assert lines[0] == "POST /s/mcp HTTP/1.1"
    assert {"host: 127.0.0.1:1", "mcp-name: t", "x-pdp-session: pdps_second"} <= {*lines}


def test_the_header_of_a_tool_is_ascii() -> None:
    """A name that a header cannot hold is written as MCP says."""
    sent = MCP.encode(Shape.MCP, [question("s", "lösche", b"{}", allowed=True)])

    assert b"\r\nmcp-name: =?base64?bMO2c2NoZQ==?=\r\n" in sent


def bearer(secret: str) -> Mapping[str, str]:
    """Return the header of a secret."""
    return {"authorization": f"Bearer {secret}"}


def test_the_other_side_answers_only_what_is_rightly_asked() -> None:
    """Each path has its secret, and one access token is granted: a broker that asks again does not hold it."""
    there, pair = OtherSide(), b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()

    def said(path: str, headers: Mapping[str, str], method: str = "GET") -> tuple[HTTPStatus, bytes]:
        return there.answer(Request(method, path, headers, b""))

    refused = said(TOKEN_PATH, {"authorization": "Basic other"}, "POST")
    granted, again = (said(TOKEN_PATH, {"authorization": f"Basic {pair}"}, "POST") for _ in range(2))
    token = json.loads(granted[1])["access_token"]

    assert [401, 200, 400] == [refused[0], granted[0], again[0]]
    assert (HTTPStatus.OK, ANSWER) == said(f"/{KEYED}/read", bearer(KEY)) == said(f"/{GRANTED}/read", bearer(token))
    assert {401} == {
        said(path, headers)[0]
        for path, headers in (
            (f"/{KEYED}/read", bearer(token)),
            (f"/{GRANTED}/read", bearer(KEY)),
            (f"/{KEYED}/read", {}),
            ("/other", bearer(KEY)),
        )
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", "hi"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "no answer: status 403, no"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "no answer: 2 bytes read on a total of 9 expected bytes"),
        (b"", "no answer: 0 bytes read on a total of undefined expected bytes"),
    ],
)
def test_an_answer_over_http_is_whole_and_good(answer: bytes, expected: str) -> None:
    """Whole or in chunks; another status than 200, or an end before the end, is no answer."""
    got = b""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        got = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def asked() -> str:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server, HTTPConnections(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as connections:
            try:
                return (await connections.exchange(request("GET", "/", {}), b"0" * 16)).decode()
            except WrongAnswerError as error:
                return str(error)

    assert expected == asyncio.run(asked())
    assert b"GET / HTTP/1.1\r\ntraceparent: 00-" in got
