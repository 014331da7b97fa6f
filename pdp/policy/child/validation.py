"""Validate many policies in less time than asking about each policy together with each action takes.

The validator looks at every pair of policy and action. What it says about a policy depends on the actions alone that
the policy names: for any other, its scope is false before anything else of it is looked at, and there is nothing in it
that could be wrong. So a policy that names a few tools is validated under a schema in which a few tools are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import cedarpy

from pdp.policy.contents import Contents
from pdp.policy.lint.facts import LintPolicy
from pdp.policy.schema import SESSION_ACTIONS, full_schema
from pdp.policy.tools.catalogue import Tool

# Fewer make more schemas to parse, more make more pairs to look at: 10,000 policies over 500 tools take about the same
# with 8, 16 and 32.
TOOLS_OF_A_PART: Final = 16


def all_valid(
    policies: Sequence[LintPolicy], contents: Contents, whole: cedarpy.Schema, *, tools_of_a_part: int = TOOLS_OF_A_PART
) -> bool:
    """Say whether the validator accepts every policy. `whole` is the full schema of the same contents.

    INVARIANT: True only when it would accept them all under `whole`. What is wrong with a policy is better asked there.
    """
    tools = tuple(contents.catalogue.tools.values())
    parts = [tools[start : start + tools_of_a_part] for start in range(0, len(tools), tools_of_a_part)]
    shelves: list[list[LintPolicy]] = [[] for _ in parts]
    rest: list[LintPolicy] = []
    place_of = {tool.action: place for place, part in enumerate(parts) for tool in part}
    for policy in policies:
        places = {place_of[action] for action in policy.actions if action not in SESSION_ACTIONS}
        fits = len(places) == 1 and not _asks_for_actions(policy)
        (shelves[places.pop()] if fits else rest).append(policy)
    return _valid(rest, whole) and all(
        _valid_among(shelf, contents, part) for shelf, part in zip(shelves, parts, strict=True)
    )


def _asks_for_actions(policy: LintPolicy) -> bool:
    """Say whether a policy names an action elsewhere than in its scope: that one must be declared too."""
    return any(kind == "Action" or kind.endswith("::Action") for kind, _ in policy.uids)


def _valid_among(policies: Sequence[LintPolicy], contents: Contents, tools: Iterable[Tool]) -> bool:
    if not policies:
        return True
    schema = full_schema(contents.schema, contents.caller_facts, tuple(tools))
    return _valid(policies, cedarpy.Schema.from_str(schema))


def _valid(policies: Sequence[LintPolicy], schema: cedarpy.Schema) -> bool:
    text = "\n".join(policy.text for policy in policies)
    return not policies or cedarpy.validate_policies(text, schema).validation_passed
