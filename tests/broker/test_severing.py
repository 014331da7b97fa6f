"""People disconnect: nothing is used from then on, and what is said of the tokens is what is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from pdp.broker.checkouts.words import Outcome
from pdp.broker.oauth.severing import Ended, Severing
from pdp.broker.words import NeedsPersonError, UnknownConnectionError
from tests.broker.consented import NOW, Desk, nothing_out
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
    severing = severing_of(made)
    return made, severing.end("alices", by="alice")


def severing_of(desk: Desk, let_go: Callable[[str], bool] = nothing_out) -> Severing:
    """Return what ends connections of people."""
    return Severing(desk.vault, desk.consents, desk.files.events.append, desk.clock, let_go)


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
    """`200` shows nothing; a failure keeps the tokens, for a later try alone."""
    desk, found = ended(there, tmp_path, provider, *ends)

    with closing(desk):
        assert outcome == found
        with pytest.raises((NeedsPersonError, UnknownConnectionError)):
            desk.open()
        [told] = [one for one in desk.files.events if one.kind.value == "connection.ended"]
        assert ("alice", outcome.outcome.value) == (told.caller_id, told.facts["outcome"])
        kept = [one.id for one in desk.vault.connections() if one.owner]
        assert (["alices"] if outcome is FAILED else []) == kept


def test_both_tokens_are_revoked_at_the_provider_first(there: Upstream, tmp_path: Path) -> None:
    """By the client, the refresh token before the access token; the provider is asked about each, before and after."""
    desk, _ = ended(there, tmp_path, (provider := Provider()), *ENDS)
    desk.close()

    before = [("/introspect", "refresh-0"), ("/introspect", "access-0")]
    refresh, access = ([("/revoke", token), ("/introspect", token)] for token in ("refresh-0", "access-0"))
    assert [*before, *refresh, *access] == provider.asked


def test_a_failure_is_tried_again(there: Upstream, tmp_path: Path) -> None:
    """Nothing is used in between, also not by a process that was refreshing."""
    desk, _ = ended(there, tmp_path, Provider(status=503), "revoke")
    desk.clock.advance(1000)
    with closing(desk):
        with pytest.raises(NeedsPersonError, match="was disconnected"):
            desk.open()
        Provider().serve(there)

        assert EXPIRES.outcome == severing_of(desk).end("alices", by="alice").outcome


def test_only_connections_of_people_are_ended(there: Upstream, tmp_path: Path) -> None:
    """Not the client with which they were made, nor one with a key."""
    desk = Desk(tmp_path, there)
    desk.vault.add(connection("key", owner="alice"), by=BY)
    with closing(desk):
        for id_ in ("crm", "key", "none"):
            with pytest.raises(UnknownConnectionError, match=f"no such connection: `{id_}`"):
                severing_of(desk).end(id_, by="alice")


def test_the_secret_of_another_client_is_sent_nowhere(there: Upstream, tmp_path: Path) -> None:
    """Without the client of the consent, the tokens are forgotten, and said to end by themselves."""
    desk = Desk(tmp_path, there, revocation=f"{there.origin}/revoke")
    desk.vault.remove("crm", by=BY)
    there.got.clear()
    with closing(desk):
        assert EXPIRES == severing_of(desk).end("alices", by="alice")
    assert [] == there.got


@pytest.mark.parametrize("over", [True, False])
def test_what_was_got_for_sessions_is_ended_first(there: Upstream, tmp_path: Path, *, over: bool) -> None:
    """With tokens that still count; while it cannot be ended, neither can the connection, and nothing of it is used."""
    desk, asked = Desk(tmp_path, there, revocation=f"{there.origin}/revoke"), list[tuple[str, int]]()
    Provider().serve(there)

    def let_go(id_: str) -> bool:
        asked.append((id_, len(there.got)))
        return over

    with closing(desk):
        ended = severing_of(desk, let_go).end("alices", by="alice")

        assert ([("alices", 0)], EXPIRES.outcome if over else FAILED.outcome) == (asked, ended.outcome)
        assert over == bool(there.got)
        with pytest.raises(UnknownConnectionError if over else NeedsPersonError):
            desk.people.open(desk.connection)
