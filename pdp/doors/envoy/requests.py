"""An HTTP request as Envoy tells it to the door: read with care, because Envoy leaves out what it does not buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pdp.client import CallTokenRequest
from pdp.doors.calltokens import wanted_by
from pdp.doors.envoy.extauthz_pb2 import CheckRequest
from pdp.serving.web import BAD_REQUEST, HANDLE, TOO_LARGE, RefusedRequestError

# Of the `context_extensions` of a route: the audience of call tokens, and the `x5t#S256` of Envoy's own certificate.
CALL_TOKEN, CERTIFICATE = "call_token", "certificate"
_PARTIAL = "x-envoy-auth-partial-body"
_NO_BODY = frozenset({"", "0"})
# By these some servers take another method or path than those that were asked about.
_OVERRIDES = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Names of headers are in lower case; `route` is what the route says about itself.

    `metadata` is that of Envoy's own question, which waits for `patience` seconds; None for ever.
    """

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    route: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: float | None = None

    @classmethod
    def read(cls, check: CheckRequest, metadata: Mapping[str, str], patience: float | None = None) -> Self:
        """Read a question. Raise `RefusedRequestError` for one that is not all there, or names two paths."""
        http = check.attributes.request.http
        headers = {name.lower(): value.strip() for name, value in http.headers.items()}
        if len(headers) < len(http.headers):
            raise RefusedRequestError(BAD_REQUEST, "a header is there twice")
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
