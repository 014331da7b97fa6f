"""Credentials leave the broker for one call and one tool server, short-lived and narrow, and end with their session."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import grpc
import pytest

from pdp.broker.calls import CallFace, serving
from pdp.broker.checkouts import postgres, sweeping
from pdp.broker.checkouts.following import Heard, SessionsFollowed
from pdp.broker.checkouts.issuing import Issued, Issuer
from pdp.broker.checkouts.words import Bounds, Checkout, CheckoutState, CredentialKind, Outcome
from pdp.broker.oauth.people import People
from pdp.broker.oauth.severing import Severing
from pdp.broker.replacing import Replacement, Replacing
from pdp.broker.sealing.envelope import Sealed
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.store.consents import Consents
from pdp.broker.using import Broker
from pdp.broker.v1 import broker_pb2, broker_pb2_grpc
from pdp.broker.words import (
    CheckedOutError,
    Connection,
    Consenting,
    DatabaseUnavailableError,
    KeyInUseError,
    LoginSource,
    Mode,
    Secret,
    TokenRefusedError,
    TokenSource,
)
from pdp.calltokens.checkouts import Credential, RecipientKey
from pdp.calltokens.keys import token_id_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.client import AsyncClient, UnavailableError
from pdp.clock import SystemClock
from pdp.errors import OverloadedError, PDPError, PermissionDeniedError, StoreUnavailableError
from pdp.server.revisions import revision_text
from pdp.serving.listener import Listener
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.notes import CALLERS, FILES, opened_session
from tests.broker.tills import KEY, KIND, Till, presented, till
from tests.broker.tokenproviders import REVOKE, SECRET, TOKEN, Provider, client_of, provider_here
from tests.broker.vaults import BY, Files
from tests.broker.worlds import token
from tests.machinery.calltokens import CLAIMS
from tests.machinery.pages import blocks
from tests.machinery.servers.running import PATIENCE


@pytest.fixture(scope="module")
def serving_provider() -> Iterator[Provider]:
    """Run a provider for all tests."""
    with provider_here(Provider) as provider:
        yield provider


@pytest.fixture
def provider(serving_provider: Provider) -> Provider:
    """Provide it as it is at first: it knows its tokens, and ends them."""
    serving_provider.reset()
    return serving_provider


@pytest.fixture
def here(provider: Provider, tmp_path: Path) -> Iterator[Till]:
    """Provide a desk with a connection whose tokens are handed out."""
    with till(tmp_path / "broker", client_of(provider), secret=SECRET) as made:
        yield made


def test_a_credential_opens_for_its_call_alone() -> None:
    """With the key to which it is sealed, and the token for which it was handed out; any change makes it useless."""
    said, other = token(), token()
    credential = Credential(
        id="chk_1",
        kind="login",
        upstream="postgresql://db:5432",
        secret="p/w@",  # noqa: S106 - of the test
        ends_at=1.0,
        user="pdp_chk_1",
        database="a/b",
    )
    sealed = credential.sealed(KEY.public, token_id_of(said))

    assert credential == RecipientKey.read(KEY.pem).opened(sealed, said)
    assert "postgresql://pdp_chk_1:p%2Fw%40@db:5432/a%2Fb" == credential.url
    assert "p/w@" not in repr(credential)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for key, text, by in ((RecipientKey(), sealed, said), (KEY, sealed, other), (KEY, changed, said), (KEY, b"", said)):
        with pytest.raises(CallTokenRefusedError):
            key.opened(text, by)


def test_the_tool_server_of_the_page_opens_a_credential(project_root: Path, tmp_path: Path) -> None:
    """By its key in a file."""
    (text,) = blocks(project_root / "pdp/broker/CHECKOUT.md", "python tool server")
    page: dict[str, Any] = {}
    exec(text, page)  # noqa: S102 - the page of this project
    (tmp_path / "key").write_bytes(KEY.pem)
    said = token()
    made = Credential(id="chk_1", kind="token", upstream="https://x", secret=TOKEN, ends_at=1.0)

    assert TOKEN == page["opened"](made.sealed(KEY.public, token_id_of(said)), said, tmp_path / "key")


def test_what_is_handed_out_is_narrow_and_on_record(here: Till, provider: Provider) -> None:
    """A token with the scopes of the call and no others; the record has who got it, until when, and never the token."""
    credential = here.ask(scopes=("a",))

    assert (TOKEN, "token", "https://api.example.com") == (credential.secret, credential.kind, credential.upstream)
    assert ["a"] == parse_qs(provider.got[0][3].decode())["scope"]
    assert ["calltoken.used", "credential.checked_out"] == here.record.kinds
    out = here.record.events[-1]
    assert ("ses_1", "alice", "coder", "acme") == (out.session_id, out.user, out.agent, out.tenant)
    assert (credential.id, "checkout", "a") == tuple(out.facts[name] for name in ("checkout", "mode", "scopes"))
    (one,) = here.store.all()
    assert (CheckoutState.OUT, ("ses_1", *CLAIMS.ancestor_ids)) == (one.state, one.session_ids)
    assert TOKEN not in repr((here.record.events, one, credential))
    assert TOKEN.encode() not in b"".join(path.read_bytes() for path in here.folder.rglob("*") if path.is_file())


def test_without_a_record_nothing_is_handed_out(here: Till, provider: Provider) -> None:
    """Nor is anything made that would have to be ended, also when the record fails with this very use."""
    here.record.fails_with = "calltoken.used"

    with pytest.raises(PDPError, match="the record cannot be written"):
        here.ask(scopes=("a",))

    assert ((), []) == (here.store.all(), provider.asked)


def test_a_call_token_is_used_up(here: Till) -> None:
    """The second time there is nothing, and no checkout."""
    said = token(server="reports", tool="read", connection=KIND, scopes=("a",))
    here.desk.check_out(presented(said))

    with pytest.raises(CallTokenRefusedError) as refused:
        here.desk.check_out(presented(said))

    assert (Reason.USED, 1) == (refused.value.reason, len(here.store.all()))


def test_a_credential_comes_over_grpc(here: Till, tmp_path: Path) -> None:
    """Sealed, and once; what is refused says why."""
    face, address = CallFace(Broker(here.admission), here.desk), f"unix:{tmp_path}/calls.sock"
    said = token(server="reports", tool="read", connection=KIND, scopes=("a",), presenter=None)

    def refusal(server: str, text: str) -> str:
        with pytest.raises(grpc.RpcError) as refused:
            stub.Checkout(broker_pb2.CheckoutRequest(call_token=text, server=server), timeout=PATIENCE)
        return str(refused.value.code().name)

    with serving(face, Listener(address=address, tls=None)), grpc.insecure_channel(address) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        out = stub.Checkout(broker_pb2.CheckoutRequest(call_token=said, server="reports"), timeout=PATIENCE)
        other = token(server="closed", tool="read", connection=KIND, scopes=("a",), presenter=None)
        refusals = [refusal("reports", said), refusal("closed", other), refusal("nowhere", other)]

    credential = KEY.opened(out.sealed, said)
    assert (TOKEN, out.checkout_id) == (credential.secret, credential.id)
    assert credential.ends_at == pytest.approx(out.expire_time.ToMicroseconds() / 1e6, abs=1e-3)
    assert ["PERMISSION_DENIED", "PERMISSION_DENIED", "INVALID_ARGUMENT"] == refusals


@pytest.mark.parametrize(
    ("row", "changes", "problem"),
    [
        ({"source": None}, {}, "has only what lasts, and that is never handed out"),
        ({"modes": (Mode.PROXY,)}, {}, "may not be used in mode `checkout`"),
        ({}, {"scopes": ()}, "the call names no scope"),
        ({}, {"scopes": ("c",)}, "lacks the scope `c`"),
        ({}, {"server": "closed"}, "the rules name no key"),
    ],
)
def test_what_may_not_leave_stays(
    provider: Provider, tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    """A secret that lasts, another mode, no scope, a wider scope, and a tool server that the rules do not trust."""
    with till(tmp_path / "broker", client_of(provider, **row), secret=SECRET) as here:
        said = {"server": "reports", "tool": "read", "connection": KIND, "scopes": ("a",), **changes}
        with pytest.raises(PermissionDeniedError, match=problem):
            here.desk.check_out(presented(token(**said), said["server"]))

        assert ((), []) == (here.store.all(), provider.got)
        assert "calltoken.refused" == here.record.kinds[-1]


def test_the_tokens_of_a_person_stay(provider: Provider, tmp_path: Path) -> None:
    """They come from a refresh token, which ends by no session."""
    source = TokenSource(
        endpoint=f"{provider.origin}/token",
        client_id="b",
        consenting=Consenting(issuer="i", authorization="https://i/a"),
    )
    with (
        till(tmp_path / "broker", client_of(provider, source=source, owner="alice"), secret=SECRET) as here,
        pytest.raises(PermissionDeniedError, match="has only what lasts"),
    ):
        here.ask(scopes=("a",))


@pytest.mark.parametrize(
    ("seconds", "problem"), [(4000, "would outlive the session"), (0, "has no end that its provider names")]
)
def test_a_token_that_would_outlive_its_session_is_taken_back(
    here: Till, provider: Provider, seconds: int, problem: str
) -> None:
    """As one of which nobody says how long it lives; it is revoked where that can be done."""
    provider.seconds = seconds

    with pytest.raises(PermissionDeniedError, match=problem):
        here.ask(scopes=("a",))

    assert ((), REVOKE) == (here.store.all(), provider.asked[-1])


@pytest.mark.parametrize(
    ("bounds", "whose"),
    [
        (Bounds(session=2), "session `ses_1`"),
        (Bounds(session=2), "session `ses_0`"),
        (Bounds(user=2), "user `alice`"),
        (Bounds(tenant=2), "tenant"),
    ],
)
def test_no_more_is_out_than_may_be(provider: Provider, tmp_path: Path, bounds: Bounds, whose: str) -> None:
    """Of a session with those below it, a user and a tenant: no other is made until one has ended, which goes on."""
    sessions = {"session_id": "ses_1"} if "ses_1" in whose else {}
    with till(tmp_path / "broker", client_of(provider), secret=SECRET, bounds=bounds) as here:
        provider.active = [True] * 3
        for name in ("ses_1", "ses_2"):
            here.ask(scopes=("a",), **{"session_id": name, "ancestor_ids": ("ses_0",), **sessions})
        asked = len(provider.asked)
        with pytest.raises(OverloadedError, match=f"2 credentials are out for the {whose}"):
            here.ask(scopes=("a",), **{"session_id": "ses_3", "ancestor_ids": ("ses_0",), **sessions})
        assert (2, asked) == (len(here.store.all()), len(provider.asked))
        if "user" in whose:
            here.ask(scopes=("a",), user="bob", session_id="ses_4")

        provider.active = [False, False, True]
        here.end_session("ses_1")
        here.ask(scopes=("a",), session_id="ses_1")


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("problem", [StoreUnavailableError("the disk is full"), None])
def test_a_token_that_cannot_be_noted_is_revoked(
    provider: Provider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: PDPError | None,
    *,
    ends: bool,
) -> None:
    """Nobody has it: on a full disk, or when its row is gone because it took so long. The log says what was not."""
    provider.said = {} if ends else {REVOKE: (503, {})}
    with till(tmp_path / "broker", client_of(provider), secret=SECRET) as here:
        hand_out = here.store.hand_out

        def noted(checkout_id: str, **said: Any) -> None:
            if problem is not None:
                raise problem
            here.store.finish(checkout_id)
            hand_out(checkout_id, **said)

        monkeypatch.setattr(here.store, "hand_out", noted)
        with pytest.raises((StoreUnavailableError, CallTokenRefusedError)):
            here.ask(scopes=("a",))
        here.pass_time(61)
        here.sweeper.sweep()

        assert () == here.store.all()
    assert REVOKE in provider.asked
    assert ends == (not caplog.messages)


class Ending(Issuer):
    """Makes credentials so slowly that their session ends meanwhile."""

    store: CheckoutStore

    def issue(
        self, one: Checkout, connection: Connection, *, now: float, until: float, subject: Secret | None = None
    ) -> Issued:
        """End the session first."""
        self.store.end_of_sessions(one.session_ids[-1:], now=now)
        return super().issue(one, connection, now=now, until=until, subject=subject)


def test_a_session_that_ends_meanwhile_gets_nothing(provider: Provider, tmp_path: Path) -> None:
    """Or one above it; what was made then is ended at once."""
    with till(tmp_path / "broker", client_of(provider), secret=SECRET, issuing=Ending) as here:
        assert isinstance(here.issuer, Ending)
        here.issuer.store = here.store
        with pytest.raises(CallTokenRefusedError) as refused:
            here.ask(scopes=("a",))
        here.sweeper.sweep()

        assert Reason.REVOKED is refused.value.reason
        assert "credential.checked_out" not in here.record.kinds
        assert (["revoked"], ()) == (here.outcomes, here.store.all())


@pytest.mark.parametrize(
    ("profile", "active", "revoked", "outcomes"),
    [
        ({}, [True, False], (200, {}), ["revoked"]),
        ({}, [True, True], (200, {}), ["expires_at"]),
        ({}, [False, False], (200, {}), ["expires_at"]),
        ({"introspection": ""}, [], (200, {}), ["expires_at"]),
        ({"revocation": "", "introspection": ""}, [], (200, {}), ["expires_at"]),
        ({}, [True, False], (400, {"error": "unsupported_token_type"}), ["expires_at"]),
        ({}, [True, False], (401, {"error": "invalid_client"}), ["failed", "gone"]),
        ({}, [True, False], (503, {}), ["failed", "gone"]),
    ],
    ids=["proved", "jwt", "unknown", "unsaid", "nowhere", "cannot", "refused", "down"],
)
def test_only_what_is_proved_is_called_revoked(
    provider: Provider,
    tmp_path: Path,
    profile: dict[str, str],
    active: list[bool],
    revoked: tuple[int, Any],
    outcomes: list[str],
) -> None:
    """200 proves nothing, and neither does that a provider does not know a token; a failure is tried until its end."""
    provider.active, provider.said[REVOKE] = active, revoked
    with till(tmp_path / "broker", client_of(provider, **profile), secret=SECRET) as here:
        credential = here.ask(scopes=("a",))
        here.end_session(CLAIMS.ancestor_ids[0] if CLAIMS.ancestor_ids else "ses_1")

        assert outcomes[:1] == here.outcomes
        assert (len(outcomes) == 2 or outcomes == ["expires_at"]) == bool(here.store.all())
        here.pass_time(credential.ends_at - here.wall() + 31)
        here.sweeper.sweep()
        assert (outcomes, ()) == (here.outcomes, here.store.all())


def test_what_a_leaked_secret_handed_out_is_ended(here: Till, provider: Provider) -> None:
    """All of it at once, whatever the session; what nobody can end is named."""
    with closing(Consents(Files(here.folder).store)) as consents:
        observe, clock = here.record.event, SystemClock()
        people = People(here.vault, consents, observe, clock)
        severing = Severing(here.vault, people, here.store, here.sweeper, observe, clock)
        replacing = Replacing(vault=here.vault, checkouts=here.store, sweeper=here.sweeper, severing=severing)
        provider.active = [True, True, True, False, True]
        ids = [here.ask(scopes=("a",), session_id=one).id for one in ("ses_1", "ses_2")]
        done = replacing.replace("app", by=BY)

    assert (Replacement.BY_HAND, 1, 1) == (done.replacement, done.version, done.ended)
    assert {"revoked", "expires_at"} == {*here.outcomes}
    (left,) = done.left
    assert (True, "") == (left.id in ids, left.problem)


def test_a_token_that_ends_by_itself_is_gone(here: Till, provider: Provider) -> None:
    """Nobody is asked, once it is certain."""
    here.ask(scopes=("a",))
    asked = len(provider.asked)
    for seconds in (101, 30):
        assert ([], 1) == (here.outcomes, len(here.store.all()))
        here.pass_time(seconds)
        here.sweeper.sweep()

    assert (["gone"], (), asked) == (here.outcomes, here.store.all(), len(provider.asked))


@pytest.mark.parametrize("boots", [False, True])
def test_a_clock_that_is_ahead_leaves_no_token_alive(here: Till, provider: Provider, boots: bool) -> None:  # noqa: FBT001 - a row of the table
    """Its provider is asked to end it, also after a boot, and again until the other clock agrees that it is over."""
    here.ask(scopes=("a",))
    provider.said[REVOKE] = (503, {})
    here.ahead = 3600
    if boots:
        here.boot.reboot()
    here.sweeper.sweep()
    assert (["failed"], REVOKE) == (here.outcomes, provider.asked[-1])

    provider.said.clear()
    here.pass_time(90)
    here.sweeper.sweep()

    assert (["failed", "revoked"], ()) == (here.outcomes, here.store.all())


def test_a_narrowed_session_ends_its_credentials_earlier(here: Till) -> None:
    """At its new end, which is before theirs."""
    here.ask(scopes=("a",))
    here.store.no_later_than("ses_1", here.wall() + 50)
    here.ahead = 49
    here.sweeper.sweep()
    assert [] == here.outcomes

    here.ahead = 51
    here.sweeper.sweep()

    assert ["revoked"] == here.outcomes


def test_a_connection_stays_while_something_of_it_is_out(here: Till) -> None:
    """Without its secret nothing could be ended: it is neither removed nor shredded, until all has ended."""
    here.ask(scopes=("a",))
    for end in (lambda: here.vault.remove("app", by=BY), lambda: here.vault.shred(CLAIMS.tenant, by=BY)):
        with pytest.raises(CheckedOutError, match="credentials are still out, 1 of them"):
            end()

    here.end_session()
    here.vault.remove("app", by=BY)
    assert () == here.vault.connections()


@pytest.mark.parametrize(
    ("active", "status", "outcome"),
    [([True, False], 200, "revoked"), ([True, True], 200, "expires_at"), ([True, False], 503, "failed")],
)
def test_a_connection_lets_go_of_what_is_out(
    here: Till, provider: Provider, active: list[bool], status: int, outcome: str
) -> None:
    """What cannot be ended is looked at no longer; what may be ended later is handed over, if there is who can."""
    provider.active, provider.said[REVOKE] = active, (status, {})
    here.ask(scopes=("a",))
    row = here.vault.connection("app")
    heir = here.vault.add(replace(row, id="heir", owner="alice"), by=BY)
    here.vault.put("heir", SECRET, by=BY)
    here.sweeper.let_go(row, heir)

    assert [outcome] == here.outcomes
    assert ["heir"] * (outcome == "failed") == [one.connection_id for one in here.store.all()]
    provider.said.clear()
    here.sweeper.end([one.id for one in here.store.all()])
    assert [outcome, *["revoked"] * (outcome == "failed")] == here.outcomes


def test_what_nobody_can_end_any_more_is_given_up(here: Till, provider: Provider) -> None:
    """Without its client; it ends by itself, and that it was given up is recorded."""
    provider.said[REVOKE] = (503, {})
    here.ask(scopes=("a",))
    here.sweeper.let_go(here.vault.connection("app"), None)

    assert ((), 1) == (here.store.all(), len(here.told("credential.forgotten")))


def test_a_key_is_rotated_while_a_token_is_out(here: Till) -> None:
    """The token is brought to the new key with the secret, so the former key can be destroyed, and the token ended."""
    here.ask(scopes=("a",))
    [(former, sealed)] = here.vault.keys()
    here.vault.rotate_key(CLAIMS.tenant, "prod", by=BY)
    with pytest.raises(KeyInUseError):
        here.vault.retire(former.id, by=BY)
    moved = here.vault.rewrap(CLAIMS.tenant, "prod")
    here.vault.retire(former.id, by=BY)
    here.end_session()

    assert (2, 2) == (sealed, moved)
    assert ["revoked"] == here.outcomes


class Retiring(CheckoutStore):
    """Notes the first credential so slowly that the key which it is sealed under is retired meanwhile."""

    retire: Callable[[], object] | None = None

    def hand_out(self, checkout_id: str, *, ends_at: float, kept: Sealed | None, until: float = 9e9) -> None:
        """Retire the key first."""
        retire, self.retire = self.retire, None
        if retire is not None:
            retire()
        super().hand_out(checkout_id, ends_at=ends_at, kept=kept, until=until)


def test_a_key_is_retired_while_a_token_is_made(provider: Provider, tmp_path: Path) -> None:
    """The token is sealed again, under the new key, and can be ended."""
    with till(tmp_path / "broker", client_of(provider), secret=SECRET, storing=Retiring) as here:
        [(former, _)] = here.vault.keys()

        def retire() -> None:
            here.vault.rotate_key(CLAIMS.tenant, "prod", by=BY)
            here.vault.rewrap(CLAIMS.tenant, "prod")
            here.vault.retire(former.id, by=BY)

        assert isinstance(here.store, Retiring)
        here.store.retire = retire
        here.ask(scopes=("a",))
        here.end_session()

        assert here.store.retire is None
        assert ["revoked"] == here.outcomes


def test_nothing_is_left_of_what_the_provider_refuses(here: Till, provider: Provider) -> None:
    """Nothing was made, so nothing is to be ended."""
    provider.said["/token"] = (400, {"error": "invalid_scope"})

    with pytest.raises(TokenRefusedError, match="`invalid_scope`"):
        here.ask(scopes=("a",))

    assert () == here.store.all()


class Away(Issuer):
    """Ends nothing of the connection `slow` before all of the others have ended, and then says that it is away."""

    others: ClassVar = threading.Event()
    asked: ClassVar[list[str]] = []

    def end(self, one: Checkout, connection: Connection, kept: Secret | None) -> Outcome:
        """Wait, or say that it is gone."""
        assert kept is None
        self.asked.append(one.id)
        if connection.id != "slow":
            self.others.set()
            return Outcome.GONE
        assert self.others.wait(PATIENCE)
        raise DatabaseUnavailableError("away")


def test_a_database_that_is_away_keeps_no_other_waiting(provider: Provider, tmp_path: Path) -> None:
    """It is asked once in a turn, however many wait for it."""
    rows = client_of(provider), replace(client_of(provider), id="slow", owner="bob")
    with till(tmp_path / "broker", *rows, secret=SECRET, issuing=Away) as here:
        first, second = (out(here.store, f"ses_{number}", connection="slow") for number in (1, 2))
        out(here.store, "ses_3")
        here.store.end_of_sessions(["ses_1", "ses_2", "ses_3"], now=1.0)
        here.sweeper.sweep()

        assert [first, second] == [one.id for one in here.store.all()]
        assert [1, 1] == [one.tries for one in here.store.all()]
        assert 2 == len(Away.asked)


class Noting(Issuer):
    """Ends everything, and notes what."""

    ended: ClassVar[list[str]] = []

    def end(self, one: Checkout, connection: Connection, kept: Secret | None) -> Outcome:
        """Note it."""
        assert (kept, connection.id) == (None, "app")
        self.ended.append(one.id)
        return Outcome.REVOKED


def test_a_store_that_cannot_be_written_keeps_nothing_alive(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk all that is due is ended; that it was is noted later."""

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    with till(tmp_path / "broker", client_of(provider), secret=SECRET, issuing=Noting) as here:
        ids = [out(here.store, f"ses_{number}") for number in range(3)]
        here.store.end_of_sessions([f"ses_{number}" for number in range(3)], now=1.0)
        with monkeypatch.context() as patched:
            for name in ("finish", "put_off"):
                patched.setattr(here.store, name, full)
            here.sweeper.turn()
        first = [*Noting.ended]
        here.sweeper.turn()

        assert ids == sorted(first)
        assert () == here.store.all()


def test_what_is_revoked_on_a_full_disk_is_ended(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever revokes it hears that this could not be noted."""
    Noting.ended.clear()

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    with till(tmp_path / "broker", client_of(provider), secret=SECRET, issuing=Noting) as here:
        id_ = out(here.store, "ses_1")
        out(here.store, "ses_2")
        for name in ("end", "finish", "put_off"):
            monkeypatch.setattr(here.store, name, full)
        with pytest.raises(StoreUnavailableError):
            here.sweeper.end([id_])

        assert [id_] == Noting.ended


def test_what_cannot_be_noted_as_ended_is_ended(
    server: RunningServer, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a session on a full disk; once, however often the feed tells it."""
    session_id, handle = opened_session(server)
    Noting.ended.clear()

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    with till(tmp_path / "broker", client_of(provider), secret=SECRET, issuing=Noting) as here:
        id_ = out(here.store, session_id)
        out(here.store, opened_session(server)[0])
        told, twice = list[str](), threading.Event()

        def ending(session_ids: Iterable[str]) -> None:
            here.sweeper.end_unnoted(session_ids)
            told.extend(session_ids)
            if told.count(session_id) > 1:
                twice.set()

        async def followed() -> None:
            async with AsyncClient(server.address, token=server.token("broker"), plaintext=True) as client:
                feed = SessionsFollowed(
                    client,
                    here.store,
                    wake=lambda: None,
                    wall=time.time,
                    heard=Heard(),
                    under_way=here.broker.under_way,
                    end_unnoted=ending,
                )
                task = asyncio.ensure_future(feed.follow(again=0.01))
                assert await asyncio.to_thread(twice.wait, PATIENCE)
                task.cancel()
                await asyncio.wait([task])

        server.client("gateway").end_session(handle)
        for name in ("end_of_sessions", "finish", "put_off"):
            monkeypatch.setattr(here.store, name, full)
        asyncio.run(followed())

        assert [id_] == Noting.ended


class Silent(Issuer):
    """Has not ended what is of the connection `slow` before it may."""

    may: ClassVar = threading.Event()
    asked: ClassVar[list[str]] = []

    def end(self, one: Checkout, connection: Connection, kept: Secret | None) -> Outcome:
        """Wait, and say that it is gone."""
        assert kept is None
        self.asked.append(one.id)
        assert connection.id != "slow" or self.may.wait(PATIENCE)
        return Outcome.GONE


def test_a_database_that_never_answers_keeps_no_later_turn_waiting(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be that of another tenant. It is asked once at a time, and what it was asked for is noted in the end."""
    monkeypatch.setattr(sweeping, "_TURN_SECONDS", 0.2)
    rows = client_of(provider), replace(client_of(provider), id="slow", owner="bob")
    with till(tmp_path / "broker", *rows, secret=SECRET, issuing=Silent) as here:
        try:
            slow = out(here.store, "ses_1", connection="slow")
            here.store.end_of_sessions(["ses_1"], now=1.0)
            here.sweeper.turn()
            other = out(here.store, "ses_2")
            here.store.end_of_sessions(["ses_2"], now=1.0)
            here.sweeper.turn()

            assert [slow] == [one.id for one in here.store.all()]
            assert [slow, other] == Silent.asked
        finally:
            Silent.may.set()
        ends = time.monotonic() + PATIENCE
        while here.store.all() and time.monotonic() < ends:
            time.sleep(0.01)

        assert () == here.store.all()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Run a server whose sessions are followed."""
    with running_server(FILES, callers=CALLERS) as running:
        yield running


def out(store: CheckoutStore, *session_ids: str, connection: str = "app") -> str:
    """Note that a credential is out for a session, and those above it, until far away."""
    one = Checkout(
        id=f"chk_{session_ids}",
        connection_id=connection,
        kind=CredentialKind.LOGIN,
        token_id="t",  # noqa: S106 - an id
        decision_id="d",
        session_ids=session_ids,
        user="alice",
        agent="coder",
        action="a/b",
        scopes=("a",),
        begun_at=1.0,
        next_at=9e9,
    )
    store.begin(one)
    store.hand_out(one.id, ends_at=9e9, kept=None)
    return one.id


class Interrupted:
    """A client whose feed of all sessions breaks after its first message, once."""

    def __init__(self, client: AsyncClient, meanwhile: Any) -> None:
        self._client, self._meanwhile = client, meanwhile

    async def watch_sessions(self, *, since_revision: str = "", session_id: str = "") -> AsyncIterator[Any]:
        """Watch, and do something while nobody is told."""
        async for message in self._client.watch_sessions(since_revision=since_revision, session_id=session_id):
            yield message
            if not session_id and self._meanwhile:
                meanwhile, self._meanwhile = self._meanwhile, None
                await asyncio.to_thread(meanwhile)
                raise UnavailableError("broken off")


def test_credentials_end_with_their_sessions(server: RunningServer, here: Till) -> None:
    """One that ended before the broker began, while the feed was broken, and under its eyes; and one nobody knows."""
    sessions = {name: opened_session(server) for name in ("before", "broken", "seen", "stays")}
    ids = {name: out(here.store, session_id) for name, (session_id, _) in sessions.items()}
    ids["unknown"] = out(here.store, sessions["stays"][0], "ses_unknown")
    gateway = server.client("gateway")
    gateway.end_session(sessions["before"][1])

    heard, opened = Heard(), ExitStack()
    running = {
        name: opened.enter_context(here.broker.under_way.noted([session_id], tenant="t"))
        for name, (session_id, _) in sessions.items()
    }

    def ending() -> set[str]:
        return {name for name, id_ in ids.items() if here.store.get(id_).state is CheckoutState.ENDING}

    async def followed() -> None:
        noted, loop = asyncio.Event(), asyncio.get_running_loop()

        async def until(wanted: set[str]) -> None:
            async with asyncio.timeout(PATIENCE):
                while ending() != wanted:
                    await noted.wait()
                    noted.clear()

        async with AsyncClient(server.address, token=server.token("broker"), plaintext=True) as client:
            watched: Any = Interrupted(client, lambda: gateway.end_session(sessions["broken"][1]))
            wake = partial(loop.call_soon_threadsafe, noted.set)
            feed = SessionsFollowed(
                watched,
                here.store,
                wake=wake,
                wall=time.time,
                heard=heard,
                under_way=here.broker.under_way,
                end_unnoted=here.sweeper.end_unnoted,
            )
            task = asyncio.ensure_future(feed.follow(again=0.01))
            await until({"before", "broken", "unknown"})
            await asyncio.to_thread(gateway.end_session, sessions["seen"][1])
            await until({"before", "broken", "unknown", "seen"})
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(followed())

    with opened:
        assert {"before", "broken", "seen"} == {name for name, one in running.items() if one.ended}
    assert here.store.get(ids["stays"]).next_at < 9e9
    assert {sessions["stays"][0]} == set(here.store.sessions())
    assert revision_text(server.embedded.sessions.head()) == heard.revision


def test_the_host_of_a_database_is_waited_for_in_a_known_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of the system has no limit. A call, or the end of another login, would wait as long."""
    over, tried = threading.Event(), list[str]()

    def hangs(host: str, *_: Any, **__: Any) -> Any:
        tried.append(host)
        over.wait(PATIENCE)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(postgres, "_CONNECT_SECONDS", 0.05)
    source = LoginSource(database="app", role="broker")
    server = postgres.Server(host="db.slow.example", port=5432, source=source, password=Secret(b"p"))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(server.roles)
        try:
            with pytest.raises(DatabaseUnavailableError, match="its host is not found in time"):
                asking.result(PATIENCE / 2)
        finally:
            over.set()
    assert ["db.slow.example"] == tried
