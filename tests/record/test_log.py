"""The decision log: what a record holds, and where it stands."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import ConfigurationError
from pdp.foundation.jsontext import keyed_digest
from pdp.model import Basis, CacheResult, Caller, Decision, Matter, Outcome, Role, Ruling, TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.entry import Entries
from pdp.record.envelope import canonical
from pdp.record.reader import read_segment
from pdp.testing.decisions import a_decision

KEY = b"k" * 32
NO_PARENT = TraceParent()


SIGNER = SigningKey.generate()
# Where a record stands is not what it says.
PLACE = {"chain", "seq", "prev"}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    """Yield a log in a folder of its own."""
    log = DecisionLog(tmp_path, key=KEY, signer=SIGNER)
    yield log
    log.close()


def _told(folder: Path) -> list[dict[str, Any]]:
    """Return the records of decisions and events, without their places."""
    own = {"segment.opened", "checkpoint"}
    return [
        {name: value for name, value in record.items() if name not in PLACE}
        for _, _, record in read_records(folder)
        if record["kind"] not in own
    ]


def _ids(folder: Path) -> list[str]:
    return [record["id"] for record in _told(folder)]


def _record(decision: Decision, key: bytes = KEY) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Entries(key).decision(decision) + b"}")
    return record


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

    (record,) = _told(log.folder)
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
        "catalogue_digest": "sha256:" + "e" * 64,
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
            kind=EventKind.SESSION_REVOKED,
            at=1_800_000_000.000001,
            caller_id="approver-1",
            session_id="ses_b",
            user="alice",
            agent="coder",
            tenant="default",
            facts={"reason": "the laptop is lost"},
        )
    )

    (record,) = _told(log.folder)
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
    parts = (Decision, Matter, Ruling)
    texts = {field.name: f"canary-{field.name}" for one in parts for field in fields(one) if field.type == "str"}

    line = Entries(KEY).decision(a_decision(**texts)).decode()

    assert {name for name in texts if f'"canary-{name}"' not in line} == {"arguments_digest"}


def test_a_hidden_resource_is_a_keyed_digest() -> None:
    """A resource id that must not be logged is written as a digest that cannot be guessed."""
    record = _record(a_decision(log_resource=False))

    assert "resource_id" not in record
    assert record["resource_digest"] == keyed_digest(KEY, "acme/site")


def test_digests_depend_on_the_key() -> None:
    """Equal arguments have equal digests in one deployment and different ones in another."""
    digests = [_record(a_decision(), key)["arguments_digest"] for key in (KEY, KEY, b"x" * 32)]

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
_MATTERS = st.builds(
    Matter,
    **{field.name: _TEXT for field in fields(Matter) if field.type == "str"},
    session_epoch=st.integers(0, 2**63),
    ancestor_ids=_TEXTS,
)
_DECISIONS = st.builds(
    Decision,
    **{field.name: _TEXT for field in fields(Decision) if field.type == "str"},
    matter=_MATTERS,
    ruling=_RULINGS,
    caller=st.builds(Caller, id=_TEXT, kind=_TEXT, roles=st.frozensets(st.sampled_from(Role)), tenant=_TEXT),
    cache_result=st.sampled_from(CacheResult),
    decided_at=st.floats(0, 253_402_300_799),
    duration_us=st.floats(0, 1e12),
    phases=st.just(()),
    labels_added=st.just(()) | st.lists(st.text(), max_size=3).map(tuple),
    debits=st.just(()) | st.lists(st.tuples(st.text(), st.integers(0) | st.text()), max_size=3).map(tuple),
)


@given(_DECISIONS)
def test_any_decision_is_one_line(decision: Decision) -> None:
    """Whatever stands in a decision, its record is one line of printable ASCII that gives the texts back."""
    line = Entries(KEY).decision(decision) + b"}"

    assert line.isascii()
    assert line.decode("ascii").isprintable()
    record = json.loads(line)
    assert record["tool"] == decision.tool
    assert record["policies"] == list(decision.ruling.policies)
    assert record["detail"] == decision.ruling.detail
    assert record["basis"] == decision.ruling.basis.value


@pytest.mark.parametrize("field", [field.name for one in (Decision, Matter) for field in fields(one)])
def test_a_remembered_ruling_is_recorded_like_a_new_one(field: str) -> None:
    """What is kept of a record for equal calls never stands in the record of another call, whichever field differs."""
    entries, first = Entries(KEY), a_decision(cache_result=CacheResult.HIT, recurs=True)
    other: dict[type, Any] = {
        str: "other",
        bool: True,
        int: 7,
        float: 7.0,
        tuple: ("other",),
        Caller: replace(first.caller, id="other"),
        Matter: replace(first.matter, tool="other"),
        Ruling: replace(first.ruling, policies=("other",)),
        CacheResult: CacheResult.BYPASS,
    }
    held = first.matter if hasattr(first.matter, field) else first
    value: Any = (("max_calls", 7),) if field == "debits" else other[type(getattr(held, field))]
    changed: Any = replace(held, **{field: value})
    second = changed if held is first else replace(first, matter=changed)
    # Only what is remembered recurs.
    second = replace(second, recurs=second.cache_result is CacheResult.HIT)

    written = [entries.decision(first), entries.decision(second), entries.decision(first)]

    assert written == [Entries(KEY).decision(decision) for decision in (first, second, first)]


def test_what_is_kept_for_equal_calls_is_bounded() -> None:
    """However many different calls there are, the log does not grow in memory."""
    entries = Entries(KEY)

    kept = []
    for number in range(5000):
        entries.decision(a_decision(cache_result=CacheResult.HIT, recurs=True, tool=f"tool_{number}"))
        kept.append(len(entries._forms))

    assert [2048, 1] == kept[2047:2049]
    assert 2048 == max(kept)


@pytest.mark.parametrize("second", [0, 1, 2])
def test_the_first_record_has_its_own_time(second: int) -> None:
    """Nothing is remembered of a time before the first."""
    record = _record(a_decision(decided_at=second + 0.25))

    assert f"1970-01-01T00:00:0{second}.250000Z" == record["time"]


def test_the_tools_name_is_bounded() -> None:
    """An agent cannot make a record as long as it likes."""
    record = _record(a_decision(tool="x" * 100_000))

    assert record["tool"] == "x" * 512


def test_equal_decisions_are_equal_lines() -> None:
    """A record is a function of the decision: keys are sorted, nothing is spaced."""
    line = Entries(KEY).decision(a_decision()) + b"}"

    assert line == Entries(KEY).decision(a_decision()) + b"}"
    assert line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode()


def test_lines_are_canonical(log: DecisionLog) -> None:
    """What stands in the file is the canonical form of what a reader parses."""
    log.decision(a_decision(), NO_PARENT)
    log.event(Event(kind=EventKind.SERVER_STOPPED, at=1.0))
    log.close()

    lines = log.path.read_bytes().splitlines()
    assert [canonical(json.loads(line)) for line in lines] == lines


def test_others_cannot_read_the_record(log: DecisionLog) -> None:
    """A segment and its lock are for the owner alone."""
    modes = {stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()}

    assert modes == {0o600}


def test_threads_do_not_mix_lines(log: DecisionLog) -> None:
    """Decisions of many threads are all there, each on a line of its own."""
    names = [f"dec_{number}" for number in range(800)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: log.decision(a_decision(id=name), NO_PARENT), names))

    assert sorted(_ids(log.folder)) == sorted(names)


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_reading_leaves_an_incomplete_last_line_out(log: DecisionLog, missing: int) -> None:
    """A log can be read while it is being written: a record counts as soon as its newline is there."""
    log.decision(a_decision(id="dec_1"), NO_PARENT)
    log.decision(a_decision(id="dec_2"), NO_PARENT)
    os.truncate(log.path, log.path.stat().st_size - missing)

    assert _ids(log.folder) == ["dec_1"]


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"7\n", b"\x00\x00\x00\n", b"\xff\n", b"{}}\n", b'{"a":NaN}\n'])
def test_reading_skips_what_is_no_record(tmp_path: Path, line: bytes) -> None:
    """Anything but a JSON object is reported by its number and skipped."""
    file = tmp_path / "segment"
    file.write_bytes(line + b'{"seq":1}\n')

    broken: list[int] = []
    read = list(read_segment(file, on_broken=lambda _, number: broken.append(number)))

    assert [(2, {"seq": 1})] == [(located.line, located.record) for located in read]
    assert broken == [1]


def test_reading_keeps_fields_that_it_does_not_know(tmp_path: Path) -> None:
    """A record of a later version that only adds fields is read."""
    file = tmp_path / "segment"
    file.write_bytes(b'{"kind":"decision","new":[1],"v":1}\n')

    assert [{"kind": "decision", "new": [1], "v": 1}] == [located.record for located in read_segment(file)]


def test_several_processes_are_one_log(tmp_path: Path) -> None:
    """Each open log has a chain of its own, and readers see all records by time."""
    logs = [DecisionLog(tmp_path, key=KEY, signer=SIGNER) for _ in range(2)]
    for number in range(6):
        logs[number % 2].event(Event(kind=EventKind.SERVER_STARTED, at=2_000_000_000.0 + number))
    for log in logs:
        log.close()

    read = [record for _, _, record in read_records(tmp_path) if record["kind"] == "server.started"]
    assert [record["time"][17:19] for record in read] == ["20", "21", "22", "23", "24", "25"]
    assert len({record["chain"] for record in read}) == 2


def test_after_closing_nothing_is_written(log: DecisionLog) -> None:
    """A decision after closing is counted as lost, and is not an exception."""
    log.close()
    log.close()

    log.decision(a_decision(), NO_PARENT)

    assert (log.status().lost, _ids(log.folder)) == (1, [])


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    """A key that could be guessed makes no digests."""
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        DecisionLog(tmp_path, key=b"k" * 31, signer=SIGNER)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The message says which folder and why."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"cannot write the decision log in `.*file/record`: not a directory"):
        DecisionLog(tmp_path / "file" / "record", key=KEY, signer=SIGNER)


def test_a_link_is_not_followed(log: DecisionLog) -> None:
    """Whoever can make a link in the folder cannot direct the log to another file."""
    chain = log.path.name.split("-")[1]
    log.close()
    elsewhere = log.folder / "elsewhere"
    elsewhere.write_bytes(b"not a line")
    (log.folder / f"record-{chain}-000002.jsonl").symlink_to(elsewhere)

    with pytest.raises(ConfigurationError):
        DecisionLog(log.folder, key=KEY, signer=SIGNER)
    assert elsewhere.read_bytes() == b"not a line"


def test_a_checkpoint_says_how_far_the_store_was(tmp_path: Path) -> None:
    """Under the name by which a restart finds it again."""
    log = DecisionLog(tmp_path, key=KEY, signer=SIGNER)
    log.watch_store(lambda: 7)
    log.decision(a_decision(), NO_PARENT)
    log.close()

    checkpoints = [record for _, _, record in read_records(tmp_path) if record["kind"] == "checkpoint"]
    assert 7 == checkpoints[-1]["store_revision"]
