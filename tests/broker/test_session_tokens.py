"""Connections that exchange their access token get a narrower one for each session, which ends with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

import pytest

from pdp.broker.checkouts import sessiontokens
from pdp.broker.checkouts.words import CheckoutState
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.templates import UpstreamRequest
from pdp.broker.using import Asked
from pdp.broker.words import Consenting, Exchange, Mode, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.calltokens.claims import Presenter
from pdp.clock import SystemClock
from pdp.errors import PermissionDeniedError
from tests.broker.consented import Site
from tests.broker.tills import KIND, Till, till
from tests.broker.tokenproviders import EXCHANGE, NARROW, REVOKE, SECRET, TOKEN, Provider, client_of, provider_here
from tests.broker.vaults import BY, connection

MODES = (Mode.CONNECTOR, Mode.PROXY, Mode.CHECKOUT)
FOR = Exchange(audience="crm", resource="https://api.example.com")


@pytest.fixture(scope="module")
def serving_provider() -> Iterator[Provider]:
    """Run a provider for all tests, which is the upstream, too."""
    with provider_here(Provider) as provider:
        yield provider


@pytest.fixture
def provider(serving_provider: Provider) -> Provider:
    """Provide it as it is at first."""
    serving_provider.reset()
    return serving_provider


@pytest.fixture
def here(provider: Provider, tmp_path: Path) -> Iterator[Till]:
    """Provide a broker with a connection that exchanges its token."""
    row = client_of(provider, of_source={"exchange": FOR}, upstream=provider.origin, modes=MODES)
    with till(tmp_path / "broker", row, secret=SECRET) as made:
        yield made


def forms(provider: Provider) -> list[dict[str, str]]:
    """Return what the token endpoint was asked for, in order."""
    found = [parse_qs(body.decode()) for _, path, _, body in provider.got if path == "/token"]
    return [{name: value for name, [value] in form.items()} for form in found]


def sent(provider: Provider) -> list[str]:
    """Return the credentials that went upstream, in order."""
    return [headers["authorization"] for _, path, headers, _ in provider.got if path == "/"]


def test_a_session_gets_a_token_with_the_scopes_of_its_calls(here: Till, provider: Provider) -> None:
    """For the audience and the resource that the connection names; its own token goes to its provider alone."""
    assert [200, 200] == [here.use(), here.use()]

    assert [f"Bearer {NARROW}"] * 2 == sent(provider)
    own, exchanged = forms(provider)
    kinds = dict.fromkeys(
        ("subject_token_type", "requested_token_type"), "urn:ietf:params:oauth:token-type:access_token"
    )
    asked = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": TOKEN, "scope": "a"}
    assert {"grant_type": "client_credentials", "scope": "a b"} == own
    assert {**asked, **kinds, "audience": "crm", "resource": "https://api.example.com"} == exchanged
    assert ["connection.refreshed"] * 2 + ["calltoken.used", "calltoken.answered"] * 2 == here.record.kinds
    made = here.record.events[1]
    [one] = here.store.all()
    assert ("ses_1", "alice", one.id, "a") == (made.session_id, made.user, made.facts["checkout"], made.facts["scopes"])
    held = b"".join(path.read_bytes() for path in here.folder.rglob("*") if path.is_file())
    assert not [one for one in (NARROW, TOKEN) if one.encode() in held or one in repr(here.record.events)]


def test_no_token_serves_another_session_or_other_scopes(here: Till, provider: Provider) -> None:
    """Each has one of its own."""
    for session_id, scopes in (("ses_1", ("a",)), ("ses_2", ("a",)), ("ses_1", ("a", "b")), ("ses_1", ("a",))):
        here.use(session_id, scopes)

    assert ["a", "a", "a b"] == [form["scope"] for form in forms(provider)[1:]]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scope": "a b"}, "it grants a scope that the connection does not have"),
        ({"scope": ""}, "it does not grant the scope `a`"),
        ({"token_type": "N_A"}, "not of the type `Bearer`"),
        ({"issued_token_type": None}, "it does not call an access token"),
        ({"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "it does not call an access token"),
        ({"access_token": TOKEN}, "it gives back the token that was to be exchanged"),
    ],
)
def test_what_a_provider_gives_for_a_token_is_not_simply_believed(
    here: Till, provider: Provider, changes: dict[str, Any], problem: str
) -> None:
    """A token that is wider, or none for access, is not used but ended; the one that it was to narrow stays."""
    said = {**provider.exchanged, **changes}
    provider.said[EXCHANGE] = (200, {name: value for name, value in said.items() if value is not None})

    with pytest.raises(TokenRefusedError, match=problem):
        here.use()

    assert ([], ()) == (sent(provider), here.store.all())
    ended = [parse_qs(body.decode())["token"] for _, path, _, body in provider.got if path == REVOKE]
    assert ([] if "access_token" in changes else [[NARROW]]) == ended


@pytest.mark.parametrize(
    ("status", "said", "kind", "problem"),
    [
        (400, {"error": "invalid_target"}, TokenRefusedError, "it answers `invalid_target`"),
        (503, {}, TokensUnavailableError, "it answers `503`"),
    ],
)
def test_a_provider_that_exchanges_nothing_is_left_alone(
    here: Till, provider: Provider, status: int, said: Any, kind: type[Exception], problem: str
) -> None:
    """For some seconds; the token of the connection itself is not used in the place of another."""
    provider.said[EXCHANGE] = (status, said)

    for _ in range(2):
        with pytest.raises(kind, match=problem):
            here.use()

    assert (2, []) == (len(forms(provider)), sent(provider))


def test_a_token_without_an_end_serves_no_session(here: Till, provider: Provider) -> None:
    """It is taken back."""
    provider.said[EXCHANGE] = (200, {**provider.exchanged, "expires_in": 0})

    with pytest.raises(PermissionDeniedError, match="has no end that its provider names"):
        here.use()

    assert ([], (), REVOKE) == (sent(provider), here.store.all(), provider.asked[-1])


@pytest.mark.parametrize(
    ("active", "outcome"), [([True, False], "revoked"), ([True, True], "expires_at"), ([False, False], "expires_at")]
)
def test_the_token_of_a_session_ends_with_it(here: Till, provider: Provider, active: list[bool], outcome: str) -> None:
    """It is revoked then, at the latest, also where it lives longer, and is called so where that is proved."""
    provider.active, provider.seconds = active, 4000
    here.session_ends[""] = here.wall() + 60
    here.use()
    [one] = here.store.all()
    here.ahead = 61
    here.sweeper.sweep()

    assert [outcome] == here.outcomes
    assert one.ends_at == pytest.approx(time.time() + 4000, abs=60)
    [body] = [parse_qs(body.decode()) for _, path, _, body in provider.got if path == REVOKE]
    assert [NARROW] == body["token"]
    assert ([] if outcome == "revoked" else [CheckoutState.LASTING]) == [one.state for one in here.store.all()]


def test_a_token_that_was_ended_is_not_used_again(here: Till, provider: Provider) -> None:
    """Its session goes on with another one."""
    here.use()
    provider.active = [False, True]
    here.sweeper.end([one.id for one in here.store.all()])
    here.use()

    assert 2 == len(forms(provider)[1:])
    assert 1 == len(here.store.all())


def test_a_new_session_does_not_cost_a_look_at_all_others(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are over are dropped now and then; the others go on."""
    monkeypatch.setattr(sessiontokens, "_FEW", 4)
    row = client_of(provider, of_source={"exchange": FOR}, upstream=provider.origin, modes=MODES)
    with till(tmp_path / "broker", row, secret=SECRET) as here:
        with patch.object(CheckoutStore, "is_out", autospec=True, side_effect=CheckoutStore.is_out) as looked:
            for number in range(10, 34):
                here.use(f"ses_{number}")
        here.use("ses_10")

    assert 4 < looked.call_count <= 2 * 24
    assert 24 == len(forms(provider)[1:])


def test_a_tool_server_is_handed_an_exchanged_token(here: Till, provider: Provider) -> None:
    """One of its own for each call."""
    handed = [here.ask(scopes=("b",)), here.ask(scopes=("b",))]

    assert [NARROW, NARROW] == [one.secret for one in handed]
    assert ["b", "b"] == [form["scope"] for form in forms(provider)[1:]]


def test_what_calls_no_tool_has_no_session(here: Till, provider: Provider) -> None:
    """So it gets no token, and nothing is sent."""
    asked = Asked(
        server="spoken",
        token="",
        presenter=Presenter(),
        mode=Mode.PROXY,
        request=UpstreamRequest(method="POST", target="/mcp", headers={}),
    )
    with pytest.raises(PermissionDeniedError, match="makes a token for each session"):
        here.broker.greet(asked, lambda answer: answer.status)

    assert [] == provider.got


def test_a_call_without_a_scope_gets_no_token(here: Till, provider: Provider) -> None:
    """What is asked for without one could do anything."""
    with pytest.raises(PermissionDeniedError, match="the call names no scope"):
        here.use(scopes=())

    assert ([], ()) == (provider.got, here.store.all())


def test_the_token_of_a_person_is_exchanged_by_the_client_of_their_consent(provider: Provider, tmp_path: Path) -> None:
    """With another client in its place, or another provider, nothing is sent: the person must connect again."""
    folder, now = tmp_path / "broker", SystemClock().now()
    consenting = Consenting(issuer=provider.origin, authorization=f"{provider.origin}/auth")
    source = TokenSource(endpoint=f"{provider.origin}/token", client_id="broker", exchange=FOR, consenting=consenting)
    pair = TokenPair.of(Granted(secret=Secret(b"persons"), seconds=600.0), asked=now, share=0.7)
    row: dict[str, Any] = {"kind": KIND, "scopes": ("a", "b"), "modes": (Mode.CHECKOUT,)}
    with closing(Site(folder, SystemClock())) as site:
        site.connect(source, pair, SECRET, **row)
        with till(folder, secret=b"", people=site.people) as here:
            assert NARROW == here.ask(scopes=("a",)).secret
            assert ["persons"] == [form["subject_token"] for form in forms(provider)]
            changes: Any = ({"client_id": "other"}, {"consenting": replace(consenting, issuer="https://other.example")})
            for change in changes:
                site.vault.remove("crm", by=BY)
                site.vault.add(connection("crm", source=replace(source, **change), **row), by=BY)
                site.vault.put("crm", SECRET, by=BY)
                provider.got.clear()
                with pytest.raises(TokenRefusedError, match="its client is no longer the same"):
                    here.ask(scopes=("a",))

                assert [] == provider.got
