"""People are told of held signals where they work, until they have heard of each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pdp.messages.receivers import Receiver, read_receivers
from pdp.signals.store import SignalStore
from pdp.signals.telling import Teller
from pdp.signals.words import Signal, State, Target, What
from tests.machinery.webserver import serving
from tests.signals.world import USERS, World

RECEIVERS = """
on-call: {form: json, url_file: url, secret_file: secret, tenants: [acme], events: [signal.held]}
elsewhere: {form: json, url_file: url, secret_file: secret, tenants: [globex]}
sessions-only: {form: json, url_file: url, secret_file: secret, tenants: [acme], events: [session.requested]}
"""


class Ear(ThreadingHTTPServer):
    """Hears messages, and answers each with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 204
        self.heard: list[tuple[str, dict[str, Any]]] = []


class _Answer(BaseHTTPRequestHandler):
    server: Ear

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.headers["webhook-id"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    """Listen for all tests of this module."""
    found = Ear()
    with serving(found, threading.Event()):
        yield found


def receivers(folder: Path, ear: Ear) -> tuple[Receiver, ...]:
    """Write the file of receivers, and read it."""
    texts = {"url": f"http://127.0.0.1:{ear.server_address[1]}/", "secret": f"whsec_{'a' * 32}", "rows": RECEIVERS}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return read_receivers(folder / "rows")


def test_a_held_signal_is_told_once_and_until_it_is_taken(here: World, ear: Ear, tmp_path: Path) -> None:
    """To those who want to know, of one tenant; a message that was not taken comes again under its id."""
    ear.heard.clear()
    teller = Teller(receivers(tmp_path, ear), store=here.store, wall=lambda: here.clock.now().wall_at)
    for user in USERS:
        here.session(user)
    held = [one for one in map(here.sent, map(here.transmitter.about, USERS)) if one.state == "held"]

    ear.status = 503
    teller.run()
    teller.run()
    ear.status = 204
    here.clock.advance(60)
    teller.run()
    teller.run()

    ids = [one.id for one in held]
    assert 2 == len(ids)
    ((first, said), (second, again)) = ear.heard
    assert (first, said) == (second, again)
    assert ("signal.held", {"count": 2, "ids": ids, "tenant": "acme", "by": "idp"}) == (said["type"], said["data"])
    assert USERS[3] not in json.dumps(said)


def test_what_is_held_elsewhere_hides_nothing(tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is held in tenants of which a receiver is not told."""
    monkeypatch.setattr("pdp.signals.telling._MOST", 2)
    ear.heard.clear()
    store = SignalStore(tmp_path / "signals.sqlite")
    for name, tenant in zip("abc", ("other", "other", "acme"), strict=True):
        who = Target(what=What.USER, tenant=tenant, id="ann")
        signal = Signal(
            id=name,
            transmitter="idp",
            token_id=name,
            event="account-disabled",
            issued_at=1e9,
            received_at=1e9,
            state=State.HELD,
            targets=(who,),
        )
        store.add(signal)

    Teller(receivers(tmp_path, ear), store=store, wall=lambda: 1e9).run()

    assert [["c"]] == [said["data"]["ids"] for _, said in ear.heard]
    store.close()
