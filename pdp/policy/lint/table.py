"""The tables of lints, which find policies that load but are probably not what their author meant.

Each lint is a pure function and one row of a table below; the meaning of its code never changes. An author silences
one in one policy by `@allow("code: reason")`, several by `@allow("code: reason; code: reason")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter

import cedarpy

from pdp.errors import Problem
from pdp.policy.lint import arguments, bounds, groups, lists, match, names, patterns, permits, tools, words
from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, literal_uid, nodes, path
from pdp.policy.locate import find, head

Found = Iterator[tuple[LintPolicy, Finding]]


def _each(function: Callable[[LintPolicy, LintBundle], Iterator[Finding]]) -> Callable[[LintBundle], Found]:
    def run(bundle: LintBundle) -> Found:
        return ((policy, found) for policy in bundle.policies for found in function(policy, bundle))

    return run


@dataclass(frozen=True, slots=True)
class Lint:
    """A lint of policies: its code, its finding in a few words, and its function."""

    code: str
    summary: str
    run: Callable[[LintBundle], Found]


LINTS = (
    Lint("open-permit", "a permit without any constraint", _each(permits.open_permit)),
    Lint("no-agent", "a permit that constrains neither agent nor session", _each(permits.agentless_permit)),
    Lint("caller-only", "a permit that rests only on what the caller asserts", _each(permits.caller_permit)),
    Lint("caller-stated", "a forbid that a gateway evades by what it states", _each(words.caller_exception)),
    Lint("by-purpose", "a rule that lets calls pass because of words in the purpose", _each(words.by_purpose)),
    Lint("absent-passes", "a permit that matches when an attribute is unknown", _each(words.absent_passes)),
    Lint("risk-gap", "a forbid on mutating tools that leaves out destructive ones", groups.risk_gap),
    Lint("exact-server", "a forbid that names a server with `==` and misses mapped calls", _each(groups.exact_server)),
    Lint("raw-string", "a forbid over a string that the agent can spell differently", _each(arguments.raw_string)),
    Lint("path-prefix", "a path that passes by its prefix, even with `..`", patterns.path_prefix),
    Lint("open-pattern", "a pattern that stops in the middle of a name", _each(patterns.open_pattern)),
    Lint("any-of-list", "a list that passes as soon as one member is fine", _each(lists.any_of_list)),
    Lint("empty-list", "a list that passes when it is empty", _each(lists.empty_list)),
    Lint("optional-bound", "a forbid that an agent evades by leaving an argument out", _each(bounds.optional_bound)),
    Lint("lower-bound", "a number with an upper bound but no lower bound", bounds.lower_bound),
    Lint("opaque-parameter", "a rule about what policies cannot see", _each(arguments.opaque_parameter)),
    Lint("overflow", "arithmetic on a number that the agent chooses", _each(arguments.overflow)),
    Lint("never-matches", "a policy that no call can match", _each(match.never_matches)),
    Lint("idle-run", "a `@step_up_run` on a forbid whose calls a person must see each", _each(match.idle_run)),
    Lint("shadowed", "a policy that never changes an outcome", match.shadowed),
    Lint("unknown-name", "a user, agent, group, server or grant that looks like a mistake", names.unknown_names),
    Lint("unknown-label", "a label that `bundle.yaml` does not declare", _each(names.unknown_labels)),
    Lint("unknown-provenance", "a word that `context.targets` never holds", _each(names.unknown_provenances)),
    Lint("never-opaque", "a test whether a parameter is opaque that never is", _each(names.unknown_opaque)),
    Lint("mixed-script", "a name that mixes letters of scripts that look alike", names.mixed_scripts),
)

# Lints of what is outside the policies; these cannot be silenced.
OTHER_LINTS: Mapping[str, Callable[[LintBundle], Iterator[Problem]]] = {
    "mixed-script": names.mixed_scripts_elsewhere,
    "unknown-reference": names.unknown_references,
    "unsummed": lambda bundle: tools.unsummed(bundle.catalogue, bundle.terms),
    "unnamed-tool": lambda bundle: tools.unnamed_tools(bundle.catalogue),
}
# Problems of an `@allow` itself.
ALLOW = "unneeded-allow"

# Findings of a lint in one policy. Each is looked for in the whole text, which can name thousands of users.
_MOST_OF_A_KIND = 20
_CODES = frozenset(lint.code for lint in LINTS)
_ALLOWED = re.compile(r";\s*(?=[a-z-]+\s*(?::|\Z|;))")
# No attribute has this name; the validator stops at the first condition that it knows to be false.
_PROBE = " when { principal.pdp_impossible_probe == 1 };"


def run_lints(bundle: LintBundle, lints: Iterable[Lint] = LINTS) -> list[Problem]:
    """Return the findings of the lints, by file and line, without those that an `@allow` silences."""
    problems: list[Problem] = []
    silenced: set[tuple[str, str]] = set()
    for lint in lints:
        for policy, of_policy in groupby(lint.run(bundle), key=itemgetter(0)):
            if lint.code in allowed(policy):
                silenced.add((policy.id, lint.code))
            else:
                problems += [problem_of(policy, lint.code, found) for found in _few(policy, of_policy)]
    for policy in bundle.policies:
        problems += [problem_of(policy, ALLOW, found) for found in _allow_findings(policy, silenced)]
    others = [(code, run(bundle)) for code, run in OTHER_LINTS.items()]
    others += [(code, run(bundle.catalogue)) for code, run in tools.CATALOGUE_LINTS.items()]
    for code, found_elsewhere in others:
        for problem in found_elsewhere:
            problem.code, problem.severity = code, "warning"
            problems.append(problem)
    return sorted(problems, key=lambda one: (one.file, one.line, one.column, one.code, one.message))


def _few(policy: LintPolicy, of_policy: Found) -> Iterator[Finding]:
    """Yield the first findings of one lint in a policy, and how many more there are."""
    yield from (found for _, found in islice(of_policy, _MOST_OF_A_KIND))
    if more := sum(1 for _ in of_policy):
        yield Finding(message=f"policy `{policy.id}`: {more:,} more of this kind", help="mend the others first")


def with_impossible(bundle: LintBundle, schema: cedarpy.Schema) -> LintBundle:
    """Add the policies that the validator finds impossible, where it may know more than the lints."""
    asked = [policy for policy in bundle.policies if _validator_may_know(policy)]
    if not asked:
        return bundle
    text = "\n".join(policy.text.rstrip().removesuffix(";") + _PROBE for policy in asked)
    probed = {error.policy_id for error in cedarpy.validate_policies(text, schema).errors}
    return replace(
        bundle,
        impossible=frozenset(policy.id for place, policy in enumerate(asked) if f"policy{place}" not in probed),
    )


def allowed(policy: LintPolicy) -> dict[str, str]:
    """Return the lints that a policy's `@allow` silences, each with its reason."""
    text = policy.annotations.get("allow") or ""
    parts = [part.partition(":") for part in _ALLOWED.split(text) if part.strip()]
    return {code.strip(): reason.strip() for code, _, reason in parts}


def _allow_findings(policy: LintPolicy, silenced: set[tuple[str, str]]) -> Iterator[Finding]:
    if "allow" not in policy.annotations:
        return
    asked = allowed(policy)
    if not asked:
        yield _allow_finding(policy, "names no lint")
    for code, reason in asked.items():
        if code not in _CODES:
            yield _allow_finding(policy, f"names no lint: `{code}`")
        elif (policy.id, code) not in silenced:
            yield _allow_finding(policy, f"is not needed: `{code}` finds nothing here")
        elif not reason:
            yield _allow_finding(policy, f"gives no reason for `{code}`")


def _allow_finding(policy: LintPolicy, what: str) -> Finding:
    return Finding(
        message=f"policy `{policy.id}`: its `@allow` {what}",
        help=f'write `@allow("code: reason")`; the codes are {", ".join(sorted(_CODES))}'
        if "no lint" in what
        else 'write `@allow("code: reason")`'
        if "reason" in what
        else "remove it",
        at=["@allow"],
    )


def problem_of(policy: LintPolicy, code: str, found: Finding, severity: str = "warning") -> Problem:
    """Return a finding in a policy as a problem, with its position."""
    place = find(policy.text, found.at, policy.line, policy.column) or head(policy.text, policy.line, policy.column)
    return Problem(
        policy.file,
        place.line,
        found.message,
        severity=severity,
        code=code,
        column=place.column,
        width=place.width,
        help=found.help,
    )


def _validator_may_know(policy: LintPolicy) -> bool:
    """Return whether a condition depends on the author's schema: on an attribute or type of an entity."""
    for node in nodes(policy.conditions):
        match node:
            case {"has": {"left": base}} if path(base)[:2] != ("context", "input"):
                return True
            case {"is": {"left": base}} if literal_uid(base) is None and path(base) != ("principal",):
                return True
    return False
