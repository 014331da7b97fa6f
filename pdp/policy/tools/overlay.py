"""Read the overlay of a tool server: what the server does not know, or must not be trusted to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

from pdp.calltokens.claims import AUDIENCE, CONNECTION_KIND, CONNECTION_SCOPE, MOST_SCOPES
from pdp.errors import Problem
from pdp.foundation.fieldpaths import field_path, last_name
from pdp.foundation.names import KINDS
from pdp.foundation.yamltext import Section, unknown
from pdp.policy.tools.mapping import CANONICAL_FORMS, ResourceMapping, split_template
from pdp.policy.tools.parameters import (
    COUNT,
    BoolType,
    DecimalType,
    ListingType,
    LongType,
    OpaqueType,
    Parameter,
    RecordType,
    StringType,
)
from pdp.policy.tools.targetpaths import KnownPaths, TargetPath, path_of

Risk = Literal["read_only", "mutating", "destructive"]
RISKS: tuple[Risk, ...] = get_args(Risk)

_Word = TypeVar("_Word", bound=str)
_DigestRule = Literal["required", "optional"]
_ResourceLog = Literal["plain", "digest"]
_ResultTrust = Literal["trusted", "untrusted"]

TOOL_KEYS = (
    *("adds_labels", "audiences", "connection", "digest", "groups", "log", "open", "parameters", "resource", "risk"),
    *("issues", "results", "sums", "targets", "text"),
)
# What the overlay can say of all tools of a server.
_SHARED_KEYS = ("adds_labels", "audiences", "connection", "digest", "groups", "risk")
# A client looks for each in each result.
MOST_ISSUES = 16
MOST_AUDIENCES = 8
_ENTITY_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*\Z")
# The PDP makes entities of these types, or they are people: no tool argument may name one.
_BUILT_IN_TYPES = frozenset({"User", "UserGroup", "Agent", "AgentGroup", "Session", "Grant", "Server", "Action"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConnection:
    """The downstream connection that calls of a tool use: its kind, such as `github`, and with which scopes, sorted."""

    kind: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOverlay:
    """The overlay of one tool. `input` has the types that it sets; `risk` is None when it sets none.

    `groups` are the further groups of the tool, sorted, and `audiences` those that call tokens for it may have. `log`
    names the parameters whose values may be written to the record, `adds_labels` the labels that an allowed call adds
    to its session, `sums` the parameter whose values are added up. `targets` are the paths to what calls name outside,
    `text` those to texts with links; None where the overlay says nothing. `trusted` says that strangers do not write
    its results, and `issues` are the paths to the fields of its results that issue ids. `connection` is None for a tool
    that uses none.
    """

    input: RecordType
    risk: Risk | None = None
    groups: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    digest_required: bool = False
    mapping: ResourceMapping | None = None
    log: tuple[str, ...] = ()
    adds_labels: tuple[str, ...] = ()
    targets: tuple[TargetPath, ...] | None = None
    text: tuple[TargetPath, ...] | None = None
    sums: str = ""
    trusted: bool = False
    issues: tuple[str, ...] = ()
    connection: ToolConnection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The names that a bundle declares and its overlays use; None takes any name for declared."""

    groups: Collection[str] | None = None
    labels: Collection[str] | None = None


ANYTHING = Declared()


def _no_paths(_: str) -> KnownPaths:
    return KnownPaths(known=(), free=())


def read_overlay(
    top: Section,
    inputs: Mapping[str, RecordType],
    declared: Declared = ANYTHING,
    paths: Callable[[str], KnownPaths] = _no_paths,
    results: Callable[[str], KnownPaths] = _no_paths,
) -> tuple[dict[str, ToolOverlay], list[Problem]]:
    """Read the overlay of one server, given the parameters of each of its tools.

    `paths` returns the paths that the schema of a tool declares, `results` those that the schema of its results does;
    none where there is no schema. Returns an overlay for every tool, mentioned or not, and all problems with file and
    line.
    """
    reader = _OverlayReader(declared, paths, results)
    return reader.read(top, inputs), reader.problems


class _OverlayReader:
    """Collects the problems of an overlay; its result is valid only without problems."""

    def __init__(
        self, declared: Declared, paths: Callable[[str], KnownPaths], results: Callable[[str], KnownPaths]
    ) -> None:
        self._declared = declared
        self._paths = paths
        self._results = results
        self.problems: list[Problem] = []

    def read(self, top: Section, inputs: Mapping[str, RecordType]) -> dict[str, ToolOverlay]:
        self.problems += top.unknown_keys((*_SHARED_KEYS, "tools"))
        tools = self._section(top, "tools")
        self.problems += tools.unknown_keys(inputs, "tool")
        risk = self._word(top, "risk", RISKS)
        digest = self._word(top, "digest", get_args(_DigestRule))
        shared = ToolOverlay(
            input=RecordType(),
            risk=risk,
            groups=self._groups(top),
            audiences=self._audiences(top),
            connection=self._connection(top),
            digest_required=digest == "required",
            adds_labels=self._labels(top),
        )
        return {
            name: self._tool(name, self._section(tools, name), parameters, shared)
            for name, parameters in inputs.items()
        }

    def _tool(self, tool: str, entry: Section, parameters: RecordType, shared: ToolOverlay) -> ToolOverlay:
        """Return the overlay of one tool; what it does not say is as `shared` by all tools of the server."""
        self.problems += entry.unknown_keys(TOOL_KEYS)
        typed = self._parameters(tool, self._section(entry, "parameters"), parameters)
        typed = replace(typed, open=self._open(tool, entry, parameters))
        digest = self._word(entry, "digest", get_args(_DigestRule))
        return ToolOverlay(
            input=typed,
            risk=self._word(entry, "risk", RISKS) or shared.risk,
            groups=self._groups(entry) if "groups" in entry else shared.groups,
            audiences=self._audiences(entry) if "audiences" in entry else shared.audiences,
            connection=self._connection(entry) if "connection" in entry else shared.connection,
            digest_required=digest == "required" if digest else shared.digest_required,
            mapping=self._mapping(tool, self._section(entry, "resource"), typed) if "resource" in entry else None,
            log=self._log(tool, entry, parameters),
            adds_labels=self._labels(entry) if "adds_labels" in entry else shared.adds_labels,
            targets=self._targets(tool, entry, typed) if "targets" in entry else None,
            text=self._text(tool, entry, typed) if "text" in entry else None,
            sums=self._sums(tool, entry, typed),
            trusted=self._word(entry, "results", get_args(_ResultTrust)) == "trusted",
            issues=self._issues(tool, entry),
        )

    def _targets(self, tool: str, entry: Section, parameters: RecordType) -> tuple[TargetPath, ...]:
        said, kinds = entry["targets"], ", ".join(f"`{kind}`" for kind in KINDS)
        if isinstance(said, Section):
            for path, kind in said.items():
                if not isinstance(kind, str) or kind not in KINDS:
                    self.problems.append(
                        said.problem(unknown("kind of target", str(kind), KINDS) + f" (one of {kinds})", path)
                    )
            return self._path_list(tool, said, {path: (path, str(kind)) for path, kind in said.items()}, parameters)
        if isinstance(said, list) and all(isinstance(path, str) for path in said):
            return self._path_list(tool, entry, dict.fromkeys(said, ("targets", None)), parameters)
        message = "`targets` must be a list of parameters, or a mapping of parameters to kinds, one of"
        self._add(entry, "targets", f"`{tool}`: {message} {kinds}")
        return ()

    def _text(self, tool: str, entry: Section, parameters: RecordType) -> tuple[TargetPath, ...]:
        said = entry["text"]
        if isinstance(said, list) and all(isinstance(path, str) for path in said):
            return self._path_list(tool, entry, dict.fromkeys(said, ("text", None)), parameters)
        self._add(entry, "text", f"`{tool}`: `text` must be a list of parameters that can hold links")
        return ()

    def _path_list(
        self, tool: str, section: Section, said: Mapping[str, tuple[str, str | None]], parameters: RecordType
    ) -> tuple[TargetPath, ...]:
        """Read paths; `said` has for each the key of `section` with its line, and its kind."""
        declared, names = self._paths(tool), {one.name: one for one in parameters.parameters}
        for path, (key, _) in said.items():
            if path not in names and not declared.declares(path):
                self._add(section, key, unknown(f"parameter of `{tool}`", path, declared.known))
        return tuple(path_of(path, names, kind) for path, (_, kind) in said.items())

    def _sums(self, tool: str, entry: Section, parameters: RecordType) -> str:
        name = entry.get("sums", "")
        found = parameters.parameter(name) if isinstance(name, str) else None
        if "sums" in entry and found is None:
            names = [one.name for one in parameters.parameters]
            self._add(entry, "sums", unknown(f"parameter of `{tool}`", str(name), names))
        elif found and (not found.required or found.nullable or not isinstance(found.type, LongType | DecimalType)):
            said = f"`{tool}`: `{name}` must be a required integer, or a required number with `type: decimal`"
            self._add(entry, "sums", f"{said}, to be added up")
        return str(name)

    def _issues(self, tool: str, entry: Section) -> tuple[str, ...]:
        said = entry.get("issues", [])
        if not isinstance(said, list) or not all(isinstance(path, str) for path in said):
            self._add(entry, "issues", f"`{tool}`: `issues` must be a list of paths such as `id` or `[].id`")
            return ()
        if len(said) > MOST_ISSUES:
            self._add(entry, "issues", f"`{tool}`: `issues` holds more than {MOST_ISSUES} paths")
        names = {one for path in self._results(tool).known for one in path.replace("[]", "").split(".")}
        for path in said:
            try:
                name = last_name(field_path(path))
            except ValueError as error:
                self._add(entry, "issues", f"`{tool}`: `issues`: {error}")
                continue
            if name is None:
                self._add(entry, "issues", f"`{tool}`: `issues`: `{path}` names no field")
            elif names and name not in names:
                self._add(entry, "issues", unknown(f"field of the results of `{tool}`", name, sorted(names)))
        return tuple(dict.fromkeys(said))

    def _labels(self, section: Section) -> tuple[str, ...]:
        names, declared = section.get("adds_labels", []), self._declared.labels
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._add(section, "adds_labels", "`adds_labels` must be a list of labels that `bundle.yaml` declares")
            return ()
        for name in names:
            if declared is not None and name not in declared:
                self._add(section, "adds_labels", unknown("label", name, declared))
        return tuple(sorted(set(names)))

    def _audiences(self, section: Section) -> tuple[str, ...]:
        names = section.get("audiences", [])
        if not isinstance(names, list) or not all(isinstance(name, str) and AUDIENCE.fullmatch(name) for name in names):
            form = "a list of URLs or names, each of 1 to 256 printable characters without blanks"
            self._add(section, "audiences", f"`audiences` must be {form}")
            return ()
        if len(names) > MOST_AUDIENCES:
            self._add(section, "audiences", f"`audiences` holds more than {MOST_AUDIENCES}")
        return tuple(sorted(set(names)))

    def _connection(self, section: Section) -> ToolConnection | None:
        said = self._section(section, "connection")
        if not said:
            return None
        self.problems += said.unknown_keys(("kind", "scopes"))
        kind, scopes = said.get("kind"), said.get("scopes", [])
        if not isinstance(kind, str) or not CONNECTION_KIND.fullmatch(kind):
            self._add(said, "kind", "`kind` must be 1 to 64 of a-z, 0-9 and `._-`, such as `github`")
            return None
        if not isinstance(scopes, list) or not all(
            isinstance(one, str) and CONNECTION_SCOPE.fullmatch(one) for one in scopes
        ):
            self._add(said, "scopes", "`scopes` must be a list of scopes, each of 1 to 128 characters without blanks")
            return None
        if len(set(scopes)) > MOST_SCOPES:
            self._add(said, "scopes", f"`scopes` holds more than {MOST_SCOPES}")
        return ToolConnection(kind=kind, scopes=tuple(sorted(set(scopes))))

    def _groups(self, section: Section) -> tuple[str, ...]:
        names = section.get("groups", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._add(section, "groups", "`groups` must be a list of groups that `bundle.yaml` declares")
            return ()
        for name in names:
            if name in RISKS:
                self._add(section, "groups", f"`{name}` is a risk group: write `risk: {name}`")
            elif self._declared.groups is not None and name not in self._declared.groups:
                declare = f"; declare it in `bundle.yaml`: `groups: {{{name}: {{meaning: …}}}}`"
                message = unknown("group", name, self._declared.groups)
                self._add(section, "groups", message if "did you mean" in message else message + declare)
        return tuple(sorted(set(names)))

    def _open(self, tool: str, entry: Section, parameters: RecordType) -> bool | None:
        said = entry.get("open")
        if said is not None and not isinstance(said, bool):
            self._add(entry, "open", f"`{tool}`: `open` must be `true` or `false`")
        elif said and not parameters.declares_more:
            self._add(entry, "open", f"`{tool}`: its schema takes only the parameters that it declares")
        return said if isinstance(said, bool) else None

    def _log(self, tool: str, entry: Section, parameters: RecordType) -> tuple[str, ...]:
        names = entry.get("log", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._add(entry, "log", f"`{tool}`: `log` must be a list of parameters whose values may be recorded")
            return ()
        known = [one.name for one in parameters.parameters]
        for name in names:
            if name not in known:
                self._add(entry, "log", unknown(f"parameter of `{tool}`", name, known))
        return tuple(sorted(set(names)))

    def _parameters(self, tool: str, section: Section, parameters: RecordType) -> RecordType:
        names = [one.name for one in parameters.parameters]
        self.problems += section.unknown_keys(names, f"parameter of `{tool}`")
        for name, said in section.items():
            parameter = parameters.parameter(name)
            if parameter is None:
                continue
            if said == {"type": "decimal"} and parameter.numeric:
                parameters = parameters.with_type(name, DecimalType())
            elif said == {"type": "decimal"}:
                self._add(
                    section, name, f"`{tool}`: `{name}` is not declared as a number; only a number can be `decimal`"
                )
            # `is True`, since `1 == True`.
            elif isinstance(said, Section) and set(said) == {"opaque"} and said["opaque"] is True:
                parameters = parameters.with_type(name, OpaqueType(reason="hidden from policies by the overlay"))
            elif isinstance(said, Section) and set(said) == {"members"}:
                listing = self._listing(tool, said, parameter)
                parameters = parameters.with_type(name, listing) if listing else parameters
            else:
                choices = "`{type: decimal}`, `{opaque: true}` or `{members: […]}`"
                self._add(section, name, f"`{tool}`: `{name}` must be {choices}")
        return parameters

    def _listing(self, tool: str, said: Section, parameter: Parameter) -> ListingType | None:
        element = parameter.type.element if isinstance(parameter.type, OpaqueType) else None
        names = said["members"]
        if element is None:
            self._add(said, "members", f"`{tool}`: `{parameter.name}` is not declared as a list of objects")
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._add(said, "members", f"`{tool}`: `members` must be a list of names")
            return None
        known = [one.name for one in element.parameters]
        for name in names:
            found = element.parameter(name)
            if found is None:
                self._add(said, "members", unknown(f"member of `{parameter.name}`", name, known))
            elif name == COUNT or not isinstance(found.type, StringType | LongType | BoolType):
                self._add(
                    said,
                    "members",
                    f"`{tool}`: `{name}` must be a text, integer or boolean, and not be named `{COUNT}`",
                )
        return ListingType(
            label=parameter.label,
            members=tuple(one for one in element.parameters if one.name in names),
            others=tuple(one.name for one in element.parameters if one.name not in names),
        )

    def _mapping(self, tool: str, section: Section, parameters: RecordType) -> ResourceMapping | None:
        self.problems += section.unknown_keys(("type", "id", "canonical", "log"))
        entity_type, template = section.get("type"), section.get("id")
        if not isinstance(entity_type, str) or not _ENTITY_TYPE.match(entity_type):
            self._add(section, "type", f"`{tool}`: `type` must name an entity type of the schema")
        elif entity_type in _BUILT_IN_TYPES:
            self._add(
                section, "type", f"`{tool}`: no call can be mapped to a `{entity_type}`; only the PDP makes these"
            )
        if not isinstance(template, str):
            self._add(section, "id", f"`{tool}`: `id` must be a template such as `{{owner}}/{{repo}}`")
            return None
        try:
            literals, fields = split_template(template)
        except ValueError as error:
            self._add(section, "id", f"`{tool}`: `{template}`: {error}")
            return None
        for name in fields:
            self._placeholder(tool, section, name, parameters)
        return ResourceMapping(
            type=str(entity_type),
            literals=literals,
            fields=fields,
            canonical=self._canonical(tool, section, literals, fields),
            log_resource=self._word(section, "log", get_args(_ResourceLog)) != "digest",
        )

    def _placeholder(self, tool: str, section: Section, name: str, parameters: RecordType) -> None:
        parameter = parameters.parameter(name)
        if parameter is None:
            names = [one.name for one in parameters.parameters]
            self._add(section, "id", unknown(f"parameter of `{tool}`", name, names))
        elif not parameter.required or parameter.nullable or not isinstance(parameter.type, StringType):
            self._add(section, "id", f"`{tool}`: `{name}` must be a required string to name a resource")

    def _canonical(
        self, tool: str, section: Section, literals: tuple[str, ...], fields: tuple[str, ...]
    ) -> dict[str, str]:
        forms = self._section(section, "canonical")
        self.problems += forms.unknown_keys(fields, "placeholder")
        chosen = {name: self._word(forms, name, tuple(CANONICAL_FORMS)) for name in forms}
        paths = {"path", "absolute-path"} & set(chosen.values())
        if paths and any("/" in text for text in literals):
            # Values must not contain a separator of the id, and most paths contain `/`.
            self._add(section, "id", f"`{tool}`: the text of a template with a path must not hold `/`")
        return {name: form for name, form in chosen.items() if form is not None}

    def _section(self, parent: Section, key: str) -> Section:
        found = parent.get(key)
        if isinstance(found, Section):
            return found
        if found is not None:
            self._add(parent, key, f"`{key}` must be a mapping")
        return Section(parent.file, parent.lines.get(key, parent.line))

    def _word(self, section: Section, key: str, words: tuple[_Word, ...]) -> _Word | None:
        if key not in section:
            return None
        for word in words:
            if section[key] == word:
                return word
        choices = ", ".join(f"`{word}`" for word in words)
        self._add(section, key, unknown(key, str(section[key]), words) + f" (one of {choices})")
        return None

    def _add(self, section: Section, key: str, message: str) -> None:
        self.problems.append(section.problem(message, key))
