"""Find the results that stay the same under other policies, because these answer every question of the case alike."""

from __future__ import annotations

from collections.abc import Sequence

from pdp.policy.bundle import Bundle
from pdp.workbench.runner import CaseResult, Facts
from pdp.workbench.watching import Asked


class UnchangedResults:
    """Compares answers with those of another run, of the same suites, whose results hold their facts.

    The result of a case depends only on its file and on the policies' answers. Where each answer is the same, the next
    question is the same too: repeating the questions is enough, and no session has to be opened. `bundle` differs from
    the one of that run only in its policies.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._beside: dict[int, Bundle] = {}
        self._same: dict[int, bool] = {}

    def contains(self, before: CaseResult) -> bool:
        """Say whether a case that passed then must pass now; False if only a run can tell."""
        if not before.passed or before.facts is None:
            return False
        facts = before.facts
        # Many cases share one opening.
        key = id(facts.opening)
        if key not in self._same:
            self._same[key] = self._answers(facts, facts.opening)
        return self._same[key] and self._answers(facts, facts.asked)

    def _answers(self, facts: Facts, asked: Sequence[Asked]) -> bool:
        bundle = self._with_directory_of(facts.bundle)
        for one in asked:
            now, then = bundle.slice(one.action), facts.bundle.slice(one.action)
            if now.policies != then.policies and bundle.judge(one.session, one.facts, one.at) != one.ruling:
                return False
        return True

    def _with_directory_of(self, other: Bundle) -> Bundle:
        if id(other) not in self._beside:
            self._beside[id(other)] = self._bundle.with_directory(other.directory)
        return self._beside[id(other)]
