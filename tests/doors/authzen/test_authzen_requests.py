"""What the door refuses before it asks, and that it stays up."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import pytest

from pdp.doors.authzen.questions import MOST_BYTES
from tests.doors.authzen.gateway import EVALUATION, EVALUATIONS, Gateway, call_of

_DEEP = "[" * 300 + "]" * 300


def changed(text: str, by: str) -> bytes:
    """Return a question with a part of its text changed."""
    whole = json.dumps(call_of("desk/note", {"text": "x"}))
    assert text in whole
    return whole.replace(text, by).encode()


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"subject": {',
    "a list": json.dumps([call_of("desk/note")]).encode(),
    "a text": b'"text"',
    "nothing": b"null",
    "two": json.dumps(call_of("desk/note")).encode() * 2,
    "a byte order mark": b"\xef\xbb\xbf" + changed("x", "x"),
    "UTF-16": json.dumps(call_of("desk/note")).encode("utf-16"),
    "no UTF-8": changed('"x"', '"?"').replace(b"?", b"\xff"),
    "a key twice": changed('"id": "desk/note"', '"id": "desk/closed", "id": "desk/note"'),
    "a key twice in arguments": changed('"text": "x"', '"text": "y", "text": "x"'),
    "half a character": changed('"x"', '"\\ud800"'),
    "no number": changed('"x"', "NaN"),
    "without end": changed('"x"', "Infinity"),
    "deep": changed('"x"', _DEEP),
    "arguments that are a list": changed('{"text": "x"}', "[]"),
    "arguments that are a text": changed('{"text": "x"}', '"{}"'),
    "arguments that are null": changed('{"text": "x"}', "null"),
    "a context that is a list": changed('{"arguments": {"text": "x"}}', "[]"),
    "a name that is a number": changed('"tools/call"', "7"),
    "a name that is empty": changed('"tools/call"', '""'),
    "a long id": changed("desk/note", "x" * 1025),
    "a null subject": changed('{"type": "user", "id": "alice"}', "null"),
    "properties that are a list": changed('"id": "alice"', '"id": "alice", "properties": []'),
    "an agent that is no text": changed('"arguments"', '"agent": 1, "arguments"'),
    "an id that is no text": changed('"arguments"', '"request_id": 7, "arguments"'),
    "no digest": changed('"arguments"', '"definition_digest": "md5:x", "arguments"'),
    "obligations that are no list": changed('"arguments"', '"known_obligations": "x", "arguments"'),
    "obligations that are no texts": changed('"arguments"', '"known_obligations": [1], "arguments"'),
    "a call token for nobody": changed('"arguments"', '"call_token": {"certificate": "x"}, "arguments"'),
    "a report that is no boolean": changed('"arguments"', '"reports_outcome": 1, "arguments"'),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
def test_a_malformed_body_is_400(gateway: Gateway, path: str, body: bytes) -> None:
    """Nothing is asked, no value comes back, and the door stays up."""
    answer = gateway.post(path, body)
    gateway.call("desk/note")

    assert 400 == answer.status_code
    assert isinstance(answer.json()["error"]["message"], str)
    assert [("desk/note", None)] == gateway.ran


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("host", "attacker.example", 403),
        ("host", "127.0.0.1", 403),
        ("origin", "https://attacker.example", 403),
        ("origin", "null", 403),
        ("content_type", "application/json; charset=utf-16", 400),
        ("content_type", "application/jsonx", 400),
        ("content_encoding", "gzip", 400),
        ("x_request_id", "x" * 513, 400),
        ("x_pdp_session", "two words", 400),
        ("x_pdp_session", "pdps_a, pdps_b", 400),
        ("x_pdp_session", "alice=pdps_a, alice=pdps_b", 400),
        ("x_pdp_session", "alice=pdps_a, pdps_b", 400),
        ("x_pdp_session", "alice=", 400),
        ("x_pdp_session", "x" * 600, 400),
    ],
)
def test_a_wrong_header_is_refused(gateway: Gateway, header: str, value: str, status: int) -> None:
    """Another host, another origin, another kind of body, or what is no handle."""
    assert status == gateway.post(EVALUATION, call_of("desk/note"), **{header: value}).status_code


def test_a_page_of_the_own_origin_may_ask(gateway: Gateway) -> None:
    """A page of this machine with the port of the door is not foreign."""
    assert 200 == gateway.post(EVALUATION, call_of("desk/note"), origin=gateway.url).status_code


@pytest.mark.parametrize("name", ["authorization", "content-type", "host", "x-pdp-session", "x-request-id"])
def test_a_header_twice_is_refused(gateway: Gateway, name: str) -> None:
    """Readers could take either."""
    body = json.dumps(call_of("desk/note")).encode()
    headers = {
        "host": gateway.url.removeprefix("http://"),
        "authorization": f"Bearer {gateway.token}",
        "content-type": "application/json",
        "x-pdp-session": gateway.handle,
        "x-request-id": "1",
    }
    lines = [f"{one}: {value}" for one, value in (*headers.items(), (name, headers[name]))]
    head = "\r\n".join([f"POST {EVALUATION} HTTP/1.1", *lines, f"content-length: {len(body)}", "", ""])

    assert b"HTTP/1.1 400" == raw(gateway, head.encode() + body)[:12]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", EVALUATION, 405),
        ("PUT", EVALUATIONS, 405),
        ("POST", "/.well-known/authzen-configuration", 405),
        ("POST", "/access/v1/requests/acc_x", 405),
        ("POST", "/access/v1/search/subject", 404),
        ("POST", "/access/v1/search/action", 404),
        ("POST", "/access/v1/evaluation/", 404),
        ("POST", "/access/v1/%65valuation", 404),
        ("POST", "/access%2fv1/evaluation", 404),
        ("GET", "/access/v1/requests%2Facc_x", 404),
        ("GET", "/.well-known/authzen-configuration/tenant", 404),
        ("GET", "/x/access/v1/requests/acc_x", 404),
        ("GET", "/", 404),
    ],
)
def test_there_is_nothing_else(gateway: Gateway, method: str, path: str, status: int) -> None:
    """Search is not offered; a wrong method names the right one."""
    answer = gateway.http.request(method, path, json={})

    assert status == answer.status_code
    assert (status == 405) is ("allow" in answer.headers)


def test_a_body_may_be_as_large_as_a_message_and_no_larger(gateway: Gateway) -> None:
    """One byte more is refused before it is read, also where its length is not stated."""
    body = json.dumps(call_of("desk/note")).encode()
    most = body + b" " * (MOST_BYTES - len(body))

    def chunks() -> Any:
        yield most
        yield b" "

    headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.token}"}

    assert 200 == gateway.post(EVALUATION, most).status_code
    assert 413 == gateway.post(EVALUATION, most + b" ").status_code
    assert 413 == gateway.http.post(EVALUATION, content=chunks(), headers=headers).status_code


def test_a_packed_body_is_refused(gateway: Gateway) -> None:
    """It could be of any size."""
    body = gzip.compress(json.dumps(call_of("desk/note")).encode())

    assert 400 == gateway.post(EVALUATION, body, content_encoding="gzip").status_code


def test_an_answer_is_for_its_caller_alone(gateway: Gateway) -> None:
    """Nothing between may keep it."""
    assert "no-store" == gateway.post(EVALUATION, call_of("desk/note")).headers["cache-control"]


@pytest.mark.parametrize(
    "more",
    [
        {"evaluations": {}},
        {"evaluations": None},
        {"evaluations": [{}] * 101},
        {"evaluations": [{}], "options": []},
        {"evaluations": [{}], "options": {"evaluations_semantic": "first"}},
        {"evaluations": [{}], "options": {"evaluations_semantic": ["execute_all"]}},
        {"evaluations": [{}], "subject": "alice"},
    ],
    ids=lambda more: json.dumps(more)[:60],
)
def test_what_is_wrong_with_all_evaluations_is_400(gateway: Gateway, more: dict[str, Any]) -> None:
    """And what is wrong with one of them is not."""
    assert 400 == gateway.post(EVALUATIONS, {**call_of("desk/note"), **more}).status_code


def raw(gateway: Gateway, sent: bytes) -> bytes:
    """Send bytes as they are, and return the beginning of the answer."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(sent)
        return connection.recv(4096)
