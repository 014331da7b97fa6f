"""Report the results of the cases: as text that a newcomer understands, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pdp.model import Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.policysource import PolicySource
from pdp.workbench.runner import CaseResult, Report
from pdp.workbench.suite import Case, Expectation, ExpectedObligation, Suite

# Explains a failed case, line by line: the permits that came nearest and the condition that failed.
Why = Callable[[CaseResult], Sequence[str]]


def unexplained(_: CaseResult) -> Sequence[str]:
    """Add nothing about a case."""
    return ()


class TextReport:
    """Writes results as text. `folder` is put before the names of files, so that they can be opened."""

    def __init__(self, bundle: Bundle, suites: Iterable[Suite], *, folder: str, why: Why = unexplained) -> None:
        self._bundle = bundle
        self._suites: Mapping[str, Suite] = {suite.file: suite for suite in suites}
        self._prefix = f"{folder.rstrip('/')}/" if folder not in ("", ".") else ""
        self._why = why

    def passed(self, result: CaseResult) -> str:
        """Return the line of a case that passed."""
        return f"ok    {self._title(result.case)}"

    def failed(self, result: CaseResult) -> Iterator[str]:
        """Return the lines of a failed case: question, expectation, decision, reasons."""
        case, ruling = result.case, result.ruling
        yield f"FAIL  {self._title(case)}"
        if said := self._subject(case):
            yield f"  {said}"
        yield f"  expected: {case.expect}"
        yield f"  actual:   {_actual(ruling) if ruling else 'no decision'}"
        yield from (f"  problem:  {problem}" for problem in result.problems)
        for name in (*ruling.policies, *ruling.errors) if ruling else ():
            if name in self._bundle.policies:
                yield from self._source(self._bundle.policies[name], erred=name in (ruling.errors if ruling else ()))
        yield from (f"  {line}" if line else "" for line in self._why(result))

    def summary(self, report: Report) -> str:
        """Return the last line."""
        failed, all_of_them = len(report.failed), len(report.results)
        said = f"{failed} of {_cases(all_of_them)} failed" if failed else f"{_cases(all_of_them)} passed"
        return f"{said} ({report.seconds:.2f} s)"

    def _title(self, case: Case) -> str:
        path = f"{self._prefix}{case.file}" if case.session else case.file
        return f"{path}:{case.line}: {case.name}" if case.line else f"{path}: {case.name}"

    def _subject(self, case: Case) -> str:
        suite = self._suites.get(case.file)
        if suite is None:
            return ""
        session = suite.sessions[case.session]
        who = f"`{session.name}` ({session.user} with {session.agent}, {session.state.value})"
        at = datetime.fromtimestamp(case.now, UTC).isoformat().replace("+00:00", "Z")
        if case.step is not None and not case.call:
            return f"{case.step.name.lower()} session {who} at {at}"
        call = suite.calls[case.call]
        arguments = call.arguments_json.decode("utf-8", "replace")
        earlier = ", ".join(f"`{one.call}`" for one in case.after)
        after = f" after {earlier}" if earlier else ""
        after += f" with approval of {', '.join(f'`{name}`' for name in case.approvals)}" if case.approvals else ""
        deed = f"{case.step.name.lower()}{f' by `{case.by}`' if case.by else ''} " if case.step else ""
        return f"{deed}in session {who}{after}: {call.action} {arguments or '{}'} at {at}"

    def _source(self, policy: PolicySource, *, erred: bool) -> Iterator[str]:
        said = "could not be evaluated" if erred else f"this {policy.effect} decided"
        yield f"  {self._prefix}{policy.file}:{policy.line}: {said}"
        for number, line in enumerate(policy.text.strip().splitlines(), policy.line):
            yield f"  {number:5} | {line}"


def report_json(report: Report, bundle: Bundle, why: Why = unexplained) -> dict[str, Any]:
    """Return a report as a JSON value."""
    return {
        "passed": report.passed,
        "cases": len(report.results),
        "failed": len(report.failed),
        "seconds": round(report.seconds, 6),
        "bundle": bundle.version,
        "results": [_result_json(result, why) for result in report.results],
    }


def _result_json(result: CaseResult, why: Why) -> dict[str, Any]:
    case, ruling = result.case, result.ruling
    return {
        "file": case.file,
        "line": case.line,
        "case": case.name,
        "session": case.session,
        "call": case.call,
        "step": case.step.name.lower() if case.step else "",
        "passed": result.passed,
        "problems": list(result.problems),
        "expected": _expected_json(case.expect),
        "actual": _actual_json(ruling) if ruling else None,
        "explanation": [] if result.passed else list(why(result)),
        "seconds": round(result.seconds, 6),
    }


def _expected_json(expect: Expectation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "outcome": expect.outcome.value if expect.outcome else None,
        "basis": expect.basis.value if expect.basis else None,
        "policies": None if expect.policies is None else list(expect.policies),
        "errors": None if expect.errors is None else list(expect.errors),
        "obligations": None if expect.obligations is None else list(map(str, expect.obligations)),
    }
    return {key: value for key, value in said.items() if value is not None}


def _actual_json(ruling: Ruling) -> dict[str, Any]:
    return {
        "outcome": ruling.outcome.value,
        "basis": ruling.basis.value,
        "policies": list(ruling.policies),
        "errors": list(ruling.errors),
        "obligations": [f"{one.id} {one.parameters_json}" for one in ruling.obligations],
    }


def _actual(ruling: Ruling) -> str:
    # In the words of an expectation, so that the two lines can be compared.
    said = Expectation(
        outcome=ruling.outcome,
        basis=ruling.basis,
        policies=ruling.policies or None,
        errors=ruling.errors or None,
        obligations=tuple(ExpectedObligation(*one) for one in ruling.obligations) or None,
    )
    return str(said)


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"
