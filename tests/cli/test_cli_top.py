"""`pdp top`: what goes on now."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.model import Basis, Outcome, TraceParent
from pdp.record import DecisionLog, SigningKey
from pdp.testing.decisions import a_decision
from tests.cli.conftest import Run

NO_PARENT = TraceParent()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    """Yield a decision log in a folder of its own."""
    log = DecisionLog(tmp_path / "log", key=b"k" * 32, signer=SigningKey.generate())
    yield log
    log.close()


def _decide(log: DecisionLog, **changes: object) -> None:
    log.decision(a_decision(decided_at=time.time(), **changes), NO_PARENT)


def test_what_goes_on_as_json(run: Run, log: DecisionLog) -> None:
    """A script gets the same figures that a person sees."""
    _decide(log, duration_us=40.0)
    _decide(log, outcome=Outcome.DENY, basis=Basis.FORBID, user="mallory")

    done = run("top", str(log.folder), "--once", "--json", "--window", "10m")

    shown = json.loads(done.stdout)
    assert (0, 2, {"allow": 1, "deny": 1}) == (done.exit_code, shown["decisions"], shown["outcomes"])
    assert [("ses_bbbbbbbbbbbbbbbbbbbbbbbbbb", "mallory", 1)] == [
        (one["session_id"], one["user"], one["denied"]) for one in shown["denied"]
    ]


def test_what_goes_on_in_words(run: Run, log: DecisionLog) -> None:
    """Tools, sessions and what denies rest on are named; what others wrote cannot move the cursor."""
    _decide(log, outcome=Outcome.DENY, basis=Basis.FORBID, tool="x\x1b[2J")

    done = run("top", str(log.folder), "--once", "--window", "10m")

    assert "forbid 1" in done.stdout
    assert "a freeze" not in done.stdout
    assert "ses_bbbbbbbbbbbbbbbbbbbbbbbbbb" in done.stdout
    assert "\x1b" not in done.stdout


def test_calls_that_a_freeze_denies_are_counted(run: Run, log: DecisionLog) -> None:
    """In a line of their own, which is there only then."""
    _decide(log, outcome=Outcome.DENY, basis=Basis.FROZEN)

    done = run("top", str(log.folder), "--once")

    assert "calls denied because of a freeze: 1; `pdp freeze list` shows it" in done.stdout


def test_a_pipe_gets_whole_lines(run: Run, log: DecisionLog) -> None:
    """However many bases and kinds of events there are, each has one line: scripts look for its beginning."""
    for basis in (Basis.FORBID, Basis.SESSION_REVOKED, Basis.INVALID_ARGUMENTS, Basis.SESSION_EXPIRED):
        _decide(log, outcome=Outcome.DENY, basis=basis, duration_us=123_456.0)

    lines = run("top", str(log.folder), "--once", "--window", "10m").stdout.splitlines()

    assert lines[0].endswith("longest 123.5 ms")
    (bases,) = (line for line in lines if line.startswith("bases"))
    assert 4 == bases.count(" 1")


@pytest.mark.parametrize("words", [("--once",), ("--json",), ()])
def test_an_empty_log(run: Run, log: DecisionLog, words: tuple[str, ...]) -> None:
    """Before the first decision there is nothing to see, and that is no error."""
    done = run("top", str(log.folder), *words)

    assert (0, "") == (done.exit_code, done.stderr)


@pytest.mark.parametrize("words", [("--once",), ("--json",), ()])
def test_a_folder_without_a_record(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Without a record no zeros are shown, because they would look like a quiet server."""
    named = run("top", str(tmp_path), *words)
    by_default = run("top", *words)

    assert (2, "") == (named.exit_code, named.stdout)
    assert f"error: there is no record in `{tmp_path}`" in named.stderr
    assert (2, "") == (by_default.exit_code, by_default.stdout)


def test_a_folder_that_is_not_there(run: Run) -> None:
    """A folder that was named and is not there is a mistake."""
    done = run("top", "no-such-folder")

    assert (2, "error: invalid value for '[DIR]': Directory 'no-such-folder' does not exist\n") == (
        done.exit_code,
        done.stderr,
    )


def test_it_goes_on_until_it_is_interrupted(log: DecisionLog) -> None:
    """On a terminal it shows new decisions as they are made, and Ctrl-C ends it without an error."""
    master, slave = pty.openpty()
    # A run in the background may have been started with SIGINT ignored, which a child would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "pdp.cli", "top", str(log.folder), "--interval", "1s", "--window", "10m"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    os.close(slave)
    try:
        _read_until(master, b"0.0 decisions/s")
        _decide(log, outcome=Outcome.DENY, basis=Basis.FORBID)
        _read_until(master, b"forbid 1")
        process.send_signal(signal.SIGINT)
        _drain(master)
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_q_ends_it(log: DecisionLog) -> None:
    """The key ends it at once, without an error, and gives the terminal back as it was."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-m", "pdp.cli", "top", str(log.folder), "--interval", "600s"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    try:
        _read_until(master, b"0.0 decisions/s")
        os.write(master, b"xq")
        assert 0 == process.wait(60)
        assert before == termios.tcgetattr(slave)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def _read_until(terminal: int, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        seen += os.read(terminal, 65536)


def _drain(terminal: int) -> None:
    """Read to the end, so that the writer can finish."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return  # how a terminal says that its writer has ended
