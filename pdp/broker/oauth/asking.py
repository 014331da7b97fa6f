"""Ask the endpoints of a provider as a client, by the one way out: nothing is followed, all is bounded."""

from __future__ import annotations

import http.client
import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit

from pdp.broker.oauth.assertions import signed
from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError
from pdp.broker.words import (
    AnswerLostError,
    ClientAuth,
    Secret,
    TokenRefusedError,
    TokenSource,
    TokensUnavailableError,
)
from pdp.errors import one_line
from pdp.foundation.egress import Egress, EgressError, NotAskedError, NotReachedError, Roots, TooLargeError, read_whole

# Calls wait meanwhile.
_STEP_SECONDS: Final = 5.0
_WHOLE_SECONDS: Final = 10.0
# Of a request that may take something that is there once: giving up early could lose it.
PATIENT_SECONDS: Final = 30.0
_MOST_BYTES: Final = 256 * 1024
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# How long a signed statement about a client counts; it is used at once.
_ASSERTED_SECONDS: Final = 60
GOOD: Final = 200
_TOO_MANY, _SERVERS_FAULT = 429, 500


def checked_endpoint(url: str) -> str:
    """Return the URL of an endpoint as it is. Raise `UpstreamError` for one that could be read in several ways."""
    upstream = _upstream(url)
    try:
        target = upstream.target_of(url)
    except ForeignTargetError as error:
        raise UpstreamError(f"`{one_line(url)}` is no endpoint: {error}") from None
    return f"{upstream.origin}{target}"


def read_as(endpoint: str, source: TokenSource, token: Secret, roots: Roots) -> bytes:
    """Return what an endpoint of a source says to the holder of an access token. Raise what `ask` raises."""
    headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "pdp-broker"}
    headers["authorization"] = f"Bearer {token.reveal().decode()}"
    status, answer = send("GET", endpoint, source, headers, None, roots, seconds=_WHOLE_SECONDS)
    if status != GOOD:
        raise TokenRefusedError(f"it answers `{status}`")
    return answer


def ask(
    url: str,
    source: TokenSource,
    secret: Secret,
    form: Mapping[str, str],
    roots: Roots,
    *,
    seconds: float = _WHOLE_SECONDS,
) -> tuple[int, bytes]:
    """Send a form to an endpoint of a source as its client, and return status and body of the answer.

    Raise `TokenRefusedError` when the endpoint is not asked; `AnswerLostError` when it was, and did not answer; and
    `TokensUnavailableError` when it could not be, or says that it cannot now.
    """
    headers, body = _request(source, secret, form)
    return send("POST", url, source, headers, body, roots, seconds=seconds)


def send(
    method: str,
    url: str,
    source: TokenSource,
    headers: Mapping[str, str],
    body: bytes | None,
    roots: Roots,
    *,
    seconds: float = _WHOLE_SECONDS,
) -> tuple[int, bytes]:
    """Send a request to an endpoint of a source, and return status and body of the answer. Raise what `ask` raises."""
    egress = Egress(
        url,
        roots=roots,
        private_hosts=(_upstream(url).host,) if source.private else (),
        step_seconds=max(_STEP_SECONDS, seconds / 2),
        whole_seconds=seconds,
    )
    try:
        status, answer = egress.ask(method, headers, _taken, body=body)
    except NotAskedError as error:
        raise TokenRefusedError(f"it is not asked: {error}") from None
    except NotReachedError as error:
        raise TokensUnavailableError(f"it {error}") from None
    except EgressError as error:
        raise AnswerLostError(f"it {error}") from None
    if status == _TOO_MANY or status >= _SERVERS_FAULT:
        raise TokensUnavailableError(f"it answers `{status}`")
    return status, answer


def _taken(got: http.client.HTTPResponse) -> tuple[int, bytes]:
    """Return status and body; one that is too large is none, since no answer of OAuth is."""
    try:
        return got.status, read_whole(got, _MOST_BYTES)
    except TooLargeError:
        return got.status, b""


def _upstream(url: str) -> Upstream:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UpstreamError(f"`{one_line(url)}` is no URL") from None
    return Upstream.read(f"{parts.scheme}://{parts.netloc}")


def _request(source: TokenSource, secret: Secret, form: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-www-form-urlencoded",
    }
    if source.auth is ClientAuth.PRIVATE_KEY:
        signed_form = {"client_id": source.client_id, "client_assertion_type": _ASSERTION}
        return headers, urlencode({**form, **signed_form, "client_assertion": _assertion(source, secret)}).encode()
    password = secret.reveal()
    if source.auth is ClientAuth.BASIC:
        # Both are escaped before they are joined (RFC 6749, section 2.3.1).
        pair = f"{quote_plus(source.client_id)}:{quote_plus(password)}"
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers, urlencode(form).encode()
    return headers, urlencode({**form, "client_id": source.client_id, "client_secret": password}).encode()


def _assertion(source: TokenSource, key: Secret) -> str:
    """Return what the client signs about itself, for one request (RFC 7523, section 3)."""
    now = int(time.time())
    claims = {
        "iss": source.client_id,
        "sub": source.client_id,
        "aud": source.audience or source.endpoint,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + _ASSERTED_SECONDS,
    }
    return signed(key, claims)
