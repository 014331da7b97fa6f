"""Connected accounts in the console, with a real broker and a provider of the test's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pdp.broker.counter import opened_counter
from pdp.broker.opening import make_broker, opened_checkouts, opened_people, opened_vault
from pdp.broker.serving import assembled, serve_until
from pdp.broker.settings import BrokerSettings, PeopleSettings
from pdp.broker.words import Connection, Consenting, TokenSource
from pdp.client.pdpsettings import PDPSettings
from pdp.model import Caller, Role
from pdp.observer import Event
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from tests.console.desk import Browser, console, files

CONSOLE = "http://localhost:1"


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


class _Record:
    permits = True

    def event(self, _: Event) -> None:
        """Record nothing."""


class Site:
    """A server, and a broker at which people connect."""

    def __init__(self, server: RunningServer, address: str, port: int) -> None:
        self.server, self.address, self._port = server, address, port

    @contextmanager
    def person(self, name: str) -> Iterator[Browser]:
        """Provide the browser of a person who is logged in."""
        with console(self.server, name, broker=self.address) as world:
            yield world.person()

    def agreed(self, browser: Browser) -> str:
        """Agree at the provider in a browser that has begun, and return the page of the console that it comes to."""
        [state] = parse_qs(urlsplit(browser.link).query)["state"]
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=20)) as going:
            going.request("GET", f"/back/crm?code=c&state={state}")
            place = str(going.getresponse().headers["location"])
        return place.removeprefix(CONSOLE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve to all tests of this module."""
    folder: Path = tmp_path_factory.mktemp("broker")
    people = [Caller(id=name, kind="token", roles=frozenset({Role.AUTHOR})) for name in ("alice", "mallory")]
    with ExitStack() as opened:
        server = opened.enter_context(running_server(files(), callers=(*ONE_OF_EACH_ROLE, *people)))
        provider = _Provider(("127.0.0.1", 0), _Tokens)
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        opened.callback(provider.server_close)
        opened.callback(provider.shutdown)
        make_broker(folder)
        record = _Record()
        vault = opened.enter_context(opened_vault(folder, record.event))
        vault.add(_client(f"http://127.0.0.1:{provider.server_address[1]}"), by="tests")
        vault.put("crm", b"secret", by="tests")
        settings = _settings(folder, server)
        known = opened.enter_context(opened_people(folder, vault, record.event))
        checkouts = opened.enter_context(opened_checkouts(folder))
        parts = opened.enter_context(assembled(settings, vault, checkouts, record, people=known))
        counter = opened.enter_context(opened_counter(settings, vault, known, record))
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
        opened.callback(thread.join, 20)
        assert begun.wait(20)
        opened.callback(stops[0])
        yield Site(server, settings.calls, int(addresses[1].rpartition(":")[2]))


def _client(provider: str) -> Connection:
    consenting = Consenting(issuer=provider, authorization=f"{provider}/authorize")
    source = TokenSource(endpoint=f"{provider}/token", client_id="broker", consenting=consenting)
    return Connection(
        id="crm",
        tenant="default",
        compartment="",
        kind="crm",
        upstream="https://crm.example.com",
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
        people=PeopleSettings(listen="127.0.0.1:0", url="http://127.0.0.1:9", console=CONSOLE),
    )


def test_a_person_connects_and_disconnects(site: Site) -> None:
    """Coming back alone connects nothing; then the page says what was granted, and an auditor sees it, too."""
    with site.person("alice") as alice:
        alice.open("/connections")
        assert "You have connected nothing." in alice.words
        alice.send("/connections/begin")
        back = site.agreed(alice)
        alice.open(back)
        assert "You are alice." in alice.words
        alice.send("/connections/finish")

        assert {"Granted issues", "State connected", "Last used never"} <= {*alice.facts}
        with site.person("auditor") as auditor:
            auditor.open("/connections")
            assert "User alice" in auditor.facts
            assert "Disconnect" not in auditor.words
        alice.send("/connections/end")
        assert "They are deleted here." in alice.words
        alice.open("/connections")
        assert "You have connected nothing." in alice.words


def test_who_was_lured_connects_nothing(site: Site) -> None:
    """Alice agrees in what Mallory has begun, and comes back to the console as herself."""
    with site.person("mallory") as mallory, site.person("alice") as alice:
        mallory.open("/connections")
        mallory.send("/connections/begin")
        alice.open(site.agreed(mallory))
        alice.send("/connections/finish")

        assert "another person began this" in alice.words
        for person in (alice, mallory):
            person.open("/connections")
            assert "You have connected nothing." in person.words
