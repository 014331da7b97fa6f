"""Propose the files of a tool server from its own `tools/list` answer; the author decides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pdp.foundation.yamltext import flow_text
from pdp.policy.tools.catalogue import annotated_risk
from pdp.policy.tools.overlay import Risk
from pdp.policy.tools.parameters import RecordType
from pdp.policy.tools.typing import input_type

# Verbs that count as the first word (`get_issue`), and those that count as the last (`issue_read`).
_READING = re.compile(
    r"browse|check|count|describe|diff|explain|fetch|find|get|inspect|list|lookup|preview|query|read|search|show|view"
)
_READING_LAST = re.compile(r"fetch|get|list|read|search")
# Words that count at any position: `get_and_delete` deletes.
_CHANGING = re.compile(
    r"add|apply|approve|assign|change|commit|copy|create|deploy|edit|enable|grant|import|insert|invite|mark|modify|move"
    r"|patch|post|publish|push|put|rename|save|send|set|share|start|submit|update|upload|write"
)
_DESTROYING = re.compile(
    r"cancel|clear|close|delete|destroy|disable|drop|erase|exec|execute|kill|merge|overwrite|purge|remove|replace|reset"
    r"|revert|revoke|rm|run|shutdown|stop|terminate|transfer|truncate|uninstall|wipe"
)
_ADDRESSES = frozenset({"url", "urls", "uri", "uris", "webhook", "endpoint", "hostname"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Texts that YAML reads as the same text without quotes.
_PLAIN_KEY = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[a-z][a-z0-9_-]*\Z")

_HEADER = """\
# What the PDP cannot know from {server}'s own answer. Proposed; read each line before you rely on it.
#   risk: read_only | mutating | destructive
#   digest: required        the caller must state the digest of the definition that it saw
#   resource: {{type: Repository, id: "{{owner}}/{{repo}}", canonical: {{owner: lower}}, log: digest}}
#   parameters: {{amount: {{type: decimal}}, notes: {{opaque: true}}}}
#   parameters: {{payments: {{members: [iban]}}}}   of a list of objects: `input.payments.count`, `input.payments.iban`
#   groups: [payments]      further groups of its action, which bundle.yaml declares
#   adds_labels: [untrusted]   the labels that an allowed call adds to its session, which bundle.yaml declares
#   audiences: [https://a.b]   for whom call tokens of the tool may be
#   connection: {{kind: github, scopes: [repo:read]}}   what its calls use downstream; part of each approval
#   log: [path]             the parameters whose values are written to the record; of all others it has a keyed digest
#   targets: [to, "payments[].iban"]   the parameters that name a person or a thing outside
#   text: [subject, body]   the parameters whose texts can hold links
#   results: trusted        strangers do not write its results
#   issues: ["[].id"]       the fields of its results that issue ids
#   sums: amount            the parameter that the term `max_sum` of a session adds up
#   open: true              a call may hold parameters that the tool's schema takes and does not declare
"""


def propose_overlay(server: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """Write an overlay with a proposed risk group for each tool, and the reason for each proposal.

    Takes the entries of a `tools/list` answer. The tool's annotations come first, then the verb in its name; a
    verb that changes something overrides a read-only hint.
    """
    if not tools:
        return _HEADER.format(server=server) + "tools: {}\n"
    lines = []
    for tool in _by_name(tools):
        name = str(tool["name"])
        risk, source = propose_risk(tool)
        key = name if _PLAIN_KEY.match(name) else flow_text(name)
        lines.append(f"  {key}: {{risk: {risk}}}  # {source}\n")
        lines += [
            f"    # policies cannot see {flow_text(label)}: {reason}\n" for label, reason in _unseen(tool).items()
        ]
    return _HEADER.format(server=server) + "tools:\n" + "".join(lines)


def propose_risk(tool: Mapping[str, Any]) -> tuple[Risk, str]:
    """Return a risk group for a tool, and the reason in a few words."""
    risk, source = _risk_of_name(tool)
    if risk == "read_only" and (address := _address(tool)):
        # A request to a server that the agent names can carry data there. The server wrote the name: in the comment of
        # an overlay, a line break would end the comment.
        return "mutating", f"it goes to the address in `{flow_text(address)[1:-1]}`: look closely"
    return risk, source


def _risk_of_name(tool: Mapping[str, Any]) -> tuple[Risk, str]:
    annotations = tool.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    verb, risk = _verb([word.lower() for word in _WORD.findall(str(tool.get("name", "")))])
    if annotations.get("readOnlyHint") is True:
        if verb and risk != "read_only":
            return risk, f"`{verb}` in its name, while its annotations say read-only: look closely"
        return "read_only", "its annotations"
    if isinstance(annotations.get("destructiveHint"), bool):
        return annotated_risk(tool), "its annotations"
    if annotations.get("readOnlyHint") is False and risk == "read_only":
        return "mutating", f"its annotations say not read-only, although its name holds `{verb}`"
    return risk, f"`{verb}` in its name" if verb else "neither its annotations nor its name say: look closely"


def _address(tool: Mapping[str, Any]) -> str:
    """Return a parameter that holds a network address, by its name or format; empty when none does."""
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, declared in properties.items() if isinstance(properties, dict) else ():
        words = [word.lower() for word in _WORD.findall(str(name))]
        if _ADDRESSES & {*words} or (isinstance(declared, dict) and declared.get("format") == "uri"):
            return str(name)
    return ""


def catalogue_file(tools: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the catalogue file of a server: sorted, indented JSON, so that changes show as changed lines.

    Fields for display only (`_meta`, `icons`) are left out; the definitions keep their digests.
    """
    kept = [{key: value for key, value in tool.items() if key not in ("_meta", "icons")} for tool in _by_name(tools)]
    text = json.dumps({"tools": kept}, default=_number, ensure_ascii=False, indent=2, sort_keys=True)
    return text.encode("utf-8") + b"\n"


def _unseen(tool: Mapping[str, Any]) -> Mapping[str, str]:
    parameters = input_type(tool.get("inputSchema")) or RecordType()
    more = {"*": "its schema takes undeclared parameters; `open: true` would let them pass"}
    return parameters.opaque_labels() | (more if parameters.declares_more else {})


def _by_name(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(tools, key=lambda tool: str(tool.get("name", "")))


def _verb(words: list[str]) -> tuple[str, Risk]:
    """Return the decisive word and its risk group. Without one, a tool is mutating."""
    meanings: tuple[tuple[list[str], re.Pattern[str], Risk], ...] = (
        (words, _DESTROYING, "destructive"),
        (words[:1], _READING, "read_only"),
        (words, _CHANGING, "mutating"),
        (words[-1:], _READING_LAST, "read_only"),
    )
    for candidates, verbs, risk in meanings:
        for word in candidates:
            if verbs.fullmatch(word):
                return word, risk
    return "", "mutating"


def _number(value: object) -> float:
    """Return a `Decimal` of `pdp.foundation.jsontext` as a double, as the digest does."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError("not a JSON value")
