"""The notation of bundles and cases: plain YAML, read strictly, so that a case with a slip never passes for one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.errors import BundleError
from pdp.foundation.yamltext import Section, flow_text, load_section
from pdp.testing.bundles import OPEN_SESSIONS, SCHEMA, bundle_files, with_terms

HERE = Path(__file__).parents[2] / "decision"

# How a parameter is declared, and what the overlay adds to that.
KINDS: Mapping[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "string": ({"type": "string"}, None),
    "string?": ({"type": ["string", "null"]}, None),
    "integer": ({"type": "integer"}, None),
    "boolean": ({"type": "boolean"}, None),
    "strings": ({"type": "array", "items": {"type": "string"}}, None),
    "decimal": ({"type": "number"}, {"type": "decimal"}),
    "number": ({"type": "number"}, None),
    "anything": ({}, None),
    "hidden": ({"type": "string"}, {"opaque": True}),
    "payments": (
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"iban": {"type": "string"}, "cents": {"type": "integer", "minimum": 1}},
                "required": ["iban"],
            },
        },
        None,
    ),
    "broken": ({"$ref": "https://example.com/schema.json"}, None),
}

BUNDLE_KEYS = (
    "schema",
    "policies",
    "sessions",
    "tools",
    "directory",
    "caller_facts",
    "labels",
    "groups",
    "terms",
    "obligations",
    "known",
    "request_seconds",
)
# The kinds of the terms of a session.
_CEDAR = {"string": "String", "integer": "Long", "boolean": "Bool", "decimal": "decimal", "strings": "Set<String>"}
TOOL_KEYS = (
    "risk",
    "groups",
    "parameters",
    "resource",
    "canonical",
    "log",
    "digest",
    "description",
    "adds_labels",
    "targets",
    "text",
    "sums",
    "results",
    "issues",
)

# What each step must say, what it may, and what may be stated of its result. The first key of a step is its verb.
STEPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "request": (
        ("user", "agent", "tools"),
        ("duration", "labels", "environment", "attributes", "terms", "may_delegate", "purpose"),
        ("becomes",),
    ),
    "delegate": (
        ("parent", "user", "agent", "tools"),
        ("duration", "labels", "environment", "attributes", "terms", "may_delegate", "purpose"),
        ("becomes",),
    ),
    "approve": ((), ("grants", "shown"), ()),
    "deny": ((), (), ()),
    "end": ((), (), ()),
    "revoke": ((), (), ("revokes",)),
    "narrow": ((), ("tools", "ends_in", "labels"), ()),
    "look": ((), (), ("state", "tools", "left")),
    "list": ((), (), ("always", "depends", "never")),
    "call": (
        ("session",),
        ("arguments", "digest", "facts", "result", "fails", "request_id"),
        (
            *("allow", "deny", "policies", "cache", "ancestor", "ancestor_basis"),
            *("adds", "debits", "obligations", "advice", "question", "lifts", "sees", "span"),
        ),
    ),
    # What people answer to the `question` of a call that waits for them.
    "approve_call": ((), ("calls",), ()),
    "deny_call": ((), (), ()),
    "revoke_call": ((), (), ()),
    # Of a tenant, or of `all`; what is left is `confirmed` or `nothing`.
    "freeze": ((), (), ()),
    "lift": ((), (), ("left",)),
    "reload": ((), (), ("changed",)),
    "advance": ((), (), ()),
    "step_wall": ((), (), ()),
    "reboot": ((), (), ()),
}
MOVES_TIME = ("advance", "step_wall", "reboot")


class SlipError(Exception):
    """A case or bundle says something that the notation does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its verb, what it is about, and everything else that it says; `place` is file and line."""

    verb: str
    subject: Any
    given: Mapping[str, Any]
    place: str

    @property
    def caller(self) -> str:
        """Return who takes the step: by default the gateway asks and the lead decides."""
        default = "gateway" if self.verb in ("request", "delegate", "end", "call", "list") else "lead"
        return str(self.given.get("by", "author" if self.verb == "reload" else default))

    @property
    def refused(self) -> str:
        """Return the error that the step must end with, or an empty text."""
        return str(self.given.get("refused", ""))

    @property
    def results(self) -> dict[str, Any]:
        """Return what the step states of its result; a session that is asked for waits, where nothing else is said."""
        stated = {name: self.given[name] for name in STEPS[self.verb][2] if name in self.given}
        return {"becomes": "requested", **stated} if self.verb in ("request", "delegate") else stated

    @property
    def arguments(self) -> bytes:
        """Return the arguments of a call as the agent writes them: a text as it stands, a mapping as JSON."""
        return written(self.given.get("arguments"))

    @property
    def facts(self) -> bytes:
        """Return what the gateway vouches for with a call."""
        return written(self.given.get("facts"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One rule with the steps that show it. `beyond_oracle` says why the oracle cannot follow; mostly it is empty."""

    theme: str
    name: str
    bundle: Mapping[str, Any]
    steps: tuple[Step, ...]
    trusts: tuple[str, ...] = ()
    beyond_oracle: str = ""


def written(value: object) -> bytes:
    """Return a value as JSON bytes; a text is JSON already, and nothing is nothing."""
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def load_cases(folder: Path = HERE / "cases") -> Iterator[Case]:
    """Yield every case of every file of a folder."""
    for path in sorted(folder.glob("*.yaml")):
        yield from read_cases(path.name, path.read_bytes())


def read_cases(file: str, content: bytes) -> Iterator[Case]:
    """Yield the cases of one file. Raise `SlipError` with file and line for whatever the notation does not know."""
    try:
        top = load_section(file, content)
    except BundleError as error:
        raise SlipError(str(error)) from None
    _require(top, ("bundle", "cases"), ("change",))
    # What all cases of the file change in it.
    bundle = changed(load_bundle(top["bundle"]), top.get("change", {}))
    for one in top["cases"]:
        _require(one, ("case", "steps"), ("bundle", "trusts", "beyond_oracle"))
        yield Case(
            theme=file.removesuffix(".yaml"),
            name=one["case"],
            bundle=changed(bundle, one.get("bundle", {})),
            steps=tuple(_step(step) for step in one["steps"]),
            trusts=tuple(one.get("trusts", ())),
            beyond_oracle=one.get("beyond_oracle", ""),
        )


def _step(step: Section) -> Step:
    verb, subject = next(iter(step.items()))
    if verb not in STEPS:
        raise SlipError(str(step.problem(f"unknown step: `{verb}`", verb)))
    needed, more, results = STEPS[verb]
    common = () if verb in MOVES_TIME else ("by", "refused")
    _require(step, (verb, *needed), (*more, *results, *common))
    if verb == "call" and len({"allow", "deny", "refused"} & step.keys()) != 1:
        raise SlipError(str(step.problem("a call says exactly one of `allow`, `deny` and `refused`", verb)))
    given = {key: value for key, value in step.items() if key != verb}
    return Step(verb=verb, subject=subject, given=given, place=f"{step.file}:{step.line}")


def load_bundle(name: str) -> Mapping[str, Any]:
    """Return a bundle of the folder `bundles` in the notation of cases."""
    file = f"{name}.yaml"
    bundle = load_section(file, (HERE / "bundles" / file).read_bytes())
    check_bundle(bundle)
    return bundle


def check_bundle(bundle: Mapping[str, Any]) -> None:
    """Raise `SlipError` for a key that the notation of bundles does not know."""
    for key in bundle:
        if key not in BUNDLE_KEYS:
            raise SlipError(f"unknown key of a bundle: `{key}`")
    for server, tools in (bundle.get("tools") or {}).items():
        for name, tool in (tools or {}).items():
            for key in tool or {}:
                if key not in TOOL_KEYS:
                    raise SlipError(f"unknown key of tool `{server}/{name}`: `{key}`")


def changed(bundle: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle with a change laid over it: mappings are joined, an empty value takes its key away."""
    check_bundle(change)
    return _joined(bundle, change)


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for key, value in above.items():
        if value is None:
            joined.pop(key, None)
        elif isinstance(value, dict) and isinstance(joined.get(key), dict):
            joined[key] = _joined(joined[key], value)
        else:
            joined[key] = value
    return joined


def files_of(bundle: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a bundle."""
    manifest: dict[str, Any] = {"name": "cases", "request_seconds": bundle.get("request_seconds", 3600)}
    manifest |= {key: plain(bundle.get(key, {})) for key in ("labels", "groups", "obligations")}
    manifest["known"] = list(bundle.get("known", ()))
    if bundle.get("caller_facts"):
        manifest["caller_facts"] = {"properties": {name: {"type": of} for name, of in bundle["caller_facts"].items()}}
    return bundle_files(
        policies=bundle["policies"],
        tools={server: list(map(definition_of, tools, tools.values())) for server, tools in bundle["tools"].items()},
        directory=flow_text(plain(bundle["directory"])),
        overlays={server: flow_text(_overlay(tools)) for server, tools in bundle["tools"].items()},
        schema=schema_of(bundle),
        manifest=flow_text(manifest),
        sessions=bundle.get("sessions", OPEN_SESSIONS),
    )


def schema_of(bundle: Mapping[str, Any]) -> str:
    """Return the author's schema of a bundle, with the terms of sessions that it declares."""
    schema: str = bundle.get("schema", SCHEMA)
    if "terms" not in bundle:
        return schema
    declared = ", ".join(
        f'"{name.removesuffix("?")}"{"?" * name.endswith("?")}: {_CEDAR[kind]}'
        for name, kind in bundle["terms"].items()
    )
    return with_terms(declared, schema)


def definition_of(name: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definition of a tool as its server lists it."""
    kinds = {parameter.removesuffix("?"): kind for parameter, kind in (tool.get("parameters") or {}).items()}
    return {
        "name": name,
        "description": tool.get("description", name),
        "inputSchema": {
            "type": "object",
            "properties": {parameter: KINDS[kind][0] for parameter, kind in kinds.items()},
            "required": [parameter for parameter in tool.get("parameters") or {} if not parameter.endswith("?")],
        },
    }


def _overlay(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"tools": {name: _tool_overlay(tool) for name, tool in tools.items()}}


def _tool_overlay(tool: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {parameter.removesuffix("?"): kind for parameter, kind in (tool.get("parameters") or {}).items()}
    overlay: dict[str, Any] = {"risk": tool["risk"]}
    known = ("digest", "groups", "adds_labels", "sums", "targets", "text", "results", "issues")
    overlay |= {key: plain(tool[key]) for key in known if key in tool}
    overlay["parameters"] = {name: KINDS[kind][1] for name, kind in kinds.items() if KINDS[kind][1]}
    if "resource" in tool:
        entity_type, _, template = tool["resource"].partition(" ")
        overlay["resource"] = {"type": entity_type, "id": template}
        overlay["resource"] |= {key: plain(tool[key]) for key in ("canonical", "log") if key in tool}
    return overlay


def plain(value: Any) -> Any:
    """Return a value of sections as plain mappings and lists."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def _require(section: object, needed: tuple[str, ...], more: tuple[str, ...]) -> None:
    if not isinstance(section, Section):
        raise SlipError(f"a mapping is expected, not `{section}`")
    for problem in section.unknown_keys((*needed, *more)):
        raise SlipError(str(problem))
    for key in needed:
        if key not in section:
            raise SlipError(str(section.problem(f"`{key}` is missing")))
