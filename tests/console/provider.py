"""A provider of log-ins that does as a test wants, right or wrong, and a console that people enter through it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import AsyncClient
from pdp.client import Client as PDPClient
from pdp.config.settings import JWTSettings, PolicySettings, ServerSettings, SessionSettings, Settings
from pdp.console.assembly import shared_console
from pdp.console.entering import BACK
from pdp.console.logins import PersonToken
from pdp.console.provider import Client, Provider
from pdp.console.shell import Place
from pdp.serving import weblistener
from pdp.serving.weblistener import Listener, LoopbackListener
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from tests.console.desk import LOOP, SECONDS, Browser, files, stop
from tests.machinery.credentials.issuer import AUDIENCE, Issuer

CLIENT, SECRET = "console", "a-secret-of-the-console"
PLACE = Place("https://console.example.org")
TOKEN_SECONDS = 3600


@dataclass
class Wishes:
    """How the provider is to behave."""

    subject: str = "ann@example.org"
    # How long ago the person logged in, and which tokens say so.
    age: float = 1000.0
    in_access_token: bool = True
    in_id_token: bool = True
    access_token: str = ""
    algorithm: str = "ES256"
    groups: Any = ()
    # What is otherwise in the ID token, and in the answers of the two endpoints.
    id_claims: dict[str, Any] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    refuses_refresh: bool = False


class TestProvider:
    """One provider, which lets everybody in at once."""

    __test__ = False

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.issuer = Issuer()
        self.published = ["ES256"]
        self.wishes = Wishes()
        self.asked: dict[str, str] = {}
        self.url = ""
        self._codes: dict[str, dict[str, str]] = {}
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._document),
                Route("/keys", self._keys),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    async def _document(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "end_session_endpoint": f"{self.url}/end",
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _keys(self, _: Request) -> Response:
        return Response(self.issuer.jwks(*self.published), media_type="application/json")

    async def _authorize(self, request: Request) -> Response:
        self.asked = dict(request.query_params)
        if self.asked.get("prompt") == "login":
            self.wishes.age = 0.0
        code = secrets.token_urlsafe()
        self._codes[code] = self.asked
        sent = {"code": code, "state": self.asked["state"], "iss": self.url, **self.wishes.back}
        return RedirectResponse(f"{self.asked['redirect_uri']}?{urlencode({k: v for k, v in sent.items() if v})}")

    async def _token(self, request: Request) -> Response:
        given = dict(parse_qsl((await request.body()).decode()))
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        assert f"Basic {expected}" == request.headers["authorization"]
        if "refresh_token" == given["grant_type"]:
            if self.wishes.refuses_refresh:
                return JSONResponse({"error": "invalid_grant"}, status_code=400)
            return JSONResponse(self._tokens(""))
        asked = self._codes.pop(given["code"], None)
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or proof != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        return JSONResponse(self._tokens(asked["nonce"]))

    def _tokens(self, nonce: str) -> dict[str, Any]:
        wishes, now = self.wishes, int(self.clock.now().wall_at)
        claims = {"iss": self.url, "sub": wishes.subject, "iat": now, "exp": now + TOKEN_SECONDS, "client_id": CLIENT}
        claims |= {"person": True}
        at = {"auth_time": now - int(wishes.age)}
        access = claims | {"aud": AUDIENCE, "jti": secrets.token_hex(), "groups": wishes.groups}
        access |= at if wishes.in_access_token else {}
        identity = claims | {"aud": CLIENT, "nonce": nonce} | (at if wishes.in_id_token else {}) | wishes.id_claims
        tokens = {
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "access_token": wishes.access_token or self._signed(access, "at+jwt"),
            "id_token": self._signed(identity, "JWT"),
            "refresh_token": secrets.token_urlsafe(),
        }
        return {name: value for name, value in tokens.items() if name not in wishes.without}

    def _signed(self, claims: dict[str, Any], kind: str) -> str:
        head = {"typ": kind, "alg": self.wishes.algorithm, "kid": self.wishes.algorithm}
        return self.issuer.sign(json.dumps(head).encode(), json.dumps(claims).encode(), self.wishes.algorithm)


class Entered:
    """A server, a provider that it believes, and a console for both."""

    def __init__(self, provider: TestProvider, settings: Settings, address: str, port: int) -> None:
        self.provider = provider
        self.settings = settings
        self.address = address
        self.port = port
        self.clients: dict[str, PDPClient] = {}
        self.browsers: list[Browser] = []

    def client(self, caller: str) -> PDPClient:
        """Return the client of a caller that needs no provider."""
        if caller not in self.clients:
            token = self.settings.tokens_folder / f"{caller}.token"
            self.clients[caller] = PDPClient(self.address, token_file=token, plaintext=True, timeout=SECONDS)
        return self.clients[caller]

    def requested(self, **given: Any) -> str:
        """Return the id of a session that waits."""
        wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "Tidy up", "tools": ["crm/*"], **given}
        return str(self.client("pep").request_session(**wanted).session.session_id)

    def state(self, session_id: str) -> Any:
        """Return a session as the server has it."""
        return self.client("admin").get_session(session_id)

    def browser(self) -> Browser:
        """Return a browser that nobody has used."""
        self.browsers.append(Browser(PLACE, self.port))
        return self.browsers[-1]

    def at_provider(self, answer: httpx2.Response) -> str:
        """Go where the console leads; return the path with which the provider leads back."""
        assert answer.headers["location"].startswith(f"{self.provider.url}/authorize?")
        with httpx2.Client(timeout=SECONDS) as http:
            back = urlsplit(http.get(answer.headers["location"]).headers["location"])
        assert PLACE.origin == f"{back.scheme}://{back.netloc}"
        return f"{back.path}?{back.query}"

    def open(self, browser: Browser, path: str) -> None:
        """Open a page, by way of the provider if the console leads there."""
        answer = browser.open(path)
        if 303 == answer.status_code:
            browser.open(self.at_provider(answer))

    def close(self) -> None:
        """Close what was opened on the way."""
        for client in self.clients.values():
            client.close()
        for browser in self.browsers:
            browser.http.close()


@contextmanager
def entered(folder: Path) -> Iterator[Entered]:
    """Run all of it."""
    clock = FakeClock()
    provider = TestProvider(clock)

    async def serve_provider() -> AsyncExitStack:
        opened = AsyncExitStack()
        listener = opened.enter_context(Listener("127.0.0.1:0"))
        provider.url = listener.url
        opened.push_async_callback(stop, asyncio.ensure_future(weblistener.serve(provider.app, listener)))
        return opened

    (folder / "keys.json").write_bytes(provider.issuer.jwks())
    behind = LOOP.run(serve_provider())
    known = Client(issuer=provider.url, client_id=CLIENT, secret=SECRET, parameters={"resource": AUDIENCE})
    jwt = JWTSettings(
        issuer=provider.url,
        audience=AUDIENCE,
        keys_file=str(folder / "keys.json"),
        person_claim="person",
        groups_claim="groups",
        user_group_prefix="idp/",
        console_client=CLIENT,
    )
    try:
        with believing(folder, jwt, clock) as (settings, address), console_of_all(address, known, clock) as port:
            world = Entered(provider, settings, address, port)
            try:
                yield world
            finally:
                world.close()
    finally:
        LOOP.run(behind.aclose())


@contextmanager
def believing(folder: Path, jwt: JWTSettings, clock: FakeClock) -> Iterator[tuple[Settings, str]]:
    """Run a server that believes a provider, and return its settings and address."""
    write_folder(folder / "policies", files())
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="localhost:0", plaintext=True),
        sessions=SessionSettings(store="memory"),
        jwt=jwt,
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings)
    with settings.callers_file.open("a", encoding="utf-8") as file:
        for person in ("ann", "bob", "alice"):
            file.write(f"{person}: {{jwt_subject: '{person}@example.org', roles: [approver]}}\n")
    # A test may set the clock ahead and back: time that the server has written down meanwhile would not go back, too.
    with patch("pdp.app.server._HEARTBEAT_SECONDS", 3600.0):
        app = App(settings, clock=clock)
    app.start()
    try:
        yield settings, app.address
    finally:
        app.stop()


@contextmanager
def console_of_all(address: str, known: Client, clock: FakeClock) -> Iterator[int]:
    """Run the console of everybody whom a provider knows, and return its port."""

    async def begin() -> tuple[AsyncExitStack, int]:
        opened, person = AsyncExitStack(), PersonToken()
        connect = partial(AsyncClient, address, token=person, plaintext=True)
        client = await opened.enter_async_context(connect())
        provider = await opened.enter_async_context(Provider(known, f"{PLACE.origin}{BACK}", clock))
        listener = opened.enter_context(LoopbackListener())
        app = shared_console(client, connect, PLACE, clock, person, provider)
        opened.push_async_callback(stop, asyncio.ensure_future(weblistener.serve(app, listener)))
        return opened, listener.port

    stack, port = LOOP.run(begin())
    try:
        yield port
    finally:
        LOOP.run(stack.aclose())


def query(url: str) -> dict[str, str]:
    """Return the query of a URL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
