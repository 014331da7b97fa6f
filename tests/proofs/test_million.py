"""A million records: the same questions, as exact, with the times printed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pdp.audit import AuditIndex, Search
from pdp.model import TraceParent
from pdp.record import DecisionLog, SigningKey
from pdp.testing.decisions import a_decision
from tests.machinery.investigation.bruteforce import everything, kept
from tests.machinery.investigation.incident import write_incident
from tests.machinery.investigation.questions import answered, questions

MILLION = 1_000_000


@pytest.mark.long
@pytest.mark.timeout(0)
def test_a_million_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every question about a million records is answered as by reading them all, and what is new is soon indexed."""
    now_at = write_incident(tmp_path, MILLION)
    told = [f"log: {sum(path.stat().st_size for path in tmp_path.glob('record-*')) / 1e6:.0f} MB"]
    with AuditIndex(tmp_path) as index:
        started = time.perf_counter()
        index.refresh()
        told.append(f"build: {time.perf_counter() - started:.1f} s, {index.file.stat().st_size / 1e6:.0f} MB")
        records = everything(tmp_path, kept)
        for question in questions(Search(index), records, now_at, kept):
            answer, expected, seconds = answered(question)
            assert expected == answer, question.name
            assert answer, question.name
            told.append(f"{question.name}: {seconds * 1000:.1f} ms, {len(answer)} answers")
        log = DecisionLog(tmp_path, key=b"k" * 32, signer=SigningKey.generate())
        for number in range(1000):
            log.decision(a_decision(id=f"dec_new_{number}"), TraceParent())
        log.close()
        started = time.perf_counter()
        index.refresh()
        told.append(f"1000 more records: {(time.perf_counter() - started) * 1000:.0f} ms")
        assert "dec_new_999" == Search(index).show("dec_new_999")[-1].record()["id"]
    assert len(records) >= MILLION
    with capsys.disabled():
        print("\n" + "\n".join(told))  # noqa: T201 - the figures are what this is for
