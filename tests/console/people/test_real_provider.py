"""The whole: a browser, the command, a real provider and a server that believes it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from pdp.app import build
from pdp.cli.operate.init import prepare
from pdp.client import Client
from pdp.config import JWTSettings, PolicySettings, ServerSettings, SessionSettings, Settings
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from tests.console.desk import files
from tests.console.people.chromium import chromium, press, program, until
from tests.machinery.ports import free_port

pytestmark = pytest.mark.people

_PROGRAMS = Path(__file__).parents[3] / ".venv-people/programs"
_AUDIENCE = "https://pdp.example.org"


def test_a_person_logs_in_approves_and_logs_out(tmp_path: Path) -> None:
    """By a link from elsewhere, with a fresh log-in for what destroys something, and out at the provider, too."""
    origin = f"http://localhost:{free_port()}"
    with ExitStack() as opened:
        issuer = opened.enter_context(provider(origin))
        settings, address, clock = opened.enter_context(server(tmp_path, issuer))
        opened.enter_context(console(tmp_path, origin, issuer, address))
        token = settings.tokens_folder / "pep.token"
        gateway = opened.enter_context(Client(address, token_file=token, plaintext=True))
        driver = opened.enter_context(chromium())
        wanted = gateway.request_session(user="alice", agent="coder", purpose="Tidy up", tools=["crm/*"])
        driver.get(f"{origin}/sessions/{wanted.session.session_id}/less")
        log_in(driver, consents=True)
        until(driver, "Approve less, or with grants")
        driver.find_element(By.CSS_SELECTOR, "[value='crm/update_customer']").click()
        press(driver, "See what this approves")
        until(driver, "3 tools of the 4 that were asked for")
        set_clock(clock, ahead=400)
        press(driver, "Approve exactly this")
        until(driver, "Log in again to approve this")
        set_clock(clock)
        driver.find_element(By.CSS_SELECTOR, "a.button.yes").click()
        log_in(driver, consents=False)
        until(driver, "3 tools of the 4 that were asked for")
        press(driver, "Approve exactly this")
        until(driver, "active")
        assert gateway.authorize(wanted.session_handle, "crm", "find_customer").allowed
        assert not gateway.authorize(wanted.session_handle, "crm", "update_customer").allowed
        press(driver, "Log out")
        until(driver, "You may still be logged in")
        driver.find_element(By.CSS_SELECTOR, "a.button.yes").click()
        driver.find_element(By.CSS_SELECTOR, "[autofocus]").click()
        until(driver, "You are logged out of the console")
        driver.get(origin)

        assert driver.find_elements(By.NAME, "login")


def set_clock(clock: FakeClock, ahead: float = 0.0) -> None:
    """Set the server's clock to the time, or ahead of it."""
    clock.step_wall(time.time() + ahead - clock.now().wall_at)


def log_in(driver: Chrome, *, consents: bool) -> None:
    """Log in at the provider, and let the console in where it asks for the first time."""
    driver.find_element(By.NAME, "login").send_keys("ann@example.org")
    driver.find_element(By.NAME, "password").send_keys("any")
    driver.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    if consents:
        until(driver, "Authorize")
        driver.find_element(By.CSS_SELECTOR, "[autofocus][type=submit]").click()


@contextmanager
def provider(origin: str) -> Iterator[str]:
    """Run the provider, and return its issuer."""
    (_PROGRAMS / "provider.mjs").write_bytes((Path(__file__).parent / "provider.mjs").read_bytes())
    command = [program("node"), str(_PROGRAMS / "provider.mjs"), origin]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def server(folder: Path, issuer: str) -> Iterator[tuple[Settings, str, FakeClock]]:
    """Run a server that believes the provider, and return its settings, address and clock."""
    write_folder(folder / "policies", files())
    with urllib.request.urlopen(f"{issuer}/jwks") as answer:  # noqa: S310 - the provider of this test
        (folder / "keys.json").write_bytes(answer.read())
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="localhost:0", plaintext=True),
        sessions=SessionSettings(store="memory"),
        jwt=JWTSettings(
            issuer=issuer,
            audience=_AUDIENCE,
            keys_file=str(folder / "keys.json"),
            person_claim="person",
            console_client="console",
        ),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings)
    with settings.callers_file.open("a", encoding="utf-8") as file:
        file.write("ann: {jwt_subject: 'ann@example.org', roles: [approver]}\n")
    clock = FakeClock(time.time())
    app = build(settings, clock=clock)
    app.start()
    try:
        yield settings, app.address, clock
    finally:
        app.stop()


@contextmanager
def console(folder: Path, origin: str, issuer: str, address: str) -> Iterator[None]:
    """Run the command until it serves."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("a-secret-of-the-console")
    command = [sys.executable, "-m", "pdp.cli", "console", "--listen", f"127.0.0.1:{origin.rpartition(':')[2]}"]
    command += ["--public-url", origin, "--issuer", issuer, "--client-id", "console", "--parameter"]
    command += [f"resource={_AUDIENCE}", "--client-secret-file", str(secret), "--address", address, "--plaintext"]
    with subprocess.Popen([*command, "--data-dir", str(folder)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "serving the console" in process.stderr.readline()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=30)
