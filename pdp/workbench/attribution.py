"""Find for each change between two bundles the calls that it decides differently, by undoing it alone in the new one.

A change that no test case shows is checked again with generated calls. A change that neither shows is undecided: its
effect is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.bundle import Bundle
from pdp.policy.schema import SESSION_ACTIONS
from pdp.workbench.bundlediff import CallChange, PolicyChange, compare_calls
from pdp.workbench.suite import Suite
from pdp.workbench.witnesses import generated_suites

# A comparison of unrelated bundles stops early and says so.
_MOST_SEARCHED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The effects of one change: the calls that it decides differently, from test cases or else generated.

    `what` is the id of a policy, or the name of another file.
    """

    what: str
    by_cases: tuple[CallChange, ...] = ()
    by_search: tuple[CallChange, ...] = ()

    @property
    def undecided(self) -> bool:
        """Say whether no call shows the effect of the change."""
        return not (self.by_cases or self.by_search)


def judge_policies(
    old: Bundle,
    new: Bundle,
    changes: Sequence[PolicyChange],
    suites: Sequence[Suite],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Judged, ...]:
    """Return the effects of each changed policy."""
    return tuple(
        _judge(old, new, change.id, suites, limits, search=index < _MOST_SEARCHED)
        for index, change in enumerate(changes)
    )


def judge_files(
    old_files: Mapping[str, bytes],
    new_files: Mapping[str, bytes],
    new: Bundle,
    names: Iterable[str],
    suites: Sequence[Suite],
    *,
    load: Callable[[Mapping[str, bytes]], Bundle],
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Judged, ...]:
    """Return the effects of each changed file without policies.

    `new` is the bundle of the new files. `load` loads a bundle from other files.
    """
    return tuple(
        Judged(what=name, by_cases=_of_file(old_files, new_files, new, name, suites, load, limits)) for name in names
    )


def _judge(old: Bundle, new: Bundle, policy: str, suites: Sequence[Suite], limits: Limits, *, search: bool) -> Judged:
    before, after = old.policies.get(policy), new.policies.get(policy)
    others = [one for name, one in new.policies.items() if name != policy]
    undone = new.with_policies([*others, before] if before is not None else others)
    cases = [_touched(suite, (undone, new), policy) for suite in suites]
    versions = [one for one in (before, after) if one is not None]
    try:
        shown = compare_calls(undone, new, cases, limits=limits).changes
        if shown or not search:
            return Judged(what=policy, by_cases=shown)
        tried = generated_suites(new, versions, suites, limits)
        return Judged(what=policy, by_search=compare_calls(undone, new, tried, limits=limits).changes)
    except ValueError:
        return Judged(what=policy)  # the old policy names something that the new bundle does not have


def _touched(suite: Suite, bundles: Sequence[Bundle], policy: str) -> Suite:
    """Return a suite with the cases that a policy can affect.

    These are calls of its actions, and steps of sessions.
    """

    def asks(action: str) -> bool:
        return any(one.id == policy for bundle in bundles for one in bundle.slice(action).policies)

    known = bundles[-1].catalogue.tools
    actions = {call.action for call in suite.calls.values() if call.action in known}
    taken = {action for action in actions if asks(action)}
    # A policy that refuses a session refuses all of its calls.
    opens = any(asks(step) for step in SESSION_ACTIONS)
    cases = [case for case in suite.cases if opens or (case.call and suite.calls[case.call].action in taken)]
    return replace(suite, cases=tuple(cases))


def _of_file(
    old_files: Mapping[str, bytes],
    new_files: Mapping[str, bytes],
    new: Bundle,
    name: str,
    suites: Sequence[Suite],
    load: Callable[[Mapping[str, bytes]], Bundle],
    limits: Limits,
) -> tuple[CallChange, ...]:
    files = {path: content for path, content in new_files.items() if path != name}
    if name in old_files:
        files[name] = old_files[name]
    try:
        undone = load(files)
    except BundleError:
        return ()  # the new bundle needs the change, so its own effect cannot be known
    return compare_calls(undone, new, suites, limits=limits).changes
