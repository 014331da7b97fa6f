"""The rules of replicas hold in a model of them, and each is needed: without it, the model shows what goes wrong."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.sessions.replicamodel import RIGHT, SETUPS, Rules, search
from tests.sessions.replicamutants import Mutant, mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = (HERE / "replicamutants.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| M")]
# Of each mutant of the program: what it is, and the tests that it dies in.
PROGRAM = [
    (f"{name}: {what}", re.findall("`(.*?)`", dies)) for name, what, dies in (row for row in ROWS if len(row) == 3)
]
# Of each mutant of the model: its rule, and the set-up in which it dies.
MUTANTS = {mutant: (rule.strip("`"), setup) for mutant, _, rule, setup in (row for row in ROWS if len(row) == 4)}


@pytest.mark.parametrize("setup", SETUPS)
def test_nothing_is_allowed_after_an_acknowledged_revocation(setup: str) -> None:
    """With all rules, whatever is delayed, lost, removed or promoted."""
    assert search(RIGHT, SETUPS[setup]) is None


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_rule_is_needed(mutant: str) -> None:
    """Without it there is a way to an allow that must not be."""
    rule, setup = MUTANTS[mutant]

    assert search(Rules(**{rule: False}), SETUPS[setup]) is not None


def test_each_rule_has_a_mutant() -> None:
    """The table leaves out none."""
    assert {field.name for field in fields(Rules)} == {rule for rule, _ in MUTANTS.values()}


def test_the_table_has_the_mutants_of_the_program() -> None:
    """In their order, and with the tests that each of them dies in."""
    assert PROGRAM == [(one.name, [*one.tests]) for one in mutants()]
    assert {f"M{number}" for number in range(1, 30)} == {one.number for one in mutants()}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_of_the_program_can_be_made(mutant: Mutant) -> None:
    """What it changes is there once, and so are its tests; that it dies is proved by `make replicas-long`."""
    source = mutant.file(ROOT).read_text(encoding="utf-8")
    files = [test.split("::") for test in mutant.tests]

    assert source != mutant.made(source)
    assert all(f"\ndef {name}(" in Path(HERE, file).read_text(encoding="utf-8") for file, name in files)
