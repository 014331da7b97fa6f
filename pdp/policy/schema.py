"""The generated part of the Cedar schema: built-in types and actions."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.policy.counting import NOTHING, CountedNames
from pdp.policy.tools.catalogue import RISKS, Tool
from pdp.policy.tools.parameters import RecordType, cedar_string
from pdp.policy.view import EVERYTHING, View

# Actions of the PDP itself; the policies decide about them as about any tool call.
REQUEST_SESSION = "pdp/request_session"
APPROVE_SESSION = "pdp/approve_session"
DELEGATE_SESSION = "pdp/delegate_session"
APPROVE_CALL = "pdp/approve_call"
SESSION_ACTIONS = (REQUEST_SESSION, APPROVE_SESSION, DELEGATE_SESSION, APPROVE_CALL)

# The attributes that the author's schema must declare for `Session` entities, which the PDP fills.
SESSION_ATTRIBUTES = {
    "purpose": "String",
    "tenant": "String",
    "environment": "String",
    "opened_by": "String",
    "depth": "Long",
    "labels": "Set<String>",
}
SESSION_DECLARATION = (
    "entity Session in [Grant] = { " + ", ".join(f"{name}: {kind}" for name, kind in SESSION_ATTRIBUTES.items()) + " };"
)

# The context of every call, apart from its `input` and from what is counted.
_CONTEXT_TYPES = {
    "agent": "Agent",
    "session": "Session",
    "caller": "PdpCaller",
    "now": "datetime",
    "opaque": "Set<String>",
    "targets": "PdpTargets",
}

# Where the names of a call's targets come from, and those of the links in its texts.
_TARGETS_TYPE = "type PdpTargets = { provenance: Set<String>, links: Set<String> };"

_SESSION_ACTION = """\
action "{action}" appliesTo {{ principal: [User], resource: [Session], context: {{
  agent: Agent, user: User, caller: {{ id: String }}, grants: Set<Grant>, tools: Set<String>, risks: Set<String>,
  duration: Long, may_delegate: Bool, now: datetime, authenticated_ago?: Long{more}
}} }};
"""

# What policies see beside that of a call that waits for a person.
_CALL_CONTEXT = """,
  action: String, risk: String, groups: Set<String>, provenance: Set<String>, questions: Set<String>, calls: Long"""


def preamble(caller_facts: RecordType, groups: Iterable[str]) -> str:
    """Write the groups of actions, and the types of `context.caller` and `context.targets`.

    `context.caller` has its `id` and the facts that the bundle declares. `groups` are the further groups; the risk
    groups are always there.
    """
    facts = caller_facts.cedar().strip()[1:-1].strip()
    fields = "id: String" + (f", {facts}" if facts else "")
    declared = ", ".join(map(cedar_string, (*RISKS, *groups)))
    return f"type PdpCaller = {{ {fields} }};\n{_TARGETS_TYPE}\naction {declared};\n"


def session_action(action: str) -> str:
    """Write the declaration of an action of the PDP itself."""
    return _SESSION_ACTION.format(action=action, more=_CALL_CONTEXT if action == APPROVE_CALL else "")


def action_schema(tool: Tool, view: View = EVERYTHING) -> str:
    """Write the Cedar declaration of a tool's action, with what `view` shows of the context.

    Each name that policies read of `context.counts` is declared, so that the validator accepts it.

    The groups, `PdpCaller`, `PdpTargets` and the built-in entity types are declared elsewhere, the resource's type by
    the author.
    """
    types = {**_CONTEXT_TYPES, **_counted_types(view.counted), "input": tool.input.only(view.inputs).cedar()}
    declared = "".join(f"    {name}: {kind},\n" for name, kind in types.items() if view.sees(name))
    groups = ", ".join(f"Action::{cedar_string(group)}" for group in tool.action_groups)
    return (
        f"action {cedar_string(tool.action)} in [{groups}] appliesTo {{\n"
        f"  principal: [User], resource: [{tool.resource_type}], context: {{\n{declared}  }}\n"
        "};\n"
    )


def _counted_types(counted: CountedNames) -> dict[str, str]:
    counts = ", ".join(f"{cedar_string(name)}: Long" for name in sorted(counted.counts))
    types = {"counts": f"{{ {counts} }}"} if counts else {}
    return types | ({"done": "Set<String>"} if counted.done else {})


def full_schema(
    author: str,
    caller_facts: RecordType,
    tools: tuple[Tool, ...],
    groups: Iterable[str],
    counted: CountedNames = NOTHING,
) -> str:
    """Write the author's schema with all generated declarations.

    `groups` are the further groups of actions, and `counted` is what the policies of the bundle read of it.
    """
    view = View(counted=counted)
    return "\n".join(
        [
            author,
            preamble(caller_facts, groups),
            *(session_action(action) for action in SESSION_ACTIONS),
            *(_unseen(tool) + action_schema(tool, view) for tool in tools),
        ]
    )


def _unseen(tool: Tool) -> str:
    """Write a comment with what policies cannot see of a tool's calls and why; empty when they see all."""
    labels = tool.input.opaque_labels()
    named = "; ".join(f"{cedar_string(label)}, {reason}" for label, reason in labels.items())
    return f"// not in `context.input` of the next action: {named}\n" if labels else ""
