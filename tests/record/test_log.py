"""The decision log: what a line holds, and what happens when it cannot be written."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import ConfigurationError
from pdp.jsontext import keyed_digest
from pdp.model import Basis, CacheResult, Caller, Decision, Outcome, Role, Ruling, TraceParent
from pdp.observer import Event
from pdp.record import DecisionLog, read_log
from pdp.record.entry import decision_line
from pdp.testing.decisions import a_decision

KEY = b"k" * 32
NO_PARENT = TraceParent()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    """Yield a log in a folder of its own."""
    log = DecisionLog(tmp_path / "decisions.jsonl", key=KEY)
    yield log
    log.close()


def _ids(path: Path) -> list[str]:
    return [record["id"] for record in read_log(path)]


def test_the_whole_record_of_a_decision(log: DecisionLog) -> None:
    """A decision in which everything happened is written with exactly these fields."""
    decision = a_decision(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        errors=("guardrails/broken",),
        ancestor_id="ses_cccccccccccccccccccccccccc",
        ancestor_basis=Basis.POLICY_ERROR,
        detail="a policy could not be evaluated",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
    )

    assert log.decision(decision, NO_PARENT) is decision

    (record,) = read_log(log.path)
    assert record == {
        "v": 1,
        "kind": "decision",
        "id": "dec_aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "time": "2027-01-15T08:00:00.250000Z",
        "outcome": "deny",
        "basis": "ancestor_denied",
        "policies": ["github/coders_open_issues"],
        "errors": ["guardrails/broken"],
        "detail": "a policy could not be evaluated",
        "ancestor_id": "ses_cccccccccccccccccccccccccc",
        "ancestor_basis": "policy_error",
        "obligations": [],
        "session_id": "ses_bbbbbbbbbbbbbbbbbbbbbbbbbb",
        "session_epoch": 3,
        "ancestors": ["ses_cccccccccccccccccccccccccc"],
        "user": "alice",
        "agent": "coder",
        "tenant": "default",
        "environment": "production",
        "opened_by": "gateway-1",
        "caller_id": "gateway-1",
        "caller_kind": "token",
        "server": "github",
        "tool": "create_issue",
        "definition_digest": "sha256:" + "d" * 64,
        "arguments_digest": keyed_digest(KEY, "sha256:" + "a" * 64),
        "resource_type": "Repository",
        "resource_id": "acme/site",
        "bundle_version": "sha256:" + "b" * 64,
        "cache": "miss",
        "duration_us": 84.5,
        "request_id": "req-1",
        "tool_call_id": "call-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
    }


def test_the_whole_record_of_an_event(log: DecisionLog) -> None:
    """An event is written with its kind, time, who and its facts."""
    log.event(
        Event(
            kind="session.revoked",
            at=1_800_000_000.000001,
            caller_id="approver-1",
            session_id="ses_b",
            user="alice",
            agent="coder",
            tenant="default",
            facts={"reason": "the laptop is lost"},
        )
    )

    (record,) = read_log(log.path)
    assert record == {
        "v": 1,
        "kind": "session.revoked",
        "time": "2027-01-15T08:00:00.000001Z",
        "caller_id": "approver-1",
        "session_id": "ses_b",
        "user": "alice",
        "agent": "coder",
        "tenant": "default",
        "facts": {"reason": "the laptop is lost"},
    }


def test_only_allowed_fields_are_written() -> None:
    """Of all texts in a decision, the record holds all but these."""
    texts = {field.name: f"canary-{field.name}" for field in fields(Decision) if field.type == "str"}
    texts |= {field.name: f"canary-{field.name}" for field in fields(Ruling) if field.type == "str"}

    line = decision_line(a_decision(**texts), KEY).decode()

    assert {name for name in texts if f'"canary-{name}"' not in line} == {"arguments_digest"}


def test_a_hidden_resource_is_a_keyed_digest() -> None:
    """A resource id that must not be logged is written as a digest that cannot be guessed."""
    record = json.loads(decision_line(a_decision(log_resource=False), KEY))

    assert "resource_id" not in record
    assert record["resource_digest"] == keyed_digest(KEY, "acme/site")


def test_digests_depend_on_the_key() -> None:
    """Equal arguments have equal digests in one deployment and different ones in another."""
    digests = [json.loads(decision_line(a_decision(), key))["arguments_digest"] for key in (KEY, KEY, b"x" * 32)]

    assert digests[0] == digests[1] != digests[2]
    assert digests[0].startswith("hmac-sha256:")


_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
_TEXTS = st.lists(_TEXT, max_size=4).map(tuple)
_RULINGS = st.builds(
    Ruling,
    outcome=st.sampled_from(Outcome),
    basis=st.sampled_from(Basis),
    policies=_TEXTS,
    errors=_TEXTS,
    resource_type=_TEXT,
    resource_id=_TEXT,
    log_resource=st.booleans(),
    ancestor_id=_TEXT,
    ancestor_basis=st.none() | st.sampled_from(Basis),
    detail=_TEXT,
)
_DECISIONS = st.builds(
    Decision,
    **{field.name: _TEXT for field in fields(Decision) if field.type == "str"},
    ruling=_RULINGS,
    session_epoch=st.integers(0, 2**63),
    ancestor_ids=_TEXTS,
    caller=st.builds(Caller, id=_TEXT, kind=_TEXT, roles=st.frozensets(st.sampled_from(Role)), tenant=_TEXT),
    cache_result=st.sampled_from(CacheResult),
    decided_at=st.floats(0, 253_402_300_799),
    duration_us=st.floats(0, 1e12),
    phases=st.just(()),
)


@given(_DECISIONS)
def test_any_decision_is_one_line(decision: Decision) -> None:
    """Whatever stands in a decision, its record is one line of printable ASCII that gives the texts back."""
    line = decision_line(decision, KEY)

    assert line.isascii()
    assert line.endswith(b"\n")
    assert line[:-1].decode("ascii").isprintable()
    record = json.loads(line)
    assert record["tool"] == decision.tool
    assert record["policies"] == list(decision.ruling.policies)
    assert record["detail"] == decision.ruling.detail
    assert record["basis"] == decision.ruling.basis.value


def test_the_tools_name_is_bounded() -> None:
    """An agent cannot make a record as long as it likes."""
    record = json.loads(decision_line(a_decision(tool="x" * 100_000), KEY))

    assert record["tool"] == "x" * 512


def test_equal_decisions_are_equal_lines() -> None:
    """A record is a function of the decision: keys are sorted, nothing is spaced."""
    line = decision_line(a_decision(), KEY)

    assert line == decision_line(a_decision(), KEY)
    assert line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_a_process_has_its_own_file(tmp_path: Path) -> None:
    """In a shared folder a file is named after start and process, and others cannot read it."""
    log = DecisionLog.in_folder(tmp_path / "log", key=KEY, started_at=1_800_000_000.0)
    log.close()

    assert log.path == tmp_path / "log" / f"decisions-20270115T080000Z-{os.getpid()}.jsonl"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_threads_do_not_mix_lines(log: DecisionLog) -> None:
    """Decisions of many threads are all there, each on a line of its own."""
    names = [f"dec_{number}" for number in range(800)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: log.decision(a_decision(id=name), NO_PARENT), names))

    assert sorted(_ids(log.path)) == sorted(names)


_WRITER = """
import sys
from pathlib import Path
from pdp.model import TraceParent
from pdp.record import DecisionLog
from pdp.testing.decisions import a_decision

log = DecisionLog(Path(sys.argv[1]), key=b"k" * 32)
for number in range(10**9):
    print(log.decision(a_decision(id=f"dec_{number}"), TraceParent()).id, flush=True)
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """Every decision that was answered before the process was killed is in the log."""
    path = tmp_path / "decisions.jsonl"
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [next(writer.stdout).strip() for _ in range(300)]
        writer.send_signal(signal.SIGKILL)
        answered += [line.strip() for line in writer.stdout if line.endswith("\n")]

    assert _ids(path)[: len(answered)] == answered


def test_a_full_disk_changes_no_decision() -> None:
    """A line that cannot be written is counted and reported; the decision goes on, and the log is not healthy."""
    reports: list[str] = []
    log = DecisionLog(Path("/dev/full"), key=KEY, on_failure=lambda: reports.append("failed"))
    decision = a_decision()

    assert log.healthy
    assert log.decision(decision, NO_PARENT) is decision
    log.event(Event(kind="server.started", at=1.0))
    log.close()

    assert (log.healthy, log.failures, reports) == (False, 2, ["failed", "failed"])


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a disk that is almost full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_after_a_short_write_the_next_record_is_whole(log: DecisionLog) -> None:
    """A line that was cut is skipped by the reader, and the line after it is not part of it."""
    log.decision(a_decision(id="dec_1"), NO_PARENT)
    with _largest_file(log.path.stat().st_size + 100):
        log.decision(a_decision(id="dec_2"), NO_PARENT)
        log.decision(a_decision(id="dec_3"), NO_PARENT)
        cut = log.healthy, log.failures
    log.decision(a_decision(id="dec_4"), NO_PARENT)

    broken: list[int] = []
    assert [record["id"] for record in read_log(log.path, on_broken=broken.append)] == ["dec_1", "dec_4"]
    assert broken == [2]
    assert (cut, log.healthy, log.failures) == ((False, 2), True, 2)


def test_a_reopened_log_starts_on_a_fresh_line(log: DecisionLog) -> None:
    """When the process before died inside a line, the next record does not become part of it."""
    log.decision(a_decision(id="dec_1"), NO_PARENT)
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"agent":"cod')

    again = DecisionLog(log.path, key=KEY)
    again.decision(a_decision(id="dec_2"), NO_PARENT)
    again.close()

    assert _ids(log.path) == ["dec_1", "dec_2"]


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_reading_tolerates_an_incomplete_last_line(log: DecisionLog, missing: int) -> None:
    """A log can be read while it is being written: a record counts as soon as its last brace is there."""
    log.decision(a_decision(id="dec_1"), NO_PARENT)
    log.decision(a_decision(id="dec_2"), NO_PARENT)
    os.truncate(log.path, log.path.stat().st_size - missing)

    assert _ids(log.path) == (["dec_1", "dec_2"] if missing == 1 else ["dec_1"])


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"7\n", b"\x00\x00\x00\n", b"\xff\n", b"{}}\n"])
def test_reading_skips_what_is_no_record(log: DecisionLog, line: bytes) -> None:
    """Anything but a JSON object is reported by its number and skipped."""
    with log.path.open("ab") as file:
        file.write(line)
    log.decision(a_decision(id="dec_1"), NO_PARENT)

    broken: list[int] = []
    assert [record["id"] for record in read_log(log.path, on_broken=broken.append)] == ["dec_1"]
    assert broken == [1]


def test_a_closed_log_is_not_healthy(log: DecisionLog) -> None:
    """A decision after closing is a failure and not an exception."""
    log.close()
    log.close()

    log.decision(replace(a_decision()), NO_PARENT)

    assert (log.healthy, log.failures) == (False, 1)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    """A key that could be guessed makes no digests."""
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        DecisionLog(tmp_path / "decisions.jsonl", key=b"k" * 31)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The message says which file and why."""
    with pytest.raises(ConfigurationError, match=r"cannot open the decision log `.*missing/decisions\.jsonl`: No such"):
        DecisionLog(tmp_path / "missing" / "decisions.jsonl", key=KEY)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever can make a link in the folder cannot direct the log to another file."""
    (tmp_path / "decisions.jsonl").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigurationError):
        DecisionLog(tmp_path / "decisions.jsonl", key=KEY)
