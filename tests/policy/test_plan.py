"""What a bundle fixes about the calls of each tool."""

from __future__ import annotations

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.inparts import AT_A_TIME
from pdp.policy.loading import load_bundle
from pdp.policy.plan import QUICK_MICROSECONDS
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool, with_terms

POLICIES = """
@id("a/all") permit (principal, action in [Action::"read_only", Action::"mutating"], resource);
@id("a/timed") forbid (principal, action == Action::"a/timed", resource) when { context.now == context.now.toDate() };
@id("a/targets")
forbid (principal, action == Action::"a/send", resource) unless { context.targets.provenance.contains("named") };
@id("a/often") forbid (principal, action == Action::"a/seeing", resource) when { context.counts["a/seen"] > 3 };
"""
OVERLAY = """
risk: read_only
tools: {send: {risk: mutating, targets: {to: address}}, label: {adds_labels: [read]}}
"""
NAMES = ("plain", "timed", "send", "label", "seeing", "seen")


def bundle_of(schema: str = SCHEMA, policies: str = POLICIES) -> Bundle:
    """Return a bundle with a tool of each kind."""
    files = bundle_files(
        policies={"a": policies},
        tools={"a": [tool(name, {"to": {"type": "string"}}) for name in NAMES]},
        overlays={"a": OVERLAY},
        directory="{users: {ada: {}}, agents: {coder: {ceiling: [a/*]}}}",
        schema=schema,
        labels=("read",),
    )
    return load_bundle(files, DEFAULT_LIMITS, compile_here)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return it without budgets."""
    return bundle_of()


def found(bundle: Bundle, field: str) -> set[str]:
    """Return the names of the tools whose plans say yes."""
    return {one.name for one in bundle.catalogue.tools.values() if getattr(bundle.plan(one), field)}


def test_an_answer_is_remembered_by_the_bytes_of_a_call(bundle: Bundle) -> None:
    """Not where policies read the time itself, targets or counts, which the bytes do not determine."""
    assert {"plain", "label", "seen"} == found(bundle, "by_call")


def test_calls_wait_for_their_turn(bundle: Bundle) -> None:
    """Where policies see counts, and where calls are counted: one changes what the next sees."""
    assert {"seeing", "seen"} == found(bundle, "in_turn")


def test_the_ledger_settles_only_what_can_change_something(bundle: Bundle) -> None:
    """A call adds labels, is counted or rests on counts. What it takes of budgets is a matter of its sessions."""
    assert {"label", "seeing", "seen"} == found(bundle, "settles")
    assert {"label", "seeing", "seen"} == found(bundle_of(with_terms("max_calls?: Long")), "settles")


def test_a_bundle_with_other_policies_has_other_plans(bundle: Bundle) -> None:
    """Nothing is counted, and nothing read, without policies."""
    other = bundle.with_policies([])

    assert set(NAMES) == found(other, "by_call")
    assert {"label"} == found(other, "settles")


def test_no_slice_in_several_parts_is_quick() -> None:
    """The loop asks about what is quick, and must not wait for its turn at a part."""
    short = "permit (principal, action, resource);"
    many = bundle_of(policies="".join(f'@id("a/{number}") {short}' for number in range(AT_A_TIME + 1)))
    plan = many.plan(many.catalogue.tools["a/plain"])

    assert plan.microseconds > QUICK_MICROSECONDS
