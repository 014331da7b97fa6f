"""The server's own log: levels, moments, JSON, and priorities for the journal."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pdp.cli.operate.logs import JournalFormatter, JSONFormatter, TextFormatter, is_journal, log_to_stderr
from pdp.config.settings import LogSettings
from tests.machinery.servers.commandline import (
    DEADLINE_SECONDS,
    clean_environment,
    start_server,
    stop_server,
    write_bundle,
)

AT = 1_767_607_200.1234  # 2026-01-05 10:00 in UTC


def record(level: int, message: str, *args: object) -> logging.LogRecord:
    """Return a line of the log that was written at a known moment."""
    made = logging.LogRecord("pdp.server", level, __file__, 1, message, args, None)
    made.created = AT
    return made


def failed() -> logging.LogRecord:
    """Return a line about an exception."""
    made = record(logging.ERROR, "it failed")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


@contextmanager
def fresh() -> Iterator[None]:
    """Be a process that has not set its log up yet; afterwards it logs as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize("worker", [0, 2])
def test_text_says_when_in_utc(worker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line names its moment with a zone, whatever the machine's own zone is; several workers name themselves."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    who = f"worker {worker} " if worker else ""

    line = TextFormatter(worker).format(record(logging.WARNING, "`%s` is gone", "it"))

    assert f"2026-01-05T10:00:00.123Z WARNING {who}pdp.server: `it` is gone" == line


def test_json_is_one_object_a_line() -> None:
    """Message, time, source and severity are separate fields; a traceback does not break the line."""
    line = JSONFormatter(2).format(failed())

    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("exception").endswith("ValueError: why")
    expected = {"time": "2026-01-05T10:00:00.123Z", "level": "error", "logger": "pdp.server", "worker": 2}
    assert {**expected, "message": "it failed"} == found


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_the_journal_gets_priorities(level: int, priority: int) -> None:
    """Each level has the priority that syslog knows it by."""
    assert JournalFormatter(TextFormatter(0)).format(record(level, "x")).startswith(f"<{priority}>2026-")


def test_every_line_of_a_traceback_has_its_priority() -> None:
    """The journal takes each line for a message of its own."""
    lines = JournalFormatter(TextFormatter(0)).format(failed()).splitlines()

    assert len(lines) > 2
    assert {"<3>"} == {line[:3] for line in lines}


def test_the_journal_is_known_by_its_file(tmp_path: Path) -> None:
    """A service whose stderr was sent elsewhere than to the journal writes no priorities there."""
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        found = os.fstat(journal.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}

        assert is_journal(journal, environ)
        assert not is_journal(other, environ)
        assert not is_journal(journal, {})
        assert not is_journal(io.StringIO(), environ)


@pytest.mark.parametrize(("level", "said"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_left_out(level: str, said: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The setting is the least level that is said."""
    with fresh():
        log_to_stderr(LogSettings(level=level, format="json"))  # type: ignore[arg-type] # one of the four

        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("pdp.server").log(number, "x")

    assert said == len([json.loads(line) for line in capsys.readouterr().err.splitlines()])


def test_text_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a setting there are lines for people, from `info` on."""
    with fresh():
        log_to_stderr(LogSettings())

        logging.getLogger("pdp").info("x")
        logging.getLogger("pdp").debug("y")

    assert re.fullmatch(r"\S+Z INFO pdp: x\n", capsys.readouterr().err)


def test_all_processes_of_a_server_log_as_the_settings_say(tmp_path: Path) -> None:
    """Parent and workers write JSON alike, each line an object that says whose it is."""
    write_bundle(tmp_path / "policies")

    server = start_server(tmp_path, "--server-workers", "2", "--log-format", "json")
    code, _, err = stop_server(server)

    lines = [json.loads(line) for line in err.splitlines()]
    assert 0 == code
    # The control process is numbered after the workers.
    assert {None, 1, 2, 3} >= {line.get("worker") for line in lines} > {None}
    assert {"first start: the tokens of all callers are in `.pdp/tokens`", "stopping"} <= {
        line["message"] for line in lines
    }


def failed_start(*flags: str, folder: Path, journal: bool = False, **environ: str) -> list[str]:
    """Return what a server says on stderr that cannot start."""
    said = folder / "stderr"
    with said.open("w") as stderr:
        found = os.fstat(stderr.fileno())
        stream = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else {}
        done = subprocess.run(
            [sys.executable, "-m", "pdp.cli", "serve", *flags],
            cwd=folder,
            env=clean_environment() | stream | environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=2 * DEADLINE_SECONDS,
            check=False,
        )
    assert (2, b"") == (done.returncode, done.stdout)
    return said.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("workers", "debug"), [("1", "0"), ("2", "1")])
def test_what_keeps_a_server_from_starting_is_in_its_log(tmp_path: Path, workers: str, debug: str) -> None:
    """With `json` no line is anything else, whichever process met the error, and also with a traceback."""
    write_bundle(tmp_path / "policies", policies={"files": "permit (principal, action, nothing);"})

    flags = ("--log-format", "json", "--server-address", "127.0.0.1:0", "--server-workers", workers)
    *_, last = [json.loads(line) for line in failed_start(*flags, folder=tmp_path, PDP_DEBUG=debug)]

    assert ("critical", "pdp.serve", debug == "1") == (last["level"], last["logger"], "exception" in last)
    assert last["message"].startswith("policies/files.cedar:1: ")


def test_a_taken_address_is_in_the_log_with_its_priority(tmp_path: Path) -> None:
    """In the journal what ends the server is as urgent as it is, in text as in JSON; elsewhere text is for people."""
    write_bundle(tmp_path / "policies")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--server-address", f"127.0.0.1:{taken.getsockname()[1]}", "--server-workers", "1")
        as_json = failed_start(*flags, "--log-format", "json", folder=tmp_path, journal=True)
        as_text = failed_start(*flags, folder=tmp_path, journal=True)
        for_people = failed_start(*flags, folder=tmp_path)

    why = for_people[-1].removeprefix("error: ")
    assert why != for_people[-1]
    assert {"<"} == {line[:1] for line in as_json}
    assert "<2>" == as_json[-1][:3]
    assert why == json.loads(as_json[-1][3:])["message"]
    assert re.fullmatch(r"<2>\S+Z CRITICAL pdp\.serve: .+", as_text[-1])
    assert as_text[-1].endswith(why)
