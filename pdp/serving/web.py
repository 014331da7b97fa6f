"""What a listener over HTTP does before it knows what a request is about: who may call it, and how much it reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pdp.observer import Refusal

T = TypeVar("T")

# Of ASGI.
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

# Brings the secret handle of a session.
HANDLE = "x-pdp-session"

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ALLOWED = 400, 401, 403, 404, 405
TIMEOUT, TOO_LARGE, UNSUPPORTED, UNAVAILABLE = 408, 413, 415, 503

_ONCE = frozenset({HANDLE, "content-length", "content-type", "host", "origin"})
# How long a client may take to send a body.
_BODY_SECONDS = 30.0
_NUMBER = re.compile(r"[0-9]{1,18}")
_JSON = re.compile(r"application/json[ \t]*(?:;[ \t]*charset=\"?utf-8\"?[ \t]*)?", re.IGNORECASE)


# What a refusal counts as, by its status; any other is `Refusal.OTHER`.
_REFUSALS: Mapping[int, Refusal] = {
    BAD_REQUEST: Refusal.MALFORMED,
    UNAUTHORIZED: Refusal.CREDENTIAL,
    FORBIDDEN: Refusal.PLACE,
    NOT_FOUND: Refusal.PLACE,
    NOT_ALLOWED: Refusal.METHOD,
    TIMEOUT: Refusal.TOO_SLOW,
    TOO_LARGE: Refusal.TOO_LARGE,
    UNSUPPORTED: Refusal.MALFORMED,
    UNAVAILABLE: Refusal.UNDECIDED,
}


class RefusedRequestError(Exception):
    """A request is answered with a status, and with a text for people unless that is empty.

    `why` is what it counts as; None for what its status says.
    """

    def __init__(
        self, status: int, text: str = "", headers: Mapping[str, str] | None = None, *, why: Refusal | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}
        self.why = why or _REFUSALS.get(status, Refusal.OTHER)


class ClientGoneError(Exception):
    """The client has gone, or takes no answer. Nothing more is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorstep:
    """The hosts by which a door may be called, and the origins of the pages that may call it, in lower case.

    A page of any site can have a browser send requests to this machine, and let a name of its own lead there.
    """

    hosts: Collection[str]
    origins: Collection[str]

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `RefusedRequestError` when a request was meant for another host, or comes from another's page."""
        if headers.get("host", "").lower() not in self.hosts:
            raise RefusedRequestError(FORBIDDEN, "the header `host` names no host of this door: see --allowed-host")
        if "origin" in headers and headers["origin"].lower() not in self.origins:
            raise RefusedRequestError(FORBIDDEN, "pages of this `origin` may not call this door: see --allowed-origin")


def read_headers(raw: RawHeaders, once: Collection[str] = ()) -> Mapping[str, str]:
    """Return headers by name, in lower case.

    Raise `RefusedRequestError` when one that may be there once only is there twice: readers could take either.
    """
    headers: dict[str, str] = {}
    for name, value in raw:
        text = name.decode("latin-1").lower()
        if text in headers and (text in _ONCE or text in once):
            raise RefusedRequestError(BAD_REQUEST, f"the header `{text}` is there twice")
        headers[text] = value.decode("latin-1").strip()
    return headers


def is_json(headers: Mapping[str, str]) -> bool:
    """Say whether a body is JSON in UTF-8."""
    return bool(_JSON.fullmatch(headers.get("content-type", "")))


def require_plain_json(headers: Mapping[str, str]) -> None:
    """Raise `RefusedRequestError` unless the body is JSON as it is: what is packed can be of any size."""
    if not is_json(headers):
        raise RefusedRequestError(UNSUPPORTED, "the body must be `application/json`, in UTF-8")
    if headers.get("content-encoding", "identity") != "identity":
        raise RefusedRequestError(UNSUPPORTED, "the body must not be encoded")


async def read_body(
    headers: Mapping[str, str], receive: Receive, *, most: int, reading: Callable[[int], object] = int
) -> bytes:
    """Return the body of a request. `reading` is told how many bytes there are so far, and may raise.

    Raise `RefusedRequestError` before it is whole when it is too large or too slow, and `ClientGoneError`.
    """
    length = headers.get("content-length", "0")
    if not _NUMBER.fullmatch(length) or int(length) > most:
        raise RefusedRequestError(TOO_LARGE, f"the body has more than {most} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                part = await receive()
                if part["type"] == "http.disconnect":
                    raise ClientGoneError
                body += part.get("body", b"")
                if len(body) > most:
                    raise RefusedRequestError(TOO_LARGE, f"the body has more than {most} bytes")
                reading(len(body))
                if not part.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RefusedRequestError(TIMEOUT, f"the body has not come within {_BODY_SECONDS:g} seconds") from None


async def until_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """Return what work comes to; None when the client has gone before, and the work was cancelled.

    To be called after the whole body.
    """
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([working, going], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, going):
            task.cancel()
        await asyncio.wait([working, going])
    return None if working.cancelled() else working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
