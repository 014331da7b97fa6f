"""Write a report as JUnit's XML, which continuous integration reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from xml.etree import ElementTree as ET

from pdp.foundation.printable import visible
from pdp.workbench.runner import CaseResult, Report


def junit(report: Report, details: Callable[[CaseResult], Iterable[str]]) -> bytes:
    """Return JUnit's XML: a suite per file, and `details` for each failed case."""
    top = ET.Element("testsuites", {"name": "pdp test", **_counts(report.results)})
    for file, listed in groupby(report.results, key=lambda result: result.case.file):
        results = list(listed)
        suite = ET.SubElement(top, "testsuite", {"name": _clean(file), **_counts(results)})
        for result in results:
            _case(suite, result, details)
    text: bytes = ET.tostring(top, encoding="utf-8", xml_declaration=True)
    return text


def _case(suite: ET.Element, result: CaseResult, details: Callable[[CaseResult], Iterable[str]]) -> None:
    case = result.case
    one = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(case.file),
        name=_clean(case.name),
        file=_clean(case.file),
        line=str(case.line),
        time=f"{result.seconds:.6f}",
    )
    if not result.passed:
        failure = ET.SubElement(one, "failure", message=_clean("; ".join(result.problems)))
        failure.text = _clean("\n".join(details(result)))


def _counts(results: Iterable[CaseResult]) -> dict[str, str]:
    listed = list(results)
    return {
        "tests": str(len(listed)),
        "failures": str(sum(not result.passed for result in listed)),
        "time": f"{sum(result.seconds for result in listed):.6f}",
    }


def _clean(text: str) -> str:
    # XML has no way to write most control characters.
    return visible(text, kept="\n")
