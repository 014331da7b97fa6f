"""One attempt to send an export request over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any

from pdp.errors import ConfigurationError
from pdp.telemetry.attempt import Answer, taken
from pdp.telemetry.settings import Endpoint

# https://opentelemetry.io/docs/specs/otlp/#failures-1
_TRANSIENT = frozenset({429, 502, 503, 504})
_LARGEST_ANSWER = 64 * 1024
_PACK: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "none": bytes}


class HTTPAttempt:
    """POSTs to one URL. Raise `ConfigurationError` for certificates that cannot be read."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = endpoint.target
        self._pack = _PACK[endpoint.compression]
        packed = {} if endpoint.compression == "none" else {"content-encoding": endpoint.compression}
        self._headers = {"content-type": "application/x-protobuf", "user-agent": "pdp", **packed, **endpoint.headers}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if endpoint.secure:
            handlers.append(urllib.request.HTTPSHandler(context=_context(endpoint)))
        self._opener = urllib.request.build_opener(*handlers)
        self._signal = endpoint.signal
        self._closed = False

    def attempt(self, request: bytes, timeout: float) -> Answer:
        """Send a request once; no step of it takes more than `timeout` seconds. Never raises."""
        if self._closed:
            return Answer(problem="closed")
        post = urllib.request.Request(self._url, self._pack(request), self._headers, method="POST")  # noqa: S310 - the settings allow http and https alone
        try:
            with self._opener.open(post, timeout=max(timeout, 0.001)) as answer:
                return taken(self._signal, answer.read(_LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                transient = error.code in _TRANSIENT
                return Answer(problem=str(error.code), transient=transient, pause=_pause(error.headers))
        except TimeoutError:
            return Answer(problem="timeout", transient=True)
        except ValueError:
            return Answer(problem="unusable")  # urllib raises this when a proxy in the environment is not a URL
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            problem = "timeout" if isinstance(reason, TimeoutError) else "unreachable"
            return Answer(problem=problem, transient=not isinstance(reason, ssl.SSLError))

    def close(self) -> None:
        """Send nothing more. A request that is being sent ends with its timeout."""
        self._closed = True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - urllib's own parameters
        """Follow no redirect: headers may hold a secret, and a POST would become a GET."""


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=endpoint.certificate or None)
        if endpoint.client_certificate:
            context.load_cert_chain(endpoint.client_certificate, endpoint.client_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the certificates for `{endpoint.target}`: {error.strerror}") from None
    return context


def _pause(headers: Any) -> float | None:  # noqa: ANN401 - urllib's own type
    text = str(headers.get("retry-after", "")) if headers else ""
    return float(text) if text.isascii() and text.isdigit() else None
