"""Recorded calls as a workload: what is read, what is refused and where, and what must come of each call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import shapes
from pdp.bench import Effort, Plan, Shape, planned, run
from pdp.bench.bundle import AGENT, USER, generated_files
from pdp.bench.questions import arguments
from pdp.bench.recorded import read_calls
from pdp.bench.workloads import MOST_SESSIONS, open_workload
from pdp.errors import ConfigurationError
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.replayed import open_session, serving


def call(**fields: object) -> Mapping[str, object]:
    """Return one line's object, with a call that is well formed unless the fields say otherwise."""
    return {"server": "desk", "tool": "read", "arguments": {"what": "plan"}, **fields}


def written(folder: Path, *rows: object) -> Path:
    """Write rows into a file, each as JSON in a line of its own; bytes as they are."""
    file = folder / "calls.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"{", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        ([], "not a JSON object"),
        ({"server": "desk", "arguments": {}}, "`tool` is missing"),
        (call(arguments="{}"), "`arguments` must be an object"),
        (call(session=7), "`session` must be a text"),
        (call(expect="permit"), "`expect` is `permit`; write `allow` or `deny`"),
        (call(sesion="a"), "unknown field: `sesion`; did you mean `session`?"),
    ],
)
def test_a_line_that_is_no_call_is_named(tmp_path: Path, row: object, expected: str) -> None:
    """A mistake is reported with its file and line, and with what to write instead."""
    file = written(tmp_path, call(), b"", row)

    with pytest.raises(ConfigurationError) as raised:
        read_calls(file)

    assert f"{file}:3: {expected}" == str(raised.value)


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    """The author of a file learns of every wrong line at once."""
    file = written(tmp_path, [], call(), {"server": "desk"})

    with pytest.raises(ConfigurationError) as raised:
        read_calls(file)

    assert [
        f"{file}:1: not a JSON object",
        f"{file}:3: `tool` is missing",
        f"{file}:3: `arguments` is missing",
    ] == str(raised.value).splitlines()


def test_a_file_without_calls_is_no_workload(tmp_path: Path) -> None:
    """An empty file is an error, not a run of nothing."""
    with pytest.raises(ConfigurationError, match="holds no calls"):
        read_calls(written(tmp_path, b""))


def test_calls_come_in_order_with_their_sessions(tmp_path: Path) -> None:
    """Order, repetition and sessions of the file are those of the workload."""
    file = written(tmp_path, call(session="a"), call(session="b", tool="list"), call(session="a"))

    workload = open_workload(str(file))

    assert [("read", 0), ("list", 1), ("read", 0)] == [(one.tool, one.asker) for one in workload.repeated]
    assert 2 == len(workload.askers)


def test_many_sessions_share_a_few(tmp_path: Path) -> None:
    """A file of thousands of sessions starts as fast as one of a few dozen."""
    file = written(tmp_path, *(call(session=str(number)) for number in range(MOST_SESSIONS + 1)))

    workload = open_workload(str(file))

    assert MOST_SESSIONS == len(workload.askers)
    assert workload.repeated[0].asker == workload.repeated[-1].asker


def test_names_need_not_be_ascii(tmp_path: Path) -> None:
    """Without policies of its own, a recorded call of any tool is allowed."""
    (asked,) = open_workload(str(written(tmp_path, call(tool="lösche", arguments={"größe": "ü"})))).repeated

    assert asked.allowed


def test_policies_say_what_must_come_of_a_call(tmp_path: Path) -> None:
    """With a folder of policies the right answers are theirs, denies included."""
    write_folder(tmp_path / "policies", generated_files())
    rows = [
        {"server": "bench", "tool": "read_item", "arguments": json.loads(arguments(item)), "expect": expected}
        for item, expected in (("plan", "allow"), ("forbidden-plan", "deny"))
    ]

    workload = open_workload(str(written(tmp_path, *rows)), str(tmp_path / "policies"))

    assert [True, False] == [one.allowed for one in workload.repeated]


def test_another_expectation_than_the_policies_is_named(tmp_path: Path) -> None:
    """If a file says deny and the policies say allow, nothing is measured, and the line is named."""
    file = written(tmp_path, call(expect="allow"), call(expect="deny"))

    with pytest.raises(ConfigurationError) as raised:
        open_workload(str(file))

    assert f"{file}:2: `deny` is expected, and the policies say `allow` by `permit`" == str(raised.value)


def test_a_user_that_the_policies_do_not_know_is_named(tmp_path: Path) -> None:
    """Calls of a user who is in no directory cannot be asked about."""
    write_folder(tmp_path / "policies", generated_files())
    row = {"server": "bench", "tool": "read_item", "arguments": {"item": "a"}, "user": "mallory"}

    with pytest.raises(ConfigurationError, match="no session for user `mallory` with agent `worker`"):
        open_workload(str(written(tmp_path, row)), str(tmp_path / "policies"))


def test_a_decision_log_gives_the_shape_of_its_calls(tmp_path: Path) -> None:
    """Tools, sessions, order and repetition are those of the log; arguments, which it does not hold, are not."""
    permit = '@id("desk/all") permit (principal, action, resource);'
    files = bundle_files(
        policies={"desk": permit},
        tools={"desk": [tool("read", {"what": {"type": "string"}}, ["what"]), tool("list")]},
        directory=f'users: {{{USER}: {{}}}}\nagents: {{{AGENT}: {{ceiling: ["desk/*"]}}}}',
    )
    asked: list[tuple[str, dict[str, Any]]] = [("read", {"what": "a"}), ("list", {}), ("read", {"what": "a"})]
    with serving(tmp_path, files) as (pep, approver):
        session = open_session(pep, approver, user=USER, agent=AGENT, tools=("desk/*",))
        for name, given in asked:
            assert session.authorize("desk", name, given).allowed

    workload = open_workload(str(tmp_path / "data" / "record"))

    assert ["read", "list", "read"] == [one.tool for one in workload.repeated]
    first, other, again = (one.arguments_json for one in workload.repeated)
    assert first == again != other


@pytest.mark.parametrize(
    ("kind", "names", "calls"),
    [
        ("bfcl", ["bfcl/multi_turn_calls.jsonl"], 2345),
        ("agentdojo", ["agentdojo/calls.jsonl.gz", "agentdojo/attack_traces.jsonl.gz"], 2204),
    ],
)
def test_recorded_agent_runs_are_workloads(
    test_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    names: list[str],
    calls: int,
) -> None:
    """The runs of real agents become a file that is read without a word, and all that was called is allowed."""
    monkeypatch.setattr("sys.argv", ["shapes", kind, *(str(test_data / name) for name in names)])

    shapes.main()

    file = tmp_path / "calls.jsonl"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    workload = open_workload(str(file))
    assert {True} == {one.allowed for one in workload.repeated}
    assert calls == len(workload.repeated)


def test_recorded_calls_are_measured_in_process_too(tmp_path: Path) -> None:
    """A recorded workload reaches the process that decides by itself, where every answer is checked as well."""
    file = written(tmp_path, call(), call(session="b"), call(tool="list", arguments={}))
    workload = open_workload(str(file))
    measurements = planned([Shape.IN_PROCESS], ladder=(1,), rate=None, mixes=(None,))

    result = run(
        Plan(measurements=measurements, effort=Effort(rounds=1, seconds=0.01), workload=workload), lambda *_: None
    )

    assert ["in process"] == [one.title for one in result.findings]
