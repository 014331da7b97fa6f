"""Lints about rules that depend on unproven statements, and on unknown facts."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, lenient, nodes, path, split

_CALLER = ("context", "caller")
_PURPOSE = "purpose"


def by_purpose(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a rule that lets calls pass because of the purpose, which the requester of the session writes."""
    for tree in lenient(policy):
        where = next((path(node) for node in nodes([tree]) if _is_purpose(path(node))), ())
        if where:
            yield Finding(
                message=f"{policy.effect} `{policy.id}` lets calls pass because of what `{'.'.join(where)}` says, and "
                "the requester of the session writes it",
                help='let an approver say it: a grant, `context.session in Grant::"…"`, or the `environment`',
                at=[where],
            )
            return


def caller_exception(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find a forbid that a gateway can lift by stating a fact, or evade by stating nothing."""
    if policy.effect != "forbid":
        return
    required = bundle.contents.caller_facts.required
    for tree in policy.conditions:
        match tree:
            case {"has": {"left": left, "attr": str(name)}} if path(left) == _CALLER and name not in required:
                yield Finding(
                    message=f"forbid `{policy.id}` does not cover a gateway that leaves out `context.caller.{name}`",
                    help=f"let `bundle.yaml` require it, `caller_facts: {{required: [{name}], …}}`; or forbid leaving "
                    f"it out: `if context.caller has {name} then … else true`",
                    at=[("context", "caller", name), ("context", "caller")],
                )
            case {"!": {"arg": inner}} if _only_stated(inner):
                yield Finding(
                    message=f"forbid `{policy.id}` has an exception that depends only on what the caller says about "
                    "itself, `context.caller`",
                    help="a gateway can assert any such fact; also constrain the session, the agent or the caller's "
                    "`id` in the exception",
                    at=[_CALLER],
                )


def absent_passes(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a permit that only excludes values of an attribute, and so matches when it is unknown."""
    if policy.effect != "permit":
        return
    for tree in policy.conditions:
        for negated in _negated(tree):
            where = next((asked for one in split(negated) if (asked := _asked(one))), ())
            if where and sum(1 for _ in split(negated)) > 1:
                shown = ".".join(where)
                yield Finding(
                    message=f"permit `{policy.id}` matches when `{shown}` is unknown",
                    help=f"test for it first, `when {{ {'.'.join(where[:-1])} has {where[-1]} && … }}`; if unknown "
                    f"ones may pass, say so: `if {'.'.join(where[:-1])} has {where[-1]} then … else true`",
                    at=[where, where[:-1]],
                )


def _negated(tree: Tree) -> Iterator[Tree]:
    """Yield the conjunctions that make a condition true when they are false."""
    pending = [(tree, True)]
    while pending:
        one, positive = pending.pop()
        match one:
            case {"!": {"arg": inner}}:
                pending.append((inner, not positive))
            case {"&&": {"left": left, "right": right}} if positive:
                pending += [(left, True), (right, True)]
            case {"&&": _}:
                yield one
            case {"||": {"left": left, "right": right}}:
                pending += [(left, positive), (right, positive)]


def _asked(tree: Tree) -> tuple[str, ...]:
    match tree:
        case {"has": {"left": left, "attr": str(name)}} if path(left):
            return (*path(left), name)
    return ()


def _is_purpose(where: tuple[str, ...]) -> bool:
    return where in (("context", "session", _PURPOSE), ("resource", _PURPOSE))


def _only_stated(tree: Tree) -> bool:
    """Return whether an expression reads only facts of the caller, apart from its proven id."""
    variables = [node for node in nodes([tree]) if "Var" in node]
    facts = [path(node) for node in nodes([tree]) if path(node)[:2] == _CALLER and len(path(node)) > len(_CALLER)]
    whole = [path(node) for node in nodes([tree]) if path(node) == _CALLER]
    return bool(facts) and len(whole) == len(variables) and all(fact != (*_CALLER, "id") for fact in facts)
