"""What an answer lacks: the record of a machine, compared with what it has noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.audit.coverage import NOTHING_LACKING, Coverage, Lacking, LackingPart
from pdp.audit.searchable import SearchableRecord
from pdp.errors import StoreUnavailableError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller, Role, TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.record.segments import head_of, segments_by_chain
from pdp.server.audit import AuditHandlers
from pdp.serving.origin import Origin
from pdp.sessions.notedheads import NotedHead, NotedHeads
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision
from pdp.v1.audit_pb2 import ListRecordsRequest

STEP = 100.0
NOTED_AT = 5000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a record of three segments, one begun each `STEP`."""
    clock = FakeClock(wall_at=0.0)
    log = DecisionLog(
        tmp_path, key=b"k" * 32, signer=SigningKey.generate(), clock=clock, rotation=Rotation(seconds=STEP)
    )
    for _ in range(3):
        log.event(Event(kind=EventKind.SERVER_STARTED, at=clock.now().wall_at))
        log.tick()
        clock.advance(STEP)
    log.close()
    return tmp_path


def noted(folder: Path) -> NotedHead:
    """Return what the writer of the only chain in a folder has noted at its end."""
    ((chain, segments),) = segments_by_chain(folder).items()
    head = head_of(segments)
    return NotedHead(chain=chain, replica="there", seq=head.seq, hash=head.hash, at=NOTED_AT)


def lacking(folder: Path, head: NotedHead, *, own: Path | None = None) -> Lacking:
    """Compare a folder with one head."""
    return Coverage(lambda: NotedHeads(deployment="d", heads=(head,)), folder, own=own).lacking()


def _nothing(_: Path) -> None:
    pass


def _remove(number: int) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        next(folder.glob(f"*-{number:06d}.jsonl")).unlink()

    return remove


def _remove_all(folder: Path) -> None:
    for file in folder.glob("*.jsonl"):
        file.unlink()


def _cut(folder: Path) -> None:
    last = max(folder.glob("*.jsonl"))
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_nothing, []),
        # The oldest may be archived.
        (_remove(1), []),
        (_remove(2), [(STEP, 2 * STEP)]),
        (_cut, [(2 * STEP, NOTED_AT)]),
        (_remove_all, [(None, NOTED_AT)]),
    ],
)
def test_what_is_gone_is_named_with_its_times(
    folder: Path, change: Callable[[Path], None], expected: list[tuple[float | None, float | None]]
) -> None:
    """From the last record before it to the first one after it, or to what was noted."""
    head = noted(folder)
    change(folder)
    found = lacking(folder, head)

    assert expected == [(part.since_at, part.until_at) for part in found.parts]
    assert [(head.replica, head.chain)] * len(expected) == [(part.replica, part.chain) for part in found.parts]


def test_another_record_in_its_place_is_lacking(folder: Path) -> None:
    """The number alone is not the record."""
    assert lacking(folder, replace(noted(folder), hash="0" * 64)).parts
    assert not lacking(folder, replace(noted(folder), seq=1, hash="0" * 64))


def test_a_silent_machine_may_have_more(folder: Path) -> None:
    """Since it last noted how far it was; not when its record is written on this machine."""
    head = replace(noted(folder), silent=True)
    part = LackingPart(replica="there", chain=head.chain, since_at=NOTED_AT, until_at=None)

    assert Lacking(parts=(part,)) == lacking(folder, head)
    assert NOTHING_LACKING == lacking(folder, head, own=folder)


def test_a_database_that_does_not_answer_leaves_all_in_doubt(folder: Path) -> None:
    """And no answer takes that for nothing."""

    def away() -> NotedHeads:
        raise StoreUnavailableError("away")

    found = Coverage(away, folder).lacking()

    assert (True, "what is lacking cannot be told: away") == (bool(found), str(found))
    assert NOTHING_LACKING == Coverage(None, folder).lacking()


def test_what_is_there_when_it_is_compared_is_in_the_answer(tmp_path: Path) -> None:
    """The index reads the record after that: what was called complete is not answered without its end."""
    log = DecisionLog(tmp_path, key=b"k" * 32, signer=SigningKey.generate())

    class Comparing(Coverage):
        """Something is recorded while it compares."""

        def lacking(self) -> Lacking:
            log.decision(a_decision(), TraceParent())
            return NOTHING_LACKING

    searchable = SearchableRecord(tmp_path)
    handlers = AuditHandlers(searchable, None, coverage=Comparing(None), clock=FakeClock(), limits=DEFAULT_LIMITS)
    auditor = Caller(id="auditor", kind="token", roles=frozenset({Role.AUDITOR}))
    answer = handlers.list_records(ListRecordsRequest(), Origin(caller=auditor, parent=TraceParent()))
    searchable.close()
    log.close()

    assert [a_decision().id] == [json.loads(one.record_json)["id"] for one in answer.records]
