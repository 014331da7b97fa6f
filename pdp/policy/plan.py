"""How the calls of one tool are decided: what a bundle fixes about them, worked out once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pdp.policy.engine import Slice
from pdp.policy.tools.catalogue import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a bundle fixes about the calls of one tool.

    `policies` are those that can match them. `by_call` says whether an answer may be remembered by the bytes of a call:
    they determine all that policies read of it. `in_turn` says whether the calls of a tree of sessions are decided one
    after another, since one changes what the next sees. `settles` says whether an allowed call can change anything, and
    `reads_labels` whether the decision can depend on the labels of its sessions.
    """

    tool: Tool
    policies: Slice
    by_call: bool
    in_turn: bool
    settles: bool
    reads_labels: bool

    @classmethod
    def of(
        cls, tool: Tool, policies: Slice, *, counted_as: Collection[str], has_budgets: bool, has_widening: bool
    ) -> Plan:
        """Return the plan of a tool; `counted_as` holds the names under which its calls are counted.

        `has_widening` says whether a bundle has labels that widen: each decision looks whether they were approved.
        """
        in_turn = bool(counted_as or policies.counted)
        return cls(
            tool=tool,
            policies=policies,
            by_call=policies.reading.cacheable and not policies.sees_targets,
            in_turn=in_turn,
            settles=in_turn or has_budgets or bool(tool.adds_labels),
            reads_labels=policies.reading.labels or has_widening,
        )
