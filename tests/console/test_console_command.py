"""`pdp console` as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.testing.inprocess import RunningServer
from tests.machinery.pages import blocks

_SECONDS = 60.0
# What is started instead of a browser: it notes what it was called with, in one step.
_BROWSER = '#!/bin/sh\nprintf %s "$1" > "$NOTED.partial" && mv "$NOTED.partial" "$NOTED"\n'


def test_the_command_opens_the_console(server: RunningServer, tmp_path: Path, project_root: Path) -> None:
    """As the page shows: the browser gets a file and no secret; the link in it opens the console; it ends cleanly."""
    [line] = [block.strip() for block in blocks(project_root / "pdp/console/README.md", "sh")]
    token, noted, browser = tmp_path / "token", tmp_path / "noted", tmp_path / "browser"
    token.touch(mode=0o600)
    token.write_text(server.token("approver"))
    browser.write_text(_BROWSER)
    browser.chmod(0o700)
    command = [sys.executable, "-m", "pdp.cli", *line.split()[1:], "--address", server.address, "--plaintext"]
    command += ["--token-file", str(token), "--data-dir", str(tmp_path)]
    environment = {**os.environ, "BROWSER": f"{browser} %s", "NOTED": str(noted), "PYTHONPATH": str(project_root)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + _SECONDS
            while not noted.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            opened = Path(urlsplit(noted.read_text()).path)
            assert 0o600 == opened.stat().st_mode & 0o777
            [link] = set(re.findall(r"http://[^\"]+", opened.read_text()))
            there = urlsplit(link)
            at = f"http://127.0.0.1:{there.port}"
            with httpx2.Client(base_url=at, headers={"host": there.netloc}, timeout=_SECONDS) as http:
                page = http.get(f"{there.path}?{there.query}", follow_redirects=True)
        finally:
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=_SECONDS)[1]

    assert "Waiting for a person" in page.text
    assert (0, False) == (process.returncode, opened.exists())
    assert there.query.removeprefix("key=") not in said
    assert "the console serves `approver`" in said


def test_a_wrong_token_is_said_before_the_browser_opens(server: RunningServer, tmp_path: Path) -> None:
    """In one line on the terminal."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("wrong")
    words = ["console", "--address", server.address, "--plaintext", "--token-file", str(token)]

    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", *words, "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )

    assert (2, "error: unauthenticated: ") == (done.returncode, done.stderr[:24])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--listen 127.0.0.1:0", "--listen needs --public-url"),
        ("--listen 127.0.0.1:0 --open", "do not go with --listen"),
        ("--public-url https://a.example/x --listen 127.0.0.1:0 --issuer https://i --client-id c", "no path"),
        ("--public-url https://a.example --listen 127.0.0.1:0 --issuer http://i --client-id c", "must be an https URL"),
        ("--public-url https://a.example --listen 0.0.0.0:0 --issuer https://i --client-id c", "needs a certificate"),
        (
            "--public-url https://a --listen 127.0.0.1:0 --issuer https://i --client-id c --token-file x",
            "their own token",
        ),
        ("--public-url https://a --listen 127.0.0.1:0 --issuer https://i --client-id c --parameter x", "name=value"),
        ("--public-url https://a --listen 127.0.0.1:0 --issuer https://i --client-id c --parameter state=x", "`state`"),
    ],
)
def test_what_does_not_go_together_is_said(words: str, said: str, tmp_path: Path) -> None:
    """In one line, before anything listens."""
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        done = CliRunner().invoke(root, ["console", *words.split(), "--plaintext", "--data-dir", str(tmp_path)])

    assert 2 == done.exit_code
    assert said in done.output


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        (0o644, "a-secret", "others can read `{path}`, which holds a secret; `chmod go=` it"),
        (0o600, "\n", "`{path}` holds no secret"),
        (0o600, "ein-schlüssel", "`{path}` holds no secret"),
    ],
)
def test_a_secret_of_the_console_is_nobody_elses(mode: int, content: str, said: str, tmp_path: Path) -> None:
    """Who could read the file could log people in as the console; the command says so and does not start."""
    path = tmp_path / "secret"
    path.write_text(content)
    path.chmod(mode)
    words = ["--listen=127.0.0.1:0", "--public-url=https://a", "--issuer=https://i", "--client-id=c", "--plaintext"]
    words += ["--client-secret-file", str(path), "--data-dir", str(tmp_path)]
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        done = CliRunner().invoke(root, ["console", *words])

    assert 2 == done.exit_code
    assert said.format(path=path) in done.output


def test_the_help_says_what_it_is_for() -> None:
    """Each option under what it is about."""
    shown = CliRunner().invoke(root, ["console", "--help"]).output

    assert "On this machine:" in shown
    assert "pdp console --open" in shown
