"""Compare two bundles: the policies that differ, and the calls that are decided differently.

A call without a decision (its session cannot be opened, its tool is not known) counts as denied in either bundle: a
test that does not run never hides a newly allowed call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from pdp.errors import BundleError, UnsafePolicyError
from pdp.foundation.yamltext import load_section
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.grants import Grants
from pdp.policy.hints import meaning
from pdp.policy.policysource import PolicySource
from pdp.policy.safety import tokens
from pdp.workbench.runner import CaseResult, run
from pdp.workbench.suite import Suite


class Effect(Enum):
    """The effect of a bundle's change on a call.

    An allow without an obligation that it had before, or with other parameters, is an allow of more; so is a deny that
    a person can lift now, and could not before.
    """

    NEWLY_ALLOWED = "newly allowed"
    NEWLY_DENIED = "newly denied"
    NEWLY_ERRING = "newly erring"
    LESS_OBLIGED = "allowed with fewer obligations"
    MORE_OBLIGED = "allowed with more obligations"
    NEWLY_LIFTABLE = "newly liftable by a person"
    NO_LONGER_LIFTABLE = "no longer liftable by a person"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A policy that only one bundle has, or that differs. The position is in the bundle that has it."""

    id: str
    kind: Literal["added", "removed", "changed"]
    effect: str
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One bundle's answer to a call. `problem` says why there is no decision; then the call counts as denied."""

    allowed: bool = False
    basis: str = ""
    policies: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    erring: bool = False
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"no decision ({self.problem})"
        words = f"{'allow' if self.allowed else 'deny'} {self.basis}"
        words += f" by {', '.join(self.policies)}" if self.policies else ""
        return f"{words} with {', '.join(self.obligations)}" if self.obligations else words


@dataclass(frozen=True, slots=True, kw_only=True)
class CallChange:
    """A call that the two bundles decide differently. `name` identifies it, `what` is its action."""

    name: str
    what: str
    effect: Effect
    was: Answer
    now: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsDifference:
    """The difference for a set of calls: how many were compared, and those that changed, in their order."""

    compared: int
    changes: tuple[CallChange, ...]

    def having(self, effect: Effect) -> tuple[CallChange, ...]:
        """Return the changes with one effect."""
        return tuple(change for change in self.changes if change.effect is effect)


def compare_policies(old: Bundle, new: Bundle) -> tuple[PolicyChange, ...]:
    """Return the policies that were added, removed or changed, by id.

    A different position or layout, and different comments or annotations, are no change; other obligations are, and
    whether and what a person is asked.
    """
    changes = []
    for name in sorted(old.policies.keys() | new.policies.keys()):
        before, after = old.policies.get(name), new.policies.get(name)
        if before is not None and after is not None and _say_the_same(before, after):
            continue
        policy = after or before
        if policy is not None:
            kind: Literal["added", "removed", "changed"]
            kind = "changed" if before and after else "added" if after else "removed"
            changes.append(PolicyChange(id=name, kind=kind, effect=policy.effect, file=policy.file, line=policy.line))
    return tuple(changes)


def compare_files(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names of other files than policies that differ, such as tools.

    The layout of YAML, JSON and schema, and their comments, are no difference.
    """
    names = sorted(name for name in old.keys() | new.keys() if not name.endswith(".cedar"))
    return tuple(name for name in names if _content(name, old) != _content(name, new))


def _say_the_same(before: PolicySource, after: PolicySource) -> bool:
    if before.text == after.text:
        return True
    said = ((one.obligations, one.step_up, one.step_up_run) for one in (before, after))
    return len(set(said)) == 1 and meaning(before.text) == meaning(after.text)


def _content(name: str, files: Mapping[str, bytes]) -> object:
    """Return a file's content as a value, its bytes if unreadable, None if absent."""
    content = files.get(name)
    if content is None:
        return None
    try:
        if name.endswith(".yaml"):
            return json.dumps(load_section(name, content), sort_keys=True)
        if name.endswith(".json"):
            return json.dumps(json.loads(content), sort_keys=True)
        return [token.text for token in tokens(content.decode("utf-8"))]
    except (BundleError, UnsafePolicyError, ValueError):
        return content


def compare_calls(
    old: Bundle,
    new: Bundle,
    suites: Iterable[Suite],
    *,
    limits: Limits = DEFAULT_LIMITS,
    done: Callable[[CaseResult], None] = lambda _: None,
) -> CallsDifference:
    """Decide every case of the suites by both bundles; return the differences.

    The expectations of the cases do not matter. `done` is called after each decision of either bundle. No bundle
    differs from itself, so it decides nothing.
    """
    known = tuple(suites)
    if old is new:
        return CallsDifference(compared=sum(len(suite.cases) for suite in known), changes=())
    before, after = (
        run(bundle, [_within(suite, bundle.grants) for suite in known], limits=limits, done=done).results
        for bundle in (old, new)
    )
    pairs = zip(before, after, strict=True)
    changes = [change for was, now in pairs if (change := _change(was, now)) is not None]
    return CallsDifference(compared=len(before), changes=tuple(changes))


def _within(suite: Suite, grants: Grants) -> Suite:
    """Return a suite whose sessions keep only the grants that a bundle knows.

    Other grants give nothing.
    """
    sessions = {
        name: replace(session, grants=tuple(grant for grant in session.grants if grant in grants))
        for name, session in suite.sessions.items()
    }
    return replace(suite, sessions=sessions)


def by_policy(changes: Sequence[CallChange]) -> dict[tuple[str, str], list[CallChange]]:
    """Group changes by the deciding policies before and now, the largest group first."""
    groups: dict[tuple[str, str], list[CallChange]] = {}
    for change in changes:
        groups.setdefault((str(change.was), str(change.now)), []).append(change)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def effect_of(was: Answer, now: Answer) -> Effect | None:
    """Return the effect on a call, or None.

    A deny for another reason is no change, unless it is now an error; an allow with other obligations is one.
    """
    if now.erring and not was.erring:
        return Effect.NEWLY_ERRING
    if was.allowed and now.allowed and was.obligations != now.obligations:
        return Effect.MORE_OBLIGED if set(was.obligations) <= set(now.obligations) else Effect.LESS_OBLIGED
    if was.allowed == now.allowed:
        return _of_people(was, now)
    return Effect.NEWLY_ALLOWED if now.allowed else Effect.NEWLY_DENIED


def _of_people(was: Answer, now: Answer) -> Effect | None:
    asked_before, asked = (one.basis == Basis.APPROVAL_REQUIRED.value for one in (was, now))
    if asked_before == asked:
        return None
    return Effect.NEWLY_LIFTABLE if asked else Effect.NO_LONGER_LIFTABLE


def answer_of(ruling: Ruling) -> Answer:
    """Return the part of a ruling by which two bundles are compared."""
    return Answer(
        allowed=ruling.allowed,
        basis=ruling.basis.value,
        policies=ruling.policies,
        obligations=tuple(f"{one.id} {one.parameters_json}" for one in ruling.obligations),
        erring=Basis.POLICY_ERROR in (ruling.basis, ruling.ancestor_basis),
    )


def _answer(result: CaseResult) -> Answer:
    if result.ruling is not None:
        return answer_of(result.ruling)
    return Answer(problem=result.problems[0] if result.problems else "not run")


def _change(was: CaseResult, now: CaseResult) -> CallChange | None:
    before, after = _answer(was), _answer(now)
    effect = effect_of(before, after)
    if effect is None:
        return None
    case = now.case
    what = case.step.value if case.step is not None else case.call
    return CallChange(name=case.id, what=what, effect=effect, was=before, now=after)
