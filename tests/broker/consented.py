"""A person's connection in a real store, and a provider that answers as it is told."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.oauth.people import People
from pdp.broker.oauth.severing import Severing
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.store.consents import Consents
from pdp.broker.words import Connection, Consent, Consenting, Secret, TokenSource
from pdp.clock import Clock
from pdp.testing.clock import FakeClock
from tests.broker.vaults import BY, Files, connection
from tests.broker.worlds import SECRET, Upstream

NOW: Final = 1_700_000_000.0
SHARE: Final = 0.7
SCOPES: Final = ("issues",)


def source_at(origin: str, **more: Any) -> TokenSource:
    """Return where people connect to the provider of an origin; `more` has other values."""
    ends = {name: more.pop(name) for name in ("revocation", "introspection") if name in more}
    consenting = Consenting(issuer=origin, authorization=f"{origin}/auth", **more)
    return TokenSource(endpoint=f"{origin}/token", client_id="broker", consenting=consenting, **ends)


class Site:
    """The files of a broker with the connection `alices`, and what opens it. Another process has one of its own."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.files, self._opened = Files(folder), ExitStack()
        self.vault = self.files.open()
        self.consents = Consents(self.files.store)
        self.checkouts = CheckoutStore(self.files.store, clock)
        for one in (self.vault, self.consents, self.checkouts):
            self._opened.callback(one.close)
        observe = self.files.events.append
        self.sweeper = Sweeper(
            self.checkouts, self.vault, Issuer(self.vault), observe=observe, wall=lambda: clock.now().wall_at
        )
        self.people = People(self.vault, self.consents, observe, clock, share=lambda: SHARE)
        self.severing = Severing(self.vault, self.people, self.checkouts, self.sweeper, observe, clock)

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of what was recorded, without those of secrets."""
        return [one.kind.value for one in self.files.events if not one.kind.value.startswith("secret.")]

    def connect(self, source: TokenSource, tokens: TokenPair, secret: bytes = SECRET, **row: Any) -> Connection:
        """Store a client, and alice's connection by it with her tokens; `row` has other values of both."""
        kind = {"kind": "crm", "source": source, "scopes": SCOPES, **row}
        self.vault.add(connection("crm", **kind), by=BY)
        self.vault.put("crm", secret, by=BY)
        self.vault.add(connection("alices", owner="alice", **kind), by=BY)
        self.vault.put("alices", tokens.packed(), by=BY)
        self.consents.add(Consent(connection_id="alices", account="alice@example.com"))
        self.files.events.clear()
        return self.vault.connection("alices")

    def open(self) -> str:
        """Open alice's connection as a use does: found by its kind."""
        return self.people.open(self.vault.of_kind("acme", "prod", "crm", "alice")).reveal().decode()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


class Desk(Site):
    """A site with a clock that stands still, and a provider of the test's, which gives `access-N` and `refresh-N`."""

    def __init__(self, folder: Path, there: Upstream, *, seconds: float = 100.0, **more: Any) -> None:
        self.clock, self.there, self._given = FakeClock(NOW), there, 0
        super().__init__(folder, self.clock)
        there.got.clear()
        self.gives()
        got = Granted(secret=Secret(b"access-0"), seconds=seconds, refresh=Secret(b"refresh-0"))
        first = TokenPair.of(got, asked=self.clock.now(), share=SHARE)
        if more.pop("lasting", False):
            first = replace(first, refresh=None)
        self.connection = self.connect(source_at(there.origin, **more), first)

    @property
    def sent(self) -> list[str]:
        """Return the refresh tokens that were sent, in their order."""
        return [parse_qs(body.decode())["refresh_token"][0] for *_, body in self.there.got]

    def gives(self, status: int = 200, **said: Any) -> None:
        """Set what the provider answers from now on; `said` replaces members of a good answer, None removes one."""

        def answer() -> Any:
            self._given += 1
            good = {"access_token": f"access-{self._given}", "token_type": "Bearer", "expires_in": 100}
            whole = {**good, "refresh_token": f"refresh-{self._given}", **said}
            yield json.dumps({name: value for name, value in whole.items() if value is not None}).encode()

        self.there.status, self.there.pieces = status, answer
