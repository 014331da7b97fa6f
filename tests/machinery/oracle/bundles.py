"""Bundles for the state machine: simple descriptions, and the files that the product reads, made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.machinery.oracle.judge import Bundle, Tool, entity

SCHEMA = """
entity UserGroup in [UserGroup];
entity User in [UserGroup] = { team?: String, level?: Long };
entity AgentGroup in [AgentGroup];
entity Agent in [AgentGroup] = { vendor?: String };
entity Grant;
entity Session in [Grant] = {
  purpose: String, tenant: String, environment: String, opened_by: String, depth: Long, labels: Set<String>,
  terms: SessionTerms,
};
type SessionTerms = { ticket?: String, max_sum?: decimal, targets?: Set<String>, max_calls?: Long };
entity Server;
entity Account in [Server] = { owner?: User };
entity Thing in [Server] = { owner?: User, secret?: Bool };
"""

PERMITS = """
@id("base/readers")
@obligation("notice: {text: Read with care.}")
permit (principal, action in Action::"read_only", resource);

@id("base/engineers")
permit (principal in UserGroup::"engineers", action in Action::"mutating", resource)
when { context.agent in AgentGroup::"workers" };

@id("base/granted")
@obligation("max_result_bytes: {bytes: 100}, notice: {text: Read with care.}")
permit (principal in UserGroup::"staff", action, resource)
when { context has session && context.session in Grant::"all" };

@id("base/payers")
@obligation("redact_result: {fields: [iban]}")
permit (principal, action == Action::"bank/pay", resource)
when { resource has owner && resource.owner == principal };

@id("base/sessions")
permit (principal, action in [
  Action::"pdp/request_session", Action::"pdp/approve_session", Action::"pdp/delegate_session"
], resource);

@id("base/no-delegated-money")
forbid (principal, action == Action::"pdp/delegate_session", resource)
when { context.risks.contains("destructive") && context.duration > 1000 };

@id("base/approver-is-known")
forbid (principal, action == Action::"pdp/approve_session", resource)
unless { principal in UserGroup::"approvers" };
"""

FORBIDS = """
@id("guard/destructive")
@advice("Ask for a grant.")
forbid (principal, action in Action::"destructive", resource)
unless { context.session in Grant::"money" || context.session in Grant::"all" };

@id("guard/contractors")
forbid (principal in UserGroup::"contractors", action, resource in Server::"repo");

@id("guard/interns")
forbid (principal, action in [Action::"mutating", Action::"destructive"], resource)
when { context.agent in AgentGroup::"interns" };

@id("guard/owner")
@advice("Ask the owner.")
forbid (principal, action, resource is Account)
when { resource has owner && resource.owner != principal && !(resource.owner in UserGroup::"shared") };

@id("guard/secret")
forbid (principal, action, resource is Thing)
when { resource has secret && resource.secret && !(principal has level && principal.level > 2) };

@id("guard/amount")
@step_up("May it pay so much?")
@advice("Pay less at once.")
forbid (principal, action == Action::"bank/pay", resource)
when { context.input.amount.greaterThan(decimal("500.0")) };

@id("guard/hidden")
forbid (principal, action == Action::"bank/pay", resource)
when { context.opaque.contains("meta") || (context.input has tags && context.input.tags.contains("x")) };

@id("guard/tainted")
@step_up("May it write after what it has read?")
@step_up_run("3")
forbid (principal, action in [Action::"mutating", Action::"destructive"], resource)
when { context.session.labels.contains("tainted") };

@id("guard/critical")
forbid (principal, action in Action::"critical", resource)
when { context.session.labels.contains("tainted") };

@id("guard/hours")
@step_up("May it write at this hour?")
@step_up_run("2")
forbid (principal, action == Action::"notes/add", resource)
when { context.now.toTime() >= duration("40m") && context.now.toTime() < duration("90m") };

@id("guard/sum")
forbid (principal, action == Action::"bank/pay", resource)
when {
  context.session.terms has max_sum && context.input.amount.greaterThan(context.session.terms.max_sum)
};

@id("guard/targets")
forbid (principal, action == Action::"bank/pay", resource)
when {
  context.session.terms has targets && context.input has memo &&
  !context.session.terms.targets.contains(context.input.memo)
};

@id("guard/ticket")
forbid (principal, action == Action::"pdp/delegate_session", resource)
when { resource.terms has ticket && resource.terms.ticket == "T-2" };

@id("guard/overflow")
forbid (principal, action == Action::"repo/write", resource)
when { context.input has count && context.input.count + 9223372036854775800 < 0 };

@id("guard/caller")
forbid (principal, action, resource == Server::"notes")
when { context.caller.id == "gateway-2" || (context.caller has shift && context.caller.shift > 8) };
"""

SOURCES = """
@id("source/tainted")
forbid (principal, action == Action::"notes/add", resource)
when { context.targets.provenance.contains("tainted") };

@id("source/clean")
forbid (principal, action == Action::"notes/add", resource)
when { context.targets.provenance.contains("clean") };

@id("source/issued")
forbid (principal, action == Action::"notes/add", resource)
when { context.targets.provenance.contains("issued") };
"""

SEEN = """
@id("seen/reads")
permit (principal, action in Action::"read_only", resource) when { context.session.labels.contains("seen") };
"""

COUNTING = """
@id("count/few")
forbid (principal, action == Action::"notes/add", resource)
when { context.counts["notes/add"] > 1 || context.counts.critical > 4 };

@id("count/order")
forbid (principal, action in Action::"destructive", resource)
unless { context.done.containsAny(["repo/read", "critical"]) };
"""

WHOLE_CONTEXT = """
@id("whole/exactly")
forbid (principal, action == Action::"repo/read", resource)
when { context == {
  agent: context.agent, session: context.session, caller: context.caller, now: context.now, opaque: context.opaque,
  targets: context.targets, input: { project: "acme", item: "plan" }
} };
"""

STRICTER = """
@id("strict/amount")
@advice("Pay less.")
forbid (principal, action == Action::"bank/pay", resource)
when { context.input.amount.greaterThan(decimal("7.0")) };

@id("strict/leaves")
forbid (principal, action, resource)
when { action in Action::"leaves" && context.session.depth == 0 };

@id("strict/depth")
forbid (principal, action in Action::"mutating", resource) when { context.session.depth > 1 };

@id("strict/after")
forbid (principal, action in Action::"read_only", resource in Server::"repo")
when { context.now > datetime("2026-01-01T01:30:00Z") };

@id("strict/minutes")
forbid (principal, action == Action::"repo/drop", resource)
when { context.now.durationSince(datetime("2026-01-01")).toMinutes() > 70 };

@id("strict/level")
forbid (principal, action == Action::"notes/list", resource)
when { principal has level && principal.level * 4611686018427387904 > 0 };

@id("strict/foreign-session")
forbid (principal, action in Action::"read_only", resource in Server::"notes")
when { context.session.opened_by == "gateway-2" };
"""

TOOLS = (
    Tool(
        server="bank",
        name="pay",
        risk="destructive",
        digest="",
        parameters={
            "account": "string",
            "amount": "decimal",
            "memo": "string?",
            "tags": "strings",
            "meta": "opaque",
            "urgent": "boolean",
        },
        required=("account", "amount", "memo"),
        resource=("Account", ("account",)),
        lower=True,
        sums="amount",
    ),
    Tool(
        server="bank",
        name="balance",
        risk="read_only",
        digest="",
        parameters={"account": "string"},
        required=("account",),
        resource=("Account", ("account",)),
        lower=True,
        groups=("critical",),
    ),
    Tool(
        server="repo",
        name="write",
        risk="mutating",
        digest="",
        parameters={"project": "string", "item": "string", "count": "integer"},
        required=("project", "item"),
        resource=("Thing", ("project", "item")),
    ),
    Tool(
        server="repo",
        name="read",
        risk="read_only",
        digest="",
        parameters={"project": "string", "item": "string"},
        required=("project", "item"),
        resource=("Thing", ("project", "item")),
        trusted=True,
        issues=("id",),
    ),
    Tool(
        server="repo",
        name="drop",
        risk="destructive",
        digest="",
        parameters={"project": "string"},
        required=("project",),
        digest_required=True,
        groups=("critical", "leaves"),
    ),
    Tool(server="notes", name="list", risk="read_only", digest=""),
    Tool(
        server="notes",
        name="add",
        risk="mutating",
        digest="",
        parameters={"text": "string?", "count": "integer"},
        targets=(("text", ""),),
    ),
    Tool(server="a", name="b/c", risk="read_only", digest=""),
)

TERMS = {"ticket?": "string", "max_sum?": "decimal", "targets?": "strings", "max_calls?": "integer"}

Tools = Sequence[tuple[Tool, str]]

GROUPS = ("critical", "leaves")
FACTS = {"workstation": "string", "shift": "integer"}


def schema_of(tool: Tool) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments."""
    json_schema: Mapping[str, dict[str, Any]] = {
        "string": {"type": "string"},
        "string?": {"type": ["string", "null"]},
        "integer": {"type": "integer"},
        "boolean": {"type": "boolean"},
        "decimal": {"type": "number"},
        "strings": {"type": "array", "items": {"type": "string"}},
        "opaque": {
            "type": ["object", "array"],
            "properties": {"level": {"type": "integer", "maximum": 9}, "kind": {"enum": ["a", 1, None]}},
            "additionalProperties": {"type": ["array", "string", "null"]},
        },
    }
    properties = {name: json_schema[kind] for name, kind in tool.parameters.items()}
    return {"type": "object", "properties": properties, "required": list(tool.required)}


def definition(tool: Tool, description: str) -> dict[str, Any]:
    """Return a tool's definition as MCP's `tools/list` has it."""
    return {"name": tool.name, "description": description, "inputSchema": schema_of(tool)}


def defined(tool: Tool, description: str) -> Tool:
    """Return the tool with its schema and the digest of its definition."""
    # For ASCII without fractions this is RFC 8785.
    text = json.dumps(definition(tool, description), sort_keys=True, separators=(",", ":"))
    return replace(tool, schema=schema_of(tool), digest="sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest())


def overlay(tool: Tool) -> dict[str, Any]:
    """Return what the overlay says about a tool."""
    said: dict[str, Any] = {"risk": tool.risk, "digest": "required" if tool.digest_required else "optional"}
    said |= {"groups": list(tool.groups)} if tool.groups else {}
    said |= {"sums": tool.sums} if tool.sums else {}
    said |= {"targets": [name for name, _ in tool.targets]} if tool.targets else {}
    said |= {"results": "trusted", "issues": list(tool.issues)} if tool.trusted else {}
    said["parameters"] = {name: {"type": "decimal"} for name, kind in tool.parameters.items() if kind == "decimal"}
    if tool.resource:
        template = "/".join(f"{{{name}}}" for name in tool.resource[1])
        said["resource"] = {"type": tool.resource[0], "id": template}
        if tool.lower:
            said["resource"]["canonical"] = dict.fromkeys(tool.resource[1], "lower")
    return said


def people(groups: Mapping[str, str], agents: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return users and agents, each in a group, and the groups."""
    found = [entity(("UserGroup", "staff")), entity(("UserGroup", "approvers")), entity(("UserGroup", "shared"))]
    found += [entity(("UserGroup", name), {}, [("UserGroup", "staff")]) for name in ("engineers", "contractors")]
    found += [entity(("AgentGroup", name)) for name in ("workers", "interns")]
    found += [entity(("User", name), {}, [("UserGroup", group)]) for name, group in groups.items()]
    found += [entity(("User", name), {}, [("UserGroup", "approvers")]) for name in ("ann", "oz")]
    found += [entity(("Agent", name), {"vendor": "v"}, [("AgentGroup", group)]) for name, group in agents.items()]
    return found


def thing(kind: str, name: str, owner: str, **more: object) -> dict[str, Any]:
    """Return something that calls are about, with its owner."""
    return entity((kind, name), {"owner": {"type": "User", "id": owner}, **more})


def bundle_of(
    *texts: str, tools: Tools, people_and_things: list[dict[str, Any]], **more: Any
) -> tuple[Bundle, dict[str, bytes]]:
    """Return a bundle as the oracle sees it, and its files; `tools` holds each with its description."""
    ceilings = {"coder": ["bank/*", "repo/*", "notes/*", "a/*"], "helper": ["repo/*", "notes/*", "bank/balance"]}
    known = Bundle(
        schema=more.get("schema", SCHEMA),
        policies="\n".join(texts),
        tools={f"{tool.server}/{tool.name}": defined(tool, text) for tool, text in tools},
        facts=FACTS,
        entities=people_and_things,
        ceilings=more.get("ceilings", ceilings),
        request_seconds=900.0,
        widening=more.get("widening", frozenset()),
        groups=GROUPS,
        terms=more.get("terms", TERMS),
    )
    return known, files_of(known, texts, tools)


def files_of(bundle: Bundle, texts: tuple[str, ...], tools: Tools) -> dict[str, bytes]:
    """Return the files of a bundle. JSON is YAML."""
    facts = {name: {"type": kind} for name, kind in bundle.facts.items()}
    files: dict[str, Any] = {
        "bundle.yaml": {
            "caller_facts": {"properties": facts},
            "labels": {name: {"meaning": "a mark", "widens": name in bundle.widening} for name in ("tainted", "seen")},
            "groups": {name: {"meaning": "some tools"} for name in bundle.groups},
            "request_seconds": bundle.request_seconds,
        },
        "directory.yaml": directory(bundle),
    }
    for server in {tool.server for tool, _ in tools}:
        own = [(tool, text) for tool, text in tools if tool.server == server]
        files[f"tools/{server}.json"] = {"tools": [definition(tool, text) for tool, text in own]}
        files[f"tools/{server}.yaml"] = {"tools": {tool.name: overlay(tool) for tool, _ in own}}
    written = {name: json.dumps(content) for name, content in files.items()}
    written["schema.cedarschema"] = bundle.schema
    for text in texts:
        stem = text.split('"')[1].partition("/")[0]
        written[f"{stem}.cedar"] = text
    return {name: text.encode("ascii") for name, text in written.items()}


def directory(bundle: Bundle) -> dict[str, Any]:
    """Return the directory file."""
    sections: dict[str, Any] = {"users": {}, "user_groups": {}, "agents": {}, "agent_groups": {}, "entities": []}
    for one in bundle.entities:
        kind, name, above = one["uid"]["type"], one["uid"]["id"], one["parents"]
        facts = {"attributes": one["attrs"]}
        if kind in ("User", "Agent"):
            sections[f"{kind.lower()}s"][name] = {**facts, "groups": [parent["id"] for parent in above]}
        elif kind in ("UserGroup", "AgentGroup"):
            section = "user_groups" if kind == "UserGroup" else "agent_groups"
            sections[section][name] = {**facts, "parents": [parent["id"] for parent in above]}
        else:
            sections["entities"].append({"type": kind, "id": name, "attributes": one["attrs"], "parents": above})
    for agent, patterns in bundle.ceilings.items():
        sections["agents"][agent]["ceiling"] = patterns
    return sections


def all_bundles() -> list[tuple[Bundle, dict[str, bytes]]]:
    """Return the bundles that the state machine changes between."""
    tools = [(tool, "v1") for tool in TOOLS]
    first_people = people(
        {"alice": "engineers", "bob": "contractors", "carol": "staff"}, {"coder": "workers", "helper": "interns"}
    )
    things = [thing("Account", "main", "alice"), thing("Account", "other", "bob")]
    things += [thing("Thing", "acme/plan", "alice"), thing("Thing", "acme/secret", "bob", secret=True)]
    first = bundle_of(PERMITS, FORBIDS, SOURCES, COUNTING, tools=tools, people_and_things=first_people + things)

    # Other policies, and one tool with another definition.
    changed = [(tool, "v2" if (tool.server, tool.name) == ("repo", "write") else "v1") for tool in TOOLS]
    second = bundle_of(
        PERMITS, FORBIDS, STRICTER, WHOLE_CONTEXT, tools=changed, people_and_things=first_people + things
    )

    # Others are in the groups, and things have other owners.
    moved = people(
        {"alice": "contractors", "bob": "engineers", "carol": "engineers"}, {"coder": "interns", "helper": "workers"}
    )
    owned = [thing("Account", "main", "bob"), thing("Account", "other", "carol")]
    owned += [thing("Thing", "acme/plan", "bob", secret=True), thing("Thing", "acme/secret", "carol")]
    # Sessions with another term do not fit.
    fewer_terms = {name: kind for name, kind in TERMS.items() if name != "max_calls?"}
    third = bundle_of(
        PERMITS,
        FORBIDS,
        SOURCES,
        COUNTING,
        tools=tools,
        people_and_things=moved + owned,
        schema=SCHEMA.replace(", max_calls?: Long", ""),
        terms=fewer_terms,
    )

    # A user and an agent are gone; a ceiling is lower; a tool is gone and another is more dangerous.
    fewer = people({"alice": "engineers", "carol": "staff"}, {"coder": "workers"})
    less = [thing("Account", "main", "alice"), thing("Thing", "acme/plan", "carol")]
    risky = [(replace(tool, risk="destructive") if tool.name == "list" else tool, "v1") for tool in TOOLS[:-1]]
    fourth = bundle_of(
        PERMITS,
        FORBIDS,
        WHOLE_CONTEXT,
        tools=risky,
        people_and_things=fewer + less,
        ceilings={"coder": ["bank/*", "repo/*", "notes/l*"]},
    )

    # Without forbids; a label widens that did not; users have no level any more, so that one who was vouched for does
    # not fit, and sessions have no terms.
    schema = (
        SCHEMA.replace(", level?: Long", "")
        .replace("terms: SessionTerms,", "")
        .replace("type SessionTerms", "type Old")
    )
    fifth = bundle_of(
        PERMITS,
        SEEN,
        COUNTING,
        tools=tools,
        people_and_things=first_people + owned[:1] + things[2:],
        schema=schema,
        widening=frozenset({"seen"}),
        terms=None,
    )
    return [first, second, third, fourth, fifth]
