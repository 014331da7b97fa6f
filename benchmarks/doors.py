"""Measure what each door adds to a call: `python -m benchmarks.doors`.

One client makes one call at a time of a server that answers at once: without a door, through each door of ours, and
through the proxies of the `mcp` SDK and of FastMCP, which ask nobody. All ways are measured in turns within each round,
and what is added is the difference to the control of the same round. A first round warms up and does not count.

It needs what `make .venv-doors/ready .venv-doors/envoy/ready` installs, and takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.doorsworld import PDP, Call, Posts, World, approve
from tests.doors.envoy.real.world import running_envoy

_ROOT = Path(__file__).parents[1]
_OTHERS = (str(_ROOT / ".venv-doors" / "bin" / "python"), str(Path(__file__).parent / "otherproxies.py"))
_ENVOY_ROUTE = "check_settings:\n                                context_extensions: {server: git}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The ways to make the same call, by their names; the first is the control."""

    name: str
    ways: Mapping[str, Call]


def over_pipes(world: World) -> Iterator[Group]:
    """Yield the ways over pipes. A person approves the sessions of both proxies of ours."""
    wish = ("--request", "to measure", "--user", "alice", "--agent", "coder", "--server", "echo")
    own = world.folder / "embedded"
    asking = world.pipes(*PDP, "mcp", *wish, *world.asked(), "--", *world.server)
    approve(world.address, world.data)
    embedded = world.pipes(*PDP, "mcp", *wish, "--embedded", "--data-dir", str(own), "--", *world.server)
    approve(f"unix:{own / 'server.sock'}", own)
    conversations = {
        "no door": world.pipes(*world.server),
        "`pdp mcp`": asking,
        "`pdp mcp --embedded`": embedded,
        "`mcp` SDK, asks nobody": world.pipes(*_OTHERS, "sdk", "pipes", *world.server),
        "FastMCP, asks nobody": world.pipes(*_OTHERS, "fastmcp", "pipes", *world.server),
    }
    yield Group(name="over pipes", ways={name: one.call for name, one in conversations.items()})
    # Nobody is asked about it.
    yield Group(name="over pipes, a ping", ways={name: one.ping for name, one in conversations.items()})


def over_http(world: World) -> Group:
    """Return the ways over HTTP."""
    door = world.listening(
        *(*PDP, "mcp", "--server", "echo", "--upstream", world.url, "--listen", "127.0.0.1:PORT"), *world.asked()
    )
    return Group(
        name="over HTTP",
        ways={
            "no door": Posts(world.backend).call,
            "`pdp mcp --listen`": Posts(door, world.handle).call,
            "`mcp` SDK, asks nobody": Posts(world.listening(*_OTHERS, "sdk", "PORT", world.url)).call,
            "FastMCP, asks nobody": Posts(world.listening(*_OTHERS, "fastmcp", "PORT", world.url)).call,
        },
    )


def with_envoy(world: World) -> Group:
    """Return Envoy as its page configures it, without and with the question."""
    door = world.listening(*PDP, "door", "envoy", "--listen", "127.0.0.1:PORT", *world.asked())
    ports = []
    for name, route in (
        ("alone", "disabled: true"),
        ("asking", _ENVOY_ROUTE.replace("git", "echo")),
    ):
        folder = world.folder / name
        folder.mkdir()
        envoy = running_envoy(folder, door=door, backend=world.backend, changes={_ENVOY_ROUTE: route})
        ports.append(world.opened.enter_context(envoy).port)
    alone, asking = (Posts(port, world.handle).call for port in ports)
    return Group(name="Envoy", ways={"Envoy alone": alone, "`pdp door envoy`": asking})


def with_authzen(world: World) -> Group:
    """Return a gateway that asks before its call, in the words of AuthZEN."""
    door = world.listening(*PDP, "door", "authzen", "--listen", "127.0.0.1:PORT", "--own-caller", *world.asked())
    asking, direct = Posts(door, world.handle, "/access/v1/evaluation"), Posts(world.backend)
    question = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "echo/echo"},
        "context": {"arguments": {"text": "the same"}},
    }

    def asked(number: int) -> None:
        said = asking.send(question)
        if said["decision"] is not True:
            sys.exit(f"a wrong answer: {said}")
        direct.call(number)

    return Group(name="a gateway", ways={"no question": Posts(world.backend).call, "`pdp door authzen`": asked})


def _median(call: Call, count: int, numbers: itertools.count[int]) -> float:
    """Return milliseconds."""
    took = []
    call(next(numbers))  # opens a connection again, if need be
    for _ in range(count):
        number, start = next(numbers), time.perf_counter()
        call(number)
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def measured(groups: list[Group], rounds: int, count: int) -> list[dict[tuple[str, str], float]]:
    """Return the median of each way in each round."""
    ways = [((group.name, way), call) for group in groups for way, call in group.ways.items()]
    numbers = itertools.count(1)
    found = []
    for number in range(rounds + 1):
        first = number % len(ways)
        found.append({name: _median(call, count, numbers) for name, call in (*ways[first:], *ways[:first])})
    return found[1:]


def table(groups: list[Group], rounds: list[dict[tuple[str, str], float]]) -> str:
    """Return the medians over all rounds; what is added is paired."""
    lines = ["| | ms | more than without | ratio |", "|---|---|---|---|"]
    for group in groups:
        control = next(iter(group.ways))
        for way in group.ways:
            pairs = [(one[group.name, control], one[group.name, way]) for one in rounds]
            took = statistics.median(after for _, after in pairs)
            more = statistics.median(after - before for before, after in pairs)
            ratio = statistics.median(after / before for before, after in pairs)
            cells = ("", "") if way == control else (f"{more:.2f}", f"{ratio:.1f}")
            lines.append(f"| {group.name}: {way} | {took:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=60, help="by each way, in each round")
    parser.add_argument("--reports", action="store_true", help="with a bundle that wants to know what came of calls")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        world = World(Path(name), opened, reports=arguments.reports)
        groups = [*over_pipes(world), over_http(world)]
        if not arguments.reports:
            # These gateways do not tell what came of a call.
            groups += [with_envoy(world), with_authzen(world)]
        rounds = measured(groups, arguments.rounds, arguments.requests)
    print(table(groups, rounds))


if __name__ == "__main__":
    main()
