"""Which headers of a request go to an upstream, and which of its answer come back: those that are named, and no others.

What speaks of who asks, of where to, of how the bytes travel, or of another method or path can be named by nobody. Nor
can what asks for a part of an answer: two parts could hold a half of the secret each, and neither would show it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from pdp.broker.scrubbing import Scrubber

NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x20-\x7e]*")
_MOST_HEADERS: Final = 64
_MOST_BYTES: Final = 16 * 1024

REQUEST: Final = frozenset(
    {
        *("accept", "accept-language", "content-language", "content-type", "if-match", "if-modified-since"),
        *("if-none-match", "if-unmodified-since", "prefer", "traceparent", "tracestate", "user-agent"),
        *("mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"),
    }
)
RESPONSE: Final = frozenset(
    {
        *("cache-control", "content-disposition", "content-language", "content-type", "date", "etag", "expires"),
        *("last-modified", "link", "location", "retry-after", "vary", "www-authenticate"),
        *("ratelimit", "ratelimit-limit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset"),
        *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "mcp-session-id", "mcp-protocol-version"),
    }
)
_NEVER = re.compile(
    r"authorization|cookie2?|set-cookie2?|host|forwarded|x-forwarded(-.*)?|x-real-ip|via|proxy-.*|pdp-.*|"
    r"connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-length|content-encoding|"
    r"accept-encoding|http2-settings|x-http-method.*|x-method-override|x-original-.*|x-rewrite-.*|"
    r"clear-site-data|alt-svc|range|if-range|accept-ranges|content-range"
)


class HeadersError(Exception):
    """The headers of a request cannot be handed on; the message names no value."""


def never_passes(name: str) -> bool:
    """Say whether a header, in lower case, is one that no settings can let pass."""
    return NAME.fullmatch(name) is None or _NEVER.fullmatch(name) is not None


def of_request(raw: Iterable[tuple[str, str]], more: Collection[str], credential: str) -> dict[str, str]:
    """Return what of a request's headers goes on. `credential` is the header in which the secret is sent.

    Raise `HeadersError` when one of them is there twice, or cannot be sent as it is.
    """
    taken: dict[str, str] = {}
    for name, value in _bounded(raw):
        if not (name in REQUEST or name in more) or never_passes(name) or name == credential.lower():
            continue
        if name in taken:
            raise HeadersError(f"the header `{name}` is there twice")
        if not _VALUE.fullmatch(value):
            raise HeadersError(f"the header `{name}` is not in printable ASCII")
        taken[name] = value
    return taken


def of_answer(raw: Iterable[tuple[str, str]], more: Collection[str], scrubber: Scrubber) -> list[tuple[str, str]]:
    """Return what of an answer's headers is handed on, without the secret. Raise `HeadersError` for too many."""
    return [
        (name, _shown(value, scrubber))
        for name, value in _bounded(raw)
        if (name in RESPONSE or name in more) and not never_passes(name)
    ]


def with_secret(header: str, scheme: str, secret: bytes) -> Mapping[str, str]:
    """Return the header that carries a secret. Raise `HeadersError` for a secret that no header can hold."""
    value = secret.decode("latin-1")
    if not value or not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value):
        raise HeadersError("the secret of the connection is not a line of printable ASCII, so no header can hold it")
    return {header: f"{scheme} {value}" if scheme else value}


def _bounded(raw: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    headers = [(name.lower(), value.strip()) for name, value in raw]
    if len(headers) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > _MOST_BYTES:
        raise HeadersError(f"more than {_MOST_HEADERS} headers, or {_MOST_BYTES} bytes of them")
    return headers


def _shown(value: str, scrubber: Scrubber) -> str:
    text = scrubber.whole(value.encode("latin-1", "replace")).decode("latin-1")
    return "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in text)
