"""Mistakes that authors really made, each with the rule as it was meant."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.testing.bundles import bundle_files, tool

TEXT, WHOLE, TEXTS = {"type": "string"}, {"type": "integer"}, {"type": "array", "items": {"type": "string"}}


TOOLS = {
    "bank": [
        tool("pay", {"to": TEXT, "amount": {"type": "number", "default": 5000}}, ["to"]),
        tool("plan", {"to": TEXT, "cents": WHOLE, "count": {"type": ["integer", "null"]}}, ["to", "cents"]),
        tool("list", {"most": {"type": "integer", "default": 10, "minimum": 0}}),
        tool("close", {"to": TEXT}, ["to"]),
    ],
    "mail": [tool("send", {"to": TEXTS, "from": TEXT, "body": {"type": "object"}}, ["to", "from"])],
    "web": [tool("fetch", {"url": TEXT}, ["url"])],
    "shell": [tool("run", {"argv": TEXTS}, ["argv"])],
    "files": [
        tool("read", {"path": TEXT}, ["path"]),
        tool("write", {"path": TEXT}, ["path"]),
        tool("branch", {"branch": TEXT}, ["branch"]),
        tool("roots"),
    ],
}


OVERLAYS = {
    "bank": "tools: {pay: {risk: mutating, parameters: {amount: {type: decimal}}}, plan: {risk: mutating}, "
    "list: {risk: read_only}, close: {risk: destructive}}",
    "mail": "risk: mutating",
    "web": "risk: read_only",
    "shell": "risk: mutating",
    "files": """
tools:
  read: {risk: read_only, resource: {type: Thing, id: "{path}", canonical: {path: path}}}
  write: {risk: mutating, resource: {type: Thing, id: "{path}", canonical: {path: absolute-path}}}
  branch: {risk: mutating}
  roots: {risk: read_only}
""",
}


DIRECTORY = """
user_groups: {staff: {}}
users: {ann: {groups: [staff]}}
agent_groups: {assistants: {}}
agents: {clerk: {groups: [assistants], ceiling: ["bank/*"]}}
entities: [{type: Thing, id: /safe, attributes: {owner: {type: User, id: ann}}}]
"""


MANIFEST = """
labels:
  untrusted: {meaning: has read what strangers wrote}
  checked: {meaning: a person has read it, widens: true}
caller_facts: {properties: {desk: {type: string}, shift: {type: string}}, required: [shift]}
"""


AGENT = 'when { context.agent in AgentGroup::"assistants" }'


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A rule as its author wrote it, what is found on which line of its conditions, and the rule as it was meant."""

    effect: str
    action: str
    wrong: str
    code: str
    right: str


def permit(action: str, wrong: str, code: str, right: str) -> Mistake:
    """Return a mistake in the conditions of a permit."""
    return Mistake(effect="permit", action=action, wrong=wrong, code=code, right=right)


def forbid(action: str, wrong: str, code: str, right: str) -> Mistake:
    """Return a mistake in the conditions of a forbid."""
    return Mistake(effect="forbid", action=action, wrong=wrong, code=code, right=right)


ALL_FINE = '["a@ours.example"].containsAll(context.input.to) && !context.input.to.isEmpty()'


NOT_SMALL = 'context.input.amount.greaterThan(decimal("100.0")) || context.input.amount.lessThan(decimal("0.0"))'


PATH = "context.input.path"


BELOW_APP = f'{PATH} like "/srv/app/*" && !({PATH} like "*..*")'


# By the words of the page, where a test below looks for them.
MISTAKES = {
    "a forbid on `mutating` that should also stop destructive tools": forbid(
        'action in Action::"mutating"',
        'when { context.session.labels.contains("untrusted") }',
        "risk-gap",
        'when { action in Action::"destructive" || context.session.labels.contains("untrusted") }',
    ),
    '`risks.contains("mutating")` in a rule about sessions': forbid(
        'action == Action::"pdp/request_session"',
        'when { context.risks.contains("mutating") && context.duration > 60 }',
        "risk-gap",
        'when { context.risks.containsAny(["mutating", "destructive"]) && context.duration > 60 }',
    ),
    '`resource == Server::"files"` in a forbid': forbid(
        "action", 'when { resource == Server::"files" }', "exact-server", 'when { resource in Server::"files" }'
    ),
    '`path like "/srv/app/*"` in a permit that does not refuse `..`': permit(
        'action == Action::"files/read"',
        f'when {{ {PATH} like "/srv/app/*" }}',
        "path-prefix",
        f"when {{ {BELOW_APP} }}",
    ),
    '`path like "/srv/app/*.txt"` in a permit': permit(
        'action == Action::"files/read"',
        f'when {{ {PATH} like "/srv/app/*.txt" }}',
        "path-prefix",
        f'when {{ {PATH} like "/srv/app/*.txt" && !({PATH} like "*..*") }}',
    ),
    '`unless { path like "/srv/app/*" }` of a forbid': forbid(
        'action == Action::"files/write"',
        f'unless {{ {PATH} like "/srv/app/*" }}',
        "path-prefix",
        f"unless {{ {BELOW_APP} }}",
    ),
    "`has amount && amount > 100`, where the tool's schema has a default of 5000": forbid(
        'action == Action::"bank/pay"',
        f"when {{ context.input has amount && ({NOT_SMALL}) }}",
        "optional-bound",
        f"when {{ if context.input has amount then {NOT_SMALL} else true }}",
    ),
    "`has count && count > 5`, where `null` or nothing may be sent": forbid(
        'action == Action::"bank/plan"',
        "when { context.input has count && (context.input.count > 5 || context.input.count < 0) }",
        "optional-bound",
        "when { if context.input has count then context.input.count > 5 || context.input.count < 0 else true }",
    ),
    "`has most && most > 100`, where the default is 10: no mistake": forbid(
        'action == Action::"bank/list"',
        "when { context.input has most && context.input.most > 5 }",
        "optional-bound",
        "when { context.input has most && context.input.most > 100 }",
    ),
    '`argv.containsAll(["rm", "-rf"])`': forbid(
        'action == Action::"shell/run"',
        'when { context.input.argv.containsAll(["rm", "-rf"]) }',
        "raw-string",
        'unless { ["ls", "-l"].containsAll(context.input.argv) && !context.input.argv.isEmpty() }',
    ),
    '`resource == Path::"/srv/secret"`, where the overlay\'s form is `path`': forbid(
        'action == Action::"files/read"',
        'when { resource == Thing::"/safe" }',
        "raw-string",
        'when { action == Action::"files/read" }',
    ),
    'a forbid `unless context.caller.workstation == "secure"`': forbid(
        'action == Action::"bank/pay"',
        'unless { context.caller has desk && context.caller.desk == "secure" }',
        "caller-stated",
        'unless { context.caller.id == "gateway" && context.caller.shift == "day" }',
    ),
    "an optional fact of the caller in a forbid": forbid(
        'action == Action::"bank/pay"',
        'when { context.caller has desk && context.caller.desk != "secure" }',
        "caller-stated",
        'when { if context.caller has desk then context.caller.desk != "secure" else true }',
    ),
    "a misspelt grant": permit(
        'action == Action::"bank/pay"',
        'when { context.session in Grant::"pay-aproved" || context.session in Grant::"pay-approved" }',
        "unknown-name",
        'when { context.session in Grant::"pay-approved" || context.session in Grant::"plan-approved" }',
    ),
    "a misspelt label": forbid(
        'action == Action::"bank/pay"',
        'when { context.session.labels.contains("untrustd") }',
        "unknown-label",
        'when { context.session.labels.contains("untrusted") }',
    ),
    'a misspelt word in `targets.provenance.contains("unsen")`': forbid(
        'action == Action::"bank/pay"',
        'when { context.targets.provenance.contains("unsen") || ["none"].containsAll(context.targets.links) }',
        "unknown-provenance",
        'when { context.targets.provenance.contains("unseen") || ["named"].containsAll(context.targets.links) }',
    ),
    "`clean` where no overlay says `results: trusted`": forbid(
        'action == Action::"bank/pay"',
        'unless { ["named", "known", "clean"].containsAll(context.targets.provenance) }',
        "unknown-provenance",
        'unless { ["named", "known"].containsAll(context.targets.provenance) }',
    ),
    "`opaque.contains(…) == false` of an argument that is not opaque": permit(
        'action == Action::"mail/send"',
        'when { context.agent == Agent::"clerk" && context.opaque.contains("to") == false }',
        "never-opaque",
        'when { context.agent == Agent::"clerk" && context.opaque.contains("body") == false }',
    ),
    "a permit `!(resource has owner && …)`, which holds for unknown resources": permit(
        'action == Action::"files/write"',
        "when { !(resource has owner && resource.owner != principal) }",
        "absent-passes",
        "when { resource has owner && resource.owner == principal }",
    ),
    '`toTime() < duration("8h") && toTime() > duration("18h")`': forbid(
        'action == Action::"bank/pay"',
        'when { context.now.toTime() < duration("8h") && context.now.toTime() > duration("18h") }',
        "never-matches",
        'when { context.now.toTime() < duration("8h") || context.now.toTime() > duration("18h") }',
    ),
    'a permit `url like "https://www.our-company.com*"`': permit(
        'action == Action::"web/fetch"',
        'when { context.input.url like "https://www.our-company.com*" }',
        "open-pattern",
        'when { context.input.url like "https://www.our-company.com/*" }',
    ),
    'a permit `url like "https://*.our-company.com/*"`': permit(
        'action == Action::"web/fetch"',
        'when { context.input.url like "https://*.our-company.com/*" }',
        "open-pattern",
        'when { context.input.url == "https://docs.our-company.com/" }',
    ),
    '`unless { email like "*@ours.com*" }`': forbid(
        'action == Action::"mail/send"',
        'unless { context.input.from like "*@ours.com*" }',
        "open-pattern",
        'unless { context.input.from like "*@ours.com" }',
    ),
    '`email like "*ours.com"`': permit(
        'action == Action::"mail/send"',
        'when { context.input.from like "*ours.com" }',
        "open-pattern",
        'when { context.input.from like "*@ours.com" }',
    ),
    "`containsAny` for `containsAll`": permit(
        'action == Action::"mail/send"',
        'when { ["a@ours.example", "b@ours.example"].containsAny(context.input.to) }',
        "any-of-list",
        f"when {{ {ALL_FINE} }}",
    ),
    "`to.contains(…)` in a permit": permit(
        'action == Action::"mail/send"',
        'when { context.input.to.contains("a@ours.example") }',
        "any-of-list",
        f"when {{ {ALL_FINE} }}",
    ),
    "`containsAll`, and an empty list": permit(
        'action == Action::"mail/send"',
        'when { ["a@ours.example"].containsAll(context.input.to) }',
        "empty-list",
        f"when {{ {ALL_FINE} }}",
    ),
    "an amount without a lower bound": permit(
        'action == Action::"bank/plan"',
        "when { context.input.cents <= 500 }",
        "lower-bound",
        "when { context.input.cents <= 500 && context.input.cents >= 0 }",
    ),
    "a permit by `purpose like`": permit(
        'action == Action::"bank/pay"',
        'when { context.session.purpose like "*invoice*" }',
        "by-purpose",
        'when { context.session in Grant::"invoices" }',
    ),
    "a permit, or an exception of a forbid, by a label": permit(
        'action == Action::"bank/pay"',
        'when { context.session.labels.contains("untrusted") }',
        "label-widens",
        'when { context.session.labels.contains("checked") }',
    ),
}


def text_of(mistake: Mistake, conditions: str) -> str:
    """Write the rule; what is wrong stands on its third line."""
    return policy_of(mistake.effect, mistake.action, conditions)


def policy_of(effect: str, action: str, conditions: str) -> str:
    """Write a rule; its conditions stand on the third line."""
    agent = [AGENT] * (effect == "permit")
    return "\n".join(['@id("rules/x")', f"{effect} (principal, {action}, resource)", conditions, *agent]) + ";\n"


def bundle_of(text: str) -> dict[str, bytes]:
    """Return a bundle with one rule."""
    return bundle_files(
        policies={"rules": text},
        tools=TOOLS,
        overlays=OVERLAYS,
        directory=DIRECTORY,
        manifest=MANIFEST,
        sessions="",
    )
