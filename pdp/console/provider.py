"""The provider of log-ins: OpenID Connect's code flow with PKCE, state and nonce, by Authlib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from pdp.clock import Clock
from pdp.console.logins import Credential
from pdp.console.outward import OutwardTransport
from pdp.console.published import LogInFailedError, Published, require_endpoint

_LEEWAY_SECONDS = 30
# An access token is renewed when it ends so soon.
_RENEWED_SECONDS = 30.0
_RANDOM_CHARACTERS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The console as the provider knows it.

    Without a secret it is a public client. `parameters` are sent with each request for a log-in, such as `resource` or
    `audience`: what makes the provider issue access tokens for the server. Its own host, and `private_hosts`, may be at
    an address which is not public; what else it names as an endpoint may not.
    """

    issuer: str
    client_id: str
    secret: str = field(default="", repr=False)
    scope: str = "openid"
    parameters: Mapping[str, str] = field(default_factory=dict)
    tls_roots: Path | None = None
    private_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A log-in that has begun: what its answer must fit."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


def new_flow() -> Flow:
    """Return a log-in that begins."""
    state, nonce, verifier = (generate_token(_RANDOM_CHARACTERS) for _ in range(3))
    return Flow(state=state, nonce=nonce, verifier=verifier)


class Provider:
    """One provider. Use it with `async with`."""

    def __init__(self, client: Client, redirect_uri: str, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        # The environment must not lead secrets elsewhere.
        own = (urlsplit(client.issuer).hostname or "", *client.private_hosts)
        ways: dict[str, Any] = {
            "transport": OutwardTransport(ca_file=str(client.tls_roots or ""), private_hosts=own),
            "follow_redirects": False,
            "trust_env": False,
        }
        self._http = httpx2.AsyncClient(**ways)
        self._oauth = AsyncOAuth2Client(
            client.client_id,
            client.secret or None,
            token_endpoint_auth_method="client_secret_basic" if client.secret else "none",
            scope=client.scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            **ways,
        )
        self._published = Published(client.issuer, self._http, clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._oauth.aclose()
        await self._http.aclose()

    async def check(self) -> None:
        """Raise `LogInFailedError` while the provider cannot be used."""
        await self._published.document()

    @property
    def name(self) -> str:
        """Return the provider's host."""
        return urlsplit(self._client.issuer).netloc

    async def begin(self, flow: Flow, *, max_age: float) -> str:
        """Return the address at the provider at which a log-in begins.

        With a `max_age` other than 0.0 it is a fresh log-in. Raise `LogInFailedError`.
        """
        document = await self._published.document()
        fresh = {"max_age": f"{max_age:.0f}", "prompt": "login"} if max_age else {}
        url, _ = self._oauth.create_authorization_url(
            document["authorization_endpoint"],
            state=flow.state,
            code_verifier=flow.verifier,
            nonce=flow.nonce,
            **self._client.parameters,
            **fresh,
        )
        return str(url)

    async def finish(self, flow: Flow, answer: Mapping[str, str]) -> Credential:
        """Return the credential for the provider's answer: the query of the address to which it led back.

        Raise `LogInFailedError`.
        """
        if "code" not in answer:
            raise LogInFailedError(f"the provider refuses: {answer.get('error', 'it sent no code')[:200]}")
        document = await self._published.document()
        issuer = answer.get("iss", "")
        expected = bool(document.get("authorization_response_iss_parameter_supported"))
        if (issuer or expected) and issuer != self._client.issuer:
            raise LogInFailedError("the answer is from another provider")
        token = await self._token(
            grant_type="authorization_code",
            code=answer["code"],
            code_verifier=flow.verifier,
            url=document["token_endpoint"],
        )
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise LogInFailedError("the provider sent no ID token: the scope must have `openid`")
        claims = await self._claims(id_token, nonce=flow.nonce, access_token=str(token.get("access_token", "")))
        return self._credential(token, id_token, claims, refresh_token="")

    async def renew(self, credential: Credential) -> Credential:
        """Return the credential with an access token that is good for a moment longer; itself while it is.

        Raise `LogInFailedError`.
        """
        if not credential.ends_at or self._clock.now().wall_at < credential.ends_at - _RENEWED_SECONDS:
            return credential
        if not credential.refresh_token:
            raise LogInFailedError("the access token has ended, and the provider gave no refresh token")
        document = await self._published.document()
        token = await self._token(
            grant_type="refresh_token", refresh_token=credential.refresh_token, url=document["token_endpoint"]
        )
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            return self._renewed(credential, token)
        claims = await self._claims(id_token, nonce="", access_token="")
        if claims["sub"] != credential.subject:
            raise LogInFailedError("the renewed token is another person's")
        return self._credential(token, id_token, claims, refresh_token=credential.refresh_token)

    async def leaving(self, back: str) -> str:
        """Return the address at which a person logs out at the provider, empty without one."""
        try:
            end = (await self._published.document()).get("end_session_endpoint")
            require_endpoint("end_session_endpoint", end)
        except LogInFailedError:
            return ""
        query = urlencode({"client_id": self._client.client_id, "post_logout_redirect_uri": back})
        return f"{end}{'&' if '?' in str(end) else '?'}{query}"

    async def _token(self, *, url: str, grant_type: str, **given: str) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = await self._oauth.fetch_token(url, grant_type=grant_type, **given)
        except AuthlibBaseError as error:
            raise LogInFailedError(f"the provider refuses: {error.error}") from None
        except (httpx2.HTTPError, ValueError):
            raise LogInFailedError("the provider does not answer as it should; try again") from None
        finally:
            # INVARIANT: one client serves all persons, so it keeps the token of none.
            self._oauth.token = None
        return found

    async def _claims(self, id_token: str, *, nonce: str, access_token: str) -> CodeIDToken:
        """Return what an ID token says, if it is the provider's, for this console, now, and of this flow."""
        try:
            found = self._published.decoded(id_token)
        except ValueError:
            # Its key may have been published since the keys were read.
            await self._published.read_keys()
            try:
                found = self._published.decoded(id_token)
            except ValueError as error:
                raise LogInFailedError("the provider's ID token has a signature that cannot be verified") from error
        options = {"iss": {"value": self._client.issuer}, "aud": {"value": self._client.client_id}}
        params = {"client_id": self._client.client_id, "nonce": nonce, "access_token": access_token}
        claims = CodeIDToken(found.claims, found.header, options, params)
        try:
            claims.validate(now=int(self._clock.now().wall_at), leeway=_LEEWAY_SECONDS)
        except (JoseError, AuthlibBaseError) as error:
            raise LogInFailedError(f"the provider's ID token is refused: {error.error}") from None
        return claims

    def _credential(
        self, token: Mapping[str, Any], id_token: str, claims: CodeIDToken, *, refresh_token: str
    ) -> Credential:
        begun = Credential(
            subject=claims["sub"],
            # Without the time of the log-in it proves nothing.
            id_token=id_token if "auth_time" in claims else "",
            id_token_ends_at=float(claims["exp"]),
            refresh_token=refresh_token,
        )
        return self._renewed(begun, token)

    def _renewed(self, credential: Credential, token: Mapping[str, Any]) -> Credential:
        access_token, seconds = str(token.get("access_token", "")), token.get("expires_in")
        if access_token.count(".") != 2:  # noqa: PLR2004 - a JSON Web Token has three parts
            raise LogInFailedError(
                "the provider's access token is opaque, and the server takes JSON Web Tokens: "
                "the console's page in the documentation says what to set"
            )
        ends_at = self._clock.now().wall_at + float(seconds) if isinstance(seconds, int | float) else 0.0
        return replace(
            credential,
            access_token=access_token,
            refresh_token=str(token.get("refresh_token") or credential.refresh_token),
            ends_at=ends_at,
        )
