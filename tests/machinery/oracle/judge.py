"""The oracle's half without memory: typing, mapping, and the whole policy text asked with the full schema.

Written anew from the documents; it shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import cedarpy
import jsonschema
import yaml

JSON = dict[str, Any]
Uid = tuple[str, str]

CEDAR = {
    "string": "String",
    "string?": "String",
    "integer": "Long",
    "boolean": "Bool",
    "decimal": "decimal",
    "strings": "Set<String>",
}
SESSION_ACTION = """
action "pdp/{}_session" appliesTo {{ principal: User, resource: Session, context: {{
  agent: Agent, user: User, caller: {{ id: String }}, grants: Set<Grant>, tools: Set<String>, risks: Set<String>,
  duration: Long, may_delegate: Bool, now: datetime
}} }};"""
_GROUPS = "action read_only, mutating, destructive{};"
TOOL_ACTION = """
action "{}" in [{}] appliesTo {{ principal: User, resource: {}, context: {{
  agent: Agent, session: Session, caller: Caller, now: datetime, opaque: Set<String>, targets: Targets,
  {}input: {{ {} }}
}} }};"""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One tool. `parameters` maps names to a kind of `CEDAR` or `opaque`.

    `resource` is a type and the parameters whose values name it, joined by `/`, in lower case where `lower` says so.
    """

    server: str
    name: str
    risk: str
    digest: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    required: Collection[str] = ()
    resource: tuple[str, tuple[str, ...]] | None = None
    lower: bool = False
    digest_required: bool = False
    groups: Collection[str] = ()
    schema: JSON | bool = True
    labels: Collection[str] = ()
    # Paths to what calls name outside, each with its kind or nothing, and to texts with links.
    targets: Sequence[tuple[str, str]] | None = None
    texts: Sequence[str] | None = None
    # The parameter whose values are added up.
    sums: str = ""
    # Strangers do not write its results; and the paths to fields of them that issue ids.
    trusted: bool = False
    issues: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """All that is known at one time. Entities are Cedar's JSON; ceilings are lists of patterns by agent."""

    schema: str
    policies: str
    tools: Mapping[str, Tool]
    facts: Mapping[str, str]
    entities: Sequence[JSON]
    ceilings: Mapping[str, Sequence[str]]
    request_seconds: float
    widening: frozenset[str] = frozenset()
    # The labels that can come with a report of what came of a call.
    reported: frozenset[str] = frozenset()
    groups: Collection[str] = ()
    # The kind of each term of a session, a `?` behind the names of those that may be missing; None without any.
    terms: Mapping[str, str] | None = None
    # The attributes of users that hold what they know.
    known: Collection[str] = ()

    def knows(self, *uids: Uid) -> bool:
        """Say whether the directory knows all of these."""
        return set(uids) <= {(one["uid"]["type"], one["uid"]["id"]) for one in self.entities}


# A forbid that a person can lift: the session that it denies, its id and its text.
Ask = tuple[str, str, str]


class Answer(NamedTuple):
    """What is said about a call; an ancestor by its name. The basis `refused` stands for an error of the PEP's."""

    basis: str
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    resource: Uid = ("", "")
    ancestor: str = ""
    ancestor_basis: str = ""
    labels: tuple[str, ...] = ()
    obligations: tuple[tuple[str, str], ...] = ()
    advice: tuple[str, ...] = ()
    debits: tuple[tuple[str, int | str], ...] = ()
    # What its session sees of its earlier calls.
    counts: tuple[tuple[str, int], ...] = ()
    done: tuple[str, ...] = ()
    # What a person can lift, and what then holds; what a person has lifted, and the name of the question.
    asks: tuple[Ask, ...] = ()
    otherwise: Answer | None = None
    lifted: tuple[str, ...] = ()
    question: str = ""


class Judge:
    """Asks the engine about one bundle, each time with everything."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._schema = cedarpy.Schema.from_str(full_schema(bundle))
        self._policies = cedarpy.PolicySet.from_str(bundle.policies)
        self._ids = re.findall(r'@id\("([^"]+)"\)', bundle.policies)
        # An id stands before the other annotations of its policy.
        told = re.split(r'@id\("[^"]+"\)', bundle.policies)[1:]
        self._texts = {name: f'@id("{name}"){text}' for name, text in zip(self._ids, told, strict=True)}
        self._told = {
            name: dict(re.findall(r'@(obligation|advice|step_up)\("([^"]*)"\)', text))
            for name, text in self._texts.items()
        }
        self._without: dict[tuple[str, ...], Judge] = {}

    def ask(self, action: str, who: str, resource: Uid, context: JSON, made: Iterable[JSON], wall_at: float) -> Answer:
        """Answer about one action; `made` holds entities beside the directory's, or instead of them."""
        entities = {(one["uid"]["type"], one["uid"]["id"]): one for one in [*self._bundle.entities, *made]}
        for tool in self._bundle.tools.values():
            entities["Server", tool.server] = entity(("Server", tool.server))
        entities.setdefault(("User", who), entity(("User", who)))
        if resource[0] not in ("Session", "Server"):
            known = entities.get(resource, entity(resource))
            above = [*known["parents"], {"type": "Server", "id": action.split("/", maxsplit=1)[0]}]
            entities[resource] = {**known, "parents": above}
        moment = datetime.fromtimestamp(wall_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        request = {
            "principal": {"type": "User", "id": who},
            "action": {"type": "Action", "id": action},
            "resource": {"type": resource[0], "id": resource[1]},
            "context": {**context, "now": {"__extn": {"fn": "datetime", "arg": moment}}},
        }
        try:
            handle = cedarpy.Entities.from_json_str(json.dumps([*entities.values()]), self._schema)
        except ValueError:
            return Answer("policy_error", resource=resource)
        result = cedarpy.is_authorized(request, self._policies, handle, self._schema)
        errors, decision = result.diagnostics.errors, result.decision.value
        if errors or decision not in ("Allow", "Deny"):
            found = re.findall(r"evaluating policy `(policy\d+)`", " ".join(errors))
            return Answer("policy_error", errors=self._names(found), resource=resource)
        policies = self._names(result.diagnostics.reasons)
        basis = "permit" if decision == "Allow" else "forbid" if policies else "default_deny"
        asked = {one for name in policies for one in obligations(self._told[name].get("obligation", ""))}
        if (
            basis == "forbid"
            and not action.startswith("pdp/")
            and all("step_up" in self._told[name] for name in policies)
        ):
            otherwise = self._lifted(policies).ask(action, who, resource, context, made, wall_at)
            if otherwise.basis == "permit":
                return self._asking(context["session"]["__entity"]["id"], policies, otherwise)
        if basis != "permit":
            lines = [line for name in policies if (line := self._told[name].get("advice"))]
            return Answer(basis, policies, resource=resource, advice=tuple(dict.fromkeys(lines))[:8])
        if len(asked) > 16:
            return Answer("policy_error", resource=resource)
        return Answer(basis, policies, resource=resource, obligations=tuple(sorted(asked)))

    def _lifted(self, policies: tuple[str, ...]) -> Judge:
        """Return the judge of the same bundle without some policies."""
        if policies not in self._without:
            left = "\n".join(text for name, text in self._texts.items() if name not in policies)
            self._without[policies] = Judge(replace(self._bundle, policies=left))
        return self._without[policies]

    def _asking(self, session: str, policies: tuple[str, ...], otherwise: Answer) -> Answer:
        lines = [line for name in policies if (line := self._told[name].get("advice"))]
        asks = tuple((session, name, self._texts[name]) for name in policies)
        return Answer(
            "approval_required",
            policies,
            resource=otherwise.resource,
            advice=tuple(dict.fromkeys(lines))[:8],
            asks=asks,
            otherwise=otherwise,
        )

    def _names(self, positions: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({self._ids[int(one.removeprefix("policy"))] for one in positions}))


@cache
def obligations(text: str) -> tuple[tuple[str, str], ...]:
    """Read what an annotation asks of a gateway: names with their parameters."""
    said: JSON = yaml.safe_load("{" + text + "}")
    return tuple(
        (name, json.dumps(found or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
        for name, found in said.items()
    )


def full_schema(bundle: Bundle) -> str:
    """Write the schema of every action there is."""
    called = sorted(set(re.findall(r'context\.counts(?:\["|\.)([^"\s)&|<>=]+)', bundle.policies)))
    longs = ", ".join(f'"{name}": Long' for name in called)
    memory = f"counts: {{ {longs} }}, " if called else ""
    memory += "done: Set<String>, " if "context.done" in bundle.policies else ""
    caller = ", ".join(["id: String", *(f'"{name}"?: {CEDAR[kind]}' for name, kind in bundle.facts.items())])
    parts = [
        bundle.schema,
        f"type Caller = {{ {caller} }};",
        "type Targets = { provenance: Set<String>, links: Set<String> };",
        _GROUPS.format("".join(f', "{name}"' for name in bundle.groups)),
    ]
    parts += [SESSION_ACTION.format(deed) for deed in ("request", "approve", "delegate")]
    for action, tool in bundle.tools.items():
        seen = {name: kind for name, kind in tool.parameters.items() if kind != "opaque"}
        always = [name for name, kind in seen.items() if name in tool.required and kind != "string?"]
        shown = ", ".join(f'"{name}"{"?" * (name not in always)}: {CEDAR[kind]}' for name, kind in seen.items())
        above = ", ".join(f'Action::"{name}"' for name in (tool.risk, *tool.groups))
        parts.append(TOOL_ACTION.format(action, above, tool.resource[0] if tool.resource else "Server", memory, shown))
    return "\n".join(parts)


def parsed(text: bytes) -> JSON:
    """Read a strict JSON object; `ValueError` for anything else."""

    def pairs(items: list[tuple[str, Any]]) -> JSON:
        made = dict(items)
        if len(made) < len(items) or {"__entity", "__extn", "__expr"} & made.keys():
            raise ValueError("a key twice, or one that is reserved")
        return made

    def refuse(_: str) -> None:
        raise ValueError("no such number")

    text = text or b"{}"
    value = json.loads(text.decode(), object_pairs_hook=pairs, parse_float=Decimal, parse_constant=refuse)
    if type(value) is not dict or _depth(value) > 32:
        raise ValueError("no object, or too deep")
    return value


def terms_of(bundle: Bundle, found: JSON) -> JSON:
    """Return what policies see of a session's terms; `ValueError` for what does not fit."""
    declared = bundle.terms or {}
    kinds = {name.removesuffix("?"): kind for name, kind in declared.items()}
    return typed(kinds, [name for name in declared if not name.endswith("?")], found)[0]


def limits(name: str) -> bool:
    """Say whether a term is a number that a child can only lower."""
    return re.fullmatch("max_(calls|calls_per_minute|calls_of_.+|sum)", name) is not None


def narrows(own: JSON, above: JSON) -> bool:
    """Say whether the terms of a session are no wider than those above it. Both are plain JSON that fits."""
    for name in own.keys() | above.keys():
        mine, theirs = own.get(name), above.get(name)
        if name == "targets":
            fine = mine is not None and set(mine) <= set(theirs or [])
        elif limits(name):
            fine = mine is not None and (theirs is None or mine <= theirs)
        else:
            fine = (set(mine) == set(theirs)) if isinstance(mine, list) and isinstance(theirs, list) else mine == theirs
        if not fine:
            return False
    return True


def typed(kinds: Mapping[str, str], required: Collection[str], found: JSON) -> tuple[JSON, list[str]]:
    """Return what policies see of arguments, and the names of what they do not; `ValueError` for what does not fit."""
    if not set(required) <= found.keys() <= kinds.keys():
        raise ValueError("a parameter is missing or unknown")
    hidden = [
        name for name, value in found.items() if kinds[name] == "opaque" or (kinds[name], value) == ("string?", None)
    ]
    return {name: _value(kinds[name], value) for name, value in found.items() if name not in hidden}, hidden


def require_schema(schema: Any, found: JSON) -> None:
    """Raise `ValueError` unless arguments fit a JSON schema. The library is another one than the product's."""
    if not _Validator(schema).is_valid(found):
        raise ValueError("does not fit the schema")


def mapped(tool: Tool, found: JSON) -> Uid:
    """Return what a call is about; `ValueError` when that cannot be told from another thing."""
    if tool.resource is None:
        return "Server", tool.server
    parts = [found[name].lower() if tool.lower else found[name] for name in tool.resource[1]]
    if len("/".join(parts)) > 1024 or "" in parts or (len(parts) > 1 and any("/" in part for part in parts)):
        raise ValueError("not one thing")
    return tool.resource[0], "/".join(parts)


def entity(uid: Uid, attributes: JSON | None = None, parents: Iterable[Uid] = ()) -> JSON:
    """Write an entity in Cedar's JSON."""
    above = [{"type": kind, "id": name} for kind, name in parents]
    return {"uid": {"type": uid[0], "id": uid[1]}, "attrs": attributes or {}, "parents": above}


def reference(kind: str, name: str) -> JSON:
    """Write a reference to an entity as a value in Cedar's JSON."""
    return {"__entity": {"type": kind, "id": name}}


def _is_whole(_: object, value: Any) -> bool:
    # `1.0` is an integer; the library knows that of its own kinds of numbers, but not of `Decimal`.
    return type(value) is int or (type(value) is Decimal and value == value.to_integral_value())


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


def _value(kind: str, value: Any) -> Any:
    if kind == "strings" and type(value) is list:
        return [_value("string", one) for one in value]
    if kind in ("string", "string?") and type(value) is str:
        value.encode()  # a lone surrogate raises an error that is a `ValueError`
        return value
    if kind == "boolean" and type(value) is bool:
        return value
    if kind == "integer" and type(value) is int and -(2**63) <= value < 2**63:
        return value
    if kind == "decimal" and type(value) in (int, Decimal):
        scaled = Fraction(value) * 10_000
        if scaled.denominator == 1 and -(2**63) <= scaled < 2**63:
            whole, rest = divmod(abs(int(scaled)), 10_000)
            return {"__extn": {"fn": "decimal", "arg": f"{'-' * (scaled < 0)}{whole}.{rest:04d}"}}
    raise ValueError("of another type")


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)
