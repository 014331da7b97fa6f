"""A small world with every kind of name in it, and random policies and requests about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pdp.testing.bundles import bundle_files, tool

SCHEMA = """
entity UserGroup in [UserGroup];
entity User in [UserGroup] = { team?: String, level?: Long, rank: Long };
entity AgentGroup in [AgentGroup];
entity Agent in [AgentGroup] = { vendor?: String };
entity Grant;
entity Session in [Grant] = {
  purpose: String, tenant: String, environment: String, opened_by: String, depth: Long, labels: Set<String>,
};
entity Server;
entity Thing in [Server] = { owner?: User, secret?: Bool };
"""
# `t2` belongs to somebody who has left: a policy that reads its owner's rank fails. `t3` stands below two servers.
DIRECTORY = """
user_groups: {staff: {}, admins: {parents: [staff]}, guests: {}}
users:
  ann: {groups: [staff], attributes: {rank: 1, level: 2}}
  bob: {groups: [admins], attributes: {rank: 5}}
  cy: {attributes: {rank: 0, team: x}}
agent_groups: {bots: {}, readers: {parents: [bots]}, empty: {}}
agents:
  coder: {groups: [bots], attributes: {vendor: a}, ceiling: ["alpha/*"]}
  helper: {groups: [readers], ceiling: ["beta/*"]}
  idle: {}
entities:
- {type: Thing, id: t1, attributes: {owner: {type: User, id: ann}, secret: true}}
- {type: Thing, id: t2, attributes: {owner: {type: User, id: gone}}}
- {type: Thing, id: t3, parents: [{type: Server, id: beta}]}
"""
# `l1` is what any gateway adds, `l2` what an approver saw.
MANIFEST = """
name: world
caller_facts: {properties: {desk: {type: string}}}
labels: {l1: {meaning: one}, l2: {meaning: two, widens: true}}
"""
_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_TOOLS = {
    "alpha": [
        tool("get", {"id": _TEXT}, ["id"]),
        tool(
            "put",
            {"id": _TEXT, "n": _WHOLE, "note": _TEXT, "amount": {"type": "number"}, "mode": {"enum": ["a", "b"]}},
            ["id", "n", "mode"],
        ),
        tool("drop", {"id": _TEXT, "n": _WHOLE}, ["id"]),
    ],
    "beta": [tool("list"), tool("send", {"n": _WHOLE, "urgent": {"type": "boolean"}, "note": _TEXT}, ["urgent"])],
}
_MAPPED = 'resource: {type: Thing, id: "{id}"}'
_OVERLAYS = {
    "alpha": f"tools: {{get: {{risk: read_only, {_MAPPED}}}, put: {{risk: mutating, {_MAPPED}}}, "
    f"drop: {{risk: destructive, {_MAPPED}}}}}\n",
    "beta": "tools: {list: {risk: read_only}, send: {risk: mutating}}\n",
}
RISK = {
    "alpha/get": "read_only",
    "alpha/put": "mutating",
    "alpha/drop": "destructive",
    "beta/list": "read_only",
    "beta/send": "mutating",
}
_OWN = ("pdp/request_session", "pdp/approve_session", "pdp/delegate_session")
ACTIONS = (*RISK, *_OWN)
_USERS, _GROUPS = ("ann", "bob", "cy"), ("staff", "admins", "guests")
_AGENTS, _AGENT_GROUPS = ("coder", "helper", "idle"), ("bots", "readers", "empty")
_GRANTS, _LABELS = ("g1", "g2"), ("l1", "l2")
_THINGS = ("t1", "t2", "t3", "new")
_WHOLE_NUMBERS = (0, 1, 2, 3, 4, 5, 2**63 - 1)
# What the time is compared with, and times at, before, after and far from these.
_MOMENTS = ("2026-01-05", "2026-01-05T10:00:00Z", "2026-01-05T10:00:00.001Z", "2026-01-05T11:30:00.500+0130")
_OF_DAY = ("9h30m", "10h", "10h1ms", "-1ms", "24h")
_TIMES = (
    *("2026-01-05T00:00:00.000Z", "2026-01-05T09:29:59.999Z", "2026-01-05T09:30:00.000Z", "2026-01-05T10:00:00.000Z"),
    *("2026-01-05T10:00:00.001Z", "2026-01-05T10:00:00.500Z", "2026-01-05T23:59:59.999Z", "2026-01-06T09:30:00.000Z"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One random policy, on one line."""

    effect: str
    principal: str
    action: str
    resource: str
    conditions: tuple[str, ...]

    def text(self, number: int) -> str:
        """Write it with an `@id`."""
        clauses = "".join(f" {one}" for one in self.conditions)
        return f'@id("p/{number}") {self.effect} ({self.principal}, {self.action}, {self.resource}){clauses};'


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One random request; `context` is Cedar's JSON. Of a session, grants, labels and depth vary."""

    user: str
    agent: str
    action: str
    resource: tuple[str, str]
    context: dict[str, Any]
    grants: tuple[str, ...]
    labels: tuple[str, ...]
    depth: int


def files(policies: Sequence[str]) -> dict[str, bytes]:
    """Return the world's bundle with some policies, each on the line of its place."""
    return bundle_files(
        policies={"p": "\n".join(policies) + "\n"},
        tools=_TOOLS,
        overlays=_OVERLAYS,
        directory=DIRECTORY,
        schema=SCHEMA,
        manifest=MANIFEST,
        sessions="",
    )


def random_policies(random: Random) -> list[Policy]:
    """Return a few policies; some are like another one, because that is how policies come to shadow each other."""
    policies: list[Policy] = []
    for _ in range(random.randint(3, 7)):
        if policies and random.random() < 0.45:
            policies.append(_like(random, random.choice(policies)))
        else:
            policies.append(_policy(random))
    return policies


def random_request(random: Random, actions: Sequence[str]) -> Request:
    """Return a request of one of some actions, with arguments that its tool takes."""
    action = random.choice(actions)
    grants = tuple(one for one in _GRANTS if random.random() < 0.5)
    session = {"__entity": {"type": "Session", "id": "s"}}
    agent = random.choice(_AGENTS)
    context: dict[str, Any] = {
        "agent": {"__entity": {"type": "Agent", "id": agent}},
        "now": {"__extn": {"fn": "datetime", "arg": random.choice(_TIMES)}},
        "caller": {"id": random.choice(["c1", "c2"])},
    }
    resource = ("Session", "s")
    if action in RISK:
        arguments = _arguments(random, action)
        server = action.partition("/")[0]
        resource = ("Thing", arguments["id"]) if "id" in arguments else ("Server", server)
        context |= {"session": session, "opaque": random.choice([[], ["amount"]]), "input": arguments}
        context["targets"] = {"provenance": [random.choice(["named", "unseen"])], "links": []}
        if random.random() < 0.5:
            context["caller"]["desk"] = random.choice(["d1", "d2"])
    else:
        context |= {
            "user": {"__entity": {"type": "User", "id": random.choice(_USERS)}},
            "grants": [{"__entity": {"type": "Grant", "id": one}} for one in grants],
            "tools": ["alpha/get"],
            "risks": [random.choice(["read_only", "mutating"])],
            "duration": random.choice(_WHOLE_NUMBERS),
            "may_delegate": random.random() < 0.5,
        }
    return Request(
        user=random.choice(_USERS),
        agent=agent,
        action=action,
        resource=resource,
        context=context,
        grants=grants,
        labels=tuple(one for one in _LABELS if random.random() < 0.5),
        depth=random.randint(0, 2),
    )


def random_twin(random: Random, request: Request) -> Request:
    """Return a call of the same session and tool that differs here and there."""
    other = random_request(random, [request.action])
    context, resource = {**request.context, "input": {**request.context["input"]}}, request.resource
    for name in ("now", "caller", "opaque", "targets"):
        if random.random() < 0.3:
            context[name] = other.context[name]
    for name in sorted(request.context["input"].keys() | other.context["input"].keys()):
        if random.random() < 0.3:
            context["input"].pop(name, None)
            if name in other.context["input"]:
                context["input"][name] = other.context["input"][name]
    if resource[0] == "Thing":
        resource = ("Thing", context["input"]["id"])
    return replace(request, context=context, resource=resource)


def _arguments(random: Random, action: str) -> dict[str, Any]:
    made: dict[str, Any] = {"id": random.choice(_THINGS)} if action.startswith("alpha") else {}
    whole = random.choice(_WHOLE_NUMBERS)
    if action == "alpha/put":
        made |= {"n": whole, "mode": random.choice("ab")}
    if action == "beta/send":
        made |= {"urgent": random.random() < 0.5}
    if action in ("alpha/drop", "beta/send") and random.random() < 0.6:
        made["n"] = whole
    if action in ("alpha/put", "beta/send") and random.random() < 0.6:
        made["note"] = random.choice(["", "x", "xy", "*"])
    return made


def _policy(random: Random) -> Policy:
    return Policy(
        effect=random.choice(["permit", "permit", "forbid"]),
        principal=random.choice(["principal"] * 3 + [_principal(random)]),
        action=random.choice(["action", _action(random), _action(random)]),
        resource=random.choice(["resource"] * 3 + [_resource(random)]),
        conditions=tuple(_clause(random) for _ in range(random.choice([0, 1, 1, 2]))),
    )


def _like(random: Random, policy: Policy) -> Policy:
    """Return a policy that differs in one part at most."""
    effect = random.choice([policy.effect, policy.effect, "forbid"])
    conditions = random.choice(
        [
            policy.conditions,
            (*policy.conditions, _clause(random)),
            (_clause(random), *policy.conditions),
            policy.conditions[:-1],
            (),
        ]
    )
    return Policy(
        effect=effect,
        principal=random.choice([policy.principal, policy.principal, "principal"]),
        action=random.choice([policy.action, policy.action, policy.action, "action", _action(random)]),
        resource=random.choice([policy.resource, policy.resource, "resource"]),
        conditions=conditions,
    )


def _clause(random: Random) -> str:
    parts = [_expression(random, 2) for _ in range(random.choice([1, 1, 2, 3]))]
    return f"{random.choice(['when', 'when', 'unless'])} {{ {' && '.join(f'({one})' for one in parts)} }}"


def _expression(random: Random, depth: int) -> str:
    if depth == 0 or random.random() < 0.6:
        return random.choice(_ATOMS)(random)
    left, right, third = (_expression(random, depth - 1) for _ in range(3))
    return random.choice(
        [f"({left}) && ({right})", f"({left}) || ({right})", f"!({left})", f"if ({left}) then ({right}) else ({third})"]
    )


def _principal(random: Random) -> str:
    return random.choice(
        [
            f'principal == User::"{random.choice(_USERS)}"',
            f'principal in UserGroup::"{random.choice(_GROUPS)}"',
            f'principal is User in UserGroup::"{random.choice(_GROUPS)}"',
            "principal is User",
        ]
    )


def _action(random: Random) -> str:
    one, two = random.choice([*RISK, *_OWN]), random.choice([*RISK, "read_only", "mutating"])
    return random.choice(
        [
            f'action == Action::"{one}"',
            f'action in Action::"{random.choice(["read_only", "mutating", "destructive"])}"',
            f'action in [Action::"{one}", Action::"{two}"]',
        ]
    )


def _resource(random: Random) -> str:
    server = random.choice(["alpha", "beta"])
    return random.choice(
        [
            f'resource == Server::"{server}"',
            f'resource in Server::"{server}"',
            f'resource == Thing::"{random.choice(_THINGS)}"',
            "resource is Thing",
            f'resource is Thing in Server::"{server}"',
        ]
    )


def _compared(random: Random, term: str) -> str:
    number = random.randint(0, 4)
    return f"{term} {random.choice(['<', '<=', '>', '>=', '==', '!='])} {number}"


def _input(random: Random) -> str:
    name = random.choice(["n", "n", "note", "mode", "urgent", "amount", "id"])
    read = f"context.input.{name}"
    test = {
        "n": _compared(random, random.choice([read, read, f"{read} + 1"])),
        "urgent": f"{read} == {random.choice(['true', 'false'])}",
        "amount": f'{read} == "1"',
        "note": f'{read} like "{random.choice(["x*", "*", "", chr(92) + "*"])}"',
    }.get(name, f'{read} == "{random.choice(["a", "b", "t1", "t2"])}"')
    guarded = f"context has input && context.input has {name} && {test}"
    return random.choice([guarded, guarded, f"context has input && context.input has {name}", test])


def _time(random: Random) -> str:
    now = random.choice(["context.now", "context.now", f'context.now.offset(duration("{random.choice(_OF_DAY)}"))'])
    operator = random.choice(["<", "<=", ">", ">=", "==", "!="])
    moment, of_day = f'datetime("{random.choice(_MOMENTS)}")', f'duration("{random.choice(_OF_DAY)}")'
    return random.choice(
        [
            f"{now} {operator} {moment}",
            f"{moment} {operator} {now}",
            f"{now}.toTime() {operator} {of_day}",
            f"{of_day} {operator} {now}.toTime()",
            f"context has now && {now} {operator} {moment}",
            f"{now}.durationSince({moment}).toHours() {operator} 1",
        ]
    )


_ATOMS: tuple[Callable[[Random], str], ...] = (
    _principal,
    _principal,
    _action,
    _resource,
    _input,
    _input,
    _input,
    _time,
    lambda random: f'principal == User::"{random.choice(_USERS)}" && {_principal(random)}',
    lambda random: f'context.agent == Agent::"{random.choice(_AGENTS)}" && context.agent in AgentGroup::"bots"',
    lambda random: _compared(random, "principal.rank"),
    lambda random: f"principal has level && {_compared(random, 'principal.level')}",
    lambda random: f'principal has team && principal.team == "{random.choice("xy")}"',
    lambda _: "principal has nothing",
    lambda random: f'context.agent == Agent::"{random.choice(_AGENTS)}"',
    lambda random: f'context.agent in AgentGroup::"{random.choice(_AGENT_GROUPS)}"',
    lambda random: f'[Agent::"coder", Agent::"{random.choice(_AGENTS)}"].contains(context.agent)',
    lambda random: f'context has session && context.session in Grant::"{random.choice(_GRANTS)}"',
    lambda random: f'context has session && context.session.labels.contains("{random.choice(_LABELS)}")',
    lambda random: f"context has session && {_compared(random, 'context.session.depth')}",
    lambda random: f'context.caller.id == "{random.choice(["c1", "c2"])}"',
    lambda random: f'context.caller has desk && context.caller.desk == "{random.choice(["d1", "d2"])}"',
    lambda _: "context has user && principal == context.user",
    lambda random: f"context has duration && {_compared(random, 'context.duration * 2')}",
    lambda _: "resource has owner && resource.owner == principal",
    lambda random: f"resource has owner && {_compared(random, 'resource.owner.rank')}",
    lambda _: "resource has secret && resource.secret",
    lambda random: _compared(random, str(random.randint(0, 4))),
    lambda random: random.choice(["true", "false"]),
)


def request_key(request: Request) -> str:
    """Return a text that tells a request from others, for messages."""
    return json.dumps([request.user, request.agent, request.action, request.resource, request.context], sort_keys=True)
