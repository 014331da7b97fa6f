"""A desk in this process that hands out credentials, with a store on the disk and a time that the test moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdp.broker.admitting import Admission, Presented
from pdp.broker.checkouts.desk import CheckoutDesk
from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.making import Maker
from pdp.broker.checkouts.sessiontokens import SessionTokens
from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.checkouts.words import Bounds
from pdp.broker.oauth.people import People
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.rules import rules_of
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.templates import UpstreamRequest
from pdp.broker.using import Asked, Broker
from pdp.broker.vault import Vault
from pdp.broker.words import Connection, Mode
from pdp.calltokens.checkouts import Credential, RecipientKey
from pdp.calltokens.uses import MemoryUses
from pdp.calltokens.verifying import Verifier
from pdp.testing.clock import FakeClock
from tests.broker.vaults import BY, Files
from tests.broker.worlds import AUDIENCE, NOW, Noting, token
from tests.machinery.calltokens import CLAIMS, PRESENTER, OneKey

KEY = RecipientKey()
SERVER, KIND = "reports", "app-db"
RULES = f"""
{SERVER}: {{kind: {KIND}, checkout: {{key: "{KEY.public}"}}}}
closed: {{kind: {KIND}, tools: {{read: {{method: GET, path: /}}}}}}
spoken:
  kind: {KIND}
  proxy:
    methods: [POST]
    paths: [/mcp]
    mcp: {{tenant: acme, compartment: prod, connection: app, presenters: [local]}}
"""


@dataclass
class Till:
    """A desk, and all behind it. Its time stands still at its beginning; `ahead` is by how many seconds it is ahead."""

    folder: Path
    vault: Vault
    store: CheckoutStore
    issuer: Issuer
    admission: Admission
    desk: CheckoutDesk
    broker: Broker
    sweeper: Sweeper
    record: Noting
    began_at: float
    session_ends: dict[str, float] = field(default_factory=dict)
    ahead: float = 0.0
    boot: FakeClock = field(default_factory=FakeClock)

    def wall(self) -> float:
        """Return the time."""
        return self.began_at + self.ahead

    def pass_time(self, seconds: float) -> None:
        """Let time pass: `ahead` alone sets the clock that a person can set."""
        self.ahead += seconds
        self.boot.advance(seconds)

    def ask(self, **changes: Any) -> Credential:
        """Check out a credential by a new call token, and open it."""
        said = token(**{"server": SERVER, "tool": "read", "connection": KIND, "scopes": ("app_reader",), **changes})
        out = self.desk.check_out(presented(said))
        credential = KEY.opened(out.sealed, said)
        assert (out.id, out.ends_at) == (credential.id, credential.ends_at)
        return credential

    def use(self, session_id: str = CLAIMS.session_id, scopes: tuple[str, ...] = ("a",)) -> int:
        """Use the connection for a call that the broker makes, and return the status of the answer."""
        said = token(server="closed", tool="read", connection=KIND, scopes=scopes, session_id=session_id, arguments={})
        asked = Asked(
            server="closed",
            tool="read",
            arguments={},
            token=said,
            presenter=PRESENTER,
            mode=Mode.CONNECTOR,
            request=UpstreamRequest(method="GET", target="/", headers={}),
        )
        return self.broker.use(asked, lambda answer: answer.status)

    def end_session(self, session_id: str = CLAIMS.session_id) -> None:
        """Do what the feed does when a session ends, and end what is due."""
        self.store.end_of_sessions([session_id], now=self.wall())
        self.sweeper.sweep()

    def told(self, kind: str = "credential.revoked") -> list[dict[str, str]]:
        """Return the facts of all records of a kind."""
        return [dict(event.facts) for event in self.record.events if event.kind.value == kind]

    @property
    def outcomes(self) -> list[str]:
        """Return what the record says became of credentials, in order."""
        return [facts["outcome"] for facts in self.told()]


def presented(said: str, server: str = SERVER) -> Presented:
    """Return how a call token is presented by the tool server to which it is bound."""
    return Presented(server=server, token=said, presenter=PRESENTER, mode=Mode.CHECKOUT)


@contextmanager
def till(
    folder: Path,
    *rows: Connection,
    secret: bytes,
    issuing: type[Issuer] = Issuer,
    storing: type[CheckoutStore] = CheckoutStore,
    people: People | None = None,
    bounds: Bounds | None = None,
) -> Iterator[Till]:
    """Provide a desk with connections that have a secret; those that the store has already stay as they are.

    `people` opens connections of people.
    """
    files = Files(folder)
    with ExitStack() as opened:
        vault = opened.enter_context(closing(files.open()))
        known = {one.id for one in vault.connections()}
        for row in rows:
            if row.id not in known:
                vault.add(row, by=BY)
                vault.put(row.id, secret, by=BY)
        record, issuer, clock, boot = Noting(), issuing(vault), FakeClock(time.time()), FakeClock()
        store = opened.enter_context(closing(storing(files.store, boot)))
        made: list[Till] = []

        def wall() -> float:
            return made[0].wall()

        def session_end(_: str) -> float:
            return made[0].session_ends.get("", wall() + 3600)

        admission = Admission(
            rules=rules_of("rules.yaml", RULES.encode(), Path()),
            verifier=Verifier(
                issuer=CLAIMS.issuer,
                audience=AUDIENCE,
                keys=OneKey(),
                uses=MemoryUses(wall=lambda: NOW - 60),
                live=lambda _, __: None,
                wall=lambda: NOW,
            ),
            keys=OneKey(),
            connections=AccessTokens(vault, record.event, clock, people),
            record=record,
            wall=wall,
        )
        sweeper = Sweeper(store, vault, issuer, observe=record.event, wall=wall)
        maker = Maker(
            admission,
            store,
            issuer,
            keeper=vault,
            session_end=session_end,
            wake=lambda: None,
            bounds=bounds or Bounds(),
        )
        made.append(
            Till(
                folder=folder,
                vault=vault,
                store=store,
                issuer=issuer,
                admission=admission,
                desk=CheckoutDesk(admission, maker),
                broker=Broker(admission, SessionTokens(admission, maker, store, clock)),
                sweeper=sweeper,
                record=record,
                began_at=clock.now().wall_at,
                boot=boot,
            )
        )
        yield made[0]
