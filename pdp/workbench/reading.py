"""Read test files: strict YAML, every problem with file and line, every table expanded into its cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from pdp.errors import BundleError, Problem, reason_of
from pdp.foundation.inside import open_inside
from pdp.foundation.yamltext import Section, load_section, unknown
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import SessionState
from pdp.policy.contents import TESTS
from pdp.policy.directory import Directory, read_overlay
from pdp.policy.patterns import pattern_problem
from pdp.workbench.equivalents import FILE as EQUIVALENTS
from pdp.workbench.suite import NamedCall, NamedSession, Suite
from pdp.workbench.tables import EXPECTATION_KEYS, CaseReader
from pdp.workbench.values import FieldReader, moment

T = TypeVar("T")

SUFFIX = "_test.yaml"

FILE_KEYS = (
    "name", "now", "approver", "gateway", "users", "agents", "entities", "sessions", "calls", "cases",
)  # fmt: skip
SESSION_KEYS = (
    "user", "agent", "tools", "purpose", "state", "parent", "grants", "labels", "environment", "attributes",
    "terms", "duration", "may_delegate", "approver", "gateway", "authenticated_ago",
)  # fmt: skip
CALL_KEYS = ("tool", "arguments", "caller", "definition_digest")

# A Monday morning. A file that does not state a time always has this one.
DEFAULT_NOW = "2026-01-05T10:00:00Z"


def read_suites(folder: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Suite, ...]:
    """Read every `tests/**/*_test.yaml` of a bundle's folder, in the order of names.

    Raise `BundleError` naming every problem of every file. Without tests the result is empty.
    """
    suites: list[Suite] = []
    problems: list[Problem] = []
    for path in sorted((folder / TESTS).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in (".yaml", ".yml") or path.is_dir() or name == f"{TESTS}/{EQUIVALENTS}":
            continue
        try:
            suites.append(read_suite(name, _content(folder, path, limits)))
        except BundleError as error:
            problems += error.problems
    if problems:
        raise BundleError(tuple(problems))
    return tuple(suites)


def read_suite(file: str, content: bytes) -> Suite:
    """Read one test file. Raise `BundleError` naming every problem."""
    if not file.endswith(SUFFIX):
        raise BundleError((Problem(file, 0, f"is not run: the name of a test file must end with `{SUFFIX}`"),))
    return _SuiteReader(load_section(file, content, times_as_text=True)).read()


def schema_text() -> str:
    """Return the JSON schema of test files, for completion and checks in editors."""
    return files("pdp.workbench").joinpath("suite.schema.json").read_text(encoding="utf-8")


def _content(folder: Path, path: Path, limits: Limits) -> bytes:
    name = path.relative_to(folder).as_posix()
    try:
        with open_inside(folder, path) as stream:
            content = stream.read(limits.policy_file_bytes + 1)
    except OSError as error:
        raise BundleError((Problem(name, 0, f"cannot be read: {reason_of(error)}"),)) from None
    if len(content) > limits.policy_file_bytes:
        message = f"larger than {limits.policy_file_bytes} bytes (limit `policy_file_bytes`)"
        raise BundleError((Problem(name, 0, message),))
    return content


class _SuiteReader:
    """Reads one file, section by section, and collects problems."""

    def __init__(self, top: Section) -> None:
        self._top = top
        self._fields = FieldReader()
        self._approver = self._fields.text(top, "approver", "approver")
        self._gateway = self._fields.text(top, "gateway", "gateway")

    def read(self) -> Suite:
        top, fields = self._top, self._fields
        fields.problems += top.unknown_keys(FILE_KEYS)
        stem = top.file.rpartition("/")[2].removesuffix(SUFFIX)
        name = fields.text(top, "name", stem)
        now = fields.moment(top, "now", moment(DEFAULT_NOW))
        directory = self._directory()
        sessions = self._named("sessions", self._session)
        self._inherit(sessions)
        calls = self._named("calls", self._call)
        cases = CaseReader(fields, sessions, calls, now).read(top)
        if fields.problems:
            raise BundleError(tuple(sorted(fields.problems, key=lambda one: one.line)))
        return Suite(file=top.file, name=name, directory=directory, sessions=sessions, calls=calls, cases=cases)

    def _directory(self) -> Directory:
        try:
            return read_overlay(self._top)
        except BundleError as error:
            self._fields.problems += error.problems
            return Directory()

    def _named(self, key: str, read: Callable[[str, Section], T]) -> dict[str, T]:
        section = self._fields.section(self._top, key)
        found = {}
        for name in section:
            entry = self._fields.section(section, name)
            if problem := _name_problem(name):
                self._fields.problems.append(section.problem(problem, name))
            found[name] = read(name, entry)
        return found

    def _session(self, name: str, entry: Section) -> NamedSession:
        fields = self._fields
        fields.problems += entry.unknown_keys(SESSION_KEYS)
        parent = fields.text(entry, "parent", "")
        for key in ("user", "agent", "tools") if not parent else ("tools",):
            fields.require(entry, key)
        tools = fields.texts(entry, "tools")
        for pattern in tools:
            if problem := pattern_problem(pattern):
                fields.problems.append(entry.problem(f"`{pattern}`: {problem}", "tools"))
        return NamedSession(
            name=name,
            line=entry.line,
            user=fields.text(entry, "user", ""),
            agent=fields.text(entry, "agent", ""),
            tools=tools,
            purpose=fields.text(entry, "purpose", name),
            state=fields.choice(entry, "state", SessionState, SessionState.ACTIVE),
            parent=parent,
            grants=fields.texts(entry, "grants"),
            labels=fields.texts(entry, "labels"),
            environment=fields.text(entry, "environment", ""),
            attributes=fields.section(entry, "attributes"),
            terms_json=fields.json(entry, "terms"),
            duration=fields.seconds(entry, "duration"),
            may_delegate=fields.flag(entry, "may_delegate"),
            approver=fields.text(entry, "approver", self._approver),
            gateway=fields.text(entry, "gateway", self._gateway),
            authenticated_ago=fields.seconds_or_unknown(entry, "authenticated_ago"),
        )

    def _inherit(self, sessions: dict[str, NamedSession]) -> None:
        """Give each child its parent's user and agent where it names none.

        Refuse unknown parents and cycles.
        """
        for name in sessions:
            seen = [name]
            while parent := sessions[seen[-1]].parent:
                problem = "" if parent in sessions else unknown("session", parent, sessions)
                problem = f"`{parent}` is its own parent" if parent in seen else problem
                if problem:
                    at = self._top["sessions"][seen[-1]]
                    self._fields.problem(at.problem(problem, "parent"))
                    break
                seen.append(parent)
            for below in reversed(seen[:-1]):
                above = sessions[sessions[below].parent]
                child = sessions[below]
                sessions[below] = replace(child, user=child.user or above.user, agent=child.agent or above.agent)

    def _call(self, name: str, entry: Section) -> NamedCall:
        fields = self._fields
        fields.problems += entry.unknown_keys(CALL_KEYS)
        fields.require(entry, "tool")
        server, slash, tool = fields.text(entry, "tool", "-/-").partition("/")
        if not (server and slash and tool):
            fields.problems.append(entry.problem("`tool` must be written `server/tool`", "tool"))
        return NamedCall(
            name=name,
            line=entry.line,
            server=server,
            tool=tool,
            arguments_json=fields.arguments(entry, "arguments"),
            facts_json=fields.json(entry, "caller"),
            definition_digest=fields.text(entry, "definition_digest", "") if "definition_digest" in entry else None,
        )


def _name_problem(name: str) -> str:
    if name in EXPECTATION_KEYS:
        return f"`{name}` is a keyword of expectations and cannot be a name"
    return "" if name.isprintable() and name else "a name must be printable"
