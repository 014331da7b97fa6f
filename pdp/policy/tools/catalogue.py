"""The catalogue: every tool of a bundle, from the servers' `tools/list` answers and the author's overlays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from pdp.errors import BundleError, InvalidJSONError, Problem
from pdp.foundation import jsontext
from pdp.foundation.jsontext import MINTING_KEYS, canonical, definition_digest, former_definition_digest, parse
from pdp.foundation.yamltext import Section, load_section
from pdp.limits import Limits
from pdp.policy.tools.argumentcheck import ArgumentCheck, UncheckableSchemaError
from pdp.policy.tools.mapping import ResourceMapping
from pdp.policy.tools.overlay import ANYTHING, RISKS, Declared, Risk, ToolConnection, ToolOverlay, read_overlay
from pdp.policy.tools.parameters import RecordType
from pdp.policy.tools.targetpaths import TargetPath, known_paths
from pdp.policy.tools.typing import input_type

__all__ = [
    "CRITICAL",
    "RISKS",
    "Catalogue",
    "Risk",
    "Tool",
    "annotated_risk",
    "load_catalogue",
    "tool_definitions",
]

# The group of tools of which a person must see every call, as of those that are destructive.
CRITICAL: Final = "critical"
_SERVER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_RESERVED_SERVER = "pdp"
_TOOL_NAME_CHARACTERS = 128
# Keeps the memory for the patterns of all schemas below 100 MB.
_MOST_PATTERNS = 1024
# Control and format characters and line separators: in a name they could forge lines or reorder the text shown.
_UNSHOWABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# A server writes the tool list and an author keeps it, so it may be larger and deeper than an agent's arguments.
_DEFINITION_LIMITS = Limits(
    arguments_bytes=8 * 1024 * 1024, arguments_depth=64, arguments_nodes=1024 * 1024, string_bytes=1024 * 1024
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool of one server: the form of its calls, its risk, and its further groups.

    `action` is `server/name`. `definition_digest` covers the parts of the definition that a model acts on,
    `former_digest` the whole, as in earlier releases; `approval_digest` is what an approval freezes: the definition,
    and the connection. With `digest_required` a call must state one of them. `mapping`
    is None when the server is the resource of every call. `log` names the parameters whose values may be recorded; for
    all others only a keyed digest is. `named` says whether an overlay sets the risk group; otherwise the tool is
    destructive, whatever its server says. `check` checks arguments against the whole schema, None when none is
    declared. `adds_labels` names the labels that an allowed call adds to its session, and `sums` the parameter whose
    values the budget `max_sum` adds up; empty for none. `targets` are the paths to what calls name outside, `text`
    those to texts with links; None where the overlay says nothing. `trusted` says that strangers do not write its
    results, and `issues` are the paths to the fields of its results that issue ids. `audiences` are those that call
    tokens for it may have, and `connection` is what its calls use downstream, None for nothing. `unusable` says why
    every call is denied, and is empty for a tool that can be called.
    """

    action: str
    server: str
    name: str
    definition_digest: str
    approval_digest: str
    risk: Risk
    digest_required: bool
    input: RecordType
    mapping: ResourceMapping | None = None
    log: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    adds_labels: tuple[str, ...] = ()
    targets: tuple[TargetPath, ...] | None = None
    text: tuple[TargetPath, ...] | None = None
    sums: str = ""
    trusted: bool = False
    issues: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    connection: ToolConnection | None = None
    named: bool = True
    title: str = ""
    description: str = ""
    check: ArgumentCheck | None = field(default=None, compare=False, repr=False)
    unusable: str = ""
    former_digest: str = field(default="", compare=False)

    def is_known_as(self, digest: str) -> bool:
        """Return whether a digest is one of this definition."""
        return bool(digest) and digest in (self.definition_digest, self.former_digest)

    def is_approved_as(self, digest: str) -> bool:
        """Return whether a digest is what an approval has frozen of the tool as it is now."""
        if self.connection is None:
            return self.is_known_as(digest)
        return bool(digest) and digest == self.approval_digest

    @property
    def action_groups(self) -> tuple[str, ...]:
        """Return all groups of the tool's action: its risk group, then the others."""
        return (self.risk, *self.groups)

    @property
    def critical(self) -> bool:
        """Return whether a person must see every call, and must have logged in a short time before."""
        return self.risk == "destructive" or CRITICAL in self.groups

    @property
    def resource_type(self) -> str:
        """Return the entity type of the resources of calls."""
        return self.mapping.type if self.mapping else "Server"

    @property
    def log_resource(self) -> bool:
        """Return whether the resource's id may be written to logs and traces."""
        return self.mapping.log_resource if self.mapping else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All tools by action, `server/name`."""

    tools: Mapping[str, Tool]

    @property
    def servers(self) -> tuple[str, ...]:
        """Return the names of all servers, sorted."""
        return tuple(sorted({tool.server for tool in self.tools.values()}))

    def tool(self, server: str, name: str) -> Tool | None:
        """Return a tool of a server; None when the server has no tool with this name."""
        tool = self.tools.get(f"{server}/{name}")
        # A name may hold a slash: `a/b` of `c` is not `b` of `c/a`.
        return tool if tool is not None and tool.server == server else None


def load_catalogue(files: Mapping[str, bytes], declared: Declared = ANYTHING) -> Catalogue:
    """Read `tools/<server>.json`, the answers to `tools/list`, and `tools/<server>.yaml`, the overlays.

    Takes all files of a bundle by name and reads only those below `tools/`.
    Raise `BundleError` with every problem found.
    """
    problems: list[Problem] = []
    tools: dict[str, Tool] = {}
    paths = [PurePosixPath(file) for file in sorted(files) if file.startswith("tools/")]
    servers = {str(path)[len("tools/") : -len(".json")] for path in paths if path.suffix == ".json"}
    for path in paths:
        server = str(path)[len("tools/") : -len(path.suffix)]
        if path.suffix == ".yml":
            problems.append(Problem(str(path), 0, "an overlay must end in `.yaml`, or it is not read"))
        elif path.suffix == ".yaml" and server not in servers:
            problems.append(Problem(str(path), 0, f"an overlay without a catalogue: `tools/{server}.json` is missing"))
    patterns = 0
    for server in sorted(servers):
        reader = _ServerReader(server, _MOST_PATTERNS - patterns, declared)
        found = reader.read(files)
        patterns += sum(tool.check.patterns for tool in found.values() if tool.check)
        tools |= found
        problems += reader.problems
    if problems:
        raise BundleError(tuple(problems))
    return Catalogue(tools=tools)


def tool_definitions(text: bytes) -> tuple[dict[str, Any], ...]:
    """Return the entries of a whole `tools/list` answer: the message, its result, or the bare list.

    Raise `InvalidJSONError` with what is wrong in one line.
    """
    # A parameter with a name that Cedar reserves makes only its own tool unusable.
    answer = parse(text, _DEFINITION_LIMITS, minting=True)
    if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        answer = answer["result"]
    if isinstance(answer, dict):
        if answer.get("nextCursor"):
            raise InvalidJSONError("one page of several: `nextCursor` says that there are more tools")
        answer = answer.get("tools")
    if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
        raise InvalidJSONError("not a `tools/list` answer: a list of tools is expected")
    return tuple(answer)


def annotated_risk(definition: Mapping[str, Any]) -> Risk:
    """Return the risk group that a tool's annotations claim; by default destructive, as in MCP."""
    annotations = definition.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    if annotations.get("readOnlyHint") is True:
        return "read_only"
    return "mutating" if annotations.get("destructiveHint") is False else "destructive"


def server_name_problem(name: str) -> str | None:
    """Return what is wrong with the name of a tool server, or None."""
    if not _SERVER_NAME.match(name):
        return "a server's name must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`"
    return f"the server name `{name}` is reserved" if name == _RESERVED_SERVER else None


def tool_name_problem(name: object) -> str | None:
    """Return what is wrong with the name of a tool, or None. `/`, `-`, `.` and spaces are valid."""
    if not isinstance(name, str) or not name:
        return "a tool without a name"
    if len(name) > _TOOL_NAME_CHARACTERS:
        return f"a tool's name is longer than {_TOOL_NAME_CHARACTERS} characters: `{name[:32]!a}…`"
    if any(unicodedata.category(character) in _UNSHOWABLE for character in name):
        return f"a tool's name holds a control or format character: `{name!a}`"
    return None


class _ServerReader:
    """Reads the two files of one server and collects their problems."""

    def __init__(self, server: str, most_patterns: int, declared: Declared) -> None:
        self._server = server
        self._declared = declared
        self._patterns_left = most_patterns
        self._catalogue_file = f"tools/{server}.json"
        self._overlay_file = f"tools/{server}.yaml"
        self.problems: list[Problem] = []

    def read(self, files: Mapping[str, bytes]) -> dict[str, Tool]:
        if problem := server_name_problem(self._server):
            self._add(problem)
        definitions = self._definitions(files[self._catalogue_file])
        if definitions is None:
            return {}
        inputs = {
            name: input_type(definition.get("inputSchema")) or RecordType() for name, definition in definitions.items()
        }
        overlay = self._overlay(files.get(self._overlay_file, b""))
        overlays, problems = read_overlay(
            overlay,
            inputs,
            self._declared,
            lambda name: known_paths(definitions[name].get("inputSchema")),
            lambda name: known_paths(definitions[name].get("outputSchema")),
        )
        self.problems += problems
        tools = [self._tool(name, definition, overlays[name]) for name, definition in definitions.items()]
        return {tool.action: tool for tool in tools}

    def _definitions(self, content: bytes) -> dict[str, dict[str, Any]] | None:
        found: dict[str, dict[str, Any]] = {}
        try:
            entries = tool_definitions(content)
        except InvalidJSONError as error:
            self.problems.append(Problem(self._catalogue_file, error.line, str(error), column=error.column))
            return None
        for entry in entries:
            name = entry.get("name")
            if problem := tool_name_problem(name):
                self._add(problem)
            elif name in found:
                self._add(f"tool `{name}` appears twice")
            else:
                found[str(name)] = entry
        return found

    def _overlay(self, content: bytes) -> Section:
        try:
            return load_section(self._overlay_file, content)
        except BundleError as error:
            self.problems += error.problems
            return Section(self._overlay_file, 1)

    def _tool(self, name: str, definition: dict[str, Any], overlay: ToolOverlay) -> Tool:
        digest = former = ""
        try:
            digest, former = definition_digest(definition), former_definition_digest(definition)
        except InvalidJSONError as error:
            self._add(f"tool `{name}`: {error}")
        annotations = definition.get("annotations")
        check, unusable = self._check(definition.get("inputSchema"))
        return Tool(
            action=f"{self._server}/{name}",
            server=self._server,
            name=name,
            definition_digest=digest,
            approval_digest=_approval_digest(digest, overlay.connection),
            # A server's claims about its own tool are only proposals for the import; only a person lowers the risk.
            risk=overlay.risk or "destructive",
            named=overlay.risk is not None,
            digest_required=overlay.digest_required,
            input=overlay.input,
            mapping=overlay.mapping,
            log=overlay.log,
            groups=overlay.groups,
            adds_labels=overlay.adds_labels,
            targets=overlay.targets,
            text=overlay.text,
            sums=overlay.sums,
            trusted=overlay.trusted,
            issues=overlay.issues,
            audiences=overlay.audiences,
            connection=overlay.connection,
            title=_text(definition, "title") or _text(annotations, "title"),
            description=_text(definition, "description"),
            check=check,
            unusable=unusable,
            former_digest=former,
        )

    def _check(self, schema: object) -> tuple[ArgumentCheck | None, str]:
        """Return the check of arguments, and why the tool is unusable (empty when it is usable)."""
        if schema is None:
            return None, ""
        if input_type(schema) is None or not isinstance(schema, dict):
            return None, "its `inputSchema` is not the schema of an object"
        if reserved := sorted(_keys(schema) & MINTING_KEYS):
            return None, f"its `inputSchema` names `{reserved[0]}`, which Cedar reserves"
        try:
            check = ArgumentCheck(schema, most_patterns=self._patterns_left)
        except UncheckableSchemaError as error:
            return None, f"its `inputSchema` cannot be used: {error}"
        self._patterns_left -= check.patterns
        return check, ""

    def _add(self, message: str) -> None:
        self.problems.append(Problem(self._catalogue_file, 0, message))


def _keys(value: object) -> set[str]:
    """Return the keys of all objects in a JSON value."""
    keys: set[str] = set()
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            keys.update(one)
            pending += one.values()
        elif isinstance(one, list):
            pending += one
    return keys


def _text(found: object, key: str) -> str:
    text = found.get(key) if isinstance(found, dict) else None
    return text if isinstance(text, str) else ""


def _approval_digest(definition: str, connection: ToolConnection | None) -> str:
    if connection is None:
        return definition
    return jsontext.digest(canonical([definition, connection.kind, *connection.scopes]))
