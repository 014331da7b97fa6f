"""Tokens of people: who refreshes, when, and what becomes of a connection whose refresh fails or is cut off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs

import pytest

from pdp.broker.oauth import people
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.words import (
    Attempt,
    ClientAuth,
    ConsentState,
    NeedsPersonError,
    ProviderUnavailableError,
    TokenRefusedError,
    TokensUnavailableError,
    UnknownConnectionError,
)
from pdp.errors import PDPError, StoreUnavailableError
from tests.broker.consented import NOW, Desk, Site
from tests.broker.vaults import BY
from tests.broker.worlds import Upstream, upstream_here
from tests.machinery.servers.running import PATIENCE

CUT_OFF = "a refresh was cut off"


@pytest.fixture(scope="module")
def there() -> Iterator[Upstream]:
    """Run a token endpoint for all tests."""
    with upstream_here() as upstream:
        yield upstream


@pytest.fixture
def desk(there: Upstream, tmp_path: Path) -> Iterator[Desk]:
    """Return alice's connection, whose token is good for 100 seconds."""
    made = Desk(tmp_path, there)
    yield made
    made.close()


def begun(desk: Desk, **fields: Any) -> None:
    """Leave behind what a process leaves that was killed while it refreshed."""
    attempt = Attempt(id="a", version=1, first_at=desk.clock.now().wall_at)
    desk.consents.begin("alices", replace(attempt, **fields))


def test_each_refresh_token_is_sent_once(desk: Desk) -> None:
    """A token is used for 70 % of its life; then another one is got, stored, and used, by all who open the store."""
    opened = []
    for seconds in (0, 69, 1, 69, 1):
        desk.clock.advance(seconds)
        opened.append(desk.open())

    assert ["access-0", "access-0", "access-1", "access-1", "access-2"] == opened
    assert ["refresh-0", "refresh-1"] == desk.sent
    assert ["connection.refreshed"] * 2 == desk.kinds
    assert (ConsentState.CONNECTED, 3) == (desk.consents.of("alices").state, desk.vault.connection("alices").version)
    assert "access-" not in repr(desk.files.events)


def test_a_provider_may_leave_out_the_refresh_token(desk: Desk) -> None:
    """Then the former one goes on."""
    desk.gives(refresh_token=None)
    for _ in range(2):
        desk.clock.advance(70)
        desk.open()

    assert ["refresh-0", "refresh-0"] == desk.sent


def test_eight_at_once_ask_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One refreshes, also where each has files of its own; the others wait for it, or use the good token."""
    monkeypatch.setattr("pdp.broker.oauth.people._WAIT_SECONDS", PATIENCE)
    desk.clock.advance(100)
    answer = desk.there.pieces

    def slowly() -> Iterator[bytes]:
        time.sleep(0.1)
        yield from answer()

    desk.there.pieces = slowly
    sites = [Site(desk.files.folder, desk.clock) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(Site.open, sites * 2))
    for site in sites:
        site.close()

    assert ["access-1"] * 8 == opened
    assert ["refresh-0"] == desk.sent


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_provider_that_is_down_is_left_alone(desk: Desk, status: int) -> None:
    """The present token is used until its end and not after it, with a pause between two questions."""
    desk.gives(status)
    steps = []
    for seconds in (70, 1, 4, 25, 5):
        desk.clock.advance(seconds)
        try:
            steps.append((desk.open(), len(desk.sent)))
        except TokensUnavailableError:
            steps.append(("", len(desk.sent)))
    desk.gives()
    desk.clock.advance(5)

    assert [("access-0", 1), ("access-0", 1), ("access-0", 2), ("", 3), ("", 4)] == steps
    assert desk.open().startswith("access-")


def test_a_pause_ends_also_when_the_clock_is_set_back(desk: Desk) -> None:
    """It could be a pause of years."""
    desk.gives(500)
    desk.clock.advance(100)
    with pytest.raises(TokensUnavailableError):
        desk.open()
    desk.gives()
    desk.clock.step_wall(-3600)

    assert desk.open().startswith("access-")


def test_nothing_is_refreshed_for_who_disconnects_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if that comes between the look at the connection and the refresh: nothing is used from then on."""
    begin = desk.consents.begin

    def ended_first(connection_id: str, attempt: Attempt) -> None:
        desk.consents.settle(connection_id, ConsentState.ENDING)
        begin(connection_id, attempt)

    monkeypatch.setattr(desk.consents, "begin", ended_first)
    desk.clock.advance(70)

    for _ in range(2):
        with pytest.raises(NeedsPersonError, match="was disconnected"):
            desk.open()
    assert ([], ConsentState.ENDING) == (desk.sent, desk.consents.of("alices").state)


@pytest.mark.parametrize("later", [1, 75])
def test_what_a_refresh_brought_is_kept_until_it_can_be_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    """The keys are away just then, or the disk is full: the person need not connect again."""
    put, away = desk.vault.put, [True, True]

    def storing(*given: Any, **more: Any) -> Any:
        if away and away.pop():
            raise ProviderUnavailableError("away")
        return put(*given, **more)

    monkeypatch.setattr(desk.vault, "put", storing)
    desk.clock.advance(70)
    for _ in range(2):
        with pytest.raises(ProviderUnavailableError):
            desk.open()
    desk.clock.advance(later)

    assert ("access-1" if later == 1 else "access-2") == desk.open()
    assert ["refresh-0", "refresh-1"][: 1 if later == 1 else 2] == desk.sent
    assert ConsentState.CONNECTED is desk.consents.of("alices").state


@pytest.mark.parametrize(
    ("status", "said", "problem"),
    [
        (400, {"error": "invalid_grant"}, "it answers `invalid_grant`"),
        (200, {"scope": "issues admin"}, "it grants a scope that the connection does not have"),
        (200, {"scope": ""}, "it does not grant the scope `issues`"),
        (200, {"token_type": "DPoP"}, "of the type `Bearer`"),
        (200, {"refresh_token": "x" * 65_500}, "it gives tokens of more than 65536 bytes"),
    ],
)
def test_a_refresh_token_that_is_gone_needs_the_person(
    desk: Desk, status: int, said: dict[str, Any], problem: str
) -> None:
    """It counts no longer, or was taken for an answer of no use: nothing is used, and nobody asks again."""
    desk.clock.advance(70)
    desk.gives(status, **said)

    with pytest.raises(NeedsPersonError, match=f"`alices` of `alice` must be connected again: .*{problem}"):
        desk.open()
    with pytest.raises(NeedsPersonError):
        desk.open()

    assert ["refresh-0"] == desk.sent
    assert ["connection.lost"] == desk.kinds
    assert ConsentState.NEEDS_PERSON is desk.consents.of("alices").state


@pytest.mark.parametrize("said", [{"scope": "issues admin"}, {"refresh_token": "x" * 65_500}])
def test_tokens_that_are_refused_are_ended(there: Upstream, tmp_path: Path, said: dict[str, Any]) -> None:
    """At their provider, which gave them: nobody has them, and they would be good for long."""
    with closing(Desk(tmp_path, there, revocation=f"{there.origin}/revoke")) as desk:
        desk.clock.advance(70)
        desk.gives(**said)
        with pytest.raises(NeedsPersonError):
            desk.open()

        ended = [parse_qs(body.decode())["token"] for _, path, _, body in there.got if path == "/revoke"]
        assert [[said.get("refresh_token", "refresh-1")], ["access-1"]] == ended


def test_a_client_that_is_refused_loses_no_connection(desk: Desk) -> None:
    """The refresh token was not used: when the client is known again, all goes on."""
    desk.clock.advance(100)
    desk.gives(401, error="invalid_client")

    with pytest.raises(TokenRefusedError, match=r"from `127\.0\.0\.1:\d+`: it answers `invalid_client`"):
        desk.open()

    desk.gives()
    desk.clock.advance(5)
    assert desk.open().startswith("access-")
    assert ["refresh-0"] * 2 == desk.sent


@pytest.mark.parametrize(
    ("grace", "left", "after", "opens"),
    [
        (0.0, {}, 1, False),
        (30.0, {}, 29, True),
        (30.0, {}, 30, False),
        (30.0, {"first_at": NOW + 1000}, 1, False),
        (30.0, {"is_repeated": True}, 1, False),
        (0.0, {"version": 0}, 1, True),
    ],
)
def test_a_refresh_that_was_cut_off(
    there: Upstream, tmp_path: Path, grace: float, left: dict[str, Any], after: float, *, opens: bool
) -> None:
    """Repeated once, within the time for which the provider takes a token again; else lost.

    One of a former version has had its result stored.
    """
    desk = Desk(tmp_path, there, grace_seconds=grace)
    desk.clock.advance(100)
    begun(desk, **left)
    desk.clock.advance(after)

    if opens:
        assert desk.open().startswith("access-")
    else:
        with pytest.raises(NeedsPersonError, match=CUT_OFF):
            desk.open()

    assert opens == bool(desk.sent)
    desk.close()


@pytest.mark.parametrize("grace", [0.0, 30.0])
@pytest.mark.parametrize("dies", [False, True])
def test_what_one_broker_could_not_store_is_lost_to_no_other(
    there: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float, *, dies: bool
) -> None:
    """Another one waits and sends nothing, until it is stored; only when its process is dead, the person is asked."""
    with closing(Desk(tmp_path, there, grace_seconds=grace)) as desk, closing(Site(tmp_path, desk.clock)) as other:
        desk.clock.advance(70)
        monkeypatch.setattr(people, "_WAIT_SECONDS", 0.0)
        with monkeypatch.context() as full:
            full.setattr(desk.vault, "put", no_room)
            with pytest.raises(StoreUnavailableError):
                desk.open()
            desk.people.settle()
            assert "access-0" == other.open()
        desk.clock.advance(31)
        with pytest.raises(TokensUnavailableError, match="it is being refreshed"):
            other.open()
        assert (ConsentState.REFRESHING, ["refresh-0"]) == (desk.consents.of("alices").state, desk.sent)

        if dies:
            # As the end of its process does.
            desk.people._unstored.popitem()[1].alone.close()
            with pytest.raises(NeedsPersonError, match=CUT_OFF):
                other.open()
        else:
            desk.people.settle()
            assert "access-1" == other.open()
            assert ConsentState.CONNECTED is desk.consents.of("alices").state
        assert ["refresh-0"] == desk.sent


@pytest.mark.parametrize("ends", ["process", "connection", "consent"])
def test_what_is_never_stored_is_revoked(
    there: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The process ends on a full disk, the connection is removed, or its person disconnects: nobody else has them."""
    with closing(Desk(tmp_path, there, revocation=f"{there.origin}/revoke")) as desk:
        desk.clock.advance(70)
        with monkeypatch.context() as full:
            full.setattr(desk.vault, "put", no_room)
            with pytest.raises(StoreUnavailableError):
                desk.open()
            if ends == "process":
                desk.people.close()
            full.setattr(desk.consents, "settle", no_room)
            if ends == "consent":
                with pytest.raises(StoreUnavailableError):
                    desk.severing.end("alices", by="alice")
        if ends == "connection":
            desk.vault.remove("alices", by=BY)
            desk.people.settle()

        told = [parse_qs(body.decode())["token"][0] for _, path, _, body in there.got if path == "/revoke"]
        assert ["refresh-1", "access-1"] == told[:2]
        with desk.consents.locked("alices") as free:
            assert free


def no_room(*_: object, **__: object) -> NoReturn:
    """Fail as on a full disk."""
    raise StoreUnavailableError("the disk is full")


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_lost_answer_is_a_refresh_that_was_cut_off(there: Upstream, tmp_path: Path, grace: float) -> None:
    """The provider may have taken the token: it is sent once more where it is taken again, and never else."""
    desk = Desk(tmp_path, there, grace_seconds=grace)
    desk.clock.advance(70)

    def broken() -> Iterator[bytes]:
        raise ConnectionError

    there.pieces = broken
    with pytest.raises(NeedsPersonError, match=CUT_OFF):
        desk.open()

    assert ["refresh-0"] * (2 if grace else 1) == desk.sent
    desk.close()


def test_a_provider_that_cannot_be_reached_takes_nothing(there: Upstream, tmp_path: Path) -> None:
    """Then nothing is lost."""
    desk = Desk(tmp_path, there)
    desk.clock.advance(100)
    source = replace(desk.connection.source, endpoint="http://127.0.0.1:9/token")  # type: ignore[type-var]  # it has one
    for id_ in ("crm", "alices"):
        one, secret = desk.vault.connection(id_), desk.vault.open(desk.vault.connection(id_)).reveal()
        consent = desk.consents.of("alices")
        desk.vault.replace(replace(one, source=source), by=BY)
        desk.vault.put(id_, secret, by=BY)
    desk.consents.add(consent)

    with pytest.raises(TokensUnavailableError, match="cannot be reached"):
        desk.open()

    assert ConsentState.CONNECTED is desk.consents.of("alices").state
    desk.close()


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "https://attacker.example.com/token"},
        {"client_id": "another"},
        {"resource": "https://another.example.com"},
        {"auth": ClientAuth.POST},
        {"issuer": "https://attacker.example.com"},
    ],
)
def test_another_client_than_at_consent_gets_nothing(desk: Desk, change: dict[str, Any]) -> None:
    """Issuer, token endpoint, client, resource and way of authentication are as they were; else nothing is sent."""
    desk.clock.advance(100)
    client = desk.vault.connection("crm")
    assert client.source
    assert client.source.consenting
    issuer = change.get("issuer", client.source.consenting.issuer)
    others = {name: value for name, value in change.items() if name != "issuer"}
    source = replace(client.source, **others, consenting=replace(client.source.consenting, issuer=issuer))
    desk.vault.replace(replace(client, source=source), by=BY)
    desk.vault.put("crm", b"secret", by=BY)

    with pytest.raises(NeedsPersonError, match="its client is no longer the same"):
        desk.open()

    assert [] == desk.sent
    assert ConsentState.CONNECTED is desk.consents.of("alices").state


def test_a_token_without_refresh_token_is_good_until_its_end(there: Upstream, tmp_path: Path) -> None:
    """Or until somebody ends it, when it has no end that is known."""
    for number, seconds in enumerate((100.0, 0.0)):
        desk = Desk(tmp_path / str(number), there, seconds=seconds, lasting=True)
        desk.clock.advance(99)
        assert "access-0" == desk.open()
        desk.clock.advance(10**7)

        if seconds:
            with pytest.raises(NeedsPersonError, match="there is no refresh token"):
                desk.open()
        else:
            assert "access-0" == desk.open()
        assert [] == desk.sent
        desk.close()


def test_who_was_slower_takes_what_the_other_has_stored(desk: Desk) -> None:
    """Where locks do not hold, the provider refuses the second, who then finds the tokens of the first."""
    desk.clock.advance(100)
    young = desk.people.open(desk.connection)
    stored = desk.vault.open(desk.connection).reveal()
    desk.clock.advance(100)

    def faster() -> Iterator[bytes]:
        desk.vault.put("alices", stored, by=BY)
        yield b'{"error":"invalid_grant"}'

    desk.there.status, desk.there.pieces = 400, faster

    assert young.reveal().decode() == desk.open()
    assert ["connection.refreshed"] == desk.kinds


def test_a_client_is_nobodys_connection(desk: Desk) -> None:
    """Who has not connected has none, and its secret is not opened for an upstream."""
    tokens = AccessTokens(desk.vault, desk.files.events.append, desk.clock, desk.people)

    with pytest.raises(UnknownConnectionError, match="no connection of kind `crm`"):
        tokens.of_kind("acme", "prod", "crm", "bob")
    with pytest.raises(TokenRefusedError, match="`crm` opens nothing by itself"):
        tokens.open(desk.vault.connection("crm"))
    assert b"access-0" == tokens.open(tokens.of_kind("acme", "prod", "crm", "alice")).reveal()


def test_uses_are_noted_to_the_minute(desk: Desk) -> None:
    """So that people see when their connection was used last, at little cost."""
    noted = []
    for seconds in (0, 59, 1):
        desk.clock.advance(seconds)
        desk.open()
        noted.append(desk.consents.of("alices").used_at - NOW)

    assert [0, 0, 60] == noted


def test_a_connection_that_was_removed_is_gone_with_all(desk: Desk) -> None:
    """Whoever opens it has waited for nothing."""
    desk.vault.remove("alices", by=BY)

    with pytest.raises(PDPError, match="no such connection"):
        desk.people.open(desk.connection)
    with pytest.raises(UnknownConnectionError):
        desk.consents.of("alices")
