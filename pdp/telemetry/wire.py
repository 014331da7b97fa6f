"""Write OTLP in protobuf's wire format, byte for byte as the SDK's encoder does.

The SDK builds a message object for every value, which costs ten times as much. The fields and their numbers are those
of opentelemetry-proto, `common/v1`, `resource/v1`, `trace/v1` and `logs/v1`. In this module a number is a tag: the
field's number times eight, plus the kind of its value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**63 - 1
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200
_SERVER_KIND = 2
_ERROR_STATUS = 2
_LARGE = 0x80

SPAN_ATTRIBUTE, LOG_ATTRIBUTE = b"\x4a", b"\x32"
_KEY_VALUE = b"\x0a"
_MEMBER = b"\x0a"

_DOUBLE = struct.Struct("<d")
_FIXED64 = struct.Struct("<Q")
_FIXED32 = struct.Struct("<I")
_SAMPLED_FLAGS = b"\x45" + _FIXED32.pack(1)
_INTERVAL = struct.Struct("<cQcQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of kind SERVER. Ids are hexadecimal, times nanoseconds; a parent and a linked span are remote."""

    name: str
    trace_id: str
    span_id: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    dropped_attributes: int = 0
    parent_id: str = ""
    trace_state: str = ""
    links: tuple[tuple[str, str], ...] = ()
    dropped_links: int = 0
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """A log record. `severity` is OpenTelemetry's number; without a span, `span_id` is empty."""

    event: str
    at: int
    observed_at: int
    severity: int
    severity_text: str
    body: str
    attributes: Mapping[str, Any]
    dropped_attributes: int = 0
    trace_id: str = ""
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The maker of spans or log records: the encoded resource and scope that precede them."""

    resource: bytes
    scope: bytes

    def request(self, parts: Sequence[bytes]) -> bytes:
        """Return the export request for some framed spans or log records."""
        # Joined once: it is half a megabyte, of which each copy keeps the interpreter.
        size = sum(map(len, parts))
        head = self.resource + b"\x12" + varint(len(self.scope) + size) + self.scope
        return b"".join((b"\x0a", varint(len(head) + size), head, *parts))


def source(resource: Mapping[str, Any], scope: str, version: str) -> Source:
    """Return the source of a resource and a scope with this name and version."""
    return Source(
        resource=field(b"\x0a", attributes(b"\x0a", resource)),
        scope=field(b"\x0a", text(b"\x0a", scope) + text(b"\x12", version)),
    )


def frame(part: bytes) -> bytes:
    """Return a span or log record as a member of its list."""
    return b"\x12" + varint(len(part)) + part


def span(one: Span) -> bytes:
    """Return an encoded span."""
    head = span_head(one.trace_id, one.span_id, one.trace_state, one.parent_id, one.name, one.start, one.end)
    tail = span_tail(one.dropped_attributes, one.links, one.dropped_links, failed=one.failed, child=bool(one.parent_id))
    return head + attributes(SPAN_ATTRIBUTE, one.attributes) + tail


def span_head(trace_id: str, span_id: str, state: str, parent_id: str, name: str, start: int, end: int) -> bytes:
    """Return the bytes before a span's attributes."""
    ids = b"\x0a\x10" + bytes.fromhex(trace_id) + b"\x12\x08" + bytes.fromhex(span_id)
    return ids + below(state, parent_id) + named(name) + interval(start, end)


def below(state: str, parent_id: str) -> bytes:
    """Return a span's parent and trace state; empty for a span without a parent."""
    return text(b"\x1a", state) + (b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"")


def named(name: str) -> bytes:
    """Return the name and the kind of a span."""
    return text(b"\x2a", name) + b"\x30" + varint(_SERVER_KIND)


def interval(start: int, end: int) -> bytes:
    """Return when a span began and ended."""
    # As everywhere, a 0 is left out.
    if start and end:
        return _INTERVAL.pack(b"\x39", start, b"\x41", end)
    return _fixed64(b"\x39", start) + _fixed64(b"\x41", end)


def span_tail(
    dropped: int, links: tuple[tuple[str, str], ...], dropped_links: int, *, failed: bool, child: bool
) -> bytes:
    """Return the bytes after a span's attributes."""
    linked = b"".join(field(b"\x6a", _link(*link)) for link in links)
    status = field(b"\x7a", b"\x18" + varint(_ERROR_STATUS) if failed else b"")
    flags = b"\x85\x01" + _FIXED32.pack(_HAS_REMOTE | _IS_REMOTE if child else _HAS_REMOTE)
    return _number(b"\x50", dropped) + linked + _number(b"\x70", dropped_links) + status + flags


def log_record(one: LogRecord) -> bytes:
    """Return an encoded log record."""
    head = instant(one.at) + said(one.severity, one.severity_text, one.body)
    tail = log_tail(one.dropped_attributes, one.trace_id, one.span_id, one.observed_at, happened(one.event))
    return head + attributes(LOG_ATTRIBUTE, one.attributes) + tail


def instant(at: int) -> bytes:
    """Return when a log record's event happened, which is its first field."""
    return _fixed64(b"\x09", at)


def said(severity: int, severity_text: str, body: str) -> bytes:
    """Return the severity and the body of a log record, which precede its attributes."""
    return _number(b"\x10", severity) + text(b"\x1a", severity_text) + field(b"\x2a", _value(body))


def log_tail(dropped: int, trace_id: str, span_id: str, observed_at: int, event: bytes) -> bytes:
    """Return the bytes after a log record's attributes; `event` is what `happened` returns."""
    trace = b"\x4a\x10" + bytes.fromhex(trace_id) if trace_id else b""
    flags, span = (_SAMPLED_FLAGS, b"\x52\x08" + bytes.fromhex(span_id)) if span_id else (b"", b"")
    return _number(b"\x38", dropped) + flags + trace + span + _fixed64(b"\x59", observed_at) + event


def happened(event: str) -> bytes:
    """Return the name of a log record's event, which is its last field."""
    return text(b"\x62", event)


def attributes(tag: bytes, found: Mapping[str, Any]) -> bytes:
    """Return encoded attributes, each after `tag`.

    A value that OTLP cannot hold is left out, as in the SDK.
    """
    parts = []
    for name, value in found.items():
        try:
            parts.append(field(tag, _key_value(name, value)))
        except (TypeError, OverflowError):
            continue
    return b"".join(parts)


def text_attribute(tag: bytes, name: str, size: int) -> bytes:
    """Return the bytes before a text attribute of `size` bytes, which is not 0."""
    value = b"\x0a" + varint(size)
    pair = text(b"\x0a", name) + b"\x12" + varint(len(value) + size) + value
    return tag + varint(len(pair) + size) + pair


def number_attribute(tag: bytes, name: str) -> bytes:
    """Return the bytes before the eight bytes of a floating-point attribute."""
    return attributes(tag, {name: 0.0})[: -_DOUBLE.size]


def double(value: float) -> bytes:
    """Return the eight bytes of a floating-point number."""
    return _DOUBLE.pack(value)


def field(tag: bytes, content: bytes) -> bytes:
    """Return a field that holds bytes, also when there are none."""
    return tag + varint(len(content)) + content


def text(tag: bytes, content: str) -> bytes:
    """Return a field that holds a text; nothing for an empty one."""
    return field(tag, content.encode("utf-8", "replace")) if content else b""


def varint(number: int) -> bytes:
    """Return a number below 2^64, seven bits to a byte, the lowest first."""
    if number < _LARGE:
        return _SMALL[number]
    out = bytearray()
    while number >= _LARGE:
        out.append(number & 0x7F | _LARGE)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(bytes([number]) for number in range(_LARGE))


def _link(trace_id: str, span_id: str) -> bytes:
    ids = b"\x0a\x10" + bytes.fromhex(trace_id) + b"\x12\x08" + bytes.fromhex(span_id)
    return ids + b"\x35" + _FIXED32.pack(_HAS_REMOTE | _IS_REMOTE)


def _number(tag: bytes, number: int) -> bytes:
    return tag + varint(number) if number else b""


def _fixed64(tag: bytes, number: int) -> bytes:
    return tag + _FIXED64.pack(number) if number else b""


def _key_value(name: str, value: Any) -> bytes:  # noqa: ANN401 - any value of an attribute
    return text(b"\x0a", name) + field(b"\x12", _value(value))


def _value(value: Any) -> bytes:  # noqa: ANN401, PLR0911 - any value of an attribute; one kind a line
    match value:
        case None:
            return b""
        case bool():
            return b"\x10" + varint(value)
        case str():
            return field(b"\x0a", value.encode("utf-8", "replace"))
        case int():
            return b"\x18" + _integer(value)
        case float():
            return b"\x21" + _DOUBLE.pack(value)
        case bytes():
            return field(b"\x3a", value)
        case Sequence():
            return field(b"\x2a", b"".join(field(_MEMBER, _value(one)) for one in value))
        case Mapping():
            return field(b"\x32", b"".join(field(_KEY_VALUE, _key_value(str(k), v)) for k, v in value.items()))
    raise TypeError("no value of an attribute")


def _integer(value: int) -> bytes:
    if not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
        raise OverflowError("more than 64 bits")
    return varint(value & 0xFFFF_FFFF_FFFF_FFFF)
