"""People connect: who begins must finish, in ten minutes, once, from the provider to which they were sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import pytest

from pdp.broker.callback import Callback
from pdp.broker.checkouts.words import Outcome
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.connecting import Connecting, WayBackError
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.persons import Person
from pdp.broker.store.flows import Flows
from pdp.broker.words import (
    Connection,
    ConsentState,
    NeedsPersonError,
    Secret,
    TokenRefusedError,
    TokensUnavailableError,
    UnknownConnectionError,
)
from pdp.errors import PDPError, PermissionDeniedError, StoreUnavailableError
from pdp.testing.clock import FakeClock
from tests.broker.consented import NOW, Site, source_at
from tests.broker.vaults import BY, connection
from tests.broker.worlds import SECRET, Upstream, request, upstream_here

ALICE = Person(id="alice", roles=frozenset({"author"}), tenants=("acme",))
BOB = replace(ALICE, id="bob")
URL, CONSOLE = "https://broker.example.com", "https://console.example.com"
SCOPES = ("issues", "pulls")
CODE, GOOD = "c0de-canary", {"access_token": "access-canary", "token_type": "Bearer", "refresh_token": "refresh-canary"}


@dataclass
class Counter:
    """A broker at which people connect to a provider that gives what it is told."""

    there: Upstream
    site: Site
    flows: Flows
    clock: FakeClock
    connecting: Connecting
    said: dict[str, Any] = field(default_factory=dict)

    def begin(self, person: Person = ALICE) -> dict[str, str]:
        """Begin, and return what the provider is told in the browser."""
        url = self.connecting.begin(person, "crm", "acme", "prod").url
        assert url.startswith(f"{self.there.origin}/auth?")
        return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}

    def back(self, state: str, client: str = "crm", **said: str) -> str:
        """Come back with a code, and return the ticket."""
        return self.connecting.back(client, {"state": state, "code": CODE, **said})

    def finish(self, ticket: str, person: Person = ALICE) -> Connection:
        """Finish."""
        return self.connecting.finish(person, ticket)

    @property
    def sent(self) -> list[dict[str, str]]:
        """Return the forms that the token endpoint got."""
        bodies = [body.decode() for method, target, _, body in self.there.got if target == "/token"]
        return [{name: value for name, [value] in parse_qs(body).items()} for body in bodies]

    @property
    def reasons(self) -> list[str]:
        """Return why what came back was not taken."""
        return [one.facts["reason"] for one in self.site.files.events if one.kind.value == "connection.refused"]


@pytest.fixture(scope="module")
def there() -> Iterator[Upstream]:
    """Run a provider for all tests."""
    with upstream_here() as upstream:
        yield upstream


@pytest.fixture
def counter(there: Upstream, tmp_path: Path) -> Iterator[Counter]:
    """Return a counter with one client, `crm`."""
    there.got.clear()
    clock = FakeClock(NOW)
    with closing(Site(tmp_path, clock)) as site, closing(Flows(site.files.store)) as flows:
        add_client(site, "crm", there.origin)
        connecting = Connecting(
            site.vault, flows, site.people, site.severing, site.files.events.append, clock, f"{URL}/back"
        )
        made = Counter(there, site, flows, clock, connecting)
        there.status, there.pieces = 200, lambda: iter([json.dumps({**GOOD, **made.said}).encode()])
        yield made
        there.status = 200


def add_client(site: Site, id_: str, origin: str, scopes: tuple[str, ...] = SCOPES, **more: Any) -> None:
    """Add that with which people connect to a kind."""
    site.vault.add(connection(id_, source=source_at(origin, **more), scopes=scopes), by=BY)
    site.vault.put(id_, SECRET, by=BY)


def test_a_person_connects(counter: Counter) -> None:
    """The provider is told a state, a challenge and an exact way back; the code leaves once, with its verifier."""
    asked = counter.begin()
    counter.said["scope"] = "issues"

    made = counter.finish(counter.back(asked["state"], iss=counter.there.origin))

    wanted = {"response_type": "code", "client_id": "broker", "scope": "issues pulls", "code_challenge_method": "S256"}
    assert {**wanted, "redirect_uri": f"{URL}/back/crm"} == {
        name: value for name, value in asked.items() if name not in ("state", "code_challenge")
    }
    [form] = counter.sent
    digest = sha256(form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert (CODE, f"{URL}/back/crm") == (form["code"], form["redirect_uri"])
    assert ("alice", ("issues",), "crm") == (made.owner, made.scopes, made.kind)
    assert b"access-canary" == counter.site.people.open(counter.site.vault.connection(made.id)).reveal()
    assert ["connection.begun", "connection.added", "connection.authorized"] == counter.site.kinds[-3:]


def test_no_secret_of_a_flow_rests_or_is_recorded(counter: Counter) -> None:
    """State, verifier, code, ticket and tokens are in the store sealed, or as a digest, and nowhere else."""
    asked = counter.begin()
    ticket = counter.back(asked["state"])
    stored = b"".join(path.read_bytes() for path in counter.site.files.folder.rglob("*") if path.is_file())
    counter.finish(ticket)
    stored += b"".join(path.read_bytes() for path in counter.site.files.folder.rglob("*") if path.is_file())

    secrets = [asked["state"], CODE, ticket, counter.sent[0]["code_verifier"], GOOD["access_token"]]
    assert [] == [one for one in secrets if one.encode() in stored or one in repr(counter.site.files.events)]


@pytest.mark.parametrize(
    ("come_back", "reason"),
    [
        (lambda counter, state: (counter.back(state), counter.back(state)), None),
        (lambda counter, state: (counter.clock.advance(600), counter.back(state)), None),
        (lambda counter, state: (counter.begin(), counter.back(state)), None),
        (lambda counter, state: counter.back(state, client="erp"), "redirect"),
        (lambda counter, state: counter.back(state, iss="https://attacker.example.com"), "issuer"),
        (lambda counter, state: counter.back(state, code="", error="access_denied"), "no_code"),
    ],
    ids=["twice", "late", "begun anew", "other redirect", "other issuer", "denied"],
)
def test_what_comes_back_wrongly_is_refused(
    counter: Counter, come_back: Callable[[Counter, str], object], reason: str | None
) -> None:
    """Nothing is sent, and what was begun is over."""
    add_client(counter.site, "erp", "https://erp.example.com")
    state = counter.begin()["state"]

    with pytest.raises(WayBackError):
        come_back(counter, state)
    with pytest.raises(WayBackError):
        counter.back(state)

    assert [] == counter.sent
    assert ([reason] if reason else []) == counter.reasons


@pytest.mark.parametrize(
    ("finish", "kind", "reason"),
    [
        (lambda counter, ticket: counter.finish(ticket, BOB), PermissionDeniedError, "person"),
        (lambda counter, ticket: counter.finish(ticket[::-1]), WayBackError, None),
        (lambda counter, ticket: (counter.clock.advance(600), counter.finish(ticket)), WayBackError, None),
        (lambda counter, ticket: counter.finish(ticket, replace(ALICE, tenants=())), PermissionDeniedError, None),
        (lambda counter, ticket: changed(counter).finish(ticket), WayBackError, None),
    ],
    ids=["another person", "unknown", "late", "no longer of the tenant", "another client"],
)
def test_who_did_not_begin_does_not_finish(
    counter: Counter, finish: Callable[[Counter, str], object], kind: type[PDPError], reason: str | None
) -> None:
    """The code is not sent, and nobody has a connection: the ticket of one who was lured is of no use to another."""
    ticket = counter.back(counter.begin()["state"])

    with pytest.raises(kind):
        finish(counter, ticket)

    assert [] == counter.sent
    assert ([reason] if reason else []) == counter.reasons
    for user in ("alice", "bob"):
        with pytest.raises(UnknownConnectionError):
            counter.site.vault.of_kind("acme", "prod", "crm", user)


def changed(counter: Counter) -> Counter:
    """Let the client have another token endpoint."""
    client = counter.site.vault.connection("crm")
    assert client.source
    source = replace(client.source, endpoint="https://attacker.example.com/token")
    counter.site.vault.replace(replace(client, source=source), by=BY)
    return counter


def test_a_ticket_and_its_code_count_once(counter: Counter) -> None:
    """Also when the provider did not answer: it may have taken the code."""
    ticket = counter.back(counter.begin()["state"])
    counter.there.status = 503
    with pytest.raises(TokensUnavailableError, match="is not connected: of `127"):
        counter.finish(ticket)
    counter.there.status = 200

    with pytest.raises(WayBackError):
        counter.finish(ticket)

    assert [CODE] == [form["code"] for form in counter.sent]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"scope": "issues admin"}, "it grants a scope that nobody asked for"),
        ({"scope": "issues\x00"}, "no text of RFC 6749"),
        ({"token_type": "DPoP"}, "of the type `Bearer`"),
        ({"refresh_token": 1}, "a token that no header can hold"),
    ],
)
def test_tokens_that_are_not_as_asked_make_no_connection(counter: Counter, said: dict[str, Any], problem: str) -> None:
    """And the error quotes nothing of them."""
    counter.said |= said

    with pytest.raises(TokenRefusedError, match=problem) as refused:
        counter.finish(counter.back(counter.begin()["state"]))

    assert "canary" not in str(refused.value)
    assert ["provider"] == counter.reasons


@pytest.mark.parametrize("problem", ["scope", "type", "store"])
def test_tokens_that_nobody_gets_are_ended(
    counter: Counter, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At their provider: refused ones, and those that cannot be kept; the log says when that fails, and quotes none."""
    origin = counter.there.origin
    add_client(counter.site, "hub", origin, revocation=f"{origin}/revoke")
    counter.said |= {"scope": {"scope": "issues admin"}, "type": {"token_type": "DPoP"}, "store": {}}[problem]
    asked = urlsplit(counter.connecting.begin(ALICE, "hub", "acme", "prod").url).query
    ticket = counter.back(parse_qs(asked)["state"][0], client="hub")
    if problem == "store":
        monkeypatch.setattr(counter.site.vault, "put", full)

    with pytest.raises(PDPError):
        counter.finish(ticket)

    ended = [parse_qs(body.decode())["token"] for _, target, _, body in counter.there.got if target == "/revoke"]
    assert [["refresh-canary"], ["access-canary"]] == ended
    assert "canary" not in caplog.text


def full(*_: object, **__: object) -> NoReturn:
    """Fail as on a full disk."""
    raise StoreUnavailableError("the disk is full")


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({}, ""),
        ({"nonce": "another"}, "for another log-in"),
        ({"iss": "https://attacker.example.com"}, "of another issuer"),
        ({"aud": ["broker", "another"]}, "for another client"),
        (None, "gives no ID token"),
    ],
)
def test_an_id_token_is_of_this_flow(counter: Counter, claims: dict[str, Any] | None, problem: str) -> None:
    """Where one is asked for. It says what the provider calls the person."""
    add_client(counter.site, "oidc", counter.there.origin, ("issues", "openid"))
    asked = urlsplit(counter.connecting.begin(ALICE, "oidc", "acme", "prod").url).query
    state, nonce = (parse_qs(asked)[name][0] for name in ("state", "nonce"))
    if claims is not None:
        said = {"iss": counter.there.origin, "aud": "broker", "nonce": nonce, "sub": "1", "email": "a@b.c", **claims}
        counter.said["id_token"] = f"e30.{base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip('=')}.x"
    ticket = counter.back(state, client="oidc")

    if problem:
        with pytest.raises(TokenRefusedError, match=problem):
            counter.finish(ticket)
    else:
        assert "a@b.c" == counter.site.consents.of(counter.finish(ticket).id).account


def test_the_account_is_asked_for_where_there_is_an_endpoint(counter: Counter) -> None:
    """With the access token; a provider that does not say it has connected the person all the same."""
    add_client(counter.site, "hub", counter.there.origin, account=f"{counter.there.origin}/user")
    counter.said |= {"login": "alice-at-hub"}
    for account in ("alice-at-hub", ""):
        query = parse_qs(urlsplit(counter.connecting.begin(ALICE, "hub", "acme", "prod").url).query)
        ticket = counter.back(query["state"][0], client="hub")

        assert account == counter.site.consents.of(counter.finish(ticket).id).account
        del counter.said["login"]
        counter.said["login"] = "not\nprintable"

    assert "Bearer access-canary" == counter.there.got[-1][2]["authorization"]


def test_who_connects_again_has_one_connection(counter: Counter) -> None:
    """The former one is gone, with what it needed; in another compartment there is another one."""
    former, made = (counter.finish(counter.back(counter.begin()["state"])) for _ in range(2))

    assert made.id == counter.site.vault.of_kind("acme", "prod", "crm", "alice").id != former.id
    with pytest.raises(UnknownConnectionError):
        counter.site.consents.of(former.id)
    with pytest.raises(UnknownConnectionError, match="nobody can connect to `crm`"):
        counter.connecting.begin(ALICE, "crm", "acme", "stage")
    with pytest.raises(PermissionDeniedError, match="not one of your tenants: `other`"):
        counter.connecting.begin(ALICE, "crm", "other", "prod")


@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.EXPIRES_AT), (503, Outcome.FAILED)])
def test_what_was_connected_before_is_ended_at_the_provider_first(
    counter: Counter, there: Upstream, status: int, outcome: Outcome
) -> None:
    """Before the person agrees anew, since a provider may end with it all that they agree to."""
    site, source = counter.site, source_at(there.origin, revocation=f"{there.origin}/revoke")
    site.vault.replace(replace(site.vault.connection("crm"), source=source), by=BY)
    site.vault.put("crm", SECRET, by=BY)
    counter.finish(counter.back(counter.begin()["state"]))
    there.status = status
    begun = counter.connecting.begin(ALICE, "crm", "acme", "prod")
    there.status = 200

    assert begun.former is not None
    assert outcome is begun.former.outcome
    with pytest.raises(UnknownConnectionError):
        site.vault.of_kind("acme", "prod", "crm", "alice")
    assert ("/token", "/revoke") == tuple(target for _, target, *_ in there.got)[:2]
    assert (status == 503) == bool(site.checkouts.all())


def test_what_was_connected_meanwhile_is_ended_before_the_code_is_sent(counter: Counter, there: Upstream) -> None:
    """Another window of the person was between its code and its end when this one began."""
    site, source = counter.site, source_at(there.origin, revocation=f"{there.origin}/revoke")
    site.vault.replace(replace(site.vault.connection("crm"), source=source), by=BY)
    site.vault.put("crm", SECRET, by=BY)
    ticket, client = counter.back(counter.begin()["state"]), site.vault.connection("crm")
    got = Granted(secret=Secret(b"a"), seconds=100.0, refresh=Secret(b"r"))
    packed = TokenPair.of(got, asked=counter.clock.now(), share=0.7).packed()
    site.people.add(replace(client, id="other", owner="alice"), packed, account="")
    made = counter.finish(ticket)

    assert ["/revoke", "/revoke", "/token"] == [target for _, target, *_ in there.got]
    assert [made.id] == [one.id for one in site.vault.connections() if one.owner]


def test_a_connection_whose_making_was_cut_off_needs_its_person(counter: Counter) -> None:
    """Nothing is used that is not whole; to connect again mends it."""
    counter.site.vault.replace(replace(counter.site.vault.connection("crm"), id="half", owner="alice"), by=BY)
    half = counter.site.vault.connection("half")

    assert ConsentState.NEEDS_PERSON is counter.site.people.standing(half).state
    with pytest.raises((NeedsPersonError, UnknownConnectionError)):
        counter.site.people.open(half)
    counter.finish(counter.back(counter.begin()["state"]))
    assert counter.site.people.open(counter.site.vault.of_kind("acme", "prod", "crm", "alice"))


def test_browsers_are_sent_on_to_the_console_or_nowhere(counter: Counter) -> None:
    """With a ticket and no code; whatever else comes gets a text. No answer is kept, or tells where it came from."""
    callback = Callback(counter.connecting, CONSOLE)
    state = counter.begin()["state"]
    good = f"/back/crm?code={CODE}&state={state}"

    wrong = [
        f"/back/crm?code={CODE}&state={state}&state=x",
        f"/back/crm?code={CODE}",
        "/back/crm",
        f"/back/crm?{'x' * 20_000}=1",
    ]
    assert [400] * 4 == [request(callback, "GET", url, {}).status for url in wrong]
    assert [404, 404] == [request(callback, "POST", good, {}).status, request(callback, "GET", "/other", {}).status]
    answer = request(callback, "GET", good, {})

    assert 303 == answer.status
    assert answer.headers["location"].startswith(f"{CONSOLE}/connections/finish?ticket=")
    assert CODE not in answer.headers["location"]
    assert ("no-store", "no-referrer") == (answer.headers["cache-control"], answer.headers["referrer-policy"])
    again = request(callback, "GET", good, {})
    assert (400, True) == (again.status, b"has been taken" in again.body)
