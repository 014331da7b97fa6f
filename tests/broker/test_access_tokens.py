"""Access tokens for the secret of a client: who is asked, how often, what is believed, and for how long."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.words import (
    ClientAuth,
    Connection,
    ProviderUnavailableError,
    TokenRefusedError,
    TokenSource,
    TokensUnavailableError,
)
from pdp.errors import UnavailableError
from pdp.observer import Event, EventKind
from pdp.testing.clock import FakeClock
from tests.broker.worlds import SECRET, Memory, Upstream, ask, connection_to, token, upstream_here, world
from tests.machinery.servers.running import PATIENCE

P256, BITS = ec.SECP256R1(), 1024
TOKEN = "t0ken/canary-51ab"  # noqa: S105 - a canary
GOOD = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 100}


class Desk:
    """A provider that answers as it is told, and what gets tokens from it."""

    def __init__(self, there: Upstream, **source: Any) -> None:
        self.there = there
        self.clock = FakeClock(1_700_000_000.0)
        self.events: list[Event] = []
        self.memory = Memory([])
        self.tokens = AccessTokens(self.memory, self.events.append, self.clock)
        known = {"endpoint": f"{there.origin}/token", "client_id": "broker"}
        self.connection = connection_to(there, source=TokenSource(**{**known, **source}))
        self.answers(GOOD)

    def answers(self, said: object, status: int = 200) -> None:
        """Set the provider's next answers."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.there.status, self.there.pieces = status, lambda: iter([body])

    def open(self, connection: Connection | None = None) -> bytes:
        """Open the connection."""
        return self.tokens.open(connection or self.connection).reveal()


@pytest.fixture(scope="module")
def there() -> Iterator[Upstream]:
    """Run a token endpoint for all tests."""
    with upstream_here() as upstream:
        yield upstream


@pytest.fixture
def desk(there: Upstream) -> Iterator[Desk]:
    """Return what gets tokens, with none yet."""
    there.got.clear()
    headers = there.headers
    yield Desk(there)
    there.status, there.headers = 200, headers


@pytest.mark.parametrize("auth", [ClientAuth.BASIC, ClientAuth.POST])
def test_the_secret_of_a_client_goes_to_its_token_endpoint(there: Upstream, auth: ClientAuth) -> None:
    """With the scopes of the connection, and what the tokens are for; the secret as RFC 6749 says, in one place."""
    there.got.clear()
    desk = Desk(there, auth=auth, client_id="the broker:1", resource="https://api.example.com")

    assert TOKEN.encode() == desk.open()

    [(method, target, headers, body)] = there.got
    form = {name: value for name, [value] in parse_qs(body.decode()).items()}
    pair = b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode()
    told = (form.pop("client_id", ""), form.pop("client_secret", ""), pair)
    escaped = "the+broker%3A1:s3cr3t%2Fcanary-7f0e91"
    assert (("the broker:1", SECRET.decode(), "") if auth is ClientAuth.POST else ("", "", escaped)) == told
    assert ("POST", "/token") == (method, target)
    wanted = {"scope": "issues pulls", "resource": "https://api.example.com"}
    assert {"grant_type": "client_credentials", **wanted} == form


@pytest.mark.parametrize(
    ("key", "algorithm"), [(rsa.generate_private_key(65537, 2048), "RS256"), (ec.generate_private_key(P256), "ES256")]
)
@pytest.mark.parametrize("audience", ["", "https://login.example.com"])
def test_a_client_that_signs_sends_no_secret(there: Upstream, key: Any, algorithm: str, audience: str) -> None:
    """It states who it is, for its provider, for a minute, and in each request anew (RFC 7523)."""
    there.got.clear()
    desk = Desk(there, auth=ClientAuth.PRIVATE_KEY, audience=audience)
    desk.memory.secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    desk.answers({**GOOD, "expires_in": 0})

    desk.open()
    desk.open()

    forms = [{name: value for name, [value] in parse_qs(body.decode()).items()} for *_, body in there.got]
    texts = [form.pop("client_assertion") for form in forms]
    known = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_id": "broker"}
    assert [{"grant_type": "client_credentials", "scope": "issues pulls", **known}] * 2 == forms
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public = RSAKey.import_key(pem) if algorithm == "RS256" else ECKey.import_key(pem)
    first, second = (jwt.decode(text, public, algorithms=[algorithm]).claims for text in texts)
    assert ["broker", "broker", audience or f"{there.origin}/token"] == [first[one] for one in ("iss", "sub", "aud")]
    assert 60 == first["exp"] - first["iat"]
    assert first["iat"] == pytest.approx(time.time(), abs=60)
    assert first["jti"] != second["jti"]
    assert not [headers for _, _, headers, _ in there.got if "authorization" in headers]


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        rsa.generate_private_key(65537, BITS).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ec.generate_private_key(P256).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    ],
    ids=["no key", "short", "other curve", "password"],
)
def test_a_client_signs_with_a_good_key_alone(there: Upstream, secret: bytes) -> None:
    """Nothing is sent with another secret, and no error quotes it."""
    there.got.clear()
    desk = Desk(there, auth=ClientAuth.PRIVATE_KEY)
    desk.memory.secret = secret

    with pytest.raises(TokenRefusedError, match="the secret is no private key in PEM") as refused:
        desk.open()

    assert [] == there.got
    assert secret.decode() not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "status", "problem"),
    [
        ({**GOOD, "scope": "issues pulls admin"}, 200, "it grants a scope that the connection does not have"),
        ({**GOOD, "scope": "issues"}, 200, "it does not grant the scope `pulls`"),
        ({**GOOD, "scope": ["issues", "pulls"]}, 200, "it gives scopes that are no text of RFC 6749"),
        ({**GOOD, "token_type": "DPoP"}, 200, "of the type `Bearer`"),
        ({"access_token": TOKEN}, 200, "of the type `Bearer`"),
        ({**GOOD, "access_token": ""}, 200, "a token that no header can hold"),
        ({**GOOD, "access_token": "a\r\nb"}, 200, "a token that no header can hold"),
        ({**GOOD, "access_token": "x" * 70_000}, 200, "more than 65536 bytes"),
        ({**GOOD, "expires_in": "100"}, 200, "no number of seconds"),
        ({**GOOD, "expires_in": True}, 200, "no number of seconds"),
        ({**GOOD, "expires_in": -1}, 200, "no number of seconds"),
        (b'{"access_token":"a","access_token":"b"}', 200, "a key is twice"),
        (b'{"expires_in": 1e999}', 200, "of the type `Bearer`"),
        (b"<html>", 200, "something else than a JSON object"),
        ([GOOD], 200, "something else than a JSON object"),
        (b" " * 300_000, 200, "something else than a JSON object"),
        ({"error": "invalid_client", "error_description": SECRET.decode()}, 401, "it answers `invalid_client`"),
        ({"error": SECRET.decode()}, 400, "it answers `400`"),
        (GOOD, 302, "it answers `302`"),
        (GOOD, 201, "it answers `201`"),
    ],
)
def test_what_a_provider_says_is_not_simply_believed(desk: Desk, said: object, status: int, problem: str) -> None:
    """A token that is not as the connection says is not used, no redirect is followed, and no error quotes anything."""
    desk.there.headers = [*desk.there.headers, ("Location", f"{desk.there.origin}/elsewhere")]
    desk.answers(said, status)

    with pytest.raises(TokenRefusedError, match=problem) as refused:
        desk.open()

    assert SECRET.decode() not in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert ["/token"] == [target for _, target, *_ in desk.there.got]
    assert [] == desk.events


@pytest.mark.parametrize(
    ("endpoint", "problem", "kind"),
    [
        ("https://10.0.0.1/token", "it is not asked: `10.0.0.1` is at the private address", TokenRefusedError),
        ("http://127.0.0.1:9/token", "it cannot be reached", TokensUnavailableError),
    ],
)
def test_a_provider_elsewhere_is_not_asked(there: Upstream, endpoint: str, problem: str, kind: type[Exception]) -> None:
    """A private address must be allowed by the connection."""
    with pytest.raises(kind, match=problem):
        Desk(there, endpoint=endpoint).open()


def test_eight_at_once_ask_once(desk: Desk) -> None:
    """One asks, and the others wait for its token; the record says so once, without it."""

    def slowly() -> Iterator[bytes]:
        time.sleep(0.05)
        yield json.dumps(GOOD).encode()

    desk.there.pieces = slowly
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: desk.open(), range(8)))

    assert [TOKEN.encode()] * 8 == found
    assert 1 == len(desk.there.got)
    [event] = desk.events
    assert (EventKind.CONNECTION_REFRESHED, "github-1", "acme") == (event.kind, event.facts["connection"], event.tenant)
    assert TOKEN not in repr(event)


def test_a_slow_provider_keeps_nobody_with_a_good_token(desk: Desk) -> None:
    """While one waits for another token, the others use the present one."""
    asked, answered = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        asked.set()
        answered.wait(PATIENCE)
        yield json.dumps({**GOOD, "access_token": "another"}).encode()

    desk.open()
    desk.clock.advance(71)
    desk.there.pieces = slowly
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(desk.open)
        assert asked.wait(PATIENCE)
        meanwhile = desk.open()
        answered.set()

    assert (TOKEN.encode(), b"another", b"another") == (meanwhile, waiting.result(), desk.open())


def test_a_token_is_used_while_it_is_young_and_never_after_its_end(desk: Desk) -> None:
    """After 70 % of its life another one is got; while the provider is down, the present one is good until its end."""
    steps = []
    for seconds, status in ((0, 200), (69, 503), (2, 503), (28, 503), (1, 503), (6, 200)):
        desk.clock.advance(seconds)
        desk.answers(GOOD, status)
        try:
            desk.open()
            steps.append((desk.clock.now().wall_at - 1_700_000_000, len(desk.there.got), True))
        except TokensUnavailableError:
            steps.append((desk.clock.now().wall_at - 1_700_000_000, len(desk.there.got), False))

    assert [(0, 1, True), (69, 1, True), (71, 2, True), (99, 3, True), (100, 3, False), (106, 4, True)] == steps


def test_a_token_outlives_a_key_provider_that_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is good until its end, although the secret cannot be opened."""

    def away(_: Connection) -> NoReturn:
        raise ProviderUnavailableError("away")

    desk.open()
    monkeypatch.setattr(desk.memory, "open", away)
    desk.clock.advance(99)

    assert TOKEN.encode() == desk.open()
    desk.clock.advance(1)
    with pytest.raises(ProviderUnavailableError):
        desk.open()


def test_a_refusal_ends_the_present_token(desk: Desk) -> None:
    """A client that was shut out uses nothing that it has left."""
    desk.open()
    desk.clock.advance(71)
    desk.answers({"error": "invalid_client"}, 401)

    for _ in range(2):
        with pytest.raises(
            TokenRefusedError, match=r"no access token for `github-1` from `127\.0\.0\.1:\d+`: it answers"
        ):
            desk.open()

    assert 2 == len(desk.there.got)
    desk.clock.advance(5)
    desk.answers(GOOD)
    assert TOKEN.encode() == desk.open()


def test_a_token_without_an_end_is_used_once(desk: Desk) -> None:
    """Who does not say how long it is good for is asked for each call."""
    desk.answers({name: value for name, value in GOOD.items() if name != "expires_in"})

    assert [TOKEN.encode()] * 2 == [desk.open(), desk.open()]
    assert 2 == len(desk.there.got)


@pytest.mark.parametrize(
    "change", [{"version": 4}, {"upstream": "https://attacker.example.com"}, {"scopes": ("issues",)}]
)
def test_another_secret_upstream_or_scope_needs_another_token(desk: Desk, change: dict[str, Any]) -> None:
    """So a row that was changed in the store is seen at once, by opening the secret, and not after the token's end."""
    desk.open()

    desk.open(replace(desk.connection, **change))

    assert 2 == len(desk.memory.opened) == len(desk.there.got)


def test_the_token_is_sent_upstream_and_the_secret_is_not(desk: Desk) -> None:
    """The token is what answers are searched for. With no provider nothing leaves; with no record nobody is asked."""
    with world(source=desk.connection.source) as here:
        here.upstream.pieces = lambda: iter([f"you sent {TOKEN}".encode()])
        assert (200, b"you sent ***") == ask(here, token())

        [(*_, headers, body)] = here.upstream.got
        assert f"Bearer {TOKEN}" == headers["authorization"]
        assert SECRET.decode() not in f"{headers}{body!r}"
        assert ["connection.refreshed", "calltoken.used", "calltoken.answered"] == here.record.kinds
    with world(source=desk.connection.source) as here:
        desk.answers(GOOD, 503)
        here.record.permits = False
        with pytest.raises(UnavailableError, match="the record cannot be written"):
            ask(here, token())
        asked = len(desk.there.got)
        here.record.permits = True
        with pytest.raises(TokensUnavailableError, match="it answers `503`"):
            ask(here, token())

        assert [] == here.upstream.got
        assert (1, 2) == (asked, len(desk.there.got))
        assert ["calltoken.refused"] * 2 == here.record.kinds
