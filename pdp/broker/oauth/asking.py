"""Ask a token endpoint as a client (RFC 6749, section 4.4), by the one way out: nothing is followed, all is bounded."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit

from pdp.broker.oauth.answers import Granted, granted, refusal
from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError
from pdp.broker.words import ClientAuth, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.errors import one_line
from pdp.foundation.egress import Egress, EgressError, NotAskedError, Roots, TooLargeError, read_whole

# Calls wait meanwhile.
_STEP_SECONDS: Final = 5.0
_WHOLE_SECONDS: Final = 10.0
_MOST_BYTES: Final = 256 * 1024
_GOOD, _TOO_MANY, _SERVERS_FAULT = 200, 429, 500


def checked_endpoint(url: str) -> str:
    """Return the URL of a token endpoint as it is. Raise `UpstreamError` for one that could be read in several ways."""
    upstream = _upstream(url)
    try:
        target = upstream.target_of(url)
    except ForeignTargetError as error:
        raise UpstreamError(f"`{one_line(url)}` is no token endpoint: {error}") from None
    return f"{upstream.origin}{target}"


def ask_for_token(source: TokenSource, secret: Secret, scopes: Collection[str], roots: Roots) -> Granted:
    """Return an access token with these scopes. Raise `TokenRefusedError` or `TokensUnavailableError`.

    Their messages continue after a name of the provider.
    """
    egress = Egress(
        source.endpoint,
        roots=roots,
        private_hosts=(_upstream(source.endpoint).host,) if source.private else (),
        step_seconds=_STEP_SECONDS,
        whole_seconds=_WHOLE_SECONDS,
    )
    headers, body = _request(source, secret, scopes)
    try:
        status, answer = egress.ask("POST", headers, lambda got: (got.status, read_whole(got, _MOST_BYTES)), body=body)
    except NotAskedError as error:
        raise TokenRefusedError(f"it is not asked: {error}") from None
    except TooLargeError as error:
        raise TokenRefusedError(f"it {error}") from None
    except EgressError as error:
        raise TokensUnavailableError(f"it {error}") from None
    if status == _TOO_MANY or status >= _SERVERS_FAULT:
        raise TokensUnavailableError(f"it answers `{status}`")
    if status != _GOOD:
        raise TokenRefusedError(f"it answers `{refusal(answer) or status}`")
    return granted(answer, scopes)


def _upstream(url: str) -> Upstream:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UpstreamError(f"`{one_line(url)}` is no URL") from None
    return Upstream.read(f"{parts.scheme}://{parts.netloc}")


def _request(source: TokenSource, secret: Secret, scopes: Collection[str]) -> tuple[Mapping[str, str], bytes]:
    form = {"grant_type": "client_credentials"}
    if scopes:
        form["scope"] = " ".join(scopes)
    if source.resource:
        form["resource"] = source.resource
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-www-form-urlencoded",
    }
    password = secret.reveal()
    if source.auth is ClientAuth.BASIC:
        # Both are escaped before they are joined (RFC 6749, section 2.3.1).
        pair = f"{quote_plus(source.client_id)}:{quote_plus(password)}"
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers, urlencode(form).encode()
    return headers, urlencode({**form, "client_id": source.client_id, "client_secret": password}).encode()
