"""Tokens of people at a real provider, which gives each refresh token once, and ends all when one comes again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pdp.broker.checkouts.words import Outcome
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.connecting import Connecting
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.persons import Person
from pdp.broker.store.flows import Flows
from pdp.broker.words import Connection, ConsentState, Exchange, Mode, NeedsPersonError, Secret, TokensUnavailableError
from pdp.clock import SystemClock
from pdp.errors import PermissionDeniedError
from pdp.testing.waiting import wait_until
from tests.broker.consented import Site
from tests.broker.real.realprovider import BACK, RESOURCE, SECRET, Browser, Provider, running_provider
from tests.broker.tills import KIND, till
from tests.broker.vaults import connection

pytestmark = pytest.mark.credentials

# What the provider gives is good for ten minutes; for the broker it ended at once.
OVER = 700.0


@pytest.fixture
def provider(project_root: Path) -> Iterator[Provider]:
    """Run a provider."""
    with running_provider(project_root) as running:
        yield running


def connected(folder: Path, provider: Provider, *, age: float = OVER, **source: Any) -> Site:
    """Let alice connect, and return her connection with tokens of an age."""
    site, said, clock = Site(folder, SystemClock()), provider.connected(), SystemClock()
    now = clock.now()
    asked = now._replace(wall_at=now.wall_at - age, boot_at=now.boot_at - age)
    access, refresh = (Secret(said[name].encode()) for name in ("access_token", "refresh_token"))
    got = Granted(secret=access, seconds=said["expires_in"], refresh=refresh)
    site.connect(provider.peoples_source(**source), TokenPair.of(got, asked=asked, share=0.7), SECRET.encode())
    return site


def process(site: Site, project_root: Path, *step: str) -> subprocess.Popen[str]:
    """Open the connection in a process, which dies before a step."""
    command = [sys.executable, "-m", "tests.broker.real.person_process", str(site.files.folder), *step]
    return subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE, text=True)


def test_eight_processes_refresh_once(provider: Provider, tmp_path: Path, project_root: Path) -> None:
    """One asks, however slow the provider is, and the others wait: all have one token, which is good."""
    site = connected(tmp_path, provider)
    provider.slow(1000)

    running = [process(site, project_root) for _ in range(8)]
    opened = {one.communicate(timeout=100)[0].strip() for one in running}

    [token] = opened
    assert (True, "issues") == ((said := provider.says_of(token.encode(), "people"))["active"], said["scope"])
    assert ConsentState.CONNECTED is site.consents.of("alices").state
    site.close()
    assert 2 == provider.given()


@pytest.mark.parametrize(
    ("step", "given", "opens"),
    [
        ("intent", 2, True),
        ("question", 1, False),
        ("answer", 2, False),
        ("result", 2, False),
        ("end", 2, True),
    ],
)
def test_a_killed_process_leaves_the_connection_or_says_that_it_is_lost(
    provider: Provider, tmp_path: Path, project_root: Path, step: str, given: int, *, opens: bool
) -> None:
    """Killed before each step: between the intent and the stored result nobody knows what the provider did."""
    site = connected(tmp_path, provider)

    with process(site, project_root, step) as killed:
        assert -signal.SIGKILL == killed.wait(100)
    if opens:
        assert provider.says_of(site.open().encode(), "people")["active"]
    else:
        with pytest.raises(NeedsPersonError, match="a refresh was cut off"):
            site.open()
        assert ConsentState.NEEDS_PERSON is site.consents.of("alices").state

    site.close()
    assert given == provider.given()


@pytest.mark.parametrize(("step", "opens"), [("question", True), ("answer", False)])
def test_a_lost_refresh_is_repeated_once_where_the_provider_allows_it(
    provider: Provider, tmp_path: Path, project_root: Path, step: str, *, opens: bool
) -> None:
    """One that it never saw is saved by that. This provider has no such time: what it gave before is over for good."""
    site = connected(tmp_path, provider, grace_seconds=600.0)

    with process(site, project_root, step) as killed:
        killed.wait(100)
    if opens:
        assert provider.says_of(site.open().encode(), "people")["active"]
    else:
        with pytest.raises(NeedsPersonError, match="it answers `invalid_grant`"):
            site.open()
    site.close()


def by_browser(site: Site) -> tuple[Connection, str]:
    """Let alice connect in a browser, and return her connection and what the provider calls itself on the way back."""
    with closing(Flows(site.files.store)) as flows:
        events, clock = site.files.events.append, SystemClock()
        connecting = Connecting(site.vault, flows, site.people, site.severing, events, clock, BACK)
        alice = Person(id="alice", roles=frozenset(), tenants=("acme",))
        back = urlsplit(Browser().go(connecting.begin(alice, "crm", "acme", "prod").url))
        said = {name: value for name, [value] in parse_qs(back.query).items()}
        return connecting.finish(alice, connecting.back(back.path.rpartition("/")[2], said)), said["iss"]


def add_client(site: Site, provider: Provider) -> None:
    """Add that with which people connect, with an ID token."""
    site.vault.add(connection("crm", source=provider.peoples_source(), scopes=("openid", "issues")), by="tests")
    site.vault.put("crm", SECRET.encode(), by="tests")


def test_a_person_connects(provider: Provider, tmp_path: Path) -> None:
    """In a browser, at a provider that names itself on the way back; the tokens are good, and others are got later."""
    with closing(Site(tmp_path, SystemClock())) as site:
        add_client(site, provider)

        made, issuer = by_browser(site)

        assert provider.issuer == issuer
        # For a resource it grants none of its own scopes.
        assert (("issues",), "alice") == (made.scopes, site.consents.of(made.id).account)
        first = site.open()
        pair = TokenPair.unpacked(site.vault.open(made))
        site.vault.put(made.id, replace(pair, seconds=0.01).packed(), by="tests")
        second = site.open()
        assert first != second
        for token in (first, second):
            known = provider.says_of(token.encode(), "people")
            assert (True, "alice") == (known["active"], known["sub"])


def test_a_provider_rotates_its_keys(project_root: Path, tmp_path: Path) -> None:
    """Its word comes from itself, over TLS, and its keys are not asked for: who connects then is known all the same."""
    kids, accounts, issuer = list[set[str]](), list[str](), ""
    with closing(Site(tmp_path, SystemClock())) as site:
        for _ in range(2):
            with running_provider(project_root, issuer) as running:
                if not issuer:
                    add_client(site, running)
                issuer = running.issuer
                made, _ = by_browser(site)
                kids.append(running.kids)
                accounts.append(site.consents.of(made.id).account)
                assert running.says_of(site.open().encode(), "people")["active"]

    assert (["alice", "alice"], set()) == (accounts, kids[0] & kids[1])


def test_a_person_disconnects(provider: Provider, tmp_path: Path) -> None:
    """The provider ends both tokens, and says so."""
    site = connected(tmp_path, provider, age=0.0)
    pair = TokenPair.unpacked(site.vault.open(site.vault.connection("alices")))

    ended = site.severing.end("alices", by="alice")

    site.close()
    assert Outcome.REVOKED is ended.outcome
    tokens = [token.reveal() for token in (pair.access, pair.refresh) if token]
    assert [False, False] == [provider.says_of(token, "people")["active"] for token in tokens]


def test_a_slow_provider_keeps_nobody_with_a_good_token(provider: Provider, tmp_path: Path, project_root: Path) -> None:
    """While one waits for it, the others use what they have."""
    site = connected(tmp_path, provider, age=450.0)
    good = TokenPair.unpacked(site.vault.open(site.vault.connection("alices"))).access.reveal().decode()
    provider.slow(100_000)
    with process(site, project_root) as waiting:
        wait_until(lambda: site.consents.of("alices").state is ConsentState.REFRESHING)

        assert good == site.open()

        assert ConsentState.REFRESHING is site.consents.of("alices").state
        waiting.kill()
    site.close()


def test_a_provider_that_is_gone_or_another(provider: Provider, tmp_path: Path) -> None:
    """Down, it costs nothing but time. With another issuer it gets nothing: the person consented elsewhere."""
    site = connected(tmp_path, provider)
    provider.process.kill()
    provider.process.wait(10)
    with pytest.raises(TokensUnavailableError, match="cannot be reached"):
        site.open()
    assert ConsentState.CONNECTED is site.consents.of("alices").state

    client = site.vault.connection("crm")
    moved = provider.peoples_source(issuer="https://elsewhere.example.com")
    site.vault.replace(replace(client, source=moved), by="tests")
    site.vault.put("crm", SECRET.encode(), by="tests")
    with pytest.raises(NeedsPersonError, match="its client is no longer the same"):
        site.open()
    site.close()


@pytest.mark.parametrize(("target", "outcome"), [("issues", "revoked"), ("jwt", "expires_at")])
def test_the_token_of_a_person_is_exchanged_for_a_session(
    provider: Provider, tmp_path: Path, target: str, outcome: str
) -> None:
    """For a narrower one, which ends with the session; the person's own goes nowhere, and stays good."""
    narrow = Exchange(audience="https://tools.example.com", resource=f"{RESOURCE}/{target}")
    said, now, folder = provider.connected("issues pulls"), SystemClock().now(), tmp_path / "broker"
    access, refresh = (Secret(said[name].encode()) for name in ("access_token", "refresh_token"))
    pair = TokenPair.of(Granted(secret=access, seconds=600.0, refresh=refresh), asked=now, share=0.7)
    with closing(Site(folder, SystemClock())) as site:
        row = {"kind": KIND, "scopes": ("issues", "pulls"), "modes": (Mode.CHECKOUT,)}
        site.connect(provider.peoples_source(exchange=narrow), pair, SECRET.encode(), **row)
        with till(folder, secret=b"", people=site.people) as here:
            credential = here.ask(scopes=("issues",))
            if outcome == "revoked":
                known = provider.says_of(credential.secret.encode(), "people")
                assert ("issues", narrow.resource, "alice") == (known["scope"], known["aud"], known["sub"])
            with pytest.raises(PermissionDeniedError, match="lacks the scope `admin`"):
                here.ask(scopes=("admin",))
            here.end_session()

            assert [outcome] == here.outcomes
    assert provider.says_of(access.reveal(), "people")["active"]
