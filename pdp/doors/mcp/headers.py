"""The headers of MCP over HTTP: which of them are handed on, and whether they say what the message says.

Decisions are made about the message alone. A header that says something else is refused, since a server, or what is in
front of it, could go by the header.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeAlias

from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.methods import PROTOCOL_VERSION
from pdp.model import TraceParent
from pdp.serving.web import RawHeaders, read_headers

Headers: TypeAlias = Mapping[str, str]

TASK, SESSION, VERSION, METHOD, NAME = (
    "x-pdp-task",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
)
LAST_EVENT = "last-event-id"
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
# The first revision without a handshake. Revisions are dates, in the order of their texts.
MODERN = "2026-07-28"

# What a client may tell the server. All else stays here: credentials, cookies, and what a server could trust.
_TO_SERVER = frozenset({"accept", "accept-language", METHOD, NAME, VERSION, TRACEPARENT, TRACESTATE, "user-agent"})
_TO_CLIENT = frozenset({"retry-after", VERSION, "x-accel-buffering"})
_ONCE = frozenset({TASK, "authorization", SESSION, VERSION, METHOD, NAME})

_NAMED = {"prompts/get": "name", "resources/read": "uri", "tools/call": "name"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_MOST_REPEATED, _MOST_DEPTH, _MOST_NAME = 64, 16, 128
_DECIMAL = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?")
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")
_SESSION = re.compile(r"[\x21-\x7e]{1,256}")


def read(raw: RawHeaders) -> Headers:
    """Return headers by name. Raise `RefusedRequestError` for one that may be there once only and is there twice."""
    return read_headers(raw, _ONCE)


def to_server(headers: Headers) -> dict[str, str]:
    """Return what the server gets of a client's headers."""
    return {name: value for name, value in headers.items() if name in _TO_SERVER}


def in_trace(headers: Headers, trace: TraceParent) -> dict[str, str]:
    """Return headers that name another trace."""
    others = {name: value for name, value in headers.items() if name != TRACESTATE}
    state = {TRACESTATE: trace.tracestate} if trace.tracestate else {}
    return {**others, TRACEPARENT: trace.traceparent, **state}


def to_client(headers: Headers) -> dict[str, str]:
    """Return what the client gets of the server's headers."""
    return {name: value for name, value in headers.items() if name in _TO_CLIENT}


def is_stream(headers: Headers) -> bool:
    """Say whether a body is a stream of events."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def is_session(text: str) -> bool:
    """Say whether a text can be the id of a session of MCP."""
    return bool(_SESSION.fullmatch(text))


def unstated(message: Message, headers: Headers) -> str:
    """Say that a request of the era without a handshake does not state its version; empty if it does."""
    modern = message.modern or (headers.get(VERSION, "") >= MODERN and message.id is not None and message.method)
    if modern and PROTOCOL_VERSION not in message.meta:
        return f"`_meta` does not state `{PROTOCOL_VERSION}`, as each request of this version of MCP must"
    return ""


def disagreement(message: Message, headers: Headers) -> str:
    """Name what the headers of a request say other than the message does; empty for nothing."""
    modern = message.modern
    if modern and headers.get(VERSION) != message.meta.get(PROTOCOL_VERSION):
        return f"the header `{VERSION}` is not the version that the message states"
    method = headers.get(METHOD)
    if method != message.method and (modern or method is not None):
        return f"the header `{METHOD}` is not the method of the message"
    name = headers.get(NAME)
    inside = message.params.get(_NAMED.get(message.method, ""))
    if isinstance(inside, str) and (modern or name is not None) and (name is None or decoded(name) != inside):
        return f"the header `{NAME}` is not the name in the message"
    return ""


def repeating(schema: object) -> dict[str, tuple[str, ...]]:
    """Return the headers that repeat arguments, as a tool's schema wants it (`x-mcp-header`), and where each one is.

    A name that is no header's is left out.
    """
    headers: dict[str, tuple[str, ...]] = {}
    waiting: list[tuple[tuple[str, ...], object]] = [((), schema)]
    while waiting:
        path, one = waiting.pop()
        if not isinstance(one, dict):
            continue
        wanted = one.get("x-mcp-header")
        if path and isinstance(wanted, str) and _TOKEN.fullmatch(wanted) and len(headers) < _MOST_REPEATED:
            headers[f"mcp-param-{wanted.lower()}"] = path
        inside = one.get("properties")
        if isinstance(inside, dict) and len(path) < _MOST_DEPTH:
            waiting += [((*path, name), each) for name, each in inside.items() if len(name) <= _MOST_NAME]
    return headers


def repeated(call: Message, places: Mapping[str, tuple[str, ...]]) -> dict[str, str | None]:
    """Return the headers that repeat arguments of a call, made from the message; None for one that is not there.

    `places` are those of `repeating`.
    """
    # Read by themselves: to find each in the whole message takes as long as the client has made that.
    arguments = Message(text=call.part("params", "arguments") or "{}", value={})
    return {name: _as_header(arguments.part(*path)) for name, path in places.items()}


def misrepeated(wanted: Mapping[str, str | None], headers: Headers) -> str:
    """Name the first of a client's headers that does not repeat its argument; empty for none."""
    for name, value in wanted.items():
        if not _repeats(headers.get(name), value):
            return f"the header `{name}` is not the argument that it repeats"
    return ""


def _as_header(value: str | None) -> str | None:
    """Return a JSON value as a header; None for one that is absent, or that no header can repeat."""
    if value is None or value[0] in "n[{":
        return None
    return encoded(json.loads(value) if value[0] == '"' else value)


def _repeats(theirs: str | None, value: str | None) -> bool:
    """Say whether a client's header repeats an argument; a number can be written in more than one way."""
    if theirs is None or value is None:
        return theirs is value
    one, other = decoded(theirs), decoded(value)
    if one is None or other is None or one == other:
        return one is not None
    return bool(_DECIMAL.fullmatch(one) and _DECIMAL.fullmatch(other)) and Decimal(one) == Decimal(other)


def decoded(value: str) -> str | None:
    """Return the text of a header's value, which may be written in base64; None when that is broken."""
    match = _ENCODED.fullmatch(value)
    if match is None:
        return value
    try:
        content = base64.b64decode(match[1], validate=True)
        text = content.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    # Otherwise one text could be written in several ways.
    return text if base64.b64encode(content).decode("ascii") == match[1] else None


def encoded(text: str) -> str:
    """Return a text as a header's value."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and not _ENCODED.fullmatch(text)
    return text if plain else f"=?base64?{base64.b64encode(text.encode('utf-8')).decode('ascii')}?="
