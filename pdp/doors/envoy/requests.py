"""An HTTP request as Envoy tells it to the door: read with care, because Envoy leaves out what it does not buffer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pdp.client import CallTokenRequest
from pdp.doors.calltokens import wanted_by
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, HeaderMap, HTTPRequest
from pdp.doors.envoy.extauthz_pb2 import Request as HTTPQuestion
from pdp.serving.web import BAD_REQUEST, HANDLE, TOO_LARGE, RefusedRequestError

# Of the `context_extensions` of a route: the audience of call tokens, and the `x5t#S256` of Envoy's own certificate.
CALL_TOKEN, CERTIFICATE = "call_token", "certificate"
_PARTIAL = "x-envoy-auth-partial-body"
_NO_BODY = frozenset({"", "0"})
# More than Envoy takes of headers by itself.
_MOST_HEADERS, _MOST_HEADER_BYTES = 1000, 256 * 1024
_SPACES = " \t"
_NUMBER = re.compile(r"[0-9]{1,20}")
# Without `encode_raw_headers` Envoy shows an `!` for each byte that is not UTF-8, and a comma between two headers of
# one name. It sends on the byte, and both headers.
_PERHAPS_OTHER = re.compile("[!,]")
# By these some servers take another method or path than those that were asked about.
_OVERRIDES = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Names of headers are in lower case; `route` is what the route says about itself.

    `unclear` are the names of headers that may be sent on as something else than is here. `exact` says that the gateway
    shows each byte: an `!` in the target is one. `number` is the same where Envoy repeats its question about a request,
    and another one for each other request; empty where Envoy does not say. `metadata` is that of Envoy's own question,
    which waits for `patience` seconds; None for ever.
    """

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    route: Mapping[str, str]
    unclear: frozenset[str] = frozenset()
    exact: bool = False
    number: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: float | None = None

    @classmethod
    def read(cls, check: CheckRequest, metadata: Mapping[str, str], patience: float | None = None) -> Self:
        """Read a question. Raise `RefusedRequestError` for one that is not all there, or names two paths."""
        http = check.attributes.request.http
        exact = bool(http.header_map)
        headers, unclear = _raw_headers(http) if exact else _headers(http)
        if http.method == "CONNECT" or "upgrade" in headers:
            raise RefusedRequestError(BAD_REQUEST, "the protocol cannot be changed: nothing would be asked about then")
        if not _OVERRIDES.isdisjoint(headers):
            raise RefusedRequestError(BAD_REQUEST, "a header names another method or path than those of the request")
        if headers.get(_PARTIAL, "false") != "false":
            raise RefusedRequestError(TOO_LARGE, "the body is larger than what the gateway shows of it")
        announced = headers.get("content-length", "") not in _NO_BODY or "transfer-encoding" in headers
        if http.body or (announced and not http.raw_body):
            raise RefusedRequestError(BAD_REQUEST, "the gateway does not show the bytes of the body: see `pdp doctor`")
        return cls(
            method=http.method,
            target=http.path,
            headers=headers,
            body=http.raw_body,
            route=dict(check.attributes.context_extensions),
            unclear=unclear,
            exact=exact,
            number=_number(check.attributes.request),
            metadata=metadata,
            patience=patience,
        )

    @property
    def call_token(self) -> CallTokenRequest | None:
        """Return the call token with which the route wants calls to be sent on; None for none."""
        return wanted_by(self.route.get(CALL_TOKEN, ""), certificate_thumbprint=self.route.get(CERTIFICATE, ""))

    @property
    def handle(self) -> str:
        """Return what the request brings as the secret handle of its session."""
        return self.headers.get(HANDLE, "")


def _number(request: HTTPQuestion) -> str:
    """Return the number that Envoy has drawn for a request, and when it began: what agents choose is in neither."""
    drawn, began = request.http.id, request.time
    return f"{drawn}-{began.seconds}-{began.nanos}" if _NUMBER.fullmatch(drawn) and request.HasField("time") else ""


def _headers(http: HTTPRequest) -> tuple[dict[str, str], frozenset[str]]:
    """Return headers as Envoy shows them as text, and which may be others than it sends on."""
    headers = {name.lower(): value.strip(_SPACES) for name, value in http.headers.items()}
    if len(headers) < len(http.headers):
        raise RefusedRequestError(BAD_REQUEST, "a header is there twice")
    return headers, frozenset(name for name, value in headers.items() if _PERHAPS_OTHER.search(value))


def _raw_headers(http: HTTPRequest) -> tuple[dict[str, str], frozenset[str]]:
    """Return headers as they came, those of one name joined, and which are there twice or are no text."""
    within = not http.headers and len(http.header_map) <= _MOST_HEADER_BYTES
    found = HeaderMap.FromString(http.header_map).headers if within else ()
    if not 0 < len(found) <= _MOST_HEADERS or any(one.value for one in found):
        raise RefusedRequestError(BAD_REQUEST, "the gateway shows headers in two forms, or too many")
    headers: dict[str, str] = {}
    unclear = set()
    for one in found:
        name, value = one.key.lower(), one.raw_value.decode("utf-8", "replace").strip(_SPACES)
        if name in headers or value.encode("utf-8") != one.raw_value.strip(_SPACES.encode("ascii")):
            unclear.add(name)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if (headers.get(":method"), headers.get(":path")) != (http.method, http.path) or ":path" in unclear:
        raise RefusedRequestError(BAD_REQUEST, "the gateway shows another method or path than that of the headers")
    return headers, frozenset(unclear)
