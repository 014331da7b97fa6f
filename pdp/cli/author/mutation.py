"""`pdp test --mutate`: the changes that the tests of a policy folder do not notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pdp.app.embedded import compile_once
from pdp.cli.output import print_json, progress
from pdp.cli.progressbar import counting
from pdp.foundation.printable import visible
from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.policy.child.process import run_once
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.workbench.equivalents import read_equivalents
from pdp.workbench.mutation import Mutant, MutantResult, Mutants, MutationReport, Verdict, mutants_of, try_mutants
from pdp.workbench.reading import read_suites
from pdp.workbench.selection import chosen, found

_MAKE_SECONDS = 300.0
_HEADINGS = {
    Verdict.SURVIVED: "no test notices",
    Verdict.TIMED_OUT: "timed out, so unknown",
    Verdict.EQUIVALENT: "counted as equivalent",
}


def mutation(folder: Path, policies: Sequence[str], filters: Sequence[str], limits: Limits, *, as_json: bool) -> bool:
    """Try every mutant of the chosen policies, print the results; return if all pass.

    Raise `BundleError` when bundle or tests cannot be read.
    """
    files = read_folder(folder, limits)
    with progress(f"loading {folder}"):
        bundle = load_bundle(files, limits, compile_once())
    suites = chosen(read_suites(folder, limits), tuple(filters))
    equivalents = {key: entry for key, entry in read_equivalents(folder).items() if _wanted(key[0], policies)}
    made = _chosen(mutants_of(files, limits, _mutate_once), policies)
    with counting("mutants", len(made.mutants), quiet=as_json) as done:
        try:
            report = try_mutants(bundle, suites, made, equivalents=equivalents, limits=limits, done=done)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json(_json(report, bundle))
    else:
        for line in _lines(report, bundle, folder):
            click.echo(visible(line))
    return report.passed


def _mutate_once(job: Mapping[str, Any]) -> dict[str, Any]:
    return run_once("mutate", dict(job), timeout=_MAKE_SECONDS)


def _chosen(made: Mutants, policies: Sequence[str]) -> Mutants:
    kept = tuple(one for one in made.mutants if _wanted(one.of, policies))
    if not kept:
        raise click.ClickException(f"no policy matches `{' '.join(policies)}`")
    refused = {name: count for name, count in made.refused.items() if _wanted(name, policies)}
    return replace(made, mutants=kept, refused=refused)


def _wanted(policy: str, texts: Sequence[str]) -> bool:
    return not texts or any(found(text, policy, policy) for text in texts)


def _lines(report: MutationReport, bundle: Bundle, folder: Path) -> Iterator[str]:
    for verdict, heading in _HEADINGS.items():
        results = report.having(verdict)
        if results:
            yield f"{heading}: {len(results)}"
            for result in results:
                because = f"  ({result.by})" if result.by else ""
                yield f"  {_place(result.mutant, bundle, folder)}: {result.mutant.of}: {result.mutant.words}{because}"
            yield ""
    for problem in report.stale:
        yield f"{folder / problem.file}:{problem.line}: {problem.message}"
    counts = ", ".join(f"{len(report.having(verdict))} {verdict.value}" for verdict in Verdict)
    yield f"{len(report.results)} mutants: {counts}; {report.score:.1%} noticed; {report.refused} more fail the check"


def _place(mutant: Mutant, bundle: Bundle, folder: Path) -> str:
    policy = bundle.policies[mutant.of]
    return f"{folder / policy.file}:{policy.line}"


def _json(report: MutationReport, bundle: Bundle) -> dict[str, Any]:
    return {
        "mutants": [_mutant_json(result, bundle) for result in report.results],
        "counts": {verdict.name.lower(): len(report.having(verdict)) for verdict in Verdict},
        "refused": report.refused,
        "score": round(report.score, 4),
        "stale": [str(problem) for problem in report.stale],
        "seconds": round(report.seconds, 3),
    }


def _mutant_json(result: MutantResult, bundle: Bundle) -> dict[str, Any]:
    policy = bundle.policies[result.mutant.of]
    return {
        "policy": policy.id,
        "file": policy.file,
        "line": policy.line,
        "mutant": result.mutant.words,
        "verdict": result.verdict.name.lower(),
        "by": result.by,
    }
