"""Validate many policies faster than by checking each policy with each action.

The validator checks every pair of policy and action. Its result for a policy depends only on the actions that the
policy names: for any other, the scope is false before the rest of the policy is checked, so nothing in it can be wrong.
So a policy that names a few tools is validated under a schema with only a few tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import cedarpy

from pdp.policy.contents import Contents
from pdp.policy.counting import NOTHING, CountedNames
from pdp.policy.lint.facts import LintPolicy
from pdp.policy.schema import SESSION_ACTIONS, full_schema
from pdp.policy.tools.catalogue import Tool

# Fewer mean more schemas to parse, more mean more pairs to check: 10,000 policies for 500 tools take about the same
# time with 8, 16 and 32.
TOOLS_OF_A_PART: Final = 16


def all_valid(
    policies: Sequence[LintPolicy],
    contents: Contents,
    whole: cedarpy.Schema,
    counted: CountedNames = NOTHING,
    *,
    tools_of_a_part: int = TOOLS_OF_A_PART,
) -> bool:
    """Return whether the validator accepts every policy. `whole` is the full schema of the same contents.

    `counted` is what it declares to be counted.

    INVARIANT: True only if it would accept them all under `whole`. Otherwise, validate under `whole` for the problems.
    """
    tools = tuple(contents.catalogue.tools.values())
    parts = [tools[start : start + tools_of_a_part] for start in range(0, len(tools), tools_of_a_part)]
    shelves: list[list[LintPolicy]] = [[] for _ in parts]
    rest: list[LintPolicy] = []
    part_of = {tool.action: number for number, part in enumerate(parts) for tool in part}
    for policy in policies:
        numbers = {part_of[action] for action in policy.actions if action not in SESSION_ACTIONS}
        fits = len(numbers) == 1 and not _asks_for_actions(policy)
        (shelves[numbers.pop()] if fits else rest).append(policy)
    return _valid(rest, whole) and all(
        _valid_among(shelf, contents, part, counted) for shelf, part in zip(shelves, parts, strict=True)
    )


def _asks_for_actions(policy: LintPolicy) -> bool:
    """Return whether a policy names an action outside its scope, which must be declared too."""
    return any(kind == "Action" or kind.endswith("::Action") for kind, _ in policy.uids)


def _valid_among(
    policies: Sequence[LintPolicy], contents: Contents, tools: Iterable[Tool], counted: CountedNames
) -> bool:
    if not policies:
        return True
    schema = full_schema(contents.schema, contents.caller_facts, tuple(tools), contents.groups, counted)
    return _valid(policies, cedarpy.Schema.from_str(schema))


def _valid(policies: Sequence[LintPolicy], schema: cedarpy.Schema) -> bool:
    text = "\n".join(policy.text for policy in policies)
    return not policies or cedarpy.validate_policies(text, schema).validation_passed
