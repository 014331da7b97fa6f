"""Labels that a bundle declares; and no policy that loads permits more for one that does not widen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import cedarpy
import pytest

from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import compile_job, inspect_bundle
from pdp.testing.bundles import compile_here
from tests.machinery import randomworld
from tests.machinery.seeds import fresh_seed
from tests.machinery.witness import ask, world_read_once
from tests.policy.lint.material import AGENT, files, found, policy

SEEDS = 150
LONG_SEEDS = 50_000
LABELS = "labels: {seen: {meaning: has read}, checked: {meaning: was read, widens: true}}\n"
TRANSFER = 'principal, action == Action::"bank/transfer", resource'
FORBID, PERMIT = f"forbid ({TRANSFER})", f"permit ({TRANSFER})"
SEEN, CHECKED = 'context.session.labels.contains("seen")', 'context.session.labels.contains("checked")'
OVERFLOW = "9223372036854775807 + context.input.cents > 0"

PROVEN = [
    policy(FORBID, f"when {{ {SEEN} }}"),
    policy(FORBID, f"unless {{ !{SEEN} }}"),
    policy(FORBID, f"when {{ {SEEN} == true && context.input.cents > 5 }}"),
    policy(FORBID, 'when { context.session.labels.containsAny(["seen", "other"]) }'),
    policy(FORBID, 'when { ["seen"].containsAny(context.session.labels) || context.session.depth > 1 }'),
    policy(FORBID, 'unless { ["checked", "fine"].containsAll(context.session.labels) }'),
    policy(FORBID, "unless { context.session.labels.isEmpty() }"),
    policy(FORBID, f"when {{ if {SEEN} then true else context.session.depth > 1 }}"),
    policy(FORBID, f"when {{ {SEEN} && {OVERFLOW} }}"),
    policy(FORBID, f"when {{ {OVERFLOW} && {SEEN} }}"),
    policy(FORBID, f"unless {{ {CHECKED} }}"),
    policy(PERMIT, AGENT, f"when {{ {CHECKED} }}"),
    policy(PERMIT, AGENT, f"unless {{ {SEEN} }}"),
    policy(PERMIT, AGENT, f"when {{ {OVERFLOW} }}", f"unless {{ {SEEN} }}"),
    policy(PERMIT, AGENT, "when { context.session.labels.isEmpty() }"),
    policy(
        'permit (principal, action == Action::"pdp/delegate_session", resource)',
        'unless { resource.labels.contains("seen") }',
    ),
    policy(PERMIT, AGENT, 'when { context.input has note && context.input.note == "labels" }'),
]
UNPROVEN = [
    policy(PERMIT, AGENT, f"when {{ {SEEN} }}"),
    policy(PERMIT, AGENT, 'when { context.session.labels.contains("unheard-of") }'),
    policy(PERMIT, AGENT, "when { context.session.labels.contains(context.input.to) }"),
    policy(PERMIT, AGENT, f"unless {{ !{SEEN} && context.input.cents > 5 }}"),
    policy(PERMIT, AGENT, "unless { context.session.labels.isEmpty() }"),
    policy(PERMIT, AGENT, 'when { context.session.labels == ["seen"] }'),
    policy(PERMIT, AGENT, 'when { context.session.labels.containsAny(["seen", "checked"]) }'),
    policy(PERMIT, AGENT, f"when {{ !{SEEN} && {OVERFLOW} }}"),
    policy(PERMIT, AGENT, f"unless {{ {SEEN} || {OVERFLOW} }}"),
    policy(PERMIT, AGENT, f"when {{ if {SEEN} then context.input.cents < 5 else context.input.cents < 9 }}"),
    policy(FORBID, f"unless {{ {SEEN} }}"),
    policy(FORBID, f"when {{ {SEEN} || {OVERFLOW} }}"),
    policy(FORBID, f"when {{ {SEEN} != true }}"),
    policy(FORBID, "when { context.session.labels.isEmpty() }"),
    policy(
        'permit (principal, action == Action::"pdp/delegate_session", resource)',
        'when { resource.labels.contains("seen") }',
    ),
]


def checked(text: str, labels: str = LABELS) -> list[tuple[str, str, int]]:
    """Return code, severity and line of what is found in the bank's bundle with these labels."""
    bundle = {**files(text), "bundle.yaml": f"name: bank\n{labels}".encode()}
    report = inspect_bundle(bundle, DEFAULT_LIMITS, compile_here)
    return [(one.code, one.severity, one.line) for one in (*report.errors, *report.warnings)]


@pytest.mark.parametrize("text", PROVEN)
def test_what_only_narrows_loads(text: str) -> None:
    """A forbid that rises with labels, a permit that falls with them, and anything about a label that widens."""
    assert [] == [one for one in checked(text) if one[0] == "label-widens"]


@pytest.mark.parametrize("text", UNPROVEN)
def test_what_may_permit_more_keeps_the_bundle_from_loading(text: str) -> None:
    """A gateway could add the label to its own session after the approval."""
    assert ("label-widens", "error") in [one[:2] for one in checked(text)]


def test_what_is_found_says_what_works() -> None:
    """The place is the read of the labels; the help names the forbid, the grant and the declaration."""
    (problem,) = found(policy(PERMIT, AGENT, f"when {{ {SEEN} }}"))

    assert ("label-widens", 4, 8) == (problem.code, problem.line, problem.column)
    assert "`seen`" in problem.message
    assert all(one in problem.help for one in ("forbid … when", "context.session in Grant", "widens: true"))


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ("labels: [seen]\n", 2),
        ("labels:\n  seen: {widens: true}\n", 3),
        ("labels:\n  seen: has read\n", 3),
        ("labels:\n  seen: {meaning: a, widens: 1}\n", 3),
        ("labels:\n  seen: {meaning: a, reported: sometimes}\n", 3),
        ("labels:\n  seen: {meaning: a, wides: true}\n", 3),
        ("labels:\n  'se en': {meaning: a}\n", 3),
        ('labels:\n  seen: {meaning: "a\\nb"}\n', 3),
    ],
)
def test_wrong_declarations_are_told(labels: str, line: int) -> None:
    """Each label says in one line what it means; what is wrong has file and line."""
    assert [("manifest", "error", line)] == checked("", labels)


def test_no_policy_that_is_proven_permits_more_on_random_policies() -> None:
    """Random conditions over labels, arithmetic that fails and other facts, asked without and with one more label."""
    counts = hold(range(SEEDS))

    assert counts["proven"] > SEEDS / 5
    assert counts["refused"] > SEEDS / 5
    assert counts["failed"] > SEEDS / 5
    assert counts["changed"] > SEEDS / 5


@pytest.mark.long
def test_no_policy_that_is_proven_permits_more_on_many_random_policies() -> None:
    """The same, from a fresh seed."""
    first = fresh_seed()

    assert hold(range(first, first + LONG_SEEDS))["proven"] > LONG_SEEDS / 5


def test_a_wrong_proof_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If parts that fail were taken for harmless, a random policy would show it."""
    monkeypatch.setattr("pdp.policy.lint.labels.cannot_fail", lambda _: True)

    with world_read_once():
        found = on_large_stack(lambda: next((seed for seed in range(SEEDS) if _contradicted(seed, Counter())), None))

    assert found is not None


def hold(seeds: range) -> Counter[str]:
    """Check one random policy for each seed; return how often what was seen."""
    print(seeds)  # noqa: T201 - a failure is to be found again
    counts: Counter[str] = Counter()
    with world_read_once():
        wrong = on_large_stack(lambda: [seed for seed in seeds if _contradicted(seed, counts)])

    assert [] == wrong
    return counts


def _contradicted(seed: int, counts: Counter[str]) -> bool:
    """Say whether a policy that is proven answers a random call more generously with a label more."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    effect, own = random.choice(["permit", "forbid"]), random.random() < 0.3
    action = "pdp/approve_session" if own else "alpha/put"
    condition = _condition(random, 3, own=own)
    text = f'@id("p/0") {effect} (principal, action == Action::"{action}", resource) when {{ {condition} }};'
    report = compile_here(compile_job(randomworld.files([text]), DEFAULT_LIMITS))
    if "problems" in report:
        counts["refused"] += 1
        assert {"label-widens"} == {one["code"] for one in report["problems"]}, report["problems"]
        return False
    counts["proven"] += 1
    policies = cedarpy.PolicySet.from_str(text)
    for _ in range(8):
        request = randomworld.random_request(random, [action])
        before = ask(replace(request, labels=tuple(one for one in request.labels if one != "l1")), policies)
        after = ask(replace(request, labels=tuple(sorted({*request.labels, "l1"}))), policies)
        counts.update(failed=bool(before.errors or after.errors), changed=before != after)
        held = (not before.errors or bool(after.errors)) and (before.allowed or not after.allowed)
        if effect == "forbid":
            held = not (before.reasons or before.errors) or bool(after.reasons or after.errors)
        if not held:
            return True
    return False


def _condition(random: Random, depth: int, *, own: bool) -> str:
    if depth == 0 or random.random() < 0.2:
        return random.choice(_atoms(own=own))
    one, two, three = (_condition(random, depth - 1, own=own) for _ in range(3))
    return random.choice(
        [
            f"({one}) && ({two})",
            f"({one}) || ({two})",
            f"!({one})",
            f"({one}) == false",
            f"if ({one}) then ({two}) else ({three})",
            f"if ({one}) then true else ({two})",
            f"if ({one}) then ({two}) else false",
        ]
    )


def _atoms(*, own: bool) -> list[str]:
    labels = "resource.labels" if own else "context.session.labels"
    number = "context.duration" if own else "context.input.n"
    return [
        f'{labels}.contains("l1")',
        f'{labels}.contains("l2")',
        f'{labels}.containsAny(["l1", "l2"])',
        f'{labels}.containsAll(["l1", "l2"])',
        f'["l2"].containsAll({labels})',
        f"{labels}.isEmpty()",
        f"{number} + 9223372036854775806 > 0",
        f"{number} > 2",
        'context.caller.id == "c1"',
        'context.agent in AgentGroup::"bots"',
    ]
