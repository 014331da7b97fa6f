"""Read the engine's answers: what they decide, which policies decide it, and what kind of error stopped one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from pdp.limits import MOST_ADVICE, MOST_OBLIGATIONS
from pdp.model import Basis, Outcome, Ruling
from pdp.policy.binding import ERRING_POLICY, Answer
from pdp.policy.policysource import PolicySource

# The detail of a deny because a gateway would have to do more than an answer can hold.
TOO_MANY_OBLIGATIONS = f"the permits ask for more than {MOST_OBLIGATIONS} obligations"

# The engine's messages quote values, so only the kind of error may be shown. The first matching pattern names it.
_ERROR_CLASSES = (
    ("overflow", re.compile(r"integer overflow ")),
    ("wrong_type", re.compile(r"type error: ")),
    ("wrong_value", re.compile(r"error while evaluating `")),
    ("too_deep", re.compile(r"recursion limit reached")),
    ("missing_entity", re.compile(r"entity `.*` does not exist", re.DOTALL)),
    ("missing_tag", re.compile(r".* does not have the tag ", re.DOTALL)),
    ("missing_attribute", re.compile(r".* does not have the attribute ", re.DOTALL)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAnswer:
    """The engine's answer about a set of permits: which matched, and which could not be evaluated and why.

    A policy is its index in the set's text; an error is a name in `_ERROR_CLASSES` or `other`.
    """

    matched: frozenset[int]
    errors: Mapping[int, str]


def ruling_of(answer: Answer, policies: Sequence[PolicySource]) -> Ruling:
    """Return the ruling of the policies that were asked, in the order in which they were; any error is a deny."""
    if answer.errors:
        places = (int(m.group(1)) for error in answer.errors if (m := ERRING_POLICY.match(error)))
        return policy_error((policies[place].id for place in places), "a policy could not be evaluated")
    if not answer.decided:
        return policy_error((), "the request does not fit the schema")
    decisive = sorted((policies[place] for place in answer.decisive), key=attrgetter("id"))
    ids = tuple([policy.id for policy in decisive])
    if answer.allowed:
        obligations = tuple(sorted({one for policy in decisive for one in policy.obligations}))
        if len(obligations) > MOST_OBLIGATIONS:
            return policy_error((), TOO_MANY_OBLIGATIONS)
        return Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT, policies=ids, obligations=obligations)
    advice = tuple(dict.fromkeys(policy.advice for policy in decisive if policy.advice))[:MOST_ADVICE]
    basis = Basis.FORBID if ids else Basis.DEFAULT_DENY
    return Ruling(outcome=Outcome.DENY, basis=basis, policies=ids, advice=advice)


def probe_answer_of(answer: Answer) -> ProbeAnswer:
    """Return which permits matched, and which could not be evaluated."""
    found = [(match, text) for text in answer.errors if (match := ERRING_POLICY.match(text))]
    return ProbeAnswer(
        matched=answer.decisive,
        errors={int(match.group(1)): _error_class(text[match.end() :].removeprefix(": ")) for match, text in found},
    )


def _error_class(message: str) -> str:
    return next((name for name, pattern in _ERROR_CLASSES if pattern.match(message)), "other")


def policy_error(ids: Iterable[str], detail: str) -> Ruling:
    """Return the deny because policies could not be asked, or these could not be evaluated."""
    return Ruling(outcome=Outcome.DENY, basis=Basis.POLICY_ERROR, errors=tuple(sorted(set(ids))), detail=detail)
