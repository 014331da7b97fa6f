"""Call tokens for a tool server that is a WSGI application: `app = CallTokenMiddleware(app, guard)`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.requests import MOST_BYTES, Guard, too_large

Environment = MutableMapping[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

_HEADER = "HTTP_" + HEADER.upper().replace("-", "_")
_JSON = "application/json"


class CallTokenMiddleware:
    """Stands before an application, and lets a call of a tool pass only with a call token.

    A body has a stated length, of at most `most_bytes`. `presenter` says who presents a token: WSGI itself tells
    nothing of certificates.
    """

    def __init__(
        self,
        app: Application,
        guard: Guard,
        *,
        presenter: Callable[[Environment], Presenter | None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._app = app
        self._guard = guard
        self._presenter = presenter
        self._most_bytes = most_bytes

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        length = _length(environ)
        if length is None or length > self._most_bytes:
            return _answer(start_response, "413 Content Too Large", too_large(self._most_bytes))
        body = environ["wsgi.input"].read(length) if length else b""
        path, token = environ.get("PATH_INFO", ""), environ.get(_HEADER, "")
        request = environ["REQUEST_METHOD"], path, body, token, self._presenter(environ)
        refusal = self._guard.refusal(*request, environ.get("CONTENT_TYPE") or "")
        if refusal is not None:
            return _answer(start_response, "403 Forbidden", refusal)
        environ["wsgi.input"] = io.BytesIO(body)
        return self._app(environ, start_response)


def _length(environ: Environment) -> int | None:
    """Return the length of the body; None for one that is not stated, such as a chunked one."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    text = environ.get("CONTENT_LENGTH") or "0"
    return int(text) if text.isascii() and text.isdigit() else None


def _answer(start_response: StartResponse, status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", _JSON), ("Content-Length", str(len(body)))])
    return [body]
