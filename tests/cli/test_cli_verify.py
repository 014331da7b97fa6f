"""`pdp audit verify`: a real server's record, with nothing but the public key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdp.broker.opening import opened_record
from pdp.cli.audit.group import end_text
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey
from pdp.record.anchors import Anchors
from pdp.record.keys import write_keys
from pdp.record.segments import head_of, segment_of
from pdp.record.verify import ChainReport
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import Server

PUBLIC = "record-signing.pub.pem"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Write a record of three events and its keys; return its folder, which is beside the public key."""
    write_keys(tmp_path)
    log = DecisionLog(tmp_path / "record", key=b"k" * 32, signer=SigningKey.load(tmp_path / "record-signing.pem"))
    for number in range(3):
        log.event(Event(kind=EventKind.SERVER_STARTED, at=float(number)))
    log.close()
    return tmp_path / "record"


def test_an_intact_record(run: Run, record: Path) -> None:
    """Exit code 0, and how far each chain goes."""
    done = run("audit", "verify", "record", "--public-key", PUBLIC)

    assert done.exit_code == 0, done.output
    assert done.output.endswith("the record is intact\n")
    chain = next(record.glob("*.jsonl")).name.split("-")[1]
    assert f"chain {chain}: 6 records in 1 segment, up to record 6, closed" in done.output


def test_a_changed_record(run: Run, record: Path) -> None:
    """Exit code 1, and a line with file, line and what for each finding."""
    file = next(record.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"00:00:01", b"00:00:07"))

    done = run("audit", "verify", "record", "--public-key", PUBLIC)

    assert done.exit_code == 1
    assert done.output.startswith(
        f"record/{file.name}:5: the record before this one is not the one that this record follows"
    )


def test_json(run: Run, record: Path) -> None:
    """`--json` prints findings and chains for other programs."""
    next(record.glob("*.jsonl")).unlink()

    done = run("audit", "verify", "record", "--public-key", PUBLIC, "--json")

    assert done.exit_code == 1
    findings = [{"file": "record", "line": 0, "problem": "there is no record here"}]
    assert json.loads(done.output) == {"findings": findings, "more_findings": 0, "chains": []}


def test_what_an_earlier_run_printed(run: Run, record: Path) -> None:
    """`--known` takes what `--json` printed: a run that was taken away since then is found."""
    (record.parent / "noted.json").write_text(run("audit", "verify", "record", "--public-key", PUBLIC, "--json").output)
    whole = run("audit", "verify", "record", "--public-key", PUBLIC, "--known", "noted.json")
    _cut(record)

    done = run("audit", "verify", "record", "--public-key", PUBLIC, "--known", "noted.json")

    assert (whole.exit_code, done.exit_code) == (0, 1)
    assert "`noted.json` names record 6" in done.output


def test_what_the_server_noted(run: Run, record: Path) -> None:
    """`--known` takes the folder in which the server notes how far it has come."""
    chain = next(record.glob("*.jsonl"))
    Anchors(record.parent / "heads").note(
        chain.name.split("-")[1], head_of((segment_of(record, chain.name.split("-")[1], 1),))
    )
    whole = run("audit", "verify", "record", "--public-key", PUBLIC, "--known", "heads")
    _cut(record)

    done = run("audit", "verify", "record", "--public-key", PUBLIC, "--known", "heads")

    assert (whole.exit_code, done.exit_code) == (0, 1)
    assert "`heads` names record 6" in done.output


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[" * 100_000,
        '{"chains": [{"chain": "0f3a9c51d2e7", "seq": 1e999, "hash": ""}]}',
        '{"chains": [{"chain": "0f3a9c51d2e7", "seq": 6.9, "hash": ""}]}',
        '{"chains": [{"chain": "0f3a9c51d2e7", "seq": true, "hash": ""}]}',
        '{"chains": [{"chain": "0f3a9c51d2e7", "seq": "1_0", "hash": ""}]}',
    ],
)
def test_what_says_nothing_of_a_record(run: Run, record: Path, text: str) -> None:
    """Another file is refused, and not taken for one that names no chain; nor a number that no record has."""
    (record.parent / "other.json").write_text(text)

    done = run("audit", "verify", "record", "--public-key", PUBLIC, "--known", "other.json")

    assert done.exit_code == 2
    assert "`other.json` is not output of `pdp audit verify --json`" in done.output


def _cut(record: Path) -> None:
    file = next(record.glob("*.jsonl"))
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))


@pytest.mark.parametrize(
    "arguments", [("missing", "--public-key", PUBLIC), ("record",), ("record", "--public-key", "x")]
)
@pytest.mark.usefixtures("record")
def test_what_cannot_be_verified(run: Run, arguments: tuple[str, ...]) -> None:
    """Exit code 2 without a folder or a key."""
    assert run("audit", "verify", *arguments).exit_code == 2


def test_the_record_of_a_running_server(run: Run, server: Server) -> None:
    """A record can be verified while it is being written."""
    data = server.folder / ".pdp"

    done = run("audit", "verify", str(data / "record"), "--public-key", str(data / PUBLIC))

    assert done.exit_code == 0, done.output
    assert "being written" in done.output


@pytest.mark.parametrize(("unsigned", "expected"), [(0, "all signed at T"), (2, "2 unsigned since T")])
def test_how_far_a_record_is_signed(unsigned: int, expected: str) -> None:
    """Where everything is signed, nothing is said to be unsigned."""
    chain = ChainReport(
        chain="c", segments=1, records=9, seq=9, hash="h", unsigned=unsigned, signed_at="T", closed=False, live=True
    )

    assert f"being written, {expected}" == end_text(chain)


def test_the_records_of_server_and_broker_together(run: Run, record: Path, tmp_path: Path) -> None:
    """One command verifies both, also against what was noted of both, and each only by its own key."""
    with opened_record(tmp_path / "broker") as log:
        log.event(Event(kind=EventKind.SECRET_STORED, at=1.0))
    words = ("audit", "verify", record.name, "--public-key", PUBLIC, "--broker", "broker/record", "--broker-public-key")
    both = run(*words, f"broker/{PUBLIC}")
    noted = run(*words, f"broker/{PUBLIC}", "--json")
    (tmp_path / "noted.json").write_text(noted.output)
    known = run(*words, f"broker/{PUBLIC}", "--known", "noted.json")
    exchanged = run(*words, PUBLIC)
    (chain,) = (tmp_path / "broker" / "record").glob("*.jsonl")
    chain.write_bytes(chain.read_bytes().replace(b"secret.stored", b"secret.storad"))
    changed = run(*words, f"broker/{PUBLIC}")
    chain.rename(tmp_path / "gone")
    removed = run(*words, f"broker/{PUBLIC}", "--known", "noted.json")

    assert (0, "the records are intact") == (both.exit_code, both.output.splitlines()[-1])
    assert (0, 2) == (known.exit_code, len(json.loads(noted.output)["chains"]))
    assert (1, "the records are not intact") == (exchanged.exit_code, exchanged.output.splitlines()[-1])
    assert (1, True) == (changed.exit_code, changed.output.startswith("broker/record/"))
    assert (1, 1) == (removed.exit_code, removed.output.count("is named here, but is missing"))


@pytest.mark.parametrize("words", [("--broker", "record"), ("--broker-public-key", PUBLIC)])
def test_a_record_of_a_broker_needs_its_key(run: Run, record: Path, words: tuple[str, ...]) -> None:
    """The key of the server is not the broker's."""
    done = run("audit", "verify", record.name, "--public-key", PUBLIC, *words)

    assert (2, True) == (done.exit_code, "need each other" in done.output)


def test_a_changed_record_does_not_say_that_it_is_intact(run: Run, record: Path) -> None:
    """What a finding quotes is the record's: line breaks and characters that hide or turn others are escaped."""
    forged = {"kind": "segment.opened", "number": "1\nthe record is intact\n\u202e", "lost": {"a\n\u009b2J": "1:b"}}
    place = {"chain": "a" * 12, "seq": 1, "prev": "0" * 64}
    line = json.dumps({**forged, **place}, separators=(",", ":"))
    segment_of(record, "a" * 12, 1).path.write_text(f"{line}\n", encoding="utf-8")

    done = run("audit", "verify", "record", "--public-key", PUBLIC)

    assert 1 == done.exit_code
    assert "the record is intact" not in done.stdout.splitlines()
    assert not {"\u202e", "\u009b"} & set(done.stdout)
