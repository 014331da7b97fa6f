"""The part of `pdp test` that reports coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.policy.contents import read_folder
from pdp.workbench.coverage import Coverage, CoverageCounter, shortfall
from pdp.workbench.coveragepage import coverage_page
from pdp.workbench.runner import Report

C = TypeVar("C", bound=Callable[..., Any])

_PERCENT = click.FloatRange(0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageOptions:
    """The wanted report, and the least coverage in percent."""

    wanted: bool
    page: str | None
    least_policies: float | None
    least_conditions: float | None

    def count(self, bundle: Bundle, report: Report) -> Coverage:
        """Count the coverage of a report's cases; they must have run in this process."""
        counter = CoverageCounter(bundle)
        for result in report.results:
            counter.take(result)
        return counter.coverage()

    def suffices(self, coverage: Coverage, *, folder: str, limits: Limits) -> bool:
        """Write the page, if wanted, and say whether coverage suffices; if not, say why.

        The reason goes to stderr.
        """
        if self.page is not None:
            page = coverage_page(coverage, read_folder(Path(folder), limits), title=f"Coverage of {folder}")
            Path(self.page).write_text(page, encoding="utf-8")
        lines = shortfall(coverage, policies=self.least_policies, conditions=self.least_conditions)
        for line in lines:
            click.echo(f"error: {line}", err=True)
        return not lines


def coverage_options(function: C) -> Callable[..., Any]:
    """Offer the options about coverage, and pass them as `coverage`."""

    @click.option("--coverage", "shown", is_flag=True, help="List the policies and conditions that no test covers.")
    @click.option(
        "--coverage-html", "page", metavar="FILE", help="Write an HTML page of the policies, coloured by coverage."
    )
    @click.option(
        "--coverage-min", metavar="PERCENT", type=_PERCENT, help="Fail if a smaller share of the policies is covered."
    )
    @click.option(
        "--coverage-min-conditions",
        metavar="PERCENT",
        type=_PERCENT,
        help="Fail if a smaller share of the conditions is covered.",
    )
    @wraps(function)
    def command(
        *args: Any,  # noqa: ANN401 - a command's own parameters
        shown: bool,
        page: str | None,
        coverage_min: float | None,
        coverage_min_conditions: float | None,
        **given: Any,  # noqa: ANN401 - the same
    ) -> Any:  # noqa: ANN401 - the same
        options = CoverageOptions(
            wanted=shown or any(one is not None for one in (page, coverage_min, coverage_min_conditions)),
            page=page,
            least_policies=coverage_min,
            least_conditions=coverage_min_conditions,
        )
        return function(*args, coverage=options, **given)

    return command
