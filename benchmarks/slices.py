"""Measure a call in a large bundle beside the same call in a small one: `python -m benchmarks.slices`.

Both bundles have the same twenty policies about the tool that is called. The small one has nothing else; it is the
control. Both are asked in turns in one process, tracing and record off. Every answer is checked. Figures are CPU time
of the calling thread, medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import count, islice, repeat
from pathlib import Path

from pdp.app import open_embedded
from pdp.bench.questions import Asker
from pdp.bench.sessions import PEP, open_sessions
from pdp.model import Call, CallRequest
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder

_SERVERS = 10
_POLICIES_OF_EACH = 20

Ask = Callable[[str], None]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is repeated, in turns")
    parser.add_argument("--tools", type=int, default=500, help="tools of the large bundle, each with 20 policies")
    chosen = parser.parse_args()
    fresh = map(str, count())
    found: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder:
        asks = {tools: _opened(Path(folder) / str(tools), tools) for tools in (1, chosen.tools)}
        for _ in range(chosen.rounds):
            for tools, ask in asks.items():
                found.setdefault((tools, "hit"), []).append(_microseconds(ask, repeat("same", 5000)))
                found.setdefault((tools, "miss"), []).append(_microseconds(ask, islice(fresh, 1000)))
    print("| policies | tools | hit, µs | ratio | miss, µs | ratio |\n|---|---|---|---|---|---|")
    for tools in asks:
        cells = [f"{statistics.median(found[tools, what]):.1f} | {_ratio(found, tools, what):.2f}" for what in _WHATS]
        print(f"| {tools * _POLICIES_OF_EACH} | {tools} | " + " | ".join(cells) + " |")
    return 0


_WHATS = ("hit", "miss")


def _opened(folder: Path, tools: int) -> Ask:
    """Open a PDP with `tools` tools, and return a function that asks about a path."""
    write_folder(folder, _files(tools))
    pdp = open_embedded(folder)
    (handle,) = open_sessions(pdp, [Asker(user="alice", agent="worker")], ("s0/*",))

    def ask(path: str) -> None:
        call = Call(session_handle=handle, server="s0", tool="t0", arguments_json=b'{"path": "/%s"}' % path.encode())
        if not pdp.authorizer.authorize(CallRequest(call=call), PEP).allowed:
            raise SystemExit("an answer is wrong")

    return ask


def _files(tools: int) -> dict[str, bytes]:
    """Return a bundle: for each tool one permit, and forbids that do not match.

    The forbids read an argument.
    """
    listed: dict[str, list[dict[str, object]]] = {}
    texts: dict[str, str] = {}
    for number in range(tools):
        server = f"s{number % _SERVERS}"
        listed.setdefault(server, []).append(tool(f"t{number}", {"path": {"type": "string"}}, ["path"]))
        texts[server] = texts.get(server, "") + "".join(_policy(server, number, n) for n in range(_POLICIES_OF_EACH))
    ceiling = ", ".join(f'"{server}/*"' for server in listed)
    return bundle_files(
        policies=texts,
        tools=listed,
        overlays=dict.fromkeys(listed, "risk: read_only\n"),
        directory=f"users: {{alice: {{}}}}\nagents: {{worker: {{ceiling: [{ceiling}]}}}}",
    )


def _policy(server: str, tool_number: int, number: int) -> str:
    scope = f'principal, action == Action::"{server}/t{tool_number}", resource'
    head = f'@id("{server}/p{tool_number}-{number}")'
    if number == 0:
        return f"{head} permit ({scope});\n"
    return f'{head} forbid ({scope}) when {{ context.input.path like "/never{number}*" }};\n'


def _ratio(found: dict[tuple[int, str], list[float]], tools: int, what: str) -> float:
    """Return the median of the ratios to the small bundle, round by round."""
    pairs = zip(found[tools, what], found[1, what], strict=True)
    return statistics.median(large / small for large, small in pairs)


def _microseconds(ask: Ask, paths: Iterable[str]) -> float:
    """Return the CPU time of one call; wall-clock time would include other processes."""
    ask("same")
    listed = list(paths)
    started = time.thread_time()
    for path in listed:
        ask(path)
    return (time.thread_time() - started) / len(listed) * 1e6


if __name__ == "__main__":
    raise SystemExit(main())
