"""Whole runs, tiny ones, with real servers: what is found, and that a wrong answer ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.exceptions import Exit
from click.testing import CliRunner

from pdp.bench import Effort, Measurement, Plan, Result, Shape, WrongAnswerError, planned, read_result, run
from pdp.bench.brokered import BrokeredDialect, Call
from pdp.bench.dialects import PDPDialect
from pdp.bench.figures import Figures
from pdp.bench.frameload import frame_load
from pdp.bench.load import Sample
from pdp.bench.measuring import measured
from pdp.bench.plan import (
    ADDED_KEY,
    ALL_HITS,
    ALL_MISSES,
    BARE,
    BROKER,
    CLIENT_SHAPES,
    CONTROL,
    DOOR,
    FULL,
    FULL_LOOP,
    HELD_TOKEN,
    LOOP,
    LOOP_TLS,
    MCP_DOOR,
    OBSERVED,
    OWN_KEY,
    RECORDED,
    SEALED_KEY,
    TOOL_SERVER,
)
from pdp.bench.questions import Question, Workload, arguments, generated_workload, question
from pdp.bench.servers import Target, empty_handler, pdp_server
from pdp.cli.operate.bench import bench as command
from pdp.cli.root import root
from pdp.testing.inprocess import write_folder

SERVED = (Shape.UNARY, Shape.FRAMES, Shape.STREAM, Shape.BATCH, *CLIENT_SHAPES)
EVERY_SERVER = [CONTROL, BARE, RECORDED, FULL, FULL_LOOP]
SETUPS = (*EVERY_SERVER[1:], LOOP_TLS, DOOR, MCP_DOOR, BROKER)
# `make bench-check` measures `RECORDED` and `FULL`; `BARE` is the first of these without a record.
NEEDED = (FULL_LOOP, LOOP_TLS, DOOR, MCP_DOOR, BROKER)
EMPTY = Result(at="", yardstick="", machine={}, effort="", workload="", remarks=(), findings=())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Run this server on the generated policies."""
    place, workload = tmp_path_factory.mktemp("server"), generated_workload()
    write_folder(place / "policies", workload.files)
    with pdp_server(RECORDED, workload, place, None, {"OTEL_SDK_DISABLED": "true"}) as target:
        yield target


def measure(target: Target, shape: Shape, workload: Workload, misses: float = ALL_HITS) -> Figures:
    """Measure a server for a moment."""
    measurement = Measurement(shape=shape, concurrency=2, misses=misses)
    return measured(target, measurement, workload, seconds=0.01)


@pytest.fixture(scope="module")
def impostor() -> Iterator[Target]:
    """Run the empty handler, and take what it answers for the answers of a decision point."""
    with empty_handler(generated_workload(), None) as target:
        yield replace(target, dialect=PDPDialect(("pdps_" + "x" * 43,), "any"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("setups", [NEEDED, pytest.param(SETUPS, marks=pytest.mark.long)], ids=["most", "all"])
def test_every_server_is_measured_in_every_shape(setups: tuple[str, ...]) -> None:
    """A run has figures for each server, in each round, whichever way it is asked."""
    left_out = set(SETUPS) - set(setups)
    told: list[tuple[int, int]] = []
    workload = generated_workload()

    result = run(
        Plan(
            measurements=planned(list(Shape), ladder=(2,), rate=200.0, mixes=(ALL_HITS, 0.5), connections=(1, 2)),
            effort=Effort(rounds=1, seconds=0.01),
            # Few questions are asked before each measurement, one of them denied: there are hundreds of measurements.
            workload=replace(workload, repeated=workload.repeated[:4]),
            setups=setups,
        ),
        lambda _, done, total: told.append((done, total)),
    )

    # In process, each way of deciding is measured whatever is served.
    served = {
        "unary, hits, 2 at a time": [*EVERY_SERVER, DOOR],
        "unary, 50% misses, 2 at a time": [*EVERY_SERVER, DOOR],
        "unary, hits, 200 calls/s": [*EVERY_SERVER, DOOR],
        "raw frames, hits, 2 at a time": [*EVERY_SERVER, LOOP_TLS],
        "raw frames, 50% misses, 2 at a time": [*EVERY_SERVER, LOOP_TLS],
        "raw frames, hits, 200 calls/s": [*EVERY_SERVER, LOOP_TLS],
        "raw frames, hits, 2 at a time, 2 connections": [*EVERY_SERVER, LOOP_TLS],
        "stream, hits, 2 at a time": EVERY_SERVER,
        "call over MCP, hits, 2 at a time": [TOOL_SERVER, MCP_DOOR],
        "brokered call, 2 at a time": [OWN_KEY, SEALED_KEY, HELD_TOKEN, ADDED_KEY],
        "client by itself, hits, 2 at a time": EVERY_SERVER[1:],
        "client together, hits, 2 at a time": EVERY_SERVER[1:],
        "batch of 50, hits, 1 at a time": EVERY_SERVER,
    }
    assert {
        "in process, hits": [LOOP, BARE, OBSERVED],
        "in process, 50% misses": [LOOP, BARE, OBSERVED],
        **{title: [name for name in names if name not in left_out] for title, names in served.items()},
    } == {one.title: list(one.rounds) for one in result.findings}
    assert {1} == {len(rounds) for one in result.findings for rounds in one.rounds.values()}
    assert all(figures.cpu > 0 for one in result.findings for rounds in one.rounds.values() for figures in rounds)
    assert [(done, 30) for done in range(1, 31)] == told


@pytest.mark.parametrize("shape", SERVED)
def test_a_wrong_answer_ends_the_run(server: Target, shape: Shape) -> None:
    """A server that denies what must be allowed is found out in every shape."""
    right = generated_workload()
    wrong = replace(right, repeated=[replace(one, allowed=True) for one in right.repeated])

    with pytest.raises(
        WrongAnswerError, match="`bench/read_item` must be allowed, and the answer is denied by `forbid`"
    ):
        measure(server, shape, wrong)


@pytest.mark.parametrize("shape", SERVED)
def test_a_server_that_always_allows_is_found_out(impostor: Target, shape: Shape) -> None:
    """What the empty handler answers is fast and wrong, and no measurement of a decision point takes it."""
    with pytest.raises(WrongAnswerError):
        measure(impostor, shape, generated_workload())


def test_an_answer_about_other_arguments_ends_the_run(server: Target) -> None:
    """An answer must repeat what was asked, not only be of the right kind."""
    right = generated_workload()
    wrong = replace(right, repeated=[replace(one, arguments_digest="sha256:" + "0" * 64) for one in right.repeated])

    with pytest.raises(WrongAnswerError, match="about other arguments"):
        measure(server, Shape.UNARY, wrong)


def test_another_mix_than_was_meant_ends_the_run(server: Target) -> None:
    """Where all questions were to be new ones and answers are remembered, the figures would be those of hits."""
    right = generated_workload()
    again = right.repeated[0]

    with pytest.raises(WrongAnswerError, match="0% of the answers should have been remembered ones, and 100% were"):
        measure(server, Shape.UNARY, replace(right, fresh=lambda: again), misses=ALL_MISSES)


@pytest.mark.parametrize("shape", SERVED)
def test_a_server_that_errs_ends_the_run(server: Target, shape: Shape) -> None:
    """No answer is no good answer: what is refused is not counted as fast."""
    right = generated_workload()
    wrong = replace(right, repeated=[replace(one, server="") for one in right.repeated])

    with pytest.raises(WrongAnswerError, match=r"(?i:invalid_argument)|the stream answered with an error"):
        measure(server, shape, wrong)


@asynccontextmanager
async def badly(_: Question) -> AsyncIterator[Call]:
    """Make calls that the other side answers with something else."""

    async def call(_: str, __: bytes) -> bytes:
        return b"{}"

    yield call


@pytest.mark.parametrize(
    ("with_token", "problem"),
    [(False, "the other side did not answer the call"), (True, "no call token: this server issues none")],
)
def test_a_brokered_call_that_is_not_made_ends_the_run(server: Target, *, with_token: bool, problem: str) -> None:
    """It is not enough that the call is allowed: the other side must have done it, and for a broker with a token."""
    workload = generated_workload()
    assert isinstance(server.dialect, PDPDialect)
    dialect = BrokeredDialect(
        server.dialect.handles,
        server.dialect.token,
        question=workload.repeated[0],
        calling=badly,
        with_token=with_token,
    )

    with pytest.raises(WrongAnswerError, match=problem):
        measure(replace(server, dialect=dialect), Shape.BROKERED, workload)


def frames(target: Target, seconds: float, **measured: Any) -> Sample:
    """Ask by raw frames, with answers that are remembered."""
    workload, measurement = generated_workload(), Measurement(shape=Shape.FRAMES, connections=2, **measured)
    with frame_load(target, measurement, workload, seconds) as load:
        load.ask_each(len(workload.repeated))
        return load.run(measurement, seconds)


def test_raw_frames_ask_as_often_as_was_said(server: Target) -> None:
    """In the open loop the schedule decides, on all connections together."""
    sample = frames(server, 0.1, rate=400.0)

    assert (40, 40, 40) == (sample.decisions, len(sample.took), len(sample.late))
    # At least one in four is decoded, and what is counted is about those.
    assert (True, sample.checked, 0) == (sample.checked >= 10, sample.remembered, sample.fresh)


def test_raw_frames_keep_so_many_under_way(server: Target) -> None:
    """In the closed loop each call asks once, also when the time is over at once, and is waited for."""
    assert 5 == frames(server, 0.0, concurrency=5).decisions


def test_callers_who_ask_again_at_once_are_refused_nothing(server: Target) -> None:
    """What a server refuses before it looks at it, because the connection has too many open, is asked again."""
    measurement = Measurement(shape=Shape.UNARY, concurrency=160)

    assert measured(server, measurement, generated_workload(), seconds=1.5).rate > 0


def test_a_question_larger_than_a_window_is_asked_whole() -> None:
    """What a server's windows do not take yet waits until it makes them larger; no byte is lost."""
    right = generated_workload()
    large = question("bench", "read_item", arguments("x" * 200_000), allowed=True)
    with empty_handler(right, None) as target:
        figures = measure(target, Shape.FRAMES, replace(right, repeated=[large, right.repeated[0]]))

    assert figures.rate > 0


def test_the_command_measures_compares_and_fails_on_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run is kept in a file, and beside a baseline that was a hundred times as good the same figures exit with 1."""
    file, baseline = tmp_path / "result.json", tmp_path / "baseline.json"
    tiny = ["--rounds", "1", "--seconds", "0.01", "--shape", "unary", "--setup", RECORDED, "--concurrency", "16"]
    words = [sys.executable, "-m", "pdp.cli", "bench", "--short", *tiny, "--json", str(file)]

    measured = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))

    content = json.loads(file.read_bytes())
    for figures in content["findings"][0]["rounds"][RECORDED]:
        figures["cpu"] /= 100
    baseline.write_text(json.dumps(content), encoding="utf-8")
    compared = {"short": True, "baseline": str(baseline), "bound": 10.0, "measuring": lambda *_: read_result(file)}
    with pytest.raises(Exit) as worse:
        click.Context(command).invoke(command, **compared)
    assert (0, 1) == (measured.returncode, worse.value.exit_code)
    assert "unary, hits, 16 at a time  tracing off" in measured.stdout
    assert "regressed: tracing off, unary, hits, 16 at a time: cpu is worse by" in capsys.readouterr().err


def test_the_command_exits_with_1_on_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a wrong answer says where and what, shows no table, and fails."""
    right = generated_workload()
    wrong = replace(right, repeated=[replace(one, allowed=True) for one in right.repeated])
    monkeypatch.setattr("pdp.cli.operate.bench.open_workload", lambda *_: wrong)

    done = CliRunner().invoke(root, ["bench", "--short", "--shape", "batch", "--setup", RECORDED])

    assert (1, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith(
        "wrong: tracing off, batch of 50, hits, 1 at a time: `bench/read_item` must be allowed"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--concurrency", "four"], "`--concurrency` must be numbers separated by commas, and `four` is not a number"),
        (["--concurrency", "0"], "`--concurrency` must be 1 or more, not `0`"),
        (["--connections", "0"], "`--connections` must be 1 or more, not `0`"),
        (["--misses", "2"], "`--misses` must be a number from 0 to 1, not `2`"),
        (["--compare", "nowhere.json"], "`nowhere.json`: no such file or directory"),
        (["--workload", "nowhere.jsonl"], "`nowhere.jsonl`: no such file or directory"),
        (["--policies", "policies"], "--policies needs --workload"),
        (
            ["--shape", "brokered call", "--setup", FULL],
            f"`brokered call` is a way to ask `{BROKER}` alone: see --setup",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(arguments: list[str], expected: str) -> None:
    """A request that makes no sense ends with 2 and one line, before anything is measured."""
    done = CliRunner().invoke(root, ["bench", "--short", *arguments])

    assert (2, "", f"error: {expected}\n") == (done.exit_code, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("library", "setups", "extra"),
    [("ngh2", [FULL_LOOP, LOOP_TLS], "loop"), ("httpcore2", [MCP_DOOR], "mcp"), ("uvicorn", [BROKER], "broker")],
)
def test_what_is_not_installed_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str, setups: list[str], extra: str
) -> None:
    """A setup without its library is no row, but a remark; who asks for it by name is told at once."""
    plans: list[Plan] = []

    def measuring(plan: Plan, _: object) -> Result:
        plans.append(plan)
        return replace(EMPTY, remarks=["one"])

    monkeypatch.setattr("pdp.cli.operate.bench.find_spec", lambda name: None if name == library else object())
    problems = [f"`{setup}` cannot be measured: pip install 'agent-pdp[{extra}]'" for setup in setups]

    click.Context(command).invoke(command, short=True, measuring=measuring, json_file=str(tmp_path / "result.json"))
    named = CliRunner().invoke(root, ["bench", "--short", "--setup", setups[0]])

    assert set(SETUPS) - set(setups) == set(plans[0].setups)
    assert ["one", *problems] == read_result(tmp_path / "result.json").remarks
    assert (2, f"error: {problems[0]}\n") == (named.exit_code, named.stderr)
