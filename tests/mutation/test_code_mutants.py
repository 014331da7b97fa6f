"""Mutants of what decides: each kind is made, and (*long*) tests notice at least 95 % and all that is not explained."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.campaign import source_file
from tests.mutation.mutants import mutants_of
from tests.mutation.scope import LEAST_KILLED, MODULES
from tests.mutation.survivors import EXPLAINED


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x == 1", ["x != 1", "x == 2"]),
        ("x < y", ["x <= y", "x >= y"]),
        ("x is None", ["x is not None"]),
        ("x and y", ["x or y", "y", "x"]),
        ("not x", ["x"]),
        ("x + y", ["x - y"]),
        ("x if y else z", ["x", "z", "x if not y else z"]),
        ("True", ["False"]),
        ("'a'", ["''"]),
        ("b''", ["b'mutant'"]),
        ("min(x, y)", ["max(x, y)"]),
        ("f(x, y=z)", ["f(x)"]),
        ("(x, y)", ["(y,)", "(x,)"]),
        ("{x: y}", ["{}"]),
        ("x[:y]", ["x"]),
        ("[x for x in y if z]", ["[x for x in y if True]"]),
        ("f'a{x}'", ["f'mutant{x}'", "f'a'"]),
    ],
)
def test_each_kind_of_mistake(source: str, expected: list[str]) -> None:
    """One mistake at a time, and every one that can be made at a place."""
    body = f"def f():\n    y = {source}\n"
    made = []
    for mutant in mutants_of("m", body):
        [function] = ast.parse(mutant.source).body
        assert isinstance(function, ast.FunctionDef)
        [statement] = function.body
        assert isinstance(statement, ast.Assign)
        made.append(ast.unparse(statement.value))

    assert sorted(ast.unparse(ast.parse(one, mode="eval")) for one in expected) == sorted(made)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("return x", ["return None"]),
        ("f()", ["pass"]),
        ("x.y = z", ["pass"]),
        ("x += y", ["pass"]),
        ("raise x", ["pass"]),
    ],
)
def test_each_kind_of_statement(source: str, expected: list[str]) -> None:
    """What is done is not done, and what is returned is not returned."""
    made = [mutant.source.splitlines()[1].strip() for mutant in mutants_of("m", f"def f():\n    {source}\n")]

    assert expected == made


@pytest.mark.parametrize("module", MODULES)
def test_mutants_are_programs_with_names(module: str) -> None:
    """Each compiles and differs from the module, and no two have one name."""
    source = source_file(module).read_text(encoding="utf-8")
    made = list(mutants_of(module, source))

    assert len(made) == len({mutant.name for mutant in made})
    for mutant in made:
        assert source != mutant.source
        ast.parse(mutant.source)


@pytest.mark.long
def test_tests_notice_mistakes(tmp_path: Path, project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 95 % of the mutants are killed; each that survives is explained, and no explanation is left over."""
    out = tmp_path / "results.jsonl"
    # In a process of its own: it collects, and then forks for each mutant.
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation", "--out", str(out)],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    alive = {(row["module"], row["name"]) for row in rows if row["fate"] not in {"killed", "timeout"}}
    with capsys.disabled():
        print(f"{len(rows) - len(alive)} of {len(rows)} mutants killed")  # noqa: T201 - the figure of a long proof
    assert len(alive) <= (1 - LEAST_KILLED) * len(rows)
    assert {(module, name) for module, names in EXPLAINED.items() for name in names} == alive
