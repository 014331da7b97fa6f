"""The budgets of a session: the terms that limit how many calls it makes, and what they may add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from pdp.foundation.quickcaches import GenerationCache
from pdp.policy.terms import MOST_OF, is_budget, read_terms
from pdp.policy.tools.catalogue import Tool

# Sums are counted in the smallest unit of Cedar's `decimal`, whatever the type of the term and the parameter is.
UNITS = 10_000
# The most that can be counted, in units of a sum.
MOST = 2**63 - 1
MINUTE_SECONDS = 60
# What a budget takes in a `BudgetMemory`, and a text beside its characters.
_BUDGET_BYTES = 256
# Without it, terms hold no budget.
_SIGN = '"max_'


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One budget: at most `most` calls, or a sum of at most `most` units.

    It counts calls of one `group`, empty for all. With `renewed` it begins anew with each minute of the clock.
    """

    name: str
    most: int
    group: str = ""
    summed: bool = False
    renewed: bool = False

    def counts(self, tool: Tool) -> bool:
        """Say whether calls of a tool take something of it."""
        if self.summed:
            return bool(tool.sums)
        return not self.group or self.group in tool.action_groups

    def window(self, wall_at: float) -> int:
        """Return the number of the minute at a time in unix seconds; 0 when the budget is not renewed."""
        return int(wall_at // MINUTE_SECONDS) if self.renewed else 0

    def value(self, counted: int) -> int | str:
        """Return what was counted as a value in JSON: calls as a number, a sum as a text with four digits."""
        return counted if not self.summed else f"{counted // UNITS}.{counted % UNITS:04d}"


class BudgetMemory:
    """The budgets of sessions by their terms, which never change, so that calls need not parse them. Safe for threads.

    `most_bytes` bounds the texts with their budgets.
    """

    def __init__(self, most_bytes: int = 1024 * 1024) -> None:
        self._known: GenerationCache[str, tuple[Budget, ...]] = GenerationCache(most_bytes)

    def of(self, terms_json: str) -> tuple[Budget, ...]:
        """Return the same as `budgets_of`."""
        if _SIGN not in terms_json:
            return ()
        found = self._known.get(terms_json)
        if found is None:
            found = budgets_of(terms_json)
            self._known.put(terms_json, found, len(terms_json) + _BUDGET_BYTES * (1 + len(found)))
        return found


def budgets_of(terms_json: str) -> tuple[Budget, ...]:
    """Return the budgets in canonical terms, sorted by name. The terms fit a declaration that was checked."""
    # A shortcut, since this runs for each allowed call and most sessions have none.
    return tuple(_budgets(terms_json)) if _SIGN in terms_json else ()


def _budgets(terms_json: str) -> Iterator[Budget]:
    for name, value in sorted(read_terms(terms_json).items()):
        if name == "max_sum":
            yield Budget(name=name, most=min(units(value), MOST), summed=True)
        elif name in ("max_calls", "max_calls_per_minute"):
            yield Budget(name=name, most=value, renewed=name == "max_calls_per_minute")
        elif is_budget(name):
            yield Budget(name=name, most=value, group=name.removeprefix(MOST_OF))


def units(value: int | Decimal) -> int:
    """Return a number with at most four digits after the point in units of a sum."""
    return int(value * UNITS)
