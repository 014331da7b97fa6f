"""Measure calls while bundles change, beside the same calls while nothing does: `python -m benchmarks.reload`.

Open loop: calls start on a schedule, over several connections, and the time that one waits for its turn counts. In each
round there are two windows of the same length, one in which the bundle is reloaded and one in which it is not. Every
answer is checked; one that is missing, refused or wrong counts as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc

from benchmarks.scale import generate
from pdp.bench.processes import cores
from pdp.bench.servers import serving
from pdp.client import Client
from pdp.limits import Limits
from pdp.policy.contents import read_folder
from pdp.testing.inprocess import write_folder
from pdp.v1 import authorization_pb2, decision_pb2

_AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
_CONNECTIONS = 8
# After the end of the reload: caches are cold, and slices are made when first needed.
_AFTER_SECONDS = 1.0
_SHIPPED = Path(__file__).parent.parent / "policies"
_ADDED = '\n@id("{file}/added-{number}")\nforbid (principal == User::"nobody", action, resource);\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A bundle, its file that changes, the askers and their calls, and the calls a second."""

    name: str
    files: dict[str, bytes]
    changing: str
    user: str
    agent: str
    tools: str
    calls: tuple[tuple[str, str, str], ...]
    rate: float = 300.0

    def changed(self, number: int) -> dict[str, bytes]:
        """Return the bundle with one more policy, which is about none of the calls."""
        added = _ADDED.format(file=self.changing.removesuffix(".cedar"), number=number)
        return {**self.files, self.changing: self.files[self.changing] + added.encode()}


@dataclass(slots=True)
class Window:
    """The measurement of one window: each call's milliseconds, and how many failed."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0
    reload_seconds: float = 0.0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, in turns")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="numbers of workers to measure")
    parser.add_argument("--policies", type=int, default=1000, help="policies of the generated bundle")
    chosen = parser.parse_args()
    head = (
        "policies | workers | calls | failed | p50 without, ms | p99 | longest | p50 with | p99 | longest | reload, s"
    )
    print(f"| {head} |\n" + "|---" * 11 + "|")
    for workload in (shipped(), generated(chosen.policies)):
        for workers in chosen.workers:
            _print_row(workload, workers, asyncio.run(_measure(workload, workers, chosen.rounds)))
    return 0


def shipped() -> Workload:
    """Return the bundle that is shipped with the PDP."""
    paths = [f"/srv/app/file{number}" for number in range(5)]
    calls = [("git", name, {"repo_path": path}) for name in ("git_log", "git_status", "git_branch") for path in paths]
    return Workload(
        name="shipped",
        files=dict(read_folder(_SHIPPED, Limits())),
        changing="guardrails.cedar",
        user="alice",
        agent="coder",
        tools="git/*",
        calls=tuple((server, tool, json.dumps(arguments)) for server, tool, arguments in calls),
    )


def generated(policies: int) -> Workload:
    """Return a bundle with `policies` policies, and a twentieth as many tools."""
    tools = max(5, policies // 20)
    calls = [(f"tool{number}", amount) for number in range(0, tools, 5)[:20] for amount in (1, 2, 3)]
    return Workload(
        name=f"{policies}",
        files=generate(policies, tools),
        changing="server0.cedar",
        user="ada",
        agent="bot",
        tools="server0/*",
        calls=tuple(("server0", name, json.dumps({"item": "i", "amount": amount})) for name, amount in calls),
    )


async def _measure(workload: Workload, workers: int, rounds: int) -> list[tuple[Window, Window]]:
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as name, ExitStack() as opened:
        folder = Path(name)
        write_folder(folder / "policies", workload.files)
        address = opened.enter_context(_server(folder, workers))
        load = Load(workload, address, folder)
        await load.warm()
        found = []
        for number in range(rounds):
            write_folder(folder / "policies", workload.changed(number))
            reloaded = await load.window(load.reload)
            still = await load.window(partial(time.sleep, reloaded.reload_seconds))
            found.append((still, reloaded))
        await load.close()
        return found


class Load:
    """Asks on a schedule, over several connections."""

    def __init__(self, workload: Workload, address: str, folder: Path) -> None:
        tokens = folder / "data" / "tokens"
        self._admin = Client(address, token_file=tokens / "admin.token", management_timeout=300.0, plaintext=True)
        with Client(address, token_file=tokens / "pep.token", plaintext=True) as pep:
            opened = pep.request_session(
                user=workload.user, agent=workload.agent, purpose="benchmark", tools=[workload.tools], duration=7200
            )
        with Client(address, token_file=tokens / "approver.token", plaintext=True) as approver:
            approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        self._rate = workload.rate
        self._requests = [
            authorization_pb2.AuthorizeRequest(
                call=decision_pb2.Call(
                    session_handle=opened.session_handle, server=server, tool=tool, arguments_json=arguments.encode()
                )
            ).SerializeToString()
            for server, tool, arguments in workload.calls
        ]
        self._metadata = (("authorization", f"Bearer {(tokens / 'pep.token').read_text(encoding='ascii').strip()}"),)
        own = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(_CONNECTIONS)]
        self._asks = [channel.unary_unary(_AUTHORIZE) for channel in self._channels]
        self._expected: list[decision_pb2.Outcome] = []

    async def warm(self) -> None:
        """Ask everything over every connection once, and keep the right answers."""
        for ask in self._asks:
            answers = [await ask(wire, metadata=self._metadata) for wire in self._requests]
            outcomes = [authorization_pb2.AuthorizeResponse.FromString(one).decision.outcome for one in answers]
            if self._expected not in ([], outcomes):
                raise SystemExit("the answers differ")
            self._expected = outcomes

    async def window(self, work: Callable[[], None]) -> Window:
        """Ask while `work` is done in a thread, and for a while afterwards."""
        found, number, asked = Window(), 0, list[asyncio.Task[None]]()
        begun = time.perf_counter()
        working = asyncio.create_task(asyncio.to_thread(work))
        end = float("inf")
        while time.perf_counter() < end:
            due = begun + number / self._rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            asked.append(asyncio.create_task(self._ask(number, due, found)))
            number += 1
            if end == float("inf") and working.done():
                found.reload_seconds = time.perf_counter() - begun
                end = time.perf_counter() + _AFTER_SECONDS
        await working
        await asyncio.gather(*asked)
        return found

    def reload(self) -> None:
        """Have the server load the current content of the folder."""
        if not self._admin.reload_bundle().changed:
            raise SystemExit("nothing was reloaded")

    async def close(self) -> None:
        """Close all connections."""
        self._admin.close()
        for channel in self._channels:
            await channel.close()

    async def _ask(self, number: int, due: float, found: Window) -> None:
        index = number % len(self._requests)
        try:
            answer = await self._asks[number % _CONNECTIONS](
                self._requests[index], metadata=self._metadata, timeout=30.0
            )
        except grpc.aio.AioRpcError:
            found.failed += 1
            return
        found.milliseconds.append((time.perf_counter() - due) * 1000)
        outcome = authorization_pb2.AuthorizeResponse.FromString(answer).decision.outcome
        found.failed += outcome != self._expected[index]


@contextmanager
def _server(folder: Path, workers: int) -> Iterator[str]:
    flags = f"--server-workers={workers}", "--policies-watch=false"
    # Several workers choose their cores themselves.
    core = cores()[0] if workers == 1 else None
    with serving(folder / "data", folder / "policies", *flags, core=core) as (address, _):
        yield address


def _print_row(workload: Workload, workers: int, rounds: list[tuple[Window, Window]]) -> None:
    cells = [
        f"{statistics.median(_share(one[index].milliseconds, share) for one in rounds):.1f}"
        for index in (0, 1)
        for share in (0.5, 0.99, 1.0)
    ]
    calls, failed = (sum(f(window) for one in rounds for window in one) for f in (_calls, lambda window: window.failed))
    seconds = statistics.median(reloaded.reload_seconds for _, reloaded in rounds)
    print(
        f"| {workload.name} | {workers} | {calls} | {failed} | " + " | ".join(cells) + f" | {seconds:.2f} |", flush=True
    )


def _share(milliseconds: list[float], share: float) -> float:
    """Return the longest time within that share of the calls."""
    return sorted(milliseconds)[max(0, math.ceil(len(milliseconds) * share) - 1)]


def _calls(window: Window) -> int:
    return len(window.milliseconds)


if __name__ == "__main__":
    sys.exit(main())
