"""The other decision point: asked in its own words, checked like all others, and missing without harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.beside import main, run_beside
from benchmarks.cerbos import CERBOS, CerbosDialect, cerbos_server, find_cerbos
from pdp.bench import Effort, Measurement, Plan, Shape, WrongAnswerError, planned
from pdp.bench.measuring import measured
from pdp.bench.plan import CONTROL
from pdp.bench.questions import generated_workload
from pdp.errors import UnavailableError

ALLOWED = b"\x12\x0f\x12\x0d\n\tread_item\x10\x01"
DENIED = b"\x12\x0f\x12\x0d\n\tread_item\x10\x02"


def test_a_program_that_is_not_there_is_named() -> None:
    """Who names a program and mistypes it learns so, instead of a run without it."""
    with pytest.raises(UnavailableError, match="`/nowhere/cerbos` is not a program that runs"):
        find_cerbos("/nowhere/cerbos")

    done = CliRunner().invoke(main, ["--short", "--cerbos", "/nowhere/cerbos"])
    assert (2, "", "error: `/nowhere/cerbos` is not a program that runs\n") == (
        done.exit_code,
        done.stdout,
        done.stderr,
    )


def test_without_the_program_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a named program or one on the PATH, the run goes on without Cerbos."""
    monkeypatch.setenv("PATH", "/nowhere")

    assert find_cerbos(None) is None


def test_a_run_without_it_says_so() -> None:
    """A table in which it is missing tells why."""
    plan = Plan(
        measurements=planned([Shape.UNARY], ladder=(1,), rate=None, mixes=(0.0,)),
        effort=Effort(rounds=1, seconds=0.01),
        workload=generated_workload(),
        setups=(),
    )

    result = run_beside(plan, lambda *_: None, program=None)

    assert [[CONTROL]] == [list(one.rounds) for one in result.findings]
    assert "Cerbos was not measured: its program was not found" in result.remarks[1]


def test_a_question_is_asked_in_its_own_words() -> None:
    """User, role and agent are the principal, the tool is the action, and arguments are attributes of the resource."""
    workload = generated_workload()

    wire = CerbosDialect(workload).encode(Shape.UNARY, workload.repeated[:1])

    for expected in (b"alice", b"staff", b"worker", b"read_item", b"bench-0", b"repeated-0"):
        assert expected in wire


@pytest.mark.parametrize(
    ("answer", "right"),
    [(ALLOWED, True), (DENIED, False), (b"", False), (ALLOWED * 2, False), (b"\xff", False), (b"\x12\x00", False)],
)
def test_an_answer_is_checked(answer: bytes, right: bool) -> None:  # noqa: FBT001 - a column of the table
    """Only the effect that must be is right: another one, none, several or nonsense are not."""
    workload = generated_workload()
    dialect = CerbosDialect(workload)

    if right:
        assert 0 == dialect.check(Shape.UNARY, answer, workload.repeated[:1])
    else:
        with pytest.raises(WrongAnswerError):
            dialect.check(Shape.UNARY, answer, workload.repeated[:1])


@pytest.mark.skipif(find_cerbos(None) is None, reason="the program of Cerbos is not on the PATH")
@pytest.mark.parametrize("shape", [Shape.UNARY, Shape.FRAMES, Shape.BATCH])
def test_its_policies_say_the_same(tmp_path: Path, shape: Shape) -> None:
    """Asked the same questions, it gives the same answers: allowed and denied ones."""
    program, workload = find_cerbos(None), generated_workload()
    assert program is not None

    with cerbos_server(program, workload, tmp_path, None) as target:
        figures = measured(target, Measurement(shape=shape), workload, seconds=0.01)

    assert CERBOS == target.name
    assert figures.rate > 0
