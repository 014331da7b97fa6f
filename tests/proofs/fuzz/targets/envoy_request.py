"""Requests to HTTP services behind Envoy: refused in one line, or calls with the arguments that others find too."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, unquote, urlsplit

from pdp.doors.envoy.httprequests import call_of
from pdp.doors.envoy.requests import Request
from pdp.doors.envoy.tables import Placeholder, Template
from pdp.serving.web import RefusedRequestError

WORDS = (
    *("GET ", "POST ", "/notes/", "/amounts/", "?text=", "&amount=", "%2F", "%2e", "%25", "%00", "%c3%a9", "..", "//"),
    *(";", "\\", "+", "#", "\n", '{"text":"a"}', '"amount":1', '"amount":1.0', "-0", "1e400", "\\ud800"),
)
SEEDS = (
    b"GET /notes/a%20b?amount=3&more=x+y\n",
    b"GET /notes/..%2fa?amount=1&amount=2\n",
    b"DELETE /amounts/-7\n",
    b'POST /notes\n {"text":"a","amount":1.0}',
    b'PUT /notes/a\n{"text":"b","amount":9007199254740993}',
)

_TABLE = (
    Template(
        method="GET",
        segments=("notes", Placeholder(name="text")),
        server="desk",
        tool="read",
        query=frozenset({"amount", "more"}),
        integers=frozenset({"amount"}),
    ),
    Template(
        method="DELETE",
        segments=("amounts", Placeholder(name="amount")),
        server="desk",
        tool="remove",
        integers=frozenset({"amount"}),
    ),
    Template(method="POST", segments=("notes",), server="desk", tool="write", body=True),
    Template(method="PUT", segments=("notes", Placeholder(name="text")), server="desk", tool="change", body=True),
)


def run(data: bytes) -> None:
    """Read a line with method and target, and a body."""
    line, _, body = data.partition(b"\n")
    method, _, target = line.decode("latin-1").partition(" ")
    headers = {"content-type": "application/json"}
    try:
        call = call_of(Request(method=method, target=target, headers=headers, body=body, route={}), _TABLE)
    except RefusedRequestError as refused:
        assert str(refused).isprintable()
        assert refused.status in (400, 404, 415)
        return
    assert isinstance(call.arguments, bytes)
    asked = json.loads(call.arguments)
    seen = urlsplit(target)
    *_, last = seen.path.split("/")
    found = {"amount" if method == "DELETE" else "text": unquote(last)} if method != "POST" else {}
    found |= dict(parse_qsl(seen.query, keep_blank_values=True))
    inside = json.loads(body) if method in ("POST", "PUT") else {}
    assert "/" not in unquote(last)
    assert not found.keys() & inside.keys()
    assert {**{name: str(asked[name]) for name in found}, **{name: asked[name] for name in inside}} == found | inside
    assert asked.keys() == found.keys() | inside.keys()
