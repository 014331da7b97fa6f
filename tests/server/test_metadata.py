"""What stands beside a message decides nothing: headers that contradict it, stand twice, or hold what forges a line."""

from __future__ import annotations

import json
import logging

import grpc
import pytest

from pdp.v1.authorization_pb2 import AuthorizeResponse
from pdp.v1.decision_pb2 import BASIS_PERMIT, BASIS_SESSION_NOT_FOUND, BASIS_UNKNOWN_TOOL
from pdp.v1.session_pb2 import GetSessionRequest, RequestSessionRequest
from tests.machinery.servers.running import Metadata, Running, a_call

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
REQUEST_SESSION = "/pdp.v1.SessionService/RequestSession"
GET_SESSION = "/pdp.v1.SessionService/GetSession"
HOSTILE = "x\n2026-01-01 INFO pdp: all is well\r\x1b[2J\u202e\u2028\x00"

HEADERS: list[Metadata] = [
    (("mcp-name", "git_push"), ("mcp-method", "tools/call"), ("mcp-session-id", "ses_other")),
    (("pdp-outcome", "allow"), ("x-tool", "git_push"), ("x-session-handle", "pdps_other")),
    (("x-http-method-override", "GET"), ("x-original-path", "/grpc.health.v1.Health/Check")),
    (("grpc-status", "0"), ("x-envoy-original-path", "/grpc.health.v1.Health/Check")),
    (("x-forwarded-client-cert", "URI=spiffe://x/admin"), ("x-user", "admin"), ("x-roles", "admin")),
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: headers[0][0])
def test_the_body_decides_and_headers_do_not(running: Running, headers: Metadata) -> None:
    """Whatever tool, session, path or caller headers name, the answer is that of the message, and repeats it."""
    handle = running.open_session()
    asked = {
        BASIS_PERMIT: a_call(handle),
        BASIS_UNKNOWN_TOOL: a_call(handle, tool="git_pushed"),
        BASIS_SESSION_NOT_FOUND: a_call("pdps_" + "A" * 43),
    }

    for basis, call in asked.items():
        plain = AuthorizeResponse.FromString(running.unary(AUTHORIZE, call.SerializeToString())).decision
        headed = AuthorizeResponse.FromString(
            running.unary(AUTHORIZE, call.SerializeToString(), metadata=headers)
        ).decision

        assert (basis, call.call.server, call.call.tool) == (headed.basis, headed.server, headed.tool)
        assert (plain.outcome, plain.session_id, plain.user) == (headed.outcome, headed.session_id, headed.user)


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: headers[0][0])
def test_headers_name_no_caller(running: Running, headers: Metadata) -> None:
    """Without credentials no header lets anybody in."""
    error = running.refused(AUTHORIZE, a_call().SerializeToString(), caller=None, metadata=headers)

    assert grpc.StatusCode.UNAUTHENTICATED is error.code()


@pytest.mark.parametrize(
    "names",
    [
        ("authorization", "authorization"),
        ("authorization", "authorization-bin"),
        ("traceparent", "traceparent"),
        ("x-path", "x-path"),
    ],
    ids=" and ".join,
)
def test_metadata_that_stands_twice_opens_no_path(running: Running, names: tuple[str, str]) -> None:
    """What stands twice is refused where it would decide, and decides nothing elsewhere: the path is the path."""
    token = f"Bearer {running.tokens['pep']}"
    values: dict[str, str | bytes] = {
        "authorization": token,
        "authorization-bin": token.encode(),
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "x-path": "/pdp.v1.PolicyService/GetBundle",
    }
    twice = tuple((name, values[name]) for name in names)
    own = "authorization" in names
    metadata = twice if own else (*running.credentials("pep"), *twice)

    def call(path: str) -> str:
        try:
            running.channel.unary_unary(path)(a_call().SerializeToString(), metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    refused = own and names[0] == names[1]
    assert ("UNAUTHENTICATED" if refused else "OK") == call(AUTHORIZE)
    assert ("UNAUTHENTICATED" if refused else "PERMISSION_DENIED") == call("/pdp.v1.PolicyService/GetBundle")
    assert "UNIMPLEMENTED" == call("//pdp.v1.PolicyService/GetBundle")


def test_what_others_write_makes_no_line_of_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Line breaks, control and bidi characters, in every field and in a token, neither forge a line nor hide one."""
    caplog.set_level(logging.DEBUG)
    call = a_call(tool=HOSTILE, arguments_json=json.dumps({HOSTILE: HOSTILE}).encode())
    running.unary(AUTHORIZE, call.SerializeToString())
    for path, message, caller in (
        (AUTHORIZE, a_call(HOSTILE), "pep"),
        (AUTHORIZE, a_call(server=HOSTILE), "pep"),
        (REQUEST_SESSION, RequestSessionRequest(user=HOSTILE, agent="coder", purpose="p"), "pep"),
        (REQUEST_SESSION, RequestSessionRequest(user="alice", agent="coder", purpose=HOSTILE), "pep"),
        (GET_SESSION, GetSessionRequest(session_id=HOSTILE), "auditor"),
    ):
        error = running.refused(path, message.SerializeToString(), caller)
        assert error.details().isprintable()
    running.refused(AUTHORIZE, a_call().SerializeToString(), None, (("authorization", "Bearer a.b.c\\n\\x1b[2J"),))

    written = [record.getMessage() for record in caplog.records if record.name.startswith("pdp")]
    facts = [text for event in running.notes.events for text in (event.caller_id, *event.facts.values())]
    assert [] == [text for text in [*written, *facts] if not text.isprintable()]
