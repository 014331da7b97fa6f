"""Lints about permits that allow more than their author can have meant."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, nodes, path

_OPEN_HELP = (
    'say who, what and through which agent: `permit (principal in UserGroup::"…", action in Action::"read_only", '
    'resource in Server::"…") when { context.agent in AgentGroup::"…" }`'
)
_AGENT_HELP = (
    'name the agents, `when { context.agent in AgentGroup::"…" }`, or what the session must have, '
    '`context.session in Grant::"…"`'
)
_CALLER_HELP = "a gateway can assert any such fact; constrain the principal, `context.agent` or `context.session` too"


def open_permit(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a permit without any constraint: it permits everything, including actions of the PDP itself."""
    if is_open(policy):
        yield Finding(
            message=f"permit `{policy.id}` has no constraint: it permits every call, and the approval of every session",
            help=_OPEN_HELP,
        )


def agentless_permit(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find a permit of tool calls that applies to every agent in every session."""
    if policy.effect != "permit" or is_open(policy) or any(caller_permit(policy, bundle)):
        return
    read = policy.reads
    of_tools = any(one.tool for one in policy.environments)
    if of_tools and read is not None and not {"context.agent", "context.session"} & read:
        yield Finding(
            message=f"permit `{policy.id}` constrains neither the agent nor the session: it applies to every agent "
            "that works for such a user",
            help=_AGENT_HELP,
        )


def caller_permit(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a permit whose only conditions are facts that the caller asserts."""
    if policy.effect == "permit" and policy.reads == frozenset({"context.caller"}) and not _names_principal(policy):
        yield Finding(
            message=f"permit `{policy.id}` depends only on what the caller says about itself, `context.caller`",
            help=_CALLER_HELP,
            at=[("context", "caller")],
        )


def is_open(policy: LintPolicy) -> bool:
    """Return whether a policy permits everything."""
    return policy.effect == "permit" and not policy.conjuncts and policy.tree["action"]["op"] == "All"


def _names_principal(policy: LintPolicy) -> bool:
    return any(path(node) == ("principal",) for node in nodes(policy.conjuncts))
