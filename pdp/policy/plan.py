"""How the calls of one tool are decided: what a bundle fixes about them, worked out once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pdp.policy.engine import Slice
from pdp.policy.tools.catalogue import Tool

# A question is quick when it takes less than this, in microseconds, on the machine of `benchmarks/README.md`.
QUICK_MICROSECONDS: Final = 200.0
# What a question takes for each session, and for each policy and each byte of a policy: rather too much.
_SESSION_MICROSECONDS, _POLICY_MICROSECONDS, _BYTE_MICROSECONDS = 70.0, 1.0, 0.01
# Up to so many bytes of arguments are typed within a few microseconds.
_QUICK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a bundle fixes about the calls of one tool.

    `policies` are those that can match them. `by_call` says whether an answer may be remembered by the bytes of a call:
    they determine all that policies read of it. `in_turn` says whether the calls of a tree of sessions are decided one
    after another, since one changes what the next sees. `settles` says whether an allowed call can change something,
    other than budgets, and `reads_labels` whether the decision can depend on the labels of its sessions. A question to
    the policies about one session takes about so many `microseconds`.
    """

    tool: Tool
    policies: Slice
    by_call: bool
    in_turn: bool
    settles: bool
    reads_labels: bool
    microseconds: float

    def types_quickly(self, arguments: bytes) -> bool:
        """Say whether arguments are typed at once: they are not large, and nothing is looked up about them."""
        return len(arguments) <= _QUICK_BYTES and not self.policies.sees_targets

    def judges_quickly(self, *, sessions: int) -> bool:
        """Say whether the policies, asked for so many sessions, answer quickly."""
        return sessions * self.microseconds < QUICK_MICROSECONDS and self.policies.is_parsed

    @classmethod
    def of(cls, tool: Tool, policies: Slice, *, counted_as: Collection[str], has_widening: bool) -> Plan:
        """Return the plan of a tool; `counted_as` holds the names under which its calls are counted.

        `has_widening` says whether a bundle has labels that widen: each decision looks whether they were approved.
        """
        in_turn = bool(counted_as or policies.counted)
        return cls(
            tool=tool,
            policies=policies,
            by_call=policies.reading.cacheable and not policies.sees_targets,
            in_turn=in_turn,
            settles=in_turn or bool(tool.adds_labels),
            reads_labels=policies.reading.labels or has_widening,
            microseconds=_SESSION_MICROSECONDS
            + _POLICY_MICROSECONDS * len(policies.policies)
            + _BYTE_MICROSECONDS * sum(len(policy.text) for policy in policies.policies),
        )
