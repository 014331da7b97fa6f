"""Lints for what is impossible: a policy that can never match, and one that never changes an outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy
from pdp.policy.lint.permits import is_open
from pdp.policy.lint.truth import cannot_fail, depends_on_call, refuted
from pdp.policy.obligations import ADVICE, OBLIGATION, STEP_UP, STEP_UP_RUN
from pdp.policy.tools.catalogue import CRITICAL

# The most policies that are compared with one; only an unusual bundle has more candidates.
_CANDIDATES = 500
_NEVER_HELP = "remove it, or correct the part that contradicts the rest"
_NO_TOOLS = "no tool is in its action group"
_NO_TOOLS_HELP = (
    "`pdp tools list` shows the groups of each tool; set `risk` or `groups` in an overlay, or remove the policy"
)


def never_matches(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find a policy that can neither match any call nor fail."""
    if reason := why_never(policy, bundle):
        advice = _NO_TOOLS_HELP if reason == _NO_TOOLS else _NEVER_HELP
        yield Finding(message=f"{policy.effect} `{policy.id}` can never match: {reason}", help=advice)


def idle_run(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a `@step_up_run` on a forbid that matches only calls of which a person must see each."""
    of_tools = [one.tool for one in policy.environments if one.tool]
    if STEP_UP_RUN in policy.annotations and of_tools and not any(one.targets and not one.critical for one in of_tools):
        yield Finding(
            message=f"forbid `{policy.id}`: an approval is for one call only, whatever `@{STEP_UP_RUN}` says: each "
            f"tool that it can match is destructive or in the group `{CRITICAL}`, or names no targets",
            help="say in the overlay of a tool what its calls name outside, `targets: […]`, or remove the line",
            at=[f"@{STEP_UP_RUN}"],
        )


def why_never(policy: LintPolicy, bundle: LintBundle) -> str:
    """Return why a policy can neither match nor fail; empty when it may."""
    if not policy.environments:
        return _NO_TOOLS
    if not cannot_fail(policy.conjuncts):
        return ""
    if policy.id in bundle.impossible:
        return "the validator finds its condition false for every call"
    asked = policy.environments if depends_on_call(policy.conjuncts) else policy.environments[:1]
    if all(refuted(policy.conjuncts, one, bundle) for one in asked):
        return "its parts exclude each other in calls of " + _names(sorted(policy.actions))
    return ""


def shadowed(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find policies without which every call would have the same outcome.

    Open permits are left out: each shadows every other permit, and `open-permit` reports it once.
    """
    for policy, other in shadows([one for one in bundle.policies if not is_open(one)]):
        place = f"`{other.id}` ({other.file}:{other.line})"
        if other.effect != policy.effect:
            why = f"wherever it matches, forbid {place} matches too and wins"
        elif _same(other, policy):
            why = f"{place} says the same"
        else:
            why = f"wherever it matches, {other.effect} {place} matches too"
        yield (
            policy,
            Finding(
                message=f"{policy.effect} `{policy.id}` never changes an outcome: {why}", help="remove one of the two"
            ),
        )


def shadows(policies: Sequence[LintPolicy]) -> list[tuple[LintPolicy, LintPolicy]]:
    """Return the policies that never change an outcome, each with the one that covers it.

    All of them can be removed together: of policies that cover each other, the first stays.
    """
    live = [policy for policy in policies if policy.environments]
    index = _Index(live)
    places = {policy.id: place for place, policy in enumerate(live)}
    found: dict[str, tuple[LintPolicy, LintPolicy]] = {}
    for policy in live:
        for other in islice(index.candidates(policy), _CANDIDATES):
            if other.id == policy.id or other.id in found:
                continue
            if _same(other, policy) and places[other.id] > places[policy.id]:
                continue
            if _covers(other, policy):
                found[policy.id] = policy, other
                break
    return list(found.values())


def _covers(above: LintPolicy, policy: LintPolicy) -> bool:
    """Return whether the policy never changes an outcome because of the other."""
    if (above.effect == "permit" and policy.effect == "forbid") or _asks_otherwise(policy, above):
        return False
    if not set(above.keys) <= set(policy.keys) or not policy.actions <= above.actions:
        return False
    if above.effect == policy.effect and _says_more(policy, above):
        return False
    # A policy that can fail denies every call for which it fails. So it matters, unless the other denies all these
    # calls: an unconditional forbid, or a policy that fails for the same calls.
    if above.effect == "forbid" and not above.conditions and set(above.keys) <= set(policy.keys[: policy.scope_length]):
        return True
    if above.effect == policy.effect and above.keys == policy.keys and above.actions == policy.actions:
        return True
    return cannot_fail(policy.conjuncts)


def _says_more(policy: LintPolicy, above: LintPolicy) -> bool:
    """Return whether a policy has obligations or advice that the other has not: then it changes the answer."""
    names = policy.annotations.keys() & {OBLIGATION, ADVICE}
    return any(policy.annotations[name] != above.annotations.get(name) for name in names)


def _asks_otherwise(policy: LintPolicy, above: LintPolicy) -> bool:
    """Return whether a person can lift the other policy and, with the same answer, not this one: then this counts."""
    names = (STEP_UP, STEP_UP_RUN)
    return STEP_UP in above.annotations and any(
        policy.annotations.get(name) != above.annotations.get(name) for name in names
    )


def _same(first: LintPolicy, second: LintPolicy) -> bool:
    return first.effect == second.effect and set(first.keys) == set(second.keys) and first.actions == second.actions


class _Index:
    """Finds the policies whose conjuncts are among those of another, without comparing each with each."""

    def __init__(self, policies: Sequence[LintPolicy]) -> None:
        counts = Counter(one for policy in policies for one in set(policy.keys))
        self._groups: dict[str, dict[tuple[str, frozenset[str]], dict[str, list[LintPolicy]]]] = {}
        for policy in policies:
            rarest = min(policy.keys, key=lambda one: (counts[one], one), default="")
            group = self._groups.setdefault(rarest, {}).setdefault((policy.effect, frozenset(policy.keys)), {})
            for action in policy.actions:
                group.setdefault(action, []).append(policy)

    def candidates(self, policy: LintPolicy) -> Iterator[LintPolicy]:
        """Yield, forbids first, policies of at least one action of this one whose conjuncts it has all."""
        keys = frozenset(policy.keys)
        action = min(policy.actions)
        groups = [
            (effect, by_action)
            for one in ("", *keys)
            for (effect, wanted), by_action in self._groups.get(one, {}).items()
            if wanted <= keys
        ]
        for _, by_action in sorted(groups, key=lambda group: group[0]):
            yield from by_action.get(action, ())


def _names(actions: Sequence[str]) -> str:
    shown = ", ".join(f"`{one}`" for one in actions[:3])
    return shown if len(actions) <= 3 else f"{shown} and {len(actions) - 3} more"  # noqa: PLR2004 - three names
