"""Run suites in several processes, when there are enough cases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from time import perf_counter

from pdp.errors import EvaluatorUnavailableError
from pdp.limits import Limits
from pdp.policy.bundle import Bundle, CompiledParts
from pdp.policy.contents import read_contents
from pdp.policy.stack import StackCheck
from pdp.workbench.runner import CaseResult, Report, run
from pdp.workbench.suite import Suite

# A process takes about a second to start; in that time another process runs two thousand cases.
_CASES_PER_PROCESS = 4000
_CHUNKS_PER_PROCESS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The parts from which a process builds its own bundle; the policies are compiled already."""

    version: str
    files: Mapping[str, bytes]
    parts: CompiledParts
    limits: Limits


def jobs_for(cases: int) -> int:
    """Return how many processes are worth starting for a number of cases."""
    return max(1, min(os.cpu_count() or 1, cases // _CASES_PER_PROCESS))


def run_parallel(
    bundle: Bundle,
    files: Mapping[str, bytes],
    suites: Sequence[Suite],
    *,
    jobs: int,
    limits: Limits,
    done: Callable[[CaseResult], None],
) -> Report:
    """Run the suites in `jobs` processes.

    Results are those of `run`, but only failed cases have `facts`. `files` are those of the bundle. `done` is called
    after each case in this process, in the order of the suites. Raise `EvaluatorUnavailableError` when a process ends
    before its work is done.
    """
    started = perf_counter()
    source = _Source(version=bundle.version, files=files, parts=bundle.parts, limits=limits)
    size = max(1, sum(len(suite.cases) for suite in suites) // (jobs * _CHUNKS_PER_PROCESS))
    chunks = list(_chunks(suites, size))
    results: list[CaseResult] = []
    try:
        # A fork of a process with threads can hang for ever.
        with ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_prepare, initargs=(source,)
        ) as pool:
            for chunk, found in zip(chunks, pool.map(_run_chunk, chunks), strict=True):
                for result in _with_facts(bundle, chunk, found, limits):
                    results.append(result)
                    done(result)
    except BrokenProcessPool:
        raise EvaluatorUnavailableError("a test process ended too early; `--jobs 1` starts none") from None
    return Report(results=tuple(results), seconds=perf_counter() - started)


def _chunks(suites: Iterable[Suite], size: int) -> Iterator[Suite]:
    for suite in suites:
        for start in range(0, len(suite.cases), size):
            yield replace(suite, cases=suite.cases[start : start + size])


def _with_facts(bundle: Bundle, chunk: Suite, found: Sequence[CaseResult], limits: Limits) -> Iterator[CaseResult]:
    """Run failed cases again here: facts hold parsed policies, which cannot be sent."""
    wrong = tuple(result.case for result in found if not result.passed)
    again = iter(run(bundle, [replace(chunk, cases=wrong)], limits=limits).results)
    return (result if result.passed else next(again) for result in found)


_BUNDLES: list[tuple[Bundle, Limits]] = []


def _prepare(source: _Source) -> None:
    contents = read_contents(source.files, source.limits)
    bundle = Bundle(source.version, contents, source.parts, StackCheck(source.limits))
    _BUNDLES[:] = [(bundle, source.limits)]


def _run_chunk(chunk: Suite) -> list[CaseResult]:
    bundle, limits = _BUNDLES[0]
    return [replace(result, facts=None) for result in run(bundle, [chunk], limits=limits).results]
