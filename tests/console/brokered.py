"""A broker beside the server of the console's tests, at which people connect accounts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pdp.broker.counter import opened_counter
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.oauth.people import People
from pdp.broker.opening import make_broker, opened_checkouts, opened_people, opened_record, opened_vault
from pdp.broker.serving import assembled, serve_until
from pdp.broker.settings import BrokerSettings, PeopleSettings
from pdp.broker.words import Connection, Consenting, Secret, TokenSource
from pdp.client.pdpsettings import PDPSettings
from pdp.clock import SystemClock
from pdp.foundation.ids import new_connection_id
from pdp.observer import Event, EventKind
from pdp.record.log import DecisionLog
from pdp.testing.inprocess import RunningServer
from tests.console.desk import SECONDS, Browser, console
from tests.machinery.servers.patientbroker import patient

_CONSOLE, _UPSTREAM = "http://localhost:1", "https://crm.example.com"


class _Provider(ThreadingHTTPServer):
    daemon_threads = True


class _Tokens(BaseHTTPRequestHandler):
    """Gives tokens to whoever asks."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        said = {"access_token": "a", "token_type": "Bearer", "expires_in": 600, "refresh_token": "r", "scope": "issues"}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Site:
    """A server, and a broker at which people connect."""

    def __init__(
        self,
        server: RunningServer,
        address: str,
        port: int,
        *,
        record: DecisionLog,
        people: People,
        client: Connection,
    ) -> None:
        self.server, self.address, self._port = server, address, port
        self._record, self._people, self._client = record, people, client

    @contextmanager
    def person(self, name: str) -> Iterator[Browser]:
        """Provide the browser of a person who is logged in."""
        with console(self.server, name, broker=self.address) as world:
            yield world.person()

    def connected(self, user: str) -> str:
        """Have a person connect an account, and return the id of the connection."""
        tokens = Granted(secret=Secret(b"a"), refresh=Secret(b"r"), seconds=600.0)
        packed = TokenPair.of(tokens, asked=SystemClock().now(), share=0.7).packed()
        made = replace(self._client, id=new_connection_id(), owner=user, scopes=("issues",))
        return self._people.add(made, packed, account=f"{user}@example.com").id

    def used(self, connection: str, *, tenant: str = "default", **facts: str) -> None:
        """Have the broker record that a call used the secret of a connection."""
        said = {"token_id": "t1", "decision_id": "dec_1", "action": "crm/find_customer", "mode": "connector"}
        where = {"connection": connection, "version": "1", "upstream": _UPSTREAM, "presenter": "local"}
        self._record.event(
            Event(
                kind=EventKind.CALL_TOKEN_USED,
                at=SystemClock().now().wall_at,
                facts={**said, **where, **facts},
                session_id="ses_1",
                user="alice",
                agent="coder",
                tenant=tenant,
            )
        )

    def agreed(self, browser: Browser) -> str:
        """Agree at the provider in a browser that has begun, and return the page of the console that it comes to."""
        [state] = parse_qs(urlsplit(browser.link).query)["state"]
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)) as going:
            going.request("GET", f"/back/crm?code=c&state={state}")
            place = str(going.getresponse().headers["location"])
        return place.removeprefix(_CONSOLE)


@contextmanager
def brokered(server: RunningServer, folder: Path) -> Iterator[Site]:
    """Run a broker beside a server, with a provider that gives tokens to whoever asks."""
    with ExitStack() as opened:
        provider = _Provider(("127.0.0.1", 0), _Tokens)
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        opened.callback(provider.server_close)
        opened.callback(provider.shutdown)
        make_broker(folder)
        record = opened.enter_context(opened_record(folder))
        vault = opened.enter_context(opened_vault(folder, record.event))
        client = vault.add(_client(f"http://127.0.0.1:{provider.server_address[1]}"), by="tests")
        vault.put("crm", b"secret", by="tests")
        settings = _settings(folder, server)
        known = opened.enter_context(opened_people(folder, vault, record.event))
        checkouts = opened.enter_context(opened_checkouts(folder))
        opened.enter_context(patient())
        parts = opened.enter_context(assembled(settings, vault, checkouts, record, people=known))
        counter = opened.enter_context(
            opened_counter(settings, vault, known, record, checkouts=checkouts, sweeper=parts.sweeper)
        )
        addresses: list[str] = []
        begun, stops = threading.Event(), []

        def told(address: str) -> None:
            addresses.append(address)
            # Calls, and browsers.
            if len(addresses) == 2:
                begun.set()

        async def run() -> None:
            stopped, loop = asyncio.Event(), asyncio.get_running_loop()
            stops.append(lambda: loop.call_soon_threadsafe(stopped.set))
            await serve_until(stopped, settings, parts, observer=None, listening=told, counter=counter)

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        opened.callback(thread.join, SECONDS)
        assert begun.wait(SECONDS)
        opened.callback(stops[0])
        port = int(addresses[1].rpartition(":")[2])
        yield Site(server, settings.calls, port, record=record, people=known, client=client)


def _client(provider: str) -> Connection:
    consenting = Consenting(issuer=provider, authorization=f"{provider}/authorize")
    source = TokenSource(endpoint=f"{provider}/token", client_id="broker", consenting=consenting)
    return Connection(
        id="crm",
        tenant="default",
        compartment="",
        kind="crm",
        upstream=_UPSTREAM,
        scopes=("issues", "pulls"),
        source=source,
    )


def _settings(folder: Path, server: RunningServer) -> BrokerSettings:
    (folder / "rules.yaml").write_text("crm: {kind: crm, proxy: {methods: [GET], paths: [/]}}\n")
    (folder / "token").write_text(server.token("broker"))
    for name in ("rules.yaml", "token"):
        (folder / name).chmod(0o600)
    pdp = PDPSettings(
        address=server.address,
        token_file=folder / "token",
        tls_roots=None,
        tls_certificate=None,
        tls_key=None,
        plaintext=True,
    )
    return BrokerSettings(
        issuer="https://pdp.example",
        audience="https://broker.example",
        rules=folder / "rules.yaml",
        calls=f"unix:{folder}/calls.sock",
        http="",
        tls=None,
        pdp=pdp,
        data_dir=folder,
        telemetry="",
        people=PeopleSettings(listen="127.0.0.1:0", url="http://127.0.0.1:9", console=_CONSOLE),
    )
