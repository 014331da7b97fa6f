"""`pdp test`: run the tests of a policy folder, without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from pdp.app.embedded import compile_once
from pdp.cli.author.coverage import CoverageOptions, coverage_options
from pdp.cli.author.mutation import mutation
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, progress
from pdp.cli.progressbar import counting
from pdp.cli.root import ERROR, NO
from pdp.config.settings import Settings
from pdp.errors import BundleError
from pdp.foundation.printable import visible
from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.policy.child.process import PolicyChild
from pdp.policy.contents import TESTS, read_folder
from pdp.policy.loading import load_bundle
from pdp.workbench.cedarcases import CedarCase, plain_of, read_cedar_cases, read_plain, run_cedar_cases
from pdp.workbench.coverage import Coverage, coverage_json, coverage_lines
from pdp.workbench.junit import junit
from pdp.workbench.parallel import jobs_for, run_parallel
from pdp.workbench.reading import SUFFIX, read_suites, schema_text
from pdp.workbench.reasons import Reasons
from pdp.workbench.report import TextReport, report_json
from pdp.workbench.runner import Report, run
from pdp.workbench.selection import chosen, found
from pdp.workbench.suite import Suite

# With fewer cases, the run is over before a bar could be read.
_CASES_WORTH_A_BAR = 200
_EVALUATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The cases to run, and the way to run them."""

    cedar: tuple[Path, ...]
    filters: tuple[str, ...]
    jobs: int | None
    limits: Limits
    quiet: bool


@click.command(
    epilog="Example:  pdp test policies --filter 'git*' --verbose  |  pdp test policies --cedar cases.json  |"
    "  pdp test policies --junit report.xml  |  pdp test policies --coverage --coverage-html coverage.html"
)
@click.argument("paths", metavar="[DIR] [FILE.json]...", nargs=-1)
@click.option(
    "--filter", "filters", metavar="TEXT", multiple=True, help="Run only cases whose file or name contains TEXT."
)
@click.option("--cedar", metavar="FILE", multiple=True, help="Also run a test file of `cedar run-tests`.")
@click.option("--plain", is_flag=True, help="DIR is plain Cedar: run only the test files of `cedar run-tests`.")
@click.option("--verbose", is_flag=True, help="Also list the cases that pass.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--jobs", metavar="N", type=click.IntRange(1, 64), help="Run in N processes. [as many as are useful]")
@coverage_options
@click.option("--mutate", is_flag=True, help="Change one thing in one policy at a time, and list what no test notices.")
@click.option(
    "--mutate-policy", "mutated", metavar="TEXT", multiple=True, help="Change only policies whose `@id` contains TEXT."
)
@click.option("--print-schema", is_flag=True, help="Print the JSON schema of test files, for editors.")
@json_option
@with_settings("policies.folder")
def test(
    *,
    settings: Settings,
    paths: tuple[str, ...],
    filters: tuple[str, ...],
    cedar: tuple[str, ...],
    plain: bool,
    verbose: bool,
    junit_file: str | None,
    jobs: int | None,
    coverage: CoverageOptions,
    mutate: bool,
    mutated: tuple[str, ...],
    print_schema: bool,
    as_json: bool,
) -> None:
    """Run the tests of a policy folder.

    Reads the files `*_test.yaml` in DIR/tests. A FILE.json is a test file of `cedar run-tests`. You can pass `--filter`
    several times; with `*` or `?` it is a pattern. `--plain` takes any folder with `*.cedar` files and at most one
    `*.cedarschema`. Exits with 0 when all cases pass, 1 when some fail, 2 when they cannot be run.
    """
    if print_schema:
        click.echo(schema_text(), nl=False)
        return
    folders = [path for path in paths if not path.endswith(".json")]
    if len(folders) > 1:
        raise click.UsageError(f"pass one folder; `{folders[1]}` is a second one")
    choice = Choice(
        cedar=tuple(map(Path, (*cedar, *(path for path in paths if path.endswith(".json"))))),
        filters=filters,
        # Another process cannot send back what the policies were asked.
        jobs=1 if coverage.wanted else jobs,
        limits=settings.limits,
        quiet=as_json,
    )
    folder = folders[0] if folders else settings.policies.folder
    if plain:
        _run_plain(Path(folder), choice, verbose=verbose, as_json=as_json)
        return
    if mutate or mutated:
        if not mutation(Path(folder), mutated, filters, settings.limits, as_json=as_json):
            raise click.exceptions.Exit(NO)
        return
    bundle, suites, report = _run(folder, choice)
    why = Reasons(settings.limits)
    text = TextReport(bundle, suites, folder=folder, why=why)
    if junit_file is not None:
        Path(junit_file).write_bytes(junit(report, text.failed))
    counted = coverage.count(bundle, report) if coverage.wanted else None
    if as_json:
        print_json(report_json(report, bundle, why) | ({"coverage": coverage_json(counted)} if counted else {}))
    else:
        _print_text(report, text, verbose=verbose)
        _print_coverage(counted, folder)
    enough = counted is None or coverage.suffices(counted, folder=folder, limits=settings.limits)
    if not report.passed or not enough:
        raise click.exceptions.Exit(NO)


def _print_coverage(counted: Coverage | None, folder: str) -> None:
    for line in coverage_lines(counted, folder=folder) if counted else ():
        click.echo(visible(line))


def _run(folder: str, choice: Choice) -> tuple[Bundle, Sequence[Suite], Report]:
    files, bundle, suites = _load(folder, choice)
    cases = _cedar_cases(choice)
    count = sum(len(suite.cases) for suite in suites)
    if not count + len(cases):
        what = f"no case matches `{' '.join(choice.filters)}`" if choice.filters else _nothing(folder)
        raise click.ClickException(what)
    with counting("cases", count, quiet=choice.quiet or count < _CASES_WORTH_A_BAR) as done:
        jobs = choice.jobs or jobs_for(count)
        go = partial(run_parallel, bundle, files, jobs=jobs) if jobs > 1 else partial(run, bundle)
        report = go(suites=suites, limits=choice.limits, done=done)
    if cases:
        with closing(PolicyChild(timeout=_EVALUATE_SECONDS)) as child:
            results = run_cedar_cases(plain_of(bundle), cases, child.evaluate)
        seconds = report.seconds + sum(result.seconds for result in results)
        report = Report(results=(*report.results, *results), seconds=seconds)
    return bundle, suites, report


def _cedar_cases(choice: Choice) -> list[CedarCase]:
    return [
        case
        for file in choice.cedar
        for case in read_cedar_cases(file, choice.limits)
        if not choice.filters or any(found(one, case.case.file, case.case.name) for one in choice.filters)
    ]


def _run_plain(folder: Path, choice: Choice, *, verbose: bool, as_json: bool) -> None:
    """Run Cedar's own tests on plain Cedar; exit with 1 when some fail."""
    cases = _cedar_cases(choice)
    if not cases:
        raise click.UsageError("--plain needs a FILE.json of `cedar run-tests` that holds a case")
    with closing(PolicyChild(timeout=_EVALUATE_SECONDS)) as child:
        results = run_cedar_cases(read_plain(folder, choice.limits), cases, child.evaluate)
    failed = [one for one in results if not one.passed]
    if as_json:
        print_json([{"case": one.case.id, "passed": one.passed, "problems": list(one.problems)} for one in results])
    else:
        for one in results if verbose else failed:
            click.echo(visible(f"{'passed' if one.passed else 'failed'}: {one.case.id}"))
            for problem in one.problems:
                click.echo(visible(f"  {problem}"))
        click.echo(f"{len(results) - len(failed)} of {len(results)} cases passed")
    if failed:
        raise click.exceptions.Exit(NO)


def _load(folder: str, choice: Choice) -> tuple[Mapping[str, bytes], Bundle, tuple[Suite, ...]]:
    """Load the bundle and its tests; print the problems of either and exit with 2."""
    path = Path(folder)
    try:
        files = read_folder(path, choice.limits)
        with progress(f"loading {path}"):
            bundle = load_bundle(files, choice.limits, compile_once())
        return files, bundle, chosen(read_suites(path, choice.limits), choice.filters)
    except BundleError as error:
        for problem in error.problems:
            location = path / problem.file if problem.file and path.is_dir() else Path(problem.file)
            at = f":{problem.line}" if problem.line else ""
            click.echo(visible(f"error: {location}{at}: {problem.message}"), err=True)
        click.echo(f"error: nothing was run: fix {'the tests' if _in_tests(error) else 'the bundle'} first", err=True)
        raise click.exceptions.Exit(ERROR) from None


def _in_tests(error: BundleError) -> bool:
    return all(problem.file.startswith(f"{TESTS}/") for problem in error.problems)


def _nothing(folder: str) -> str:
    return f"`{Path(folder) / TESTS}` holds no test: write one into a file `{TESTS}/NAME{SUFFIX}`"


def _print_text(report: Report, text: TextReport, *, verbose: bool) -> None:
    for result in report.results:
        if not result.passed:
            for line in (*text.failed(result), ""):
                click.echo(visible(line))
        elif verbose:
            click.echo(visible(text.passed(result)))
    click.echo(text.summary(report))
