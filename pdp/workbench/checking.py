"""Show the problems of a bundle: as a compiler does, as JSON, and as SARIF for code review."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pdp.errors import Problem
from pdp.policy.bundle import Bundle
from pdp.policy.contents import NOT_READ
from pdp.policy.lint.table import ALLOW, LINTS
from pdp.policy.loading import CheckReport
from pdp.policy.refusals.wording import ERRORS

_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_WIDE = ("W", "F")
_LONGEST_LINE = 160


def text_lines(report: CheckReport, folder: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield every problem with its source line, a caret and a remedy; last a summary."""
    lines: dict[str, list[str]] = {}
    for problem in (*report.errors, *report.warnings):
        if problem.file not in lines:
            text = files.get(problem.file, b"").decode("utf-8", "replace")
            lines[problem.file] = text.split("\n")
        yield from _problem_lines(problem, folder, lines[problem.file])
        yield ""
    yield summary(report, folder)


def summary(report: CheckReport, folder: Path) -> str:
    """Summarise in one line the folder's content, or that it does not load.

    The line also counts the problems.
    """
    found = ", ".join(
        f"{len(problems)} {word}{'s' * (len(problems) > 1)}"
        for word, problems in (("error", report.errors), ("warning", report.warnings))
        if problems
    )
    if report.errors:
        return f"{folder}: {found}; this bundle does not load"
    policies = f"{report.policies} {'policy' if report.policies == 1 else 'policies'}"
    tools = f"{report.tools} {'tool' if report.tools == 1 else 'tools'}"
    holds = f"{folder}: {policies}, {tools}, {report.version}"
    return f"{holds}; {found}" if found else holds


def report_json(report: CheckReport, bundle: Bundle | None = None) -> dict[str, Any]:
    """Return the report as JSON; with a bundle, also what each tool's policies read.

    Files are relative to the bundle.
    """
    problems = [problem.as_json() for problem in (*report.errors, *report.warnings)]
    found = {"valid": not report.errors, "version": report.version, "problems": problems}
    return found | {"tools": list(_readings_json(bundle))} if bundle else found


def reading_rows(bundle: Bundle) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each part of a call that policies read.

    A row is the tool, how its answers are remembered, the part, and the policies that read it.
    """
    for action in sorted(bundle.catalogue.tools):
        reading = bundle.slice(action).reading
        kind = reading.kind.value if reading.cacheable else f"{reading.kind.value}, never remembered"
        for index, (name, policies) in enumerate(reading.readers.items() or [("", ())]):
            yield (action, kind, name, ", ".join(policies)) if index == 0 else ("", "", name, ", ".join(policies))


def _readings_json(bundle: Bundle) -> Iterator[dict[str, Any]]:
    for action in sorted(bundle.catalogue.tools):
        reading = bundle.slice(action).reading
        yield {
            "tool": action,
            "cache_class": reading.kind.value,
            "remembered": reading.cacheable,
            "reads": {name: list(policies) for name, policies in reading.readers.items()},
        }


def report_sarif(report: CheckReport, folder: Path, *, tool_version: str) -> dict[str, Any]:
    """Return the report in SARIF 2.1.0.

    Files below the working directory are relative to it.
    """
    problems = (*report.errors, *report.warnings)
    codes = sorted({problem.code for problem in problems})
    rules = [{"id": code, "shortDescription": {"text": summaries().get(code, code)}} for code in codes]
    driver = {"name": "pdp check", "version": tool_version, "rules": rules}
    results = [_sarif_result(problem, folder, codes) for problem in problems]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def summaries() -> dict[str, str]:
    """Return every code that a check can report, and its meaning in a few words."""
    lints = {lint.code: lint.summary for lint in LINTS}
    others = {
        "unknown-reference": "a reference in the directory to an unknown entity",
        "unusable-tool": "a tool whose calls are all denied, because its JSON schema cannot be used",
        "unchecked-pattern": "a `pattern` of a tool's schema against which arguments are not checked",
        "twin-names": "two tools of a server, or two parameters of a tool, whose names people cannot tell apart",
        "unsummed": "a term `max_sum`, and no tool that adds to a sum",
        "unnamed-tool": "tools that no overlay puts into a risk group",
        ALLOW: "a wrong `@allow`",
        NOT_READ: "a file that looks like one of a bundle and is not read",
    }
    return {**ERRORS, **lints, **others}


def _problem_lines(problem: Problem, folder: Path, lines: list[str]) -> Iterator[str]:
    path = str(folder / problem.file) if problem.file else str(folder)
    where = "".join(f":{number}" for number in (problem.line, problem.column) if number)
    yield f"{path}{where}: {problem.severity}[{problem.code}]: {problem.message}"
    number = str(problem.line)
    if 0 < problem.line <= len(lines):
        source = lines[problem.line - 1].rstrip("\r")
        yield f" {number} | {_shown(source[:_LONGEST_LINE])}"
        if 0 < problem.column <= _LONGEST_LINE:
            before = source[: problem.column - 1]
            marked = source[:_LONGEST_LINE][problem.column - 1 : problem.column - 1 + problem.width]
            yield f" {' ' * len(number)} | {_blank(before)}{'^' * max(_width(marked), 1)}"
    if problem.help:
        yield f" {' ' * len(number)} = help: {problem.help}"


def _sarif_result(problem: Problem, folder: Path, codes: list[str]) -> dict[str, Any]:
    text = f"{problem.message}\n{problem.help}" if problem.help else problem.message
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(folder / problem.file)}}
    if problem.line:
        location["region"] = {"startLine": problem.line}
        if problem.column:
            location["region"] |= {"startColumn": problem.column, "endColumn": problem.column + problem.width}
    return {
        "ruleId": problem.code,
        "ruleIndex": codes.index(problem.code),
        "level": problem.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }


def _uri(path: Path) -> str:
    whole = path.absolute()
    here = Path.cwd()
    return quote(whole.relative_to(here).as_posix()) if whole.is_relative_to(here) else whole.as_uri()


def _shown(source: str) -> str:
    # Characters that move or hide others would show another line than the one that the engine reads.
    return "".join(one if one.isprintable() or one == "\t" else "�" for one in source)


def _blank(source: str) -> str:
    return "".join("\t" if one == "\t" else " " * _width(one) for one in source)


def _width(source: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in _WIDE else not unicodedata.combining(one) for one in source)
