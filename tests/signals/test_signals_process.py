"""The receiver as it runs: over HTTP, before a server, with threads of its own, and as it is examined."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from pdp.clock import SystemClock
from pdp.errors import ConfigurationError
from pdp.foundation.findings import Finding
from pdp.signals.examination import examine
from pdp.signals.serving import assembled, opened_record, serve_until
from pdp.signals.settings import Sender, read_settings
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer
from pdp.testing.waiting import wait_until
from tests.machinery.pages import blocks
from tests.machinery.servers.running import PATIENCE
from tests.signals.world import SETTINGS, Site, Transmitter

_PUSH: Final = {"Content-Type": "application/secevent+jwt"}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server take long to answer: on a busy machine a late answer would be a problem that is found."""
    monkeypatch.setattr("pdp.signals.examination._ASKING_SECONDS", PATIENCE)


def settings_file(folder: Path, server: RunningServer, *, caller: str = "signals", text: str = SETTINGS) -> Path:
    """Write settings, and what they name, for a receiver that asks a server as a caller."""
    token, file = folder / "token", folder / "signals.yaml"
    token.write_text(server.token(caller))
    token.chmod(0o600)
    own = f'pdp: {{address: "{server.address}", token_file: token, plaintext: true}}'
    file.write_text(text.replace('pdp: {address: "127.0.0.1:50151"}', own))
    (folder / "idp.jwks").write_bytes(Transmitter(FakeClock()).jwks())
    return file


@contextmanager
def running(file: Path) -> Iterator[str]:
    """Run a receiver; yield its URL."""
    settings, urls, stopped = read_settings(file), list[str](), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    with opened_record(settings.data_dir) as record, assembled(settings, record.event) as parts:

        async def run() -> None:
            loops.append(asyncio.get_running_loop())
            await serve_until(stopped, settings, parts.receiver, listening=urls.append)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        wait_until(lambda: bool(urls))
        try:
            yield urls[0]
        finally:
            loops[0].call_soon_threadsafe(stopped.set)
            thread.join()


def ask(url: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> int:
    """Send a request; return the status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, body, dict(headers or {}))
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_push_over_http_ends_a_session(site: Site, tmp_path: Path) -> None:
    """From the port to the server, by its own threads; a body that does not come keeps nobody waiting."""
    server, _ = site
    file = settings_file(tmp_path, server)
    transmitter = Transmitter(SystemClock())
    (tmp_path / "idp.jwks").write_bytes(transmitter.jwks())
    pep, approver = server.client("pep-acme"), server.client("approver-acme")
    session = pep.request_session(user="bob", agent="coder", purpose="p", tools=["git/*"]).session
    with running(file) as url, closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as slow:
        slow.putrequest("POST", "/signals/idp")
        for name, value in {**_PUSH, "Content-Length": "1000"}.items():
            slow.putheader(name, value)
        slow.endheaders(b"ey")
        signal = transmitter.about("bob").encode()
        # Until the keys are read the answer is 503, and who sends it tries again.
        wait_until(lambda: ask(url, "POST", "/signals/idp", signal, _PUSH) == 202)
        wait_until(lambda: approver.get_session(session.session_id).reason.startswith("signal sig_"))
        healthy = ask(url, "GET", "/health")

    assert healthy == 200


def levels(found: Iterator[Finding]) -> dict[str, list[str]]:
    """Return the levels of each check."""
    shown: dict[str, list[str]] = {}
    for one in found:
        shown.setdefault(one.check, []).append(one.level)
    return shown


def test_a_sound_receiver_has_no_problem(site: Site, tmp_path: Path) -> None:
    """Only the bearer token that nobody has set is worth a thought."""
    found = levels(examine(settings_file(tmp_path, site[0])))

    sound = {"settings": ["ok"], "listen": ["ok"], "record": ["ok"], "server": ["ok"], "idp": ["ok", "warning"]}
    assert sound == found


@pytest.mark.parametrize(
    ("caller", "before", "after", "check", "says"),
    [
        ("approver-acme", "", "", "server", "must have the role `revoker`"),
        ("signals", "tenant: acme", "tenant: initech", "server", "does not act for the tenant `initech`"),
        ("signals", "idp.jwks", "none.jwks", "idp", "cannot read"),
        ("signals", "127.0.0.1:0", "0.0.0.0:8447", "listen", "others can reach"),
        ("signals", "most_users: 3", "most_users: 0", "settings", "`most_users` must be from 1"),
    ],
)
def test_what_is_wrong_is_found(
    site: Site, tmp_path: Path, caller: str, before: str, after: str, check: str, says: str
) -> None:
    """Each by the check that is about it."""
    text = SETTINGS.replace(before, after) if before else SETTINGS

    found = list(examine(settings_file(tmp_path, site[0], caller=caller, text=text)))

    assert [check] == sorted({one.check for one in found if one.level == "problem"})
    assert any(says in one.found for one in found)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("keys_file: idp.jwks", "keys_url: http://idp.example/keys", "`keys_url` must be https"),
        ("keys_file: idp.jwks", "", "`keys_url` or `keys_file` must say"),
        ("[ES256]", "[HS256]", "`algorithms` must be of"),
        ("[ES256]", "[none]", "`algorithms` must be of"),
        ("domain: example.org, ", "", "`domain` is for the format `email`"),
        (', names: {"app-7": github-1}', "", "`names` must list the connections"),
        ("format: iss_sub", "format: sub", "`format` must be one of"),
        ("issuer: https://idp.example", "issuer: ''", "`issuer` must be"),
        ("  idp:", "  IdP:", "is no name"),
        ("most_users", "most_user", "unknown key: `most_user`"),
        ("[ES256]", "[ES256]\n    subject_in: body", "`subject_in` must be one of token, event"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, before: str, after: str, says: str) -> None:
    """With its line."""
    file = tmp_path / "signals.yaml"
    file.write_text(SETTINGS.replace(before, after))

    with pytest.raises(ConfigurationError, match=r"signals.yaml:\d+") as caught:
        read_settings(file)
    assert says in str(caught.value)


def test_the_page_shows_settings_that_are_read(project_root: Path, tmp_path: Path) -> None:
    """They are sound as they stand."""
    page, file, found = project_root / "pdp" / "signals" / "README.md", tmp_path / "signals.yaml", list[Sender]()
    for kind in ("yaml settings", "yaml leaks"):
        (text,) = blocks(page, kind)
        file.write_text(text)
        found += read_settings(file).senders.values()

    assert [("idp", True, 20, 100), ("github", False, 20, 100)] == [
        (one.name, one.preview, one.most_users, one.most_sessions) for one in found
    ]
    assert [{"acme"}] * 2 == [one.tenants for one in found]
