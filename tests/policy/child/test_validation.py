"""Policies that are validated beside a few tools each get the verdict that all tools would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

import cedarpy
import pytest

from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.compile import parsed_policies
from pdp.policy.child.validation import all_valid
from pdp.policy.contents import read_contents
from pdp.policy.lint.facts import environments
from pdp.policy.schema import full_schema
from tests.machinery.randomworld import files, random_policies
from tests.machinery.seeds import fresh_seed

SEEDS = 40
LONG_SEEDS = 5_000
_WORLD = read_contents(files([]), DEFAULT_LIMITS)
_KNOWN = environments(_WORLD.catalogue)
_WHOLE = cedarpy.Schema.from_str(
    full_schema(_WORLD.schema, _WORLD.caller_facts, tuple(_WORLD.catalogue.tools.values()), _WORLD.groups)
)

# What could be missing where only some tools are declared.
AWKWARD = (
    'permit (principal, action == Action::"alpha/get", resource) when { action in Action::"destructive" };',
    'permit (principal, action == Action::"alpha/get", resource) when { action == Action::"beta/send" };',
    'permit (principal, action == Action::"alpha/get", resource) when { action == Action::"beta/gone" };',
    'permit (principal, action == Action::"alpha/get", resource) unless { action in [Action::"beta/send"] };',
    'permit (principal, action in [Action::"alpha/get", Action::"beta/send"], resource);',
    'permit (principal, action in [Action::"alpha/get", Action::"beta/gone"], resource);',
    'permit (principal, action in [Action::"alpha/get", Action::"mutating"], resource) when { context has input };',
    'permit (principal, action in [Action::"alpha/put", Action::"alpha/drop"], resource) when { context.input.n > 1 };',
    'permit (principal, action in [Action::"alpha/put", Action::"alpha/get"], resource) when { context.input.n > 1 };',
    'permit (principal, action == Action::"beta/send", resource == Thing::"t1");',
    'permit (principal, action == Action::"beta/send", resource is Thing);',
    'permit (principal is Agent, action == Action::"beta/send", resource);',
    'permit (principal == Agent::"coder", action == Action::"beta/send", resource);',
    'permit (principal in Server::"beta", action == Action::"beta/send", resource);',
    'permit (principal is Gone, action == Action::"beta/send", resource);',
    'permit (principal, action == Action::"gone", resource);',
    'permit (principal, action == Action::"pdp/approve_session", resource) when { context.may_delegate };',
    'permit (principal, action == Action::"pdp/approve_session", resource) when { context.input.n == 1 };',
    'permit (principal, action in [Action::"pdp/approve_session", Action::"alpha/get"], resource);',
    "permit (principal, action, resource) when { context has input && context.input has n && context.input.n == 1 };",
)


@pytest.mark.parametrize("text", AWKWARD)
def test_verdict_is_that_of_the_whole(text: str) -> None:
    """What a policy names outside of the tools beside which it is validated is declared or missed as in the whole."""
    assert verdict_of_whole([f'@id("p/0") {text}']) == verdict_in_parts([f'@id("p/0") {text}'], 1)


def test_verdicts_on_random_policies() -> None:
    """Policies alone and in sets, valid and not, beside one tool and beside two."""
    counts = hold(range(SEEDS))

    assert min(counts[True], counts[False]) > SEEDS / 2


@pytest.mark.long
def test_verdicts_on_many_random_policies() -> None:
    """The same, from a fresh seed."""
    first = fresh_seed()

    assert hold(range(first, first + LONG_SEEDS)).total() > LONG_SEEDS


def hold(seeds: range) -> Counter[bool]:
    """Check the sets of some seeds, and each policy of them; return how often each verdict was given."""
    print(seeds)  # noqa: T201 - a failure is to be found again
    counts: Counter[bool] = Counter()
    wrong = []
    for seed in seeds:
        policies = random_policies(Random(seed))  # noqa: S311 - reproducible, not secret
        texts = [policy.text(place) for place, policy in enumerate(policies)]
        for chosen in (texts, *([text] for text in texts)):
            verdict = verdict_of_whole(chosen)
            counts[verdict] += 1
            wrong += [(seed, chosen) for tools in (1, 2) if verdict_in_parts(chosen, tools) != verdict]

    assert [] == wrong
    return counts


def verdict_of_whole(texts: Iterable[str]) -> bool:
    """Ask the validator with all tools declared."""
    return cedarpy.validate_policies("\n".join(texts), _WHOLE).validation_passed


def verdict_in_parts(texts: list[str], tools: int) -> bool:
    """Ask it beside so many tools at a time."""
    parsed = on_large_stack(lambda: parsed_policies({"p.cedar": "\n".join(texts)}, DEFAULT_LIMITS))
    return all_valid([one.linted(_KNOWN) for one in parsed], _WORLD, _WHOLE, tools_of_a_part=tools)
