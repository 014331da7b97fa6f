"""People disconnect: nothing is used from then on, and what is said of the tokens is what is known of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from pdp.broker.checkouts.words import Checkout, CheckoutState, CredentialKind, Outcome, new_checkout_id
from pdp.broker.oauth.severing import Ended
from pdp.broker.shredding import Shredding
from pdp.broker.words import NeedsPersonError, Secret, TokensUnavailableError, UnknownConnectionError
from pdp.errors import StoreUnavailableError
from tests.broker.consented import NOW, Desk
from tests.broker.vaults import BY, connection
from tests.broker.worlds import Upstream, upstream_here

REVOKED, FAILED = Ended(outcome=Outcome.REVOKED), Ended(outcome=Outcome.FAILED)
EXPIRES = Ended(outcome=Outcome.EXPIRES_AT, expires_at=NOW + 100)
ENDS = ("revoke", "introspect")
NAMES = {"revoke": "revocation", "introspect": "introspection"}


@dataclass
class Provider:
    """What a provider answers to revocations, and which tokens it says still count after them."""

    status: int = 200
    counting: tuple[str, ...] = ()
    says: Any = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def serve(self, there: Upstream) -> None:
        """Answer at an upstream."""
        there.got.clear()

        def answer() -> Iterator[bytes]:
            _, target, _, body = there.got[-1]
            [token] = parse_qs(body.decode())["token"]
            active = ("/revoke", token) not in self.asked or token in self.counting
            self.asked.append((target, token))
            yield json.dumps({"active": active} if self.says is None else self.says).encode()

        there.status, there.pieces = self.status, answer


@pytest.fixture(scope="module")
def there() -> Iterator[Upstream]:
    """Run a provider for all tests."""
    with upstream_here() as upstream:
        yield upstream


def ended(there: Upstream, folder: Path, provider: Provider, *ends: str, **desk: Any) -> tuple[Desk, Ended]:
    """Disconnect alice's connection, whose provider has some of the endpoints."""
    known: dict[str, Any] = {NAMES[one]: f"{there.origin}/{one}" for one in ends}
    made = Desk(folder, there, **known, **desk)
    provider.serve(there)
    return made, made.severing.end("alices", by="alice")


def being_got() -> Checkout:
    """Return a token that is being got with alice's connection, for a session."""
    return Checkout(
        id=new_checkout_id(),
        connection_id="alices",
        kind=CredentialKind.KEPT,
        token_id="t1",  # noqa: S106 - an id
        decision_id="dec_1",
        session_ids=("ses_1",),
        user="alice",
        agent="coder",
        action="crm/find",
        scopes=(),
        begun_at=NOW,
        next_at=NOW + 60,
    )


@pytest.mark.parametrize(
    ("provider", "ends", "outcome"),
    [
        (Provider(), ENDS, REVOKED),
        (Provider(counting=("access-0",)), ENDS, EXPIRES),
        (Provider(counting=("refresh-0",)), ENDS, FAILED),
        (Provider(says={"active": "false"}), ENDS, EXPIRES),
        (Provider(says={"active": False}), ENDS, EXPIRES),
        (Provider(), ("revoke",), EXPIRES),
        (Provider(status=503), ("revoke",), FAILED),
        (Provider(status=400), ("revoke",), FAILED),
        (Provider(), (), EXPIRES),
        (Provider(), ("introspect",), EXPIRES),
    ],
)
def test_what_became_of_the_tokens(
    there: Upstream, tmp_path: Path, provider: Provider, ends: tuple[str, ...], outcome: Ended
) -> None:
    """`200` shows nothing; a failure keeps the tokens, to be tried again alone."""
    desk, found = ended(there, tmp_path, provider, *ends)

    with closing(desk):
        assert outcome == found
        with pytest.raises(UnknownConnectionError):
            desk.open()
        [told] = [one for one in desk.files.events if one.kind.value == "connection.ended"]
        assert ("alice", outcome.outcome.value) == (told.caller_id, told.facts["outcome"])
        assert ["crm"] == [one.id for one in desk.vault.connections()]
        assert (outcome is FAILED) == bool(desk.checkouts.all())


def test_both_tokens_are_revoked_at_the_provider_first(there: Upstream, tmp_path: Path) -> None:
    """By the client, the refresh token before the access token; the provider is asked about each, before and after."""
    desk, _ = ended(there, tmp_path, (provider := Provider()), *ENDS)
    desk.close()

    before = [("/introspect", "refresh-0"), ("/introspect", "access-0")]
    refresh, access = ([("/revoke", token), ("/introspect", token)] for token in ("refresh-0", "access-0"))
    assert [*before, *refresh, *access] == provider.asked


def test_on_a_full_disk_the_tokens_are_revoked_all_the_same(
    there: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person hears that it could not be noted, and tries again."""

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    provider, known = Provider(), dict[str, Any]((NAMES[one], f"{there.origin}/{one}") for one in ENDS)
    with closing(Desk(tmp_path, there, **known)) as desk:
        provider.serve(there)
        with monkeypatch.context() as patched:
            patched.setattr(desk.consents, "settle", full)
            with pytest.raises(StoreUnavailableError):
                desk.severing.end("alices", by="alice")
        asked = [*provider.asked]
        # What they are told then is what can be proved: the provider no longer knows the tokens.
        again = desk.severing.end("alices", by="alice")

    assert {("/revoke", "refresh-0"), ("/revoke", "access-0")} <= {*asked}
    assert EXPIRES == again


def test_a_failure_is_tried_again_until_the_provider_is_told(there: Upstream, tmp_path: Path) -> None:
    """By whoever ends what is out, with growing pauses; the record says at first and at last what became of it."""
    desk, _ = ended(there, tmp_path, Provider(status=503), *ENDS)
    with closing(desk):
        for _ in range(5):
            desk.clock.advance(1000)
            desk.sweeper.sweep()
        [left] = desk.checkouts.all()
        assert (6, "crm", "alice", "") == (left.tries, left.connection_id, left.user, left.session_id)
        assert "answers `503`" in left.problem
        assert 64 == left.next_at - desk.clock.now().wall_at
        Provider().serve(there)
        desk.clock.advance(1000)
        desk.sweeper.sweep()

        assert () == desk.checkouts.all()
        told = [one.facts for one in desk.files.events if one.kind.value == "credential.revoked"]
        assert ["failed", "failed", "failed", "revoked"] == [one["outcome"] for one in told]
        assert {left.id} == {one["checkout"] for one in told}


def test_an_access_token_alone_is_tried_until_its_end(there: Upstream, tmp_path: Path) -> None:
    """Then it has ended by itself, and nobody is asked about it."""
    desk, found = ended(there, tmp_path, Provider(status=503), "revoke", lasting=True)
    there.got.clear()
    desk.clock.advance(131)
    desk.sweeper.sweep()
    with closing(desk):
        assert (FAILED, (), []) == (found, desk.checkouts.all(), there.got)
        assert "gone" == desk.files.events[-1].facts["outcome"]


def test_what_is_kept_after_a_death_is_ended(there: Upstream, tmp_path: Path) -> None:
    """The process died before it asked the provider: after two minutes another one does, and nothing is lost."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    with closing(desk):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(desk.sweeper, "attempt", _dies)
            with pytest.raises(KeyboardInterrupt):
                desk.severing.end("alices", by="alice")
        (provider := Provider()).serve(there)
        desk.sweeper.sweep()
        assert [] == provider.asked
        desk.clock.advance(121)
        desk.sweeper.sweep()

        assert [("/revoke", "refresh-0"), ("/revoke", "access-0")] == provider.asked


def test_a_provider_that_is_away_is_asked_once_for_all(there: Upstream, tmp_path: Path) -> None:
    """However many people disconnect at once; the others are put off, too."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    bobs = desk.vault.add(replace(desk.connection, id="bobs", owner="bob"), by=BY)
    desk.vault.put("bobs", desk.vault.open(desk.connection).reveal(), by=BY)
    (provider := Provider(status=503)).serve(there)
    with closing(desk):
        found = desk.severing.end_all([desk.connection, bobs], by=BY)

        assert {"alices": FAILED, "bobs": FAILED} == found
        assert (1, 2) == (len(provider.asked), len(desk.checkouts.all()))


@pytest.mark.parametrize(("provider", "outcome", "left"), [(Provider(), EXPIRES, 0), (Provider(status=503), FAILED, 1)])
def test_a_tenant_is_shredded_whatever_its_provider_says(
    there: Upstream, tmp_path: Path, provider: Provider, outcome: Ended, left: int
) -> None:
    """It is told first, by the keys that are destroyed then; one that is away is named, and keeps nothing."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    provider.serve(there)
    shredding = Shredding(vault=desk.vault, checkouts=desk.checkouts, sweeper=desk.sweeper, severing=desk.severing)
    with closing(desk):
        done = shredding.shred("acme", by=BY)

        assert ({"alices": outcome}, left, ("crm",)) == (done.ended, len(done.left), done.gone.connection_ids)
        assert provider.asked[0] == ("/revoke", "refresh-0")
        assert ((), (), ()) == (desk.vault.connections(), desk.vault.keys(), desk.checkouts.all())
        kinds = [one.kind.value for one in desk.files.events]
        assert kinds.index("connection.ended") < kinds.index("tenant.shredded")
        assert left == kinds.count("credential.forgotten")


def test_only_connections_of_people_are_ended(there: Upstream, tmp_path: Path) -> None:
    """Not the client with which they were made, nor one with a key."""
    desk = Desk(tmp_path, there)
    desk.vault.add(connection("key", owner="alice"), by=BY)
    with closing(desk):
        for id_ in ("crm", "key", "none"):
            with pytest.raises(UnknownConnectionError, match=f"no such connection: `{id_}`"):
                desk.severing.end(id_, by="alice")


def test_the_secret_of_another_client_is_sent_nowhere(there: Upstream, tmp_path: Path) -> None:
    """Without the client of the consent, the tokens are forgotten, and said to end by themselves."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    desk.vault.remove("crm", by=BY)
    there.got.clear()
    with closing(desk):
        assert EXPIRES == desk.severing.end("alices", by="alice")
    assert [] == there.got


@pytest.mark.parametrize("status", [200, 503])
def test_what_was_got_for_sessions_is_ended_first(there: Upstream, tmp_path: Path, status: int) -> None:
    """With tokens that still count; what cannot be ended now is ended later, by the client, like the tokens."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    one = replace(being_got(), ends_at=NOW + 50, state=CheckoutState.OUT)
    desk.checkouts.begin(one, desk.vault.seal_for(desk.connection, one.id, Secret(b"-narrow")))
    (provider := Provider(status=status)).serve(there)
    with closing(desk):
        ended = desk.severing.end("alices", by="alice")

        assert (status == 503) == (ended == FAILED)
        assert ("/revoke", "narrow") == provider.asked[0]
        assert ["crm", "crm"] * (status == 503) == [left.connection_id for left in desk.checkouts.all()]
        (again := Provider()).serve(there)
        desk.sweeper.end([left.id for left in desk.checkouts.all()])
        assert {CheckoutState.LASTING} >= {left.state for left in desk.checkouts.all()}
        assert {"narrow", "refresh-0", "access-0"} == {token for _, token in (*provider.asked, *again.asked)}


def test_a_token_that_is_being_got_for_a_session_is_waited_for(there: Upstream, tmp_path: Path) -> None:
    """It could not be ended otherwise: nothing is removed, and nothing is used any more."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    desk.checkouts.begin(being_got())
    with closing(desk):
        with pytest.raises(TokensUnavailableError, match="is being got with `alices` for a session"):
            desk.severing.end("alices", by="alice")
        with pytest.raises(NeedsPersonError, match="was disconnected"):
            desk.open()


def _dies(_: object) -> None:
    raise KeyboardInterrupt
