"""What people meet of a broker that listens, with a real server that says who they are."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from pdp.broker.counter import opened_counter
from pdp.broker.serving import assembled
from pdp.broker.settings import PeopleSettings
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.v1 import connection_pb2 as messages
from pdp.broker.v1 import connection_pb2_grpc, secret_pb2, secret_pb2_grpc
from pdp.model import Caller, Role
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.consented import NOW, Site, source_at
from tests.broker.listening import listening, settings_of
from tests.broker.notes import CALLERS, FILES, ISSUER
from tests.broker.vaults import BY, connection
from tests.broker.worlds import SECRET, Noting, upstream_here
from tests.machinery.servers.patientbroker import patient
from tests.machinery.servers.running import PATIENCE

PEOPLE = (
    *CALLERS,
    Caller(id="alice", kind="token", roles=frozenset({Role.AUTHOR})),
    Caller(id="bob", kind="token", roles=frozenset({Role.AUDITOR})),
)
CONSOLE = "https://console.example.com"


class Desk:
    """A broker at which people connect."""

    def __init__(self, server: RunningServer, addresses: list[str], site: Site) -> None:
        self.server, self.site = server, site
        self._calls, self._port = addresses[0].removeprefix("calls at "), int(addresses[1].rpartition(":")[2])

    def ask(self, who: str, rpc: str, request: Any) -> Any:
        """Ask as somebody, or without a token."""
        metadata = (("authorization", f"Bearer {self.server.token(who)}"),) if who else ()
        with grpc.insecure_channel(self._calls) as channel:
            stub: Any = connection_pb2_grpc.ConnectionServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            if rpc == "ReplaceSecret":
                stub = secret_pb2_grpc.SecretServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            return getattr(stub, rpc)(request, timeout=PATIENCE, metadata=metadata)

    def refused(self, who: str, rpc: str, request: Any) -> str:
        """Ask, and return the status of the refusal."""
        with pytest.raises(grpc.RpcError) as refused:
            self.ask(who, rpc, request)
        return str(refused.value.code().name)

    def begin(self, who: str) -> str:
        """Begin, and return the state."""
        begun = self.ask(who, "BeginConnection", messages.BeginConnectionRequest(kind="crm", tenant="default"))
        return parse_qs(urlsplit(str(begun.authorization_url)).query)["state"][0]

    def back(self, state: str) -> str:
        """Come back in a browser, and return the ticket."""
        browser = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        with closing(browser):
            browser.request("GET", f"/back/crm?code=c&state={state}")
            place = str(browser.getresponse().headers["location"])
        assert place.startswith(f"{CONSOLE}/connections/finish?")
        return parse_qs(urlsplit(place).query)["ticket"][0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Serve to all tests of this module."""
    folder: Path = tmp_path_factory.mktemp("broker")
    with ExitStack() as opened:
        server = opened.enter_context(running_server(FILES, callers=PEOPLE, call_token_issuer=ISSUER))
        there, record = opened.enter_context(upstream_here()), Noting()
        good = {"access_token": "a", "token_type": "Bearer", "refresh_token": "r", "login": "alice-there"}
        there.pieces = lambda: iter([json.dumps(good).encode()])
        site = opened.enter_context(closing(Site(folder, FakeClock(NOW))))
        place = {"tenant": "default", "compartment": "", "scopes": ("issues",)}
        source = source_at(there.origin, account=f"{there.origin}/user")
        site.vault.add(connection("crm", source=source, **place), by=BY)
        site.vault.put("crm", SECRET, by=BY)
        for tenant in ("default", "acme"):
            site.vault.add(connection(f"key-{tenant}", tenant=tenant, kind="other"), by=BY)
            site.vault.put(f"key-{tenant}", SECRET, by=BY)
        settings = settings_of(
            folder,
            server.address,
            server.token("broker"),
            calls=f"unix:{folder}/calls.sock",
            people=PeopleSettings(listen="127.0.0.1:0", url="http://127.0.0.1:9", console=CONSOLE),
        )
        checkouts = opened.enter_context(closing(CheckoutStore(site.files.store)))
        opened.enter_context(patient())
        made = opened.enter_context(assembled(settings, site.vault, checkouts, record))
        counter = opened.enter_context(
            opened_counter(settings, site.vault, site.people, record, checkouts=checkouts, sweeper=made.sweeper)
        )
        addresses = opened.enter_context(listening(settings, made, counter=counter))
        yield Desk(server, addresses, site)


def test_a_person_connects_and_sees_it(desk: Desk) -> None:
    """With a token of their own, which the server verifies; an auditor sees it too, and others do not."""
    ticket = desk.back(desk.begin("alice"))

    made = desk.ask("alice", "FinishConnection", messages.FinishConnectionRequest(ticket=ticket)).connection

    seen = desk.ask("alice", "ListConnections", messages.ListConnectionsRequest())
    assert ("crm", "alice", "alice-there", ["issues"]) == (made.kind, made.user, made.account, list(made.scopes))
    assert messages.CONNECTION_STATE_CONNECTED == made.state
    assert [made] == list(seen.connections)
    assert ["crm"] == [one.kind for one in seen.connectable]
    everybody = messages.ListConnectionsRequest(of_others=True)
    assert [made] == list(desk.ask("bob", "ListConnections", everybody).connections)
    assert [] == list(desk.ask("bob", "ListConnections", messages.ListConnectionsRequest()).connections)
    assert "PERMISSION_DENIED" == desk.refused("alice", "ListConnections", everybody)


def test_another_person_does_not_finish(desk: Desk) -> None:
    """The ticket is used up, and nobody is connected by it."""
    finish = messages.FinishConnectionRequest(ticket=desk.back(desk.begin("alice")))

    assert "PERMISSION_DENIED" == desk.refused("bob", "FinishConnection", finish)
    assert "NOT_FOUND" == desk.refused("alice", "FinishConnection", finish)


def test_a_person_disconnects(desk: Desk) -> None:
    """Their own connection, or as an approver one of the tenant; to anybody else it is unknown."""
    for who in ("alice", "lead"):
        ticket = desk.back(desk.begin("alice"))
        made = desk.ask("alice", "FinishConnection", messages.FinishConnectionRequest(ticket=ticket)).connection
        end = messages.EndConnectionRequest(connection_id=made.connection_id)
        assert "NOT_FOUND" == desk.refused("bob", "EndConnection", end)

        # The provider has no endpoint for it.
        assert messages.END_OUTCOME_EXPIRES == desk.ask(who, "EndConnection", end).outcome
        assert [] == list(desk.ask("alice", "ListConnections", messages.ListConnectionsRequest()).connections)
        assert "NOT_FOUND" == desk.refused("alice", "EndConnection", end)


def test_a_secret_that_leaked_is_replaced_by_who_may_revoke(desk: Desk) -> None:
    """A person's tokens are ended; of a key it is said that a person must; to anybody else it is unknown."""
    ticket = desk.back(desk.begin("alice"))
    made = desk.ask("alice", "FinishConnection", messages.FinishConnectionRequest(ticket=ticket)).connection

    def ask(who: str, connection_id: str, version: int = 0) -> Any:
        request = secret_pb2.ReplaceSecretRequest(connection_id=connection_id, version=version)
        return desk.ask(who, "ReplaceSecret", request)

    for who, connection_id in (("alice", made.connection_id), ("bob", "key-default"), ("lead", "key-acme")):
        request = secret_pb2.ReplaceSecretRequest(connection_id=connection_id)
        assert "NOT_FOUND" == desk.refused(who, "ReplaceSecret", request)
    assert secret_pb2.REPLACEMENT_EXPIRES == ask("lead", made.connection_id).replacement
    assert "NOT_FOUND" == desk.refused(
        "lead", "ReplaceSecret", secret_pb2.ReplaceSecretRequest(connection_id=made.connection_id)
    )
    by_hand, former = ask("lead", "key-default"), ask("lead", "key-default", 2)
    assert (secret_pb2.REPLACEMENT_BY_HAND, 1) == (by_hand.replacement, by_hand.version)
    assert (secret_pb2.REPLACEMENT_FORMER, 1) == (former.replacement, former.version)


@pytest.mark.parametrize(
    ("who", "kind", "tenant", "code"),
    [
        ("", "crm", "default", "UNAUTHENTICATED"),
        ("gateway", "crm", "default", "PERMISSION_DENIED"),
        ("broker", "crm", "default", "PERMISSION_DENIED"),
        ("alice", "crm", "acme", "PERMISSION_DENIED"),
        ("alice", "none", "default", "NOT_FOUND"),
    ],
)
def test_who_may_not_connect(desk: Desk, who: str, kind: str, tenant: str, code: str) -> None:
    """Nobody without a token, no program, and nobody in another tenant."""
    assert code == desk.refused(who, "BeginConnection", messages.BeginConnectionRequest(kind=kind, tenant=tenant))
