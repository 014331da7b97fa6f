"""The rules of replicas hold in a model of them, and each is needed: without it, the model shows what goes wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tests.sessions.replicamodel import RIGHT, SETUPS, Rules, search

TABLE = Path(__file__).with_name("replicamutants.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| M")]
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
