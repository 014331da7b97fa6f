"""What the validator refuses is said in an author's words, at the place that is meant."""

from __future__ import annotations

import re

import pytest

from tests.policy.lint.material import policy, report

FORBID = 'forbid (principal, action == Action::"bank/transfer", resource)'
ENGINE_WORDS = re.compile(r"__cedar|unexpected type|not compatible|lub|extension function|non-literal")

# (conditions, the code, the column on the third line where the wrong part begins; 0: the engine alone knows)
REFUSED = [
    ('when { context.input.cents == "5" }', "type-mismatch", 8),
    ('when { context.agent == Agent::"clerk" && context.input.cents > "5" }', "type-mismatch", 43),
    ('when { context.input.cents < decimal("5.0") }', "type-mismatch", 8),
    ('when { context.input.cents.greaterThan(decimal("5.0")) }', "type-mismatch", 8),
    ("when { context.input.to }", "type-mismatch", 8),
    ("when { true && !context.input.cents }", "type-mismatch", 16),
    ("when { context.input.to > 5 }", "type-mismatch", 8),
    ('when { context.input.to.contains("x") }', "type-mismatch", 8),
    ('when { context.input.cents like "5*" }', "type-mismatch", 8),
    ('when { context.now > "2026" }', "type-mismatch", 8),
    ("when { context.now.toTime() > 8 }", "type-mismatch", 8),
    ('when { context.session.depth == 1 && context.session.labels == "a" }', "type-mismatch", 38),
    ("when { context.session.labels.contains(5) }", "type-mismatch", 8),
    ('when { context.agent == "clerk" }', "type-mismatch", 8),
    ('when { context.input.cents + "a" == 3 }', "type-mismatch", 8),
    ("when { if context.input.cents then true else false }", "type-mismatch", 8),
    ('when { principal in "x" }', "type-mismatch", 0),
    ('when { [1, "a"].contains(context.input.cents) }', "type-mismatch", 0),
    ("when { [].contains(context.input.cents) }", "validation", 0),
    ('when { decimal("x").lessThan(decimal("1.0")) }', "validation", 16),
    ('when { decimal(context.input.to).lessThan(decimal("1.0")) }', "validation", 0),
    ('when { context.input.note == "x" }', "optional-attribute", 8),
    ('when { !(context.input has note) || context.input.note == "x" }', "optional-attribute", 37),
    (
        'when { (context.input has note && context.input.note == "a") || context.input.note == "b" }',
        "optional-attribute",
        65,
    ),
    (
        'when { if context.input has note then context.input.note == "a" else context.input.note == "b" }',
        "optional-attribute",
        70,
    ),
]
# The forms that the help of `optional-attribute` names.
TAKEN = [
    'when { if context.input has note then context.input.note like "*x*" else true }',
    'when { if context.input has note then context.input.note like "*x*" else false }',
    'when { context.input has note && context.input.note like "*x*" }',
    'when { context.input has note } when { context.input.note like "*x*" }',
]


@pytest.mark.parametrize(("conditions", "code", "column"), REFUSED, ids=[one[0] for one in REFUSED])
def test_refusal_is_in_our_words_at_its_place(conditions: str, code: str, column: int) -> None:
    """The message has none of the engine's words, and the caret stands under the part that is meant."""
    (problem,) = report(policy(FORBID, conditions)).errors

    assert code == problem.code
    assert not ENGINE_WORDS.search(problem.message + problem.help)
    assert (3, column) == (problem.line, problem.column) or not column


@pytest.mark.parametrize("conditions", TAKEN)
def test_forms_that_the_help_names_are_taken(conditions: str) -> None:
    """Whoever follows the help of `optional-attribute` has a bundle that loads."""
    assert () == report(policy(FORBID, conditions)).errors
