"""Measure `check` and load of a large bundle beside a small one: `python -m benchmarks.scale`.

Each measurement is one run in a child process of its own, as in production. Figures are CPU time of both processes: the
clock on the wall would measure the neighbours too. The control is the small bundle: what it takes is starting the
child, and it stands in every other row too.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import cedarpy

from pdp.app.embedded import compile_once
from pdp.limits import Limits
from pdp.policy.contents import read_contents
from pdp.policy.loading import inspect_bundle, load_bundle
from pdp.policy.schema import full_schema
from pdp.testing.bundles import bundle_files, tool

_SERVERS = 5
_LIMITS = Limits()
_RISKS = ("read_only", "mutating", "destructive")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated")
    parser.add_argument("--policies", type=int, default=10_000, help="policies of the large bundle")
    parser.add_argument("--tools", type=int, default=500, help="tools of the large bundle")
    chosen = parser.parse_args()
    print("| policies | tools | validation alone, CPU s | check, CPU s | load, CPU s |\n|---|---|---|---|---|")
    for policies, tools in ((10, 5), (chosen.policies, chosen.tools)):
        files = generate(policies, tools)
        cells = [_median(partial(work, files), chosen.rounds) for work in (validate, check, load)]
        print(f"| {policies} | {tools} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)
    return 0


def generate(policies: int, tools: int) -> dict[str, bytes]:
    """Return a bundle: most policies are about one tool, one in five forbids.

    Every tenth policy is about a risk group.
    """
    servers = {f"server{n}": [_tool(k) for k in range(n, tools, _SERVERS)] for n in range(_SERVERS)}
    texts: dict[str, list[str]] = {}
    for number in range(policies):
        server = f"server{number % tools % _SERVERS}"
        texts.setdefault(server, []).append(_policy(server, number, f"{server}/tool{number % tools}"))
    overlays = {
        server: "tools:\n" + "".join(f"  {one['name']}: {{risk: {_RISKS[n % 3]}}}\n" for n, one in enumerate(listed))
        for server, listed in servers.items()
    }
    teams = "".join(f"  team{n}: {{}}\n" for n in range(100))
    directory = f"""
user_groups:
{teams}
agent_groups: {{bots: {{}}}}
users: {{ada: {{groups: [team0]}}}}
agents: {{bot: {{groups: [bots], ceiling: ["server0/*"]}}}}
"""
    return bundle_files(
        policies={server: "\n".join(listed) for server, listed in texts.items()},
        tools=servers,
        overlays=overlays,
        directory=directory,
    )


def validate(files: dict[str, bytes]) -> None:
    """Do the part that every check needs: parse the schema and validate all policies."""
    contents = read_contents(files, _LIMITS)
    schema = full_schema(
        contents.schema, contents.caller_facts, tuple(contents.catalogue.tools.values()), contents.groups
    )
    text = "\n".join(contents.policies.values())
    if not cedarpy.validate_policies(text, cedarpy.Schema.from_str(schema)).validation_passed:
        raise AssertionError("the generated bundle is not valid")


def check(files: dict[str, bytes]) -> None:
    """Do what `pdp check` does, lints included."""
    if inspect_bundle(files, _LIMITS, compile_once()).errors:
        raise AssertionError("the generated bundle is not valid")


def load(files: dict[str, bytes]) -> None:
    """Do what a server does with a changed folder."""
    load_bundle(files, _LIMITS, compile_once())


def _tool(number: int) -> dict[str, Any]:
    properties = {"item": {"type": "string"}, "amount": {"type": "integer"}, "note": {"type": "string"}}
    return tool(f"tool{number}", properties, ["item", "amount"])


def _policy(server: str, number: int, action: str) -> str:
    head, team = f'@id("{server}/p{number}")', f'principal in UserGroup::"team{number % 100}"'
    if number % 10 == 0:
        condition = f'context.agent in AgentGroup::"bots" && context.input.amount < {number}'
        return f'{head} permit ({team}, action in Action::"{_RISKS[number % 3]}", resource) when {{ {condition} }};'
    if number % 5 == 1:
        condition = f"context.input.amount > {number}"
        return f'{head} forbid ({team}, action == Action::"{action}", resource) when {{ {condition} }};'
    condition = f'context.agent == Agent::"bot" && context.input.amount < {number} && context.input has note'
    return f'{head} permit ({team}, action == Action::"{action}", resource) when {{ {condition} }};'


def _median(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        before = _cpu_seconds()
        work()
        times.append(_cpu_seconds() - before)
    return statistics.median(times)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    raise SystemExit(main())
