"""The whole: a browser, the command, a real provider and a server that believes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from pdp.client import Client
from tests.console.people.chromium import PATIENCE, chromium, press, until
from tests.console.people.realprovider import AUDIENCE, provider, server, set_clock
from tests.machinery.ports import free_port

pytestmark = pytest.mark.people


def test_a_person_logs_in_approves_and_logs_out(tmp_path: Path) -> None:
    """By a link from elsewhere, with a fresh log-in for what destroys something, and out at the provider, too."""
    origin = f"http://localhost:{free_port()}"
    with ExitStack() as opened:
        issuer = opened.enter_context(provider(origin))
        settings, address, clock = opened.enter_context(server(tmp_path, issuer))
        opened.enter_context(console(tmp_path, origin, issuer, address))
        token = settings.tokens_folder / "pep.token"
        gateway = opened.enter_context(Client(address, token_file=token, plaintext=True, timeout=PATIENCE))
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


def log_in(driver: Chrome, *, consents: bool) -> None:
    """Log in at the provider, and let the console in where it asks for the first time."""
    driver.find_element(By.NAME, "login").send_keys("ann@example.org")
    driver.find_element(By.NAME, "password").send_keys("any")
    driver.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    if consents:
        until(driver, "Authorize")
        driver.find_element(By.CSS_SELECTOR, "[autofocus][type=submit]").click()


@contextmanager
def console(folder: Path, origin: str, issuer: str, address: str) -> Iterator[None]:
    """Run the command until it serves."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("a-secret-of-the-console")
    command = [sys.executable, "-m", "pdp.cli", "console", "--listen", f"127.0.0.1:{origin.rpartition(':')[2]}"]
    command += ["--public-url", origin, "--issuer", issuer, "--client-id", "console", "--parameter"]
    command += [f"resource={AUDIENCE}", "--client-secret-file", str(secret), "--address", address, "--plaintext"]
    with subprocess.Popen([*command, "--data-dir", str(folder)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "serving the console" in process.stderr.readline()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
