"""Policies of Cerbos that are equivalent to the bundles of `pdp bench`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pdp.bench.bundle import EQUALITIES, FORBIDDEN, SERVER, TOOLS
from pdp.bench.questions import Workload
from pdp.bench.shaped import NEVER, SESSION_RULES, Definition, first_text

_Rule = Mapping[str, object]


def policy_files(workload: Workload) -> dict[str, bytes]:
    """Return a policy file for each server of a workload.

    The workload's bundle was generated, or shaped after its calls.
    """
    if not workload.file:
        return {f"{SERVER}.json": _policy(SERVER, _generated())}
    tools = {
        name.removeprefix("tools/").removesuffix(".json"): json.loads(content)["tools"]
        for name, content in workload.files.items()
        if name.startswith("tools/") and name.endswith(".json")
    }
    return {f"{server}.json": _policy(server, _shaped(listed)) for server, listed in tools.items()}


def _policy(server: str, rules: Iterable[_Rule]) -> bytes:
    policy = {"version": "default", "resource": server, "rules": list(rules)}
    return json.dumps({"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy}).encode()


def _generated() -> Iterator[_Rule]:
    """Yield one permit by role, eight rules that read the item, one rule by role."""
    yield {"actions": TOOLS, "effect": "EFFECT_ALLOW", "roles": ["staff"]}
    for number in range(EQUALITIES):
        yield _deny(TOOLS, f'request.resource.attr.item == "item-{number}-of-others"')
    yield _deny(TOOLS, f'request.resource.attr.item.startsWith("{FORBIDDEN}")')
    yield {"actions": ["*"], "effect": "EFFECT_DENY", "roles": ["contractors"]}


def _shaped(tools: Iterable[Definition]) -> Iterator[_Rule]:
    yield {"actions": ["*"], "effect": "EFFECT_ALLOW", "roles": ["staff"]}
    for number in range(SESSION_RULES):
        yield _deny(["*"], f'request.principal.attr.purpose == "{NEVER}-{number}"')
    for tool in tools:
        if parameter := first_text(tool):
            yield _deny([tool["name"]], f'request.resource.attr[{json.dumps(parameter)}] == "{NEVER}"')


def _deny(actions: Sequence[str], expression: str) -> _Rule:
    condition = {"match": {"expr": expression}}
    return {"actions": actions, "effect": "EFFECT_DENY", "roles": ["*"], "condition": condition}
