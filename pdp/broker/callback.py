"""Where providers send browsers back to: takes the code, and sends the browser on to the console with a ticket.

It serves this one path. It cannot know who sits at the browser, so it gives nobody anything: see `oauth/connecting.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from pdp.broker.oauth.connecting import Connecting
from pdp.errors import NotFoundError, PDPError, UnavailableError

_LOG: Final = logging.getLogger("pdp.broker")
PATH: Final = "/back"
# Of the console.
FINISH: Final = "/connections/finish"
_SEE_OTHER, _BAD, _NOT_FOUND, _FAILED, _UNAVAILABLE = 303, 400, 404, 500, 503
_MOST_QUERY_BYTES, _MOST_FIELDS = 16 * 1024, 32
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Callback:
    """Takes browsers back, as an ASGI application. `console` is the origin at which people finish."""

    def __init__(self, connecting: Connecting, console: str) -> None:
        self._connecting, self._console = connecting, console

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:  # noqa: ANN401 - of ASGI
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, text, more = await asyncio.to_thread(self._answer, scope)
        headers = [*_HEADERS, (b"content-type", b"text/plain; charset=utf-8"), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    def _answer(self, scope: Any) -> tuple[int, str, list[tuple[bytes, bytes]]]:  # noqa: ANN401 - of ASGI
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"]
        folder, _, client = path.rpartition("/")
        if scope["method"] != "GET" or folder != PATH:
            return _NOT_FOUND, "There is nothing here.\n", []
        try:
            ticket = self._connecting.back(client, _fields(query))
        except UnavailableError as error:
            _LOG.warning("nobody can come back now: %s", error)
            return _UNAVAILABLE, "This cannot be answered now. Connect again in the console.\n", []
        except NotFoundError as error:
            return _BAD, f"Nothing was connected: {error}. Connect again in the console.\n", []
        except PDPError as error:
            _LOG.error("a browser that came back could not be answered: %s", error)
            return _FAILED, "Nothing was connected. The log of the broker says why.\n", []
        location = f"{self._console}{FINISH}?{urlencode({'ticket': ticket})}"
        return _SEE_OTHER, "", [(b"location", location.encode())]


def _fields(query: bytes) -> Mapping[str, str]:
    """Return the fields of a query. One that is there twice is none: readers could take either."""
    if len(query) > _MOST_QUERY_BYTES:
        return {}
    try:
        pairs = parse_qsl(query.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}
