"""Measure calls whose policies read what a session remembers beside one that reads none: `python -m benchmarks.memory`.

In process: one PDP on store files, the ways to ask in turns within each round, tracing and record off. Served: a call
with the report of what came of it beside the call alone, by one worker and by two, record and spans on. Every answer is
checked. Figures are CPU, medians over rounds; each ratio is of one round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.workers import processes, run_on
from pdp.app.embedded import Embedded, open_embedded
from pdp.bench.processes import cores, cpu_seconds
from pdp.bench.servers import serving
from pdp.bench.sessions import APPROVER, PEP
from pdp.client import Client, ClientSession
from pdp.model import Call, CallRequest, CallStatus
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.words import SessionRequest
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import write_folder

_SERVER = "bench"
_ITEM = {"item": {"type": "string"}}
_TO = {"to": {"type": "string"}}
# What each tool is for; the first is the control.
_TOOLS = ("plain", "labelled", "named", "unseen", "counting", "counted")
_OVERLAY = """
risk: read_only
tools:
  labelled: {adds_labels: [untrusted]}
  named: {risk: mutating, targets: {to: address}}
  unseen: {risk: mutating, targets: {to: address}}
"""
_POLICIES = """
@id("bench/all")
permit (principal, action in [Action::"read_only", Action::"mutating"], resource is Server);
@id("bench/targets")
forbid (principal, action in Action::"mutating", resource)
when { context.session.labels.contains("sensitive") }
unless { ["named", "clean", "issued", "none"].containsAll(context.targets.provenance) };
@id("bench/counted")
forbid (principal, action == Action::"bench/counted", resource)
when { context.counts["bench/counting"] > 1000000000 };
"""
_MUCH = 1_000_000_000
_CALLS, _SERVED = 2000, 1500

# Asks once, and returns whether the call was allowed.
Ask = Callable[[], bool]
Way = TypeVar("Way")


class _Served(NamedTuple):
    """A way to ask a server with some process, and the cores on which its load runs."""

    ask: Callable[[], None]
    pid: int
    shared: set[int]

    def microseconds(self, calls: int) -> float:
        """Return the CPU of the server for one call."""
        run_on(self.shared)
        before = sum(map(cpu_seconds, processes(self.pid)))
        for _ in range(calls):
            self.ask()
        return (sum(map(cpu_seconds, processes(self.pid))) - before) / calls * 1e6


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is repeated, in turns")
    parser.add_argument("--calls", type=int, default=_CALLS, help="calls of a measurement in process")
    parser.add_argument("--served", type=int, default=_SERVED, help="calls of a measurement of a server; 0: none")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder:
        write_folder(Path(folder) / "policies", files())
        _in_process(Path(folder), chosen.rounds, chosen.calls)
        if chosen.served:
            _beside_reports(Path(folder), chosen.rounds, chosen.served)
    return 0


def files() -> dict[str, bytes]:
    """Return a bundle with one tool for each way to ask."""
    parameters: Mapping[str, Any] = {"named": _TO, "unseen": _TO}
    return bundle_files(
        policies={_SERVER: _POLICIES},
        tools={_SERVER: [tool(name, parameters.get(name, _ITEM)) for name in _TOOLS]},
        directory=json.dumps({"users": {"alice": {}}, "agents": {"worker": {"ceiling": [f"{_SERVER}/*"]}}}),
        overlays={_SERVER: _OVERLAY},
        schema=with_terms("max_calls?: Long"),
        labels=("untrusted", "sensitive"),
    )


def _in_process(folder: Path, rounds: int, calls: int) -> None:
    store, history = SQLiteSessionStore(folder / "sessions.sqlite"), SQLiteSessionHistory(folder / "history.sqlite")
    pdp = open_embedded(folder / "policies", sessions=store, history=history)
    try:
        found = _measured(ways(pdp), rounds, lambda ask: microseconds(ask, calls))
    finally:
        pdp.close()
    print("In process:\n")
    _print(found, "plain: hit, reads nothing")


def ways(pdp: Embedded) -> dict[str, Ask]:
    """Return the ways to ask a PDP that runs on `files`: the first reads no memory."""
    free, counted = _session(pdp, b""), _session(pdp, json.dumps({"max_calls": _MUCH}).encode())
    fresh = count()

    def asking(tool_name: str, arguments: Mapping[str, Any], handle: str = free) -> Ask:
        text = json.dumps(arguments).encode()
        return lambda: _allowed(pdp, handle, tool_name, bytes(bytearray(text)))

    def reported() -> bool:
        decision = pdp.authorizer.authorize(_request(free, "plain", b'{"item": "a"}'), PEP)
        pdp.outcomes.report(OutcomeReport(outcome_token=pdp.outcomes.token(decision), status=CallStatus.SUCCEEDED), PEP)
        return decision.allowed

    return {
        "plain: hit, reads nothing": asking("plain", {"item": "a"}),
        "plain: new, reads nothing": lambda: _allowed(pdp, free, "plain", b'{"item": "%d"}' % next(fresh)),
        "label that the session already has": asking("labelled", {"item": "a"}),
        "target that the purpose names": asking("named", {"to": "emma@example.com"}),
        "target that must be looked up": asking("unseen", {"to": "stranger@example.com"}),
        "budget": asking("plain", {"item": "a"}, counted),
        "call that is counted": asking("counting", {"item": "a"}),
        "policy that reads a count": asking("counted", {"item": "a"}),
        "hit and its report": reported,
    }


def _session(pdp: Embedded, terms_json: bytes) -> str:
    wanted = SessionRequest(
        user="alice",
        agent="worker",
        purpose="Write to emma@example.com",
        tool_patterns=(f"{_SERVER}/*",),
        terms_json=terms_json,
    )
    view, handle = pdp.registrar.request(wanted, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    return handle


def _request(handle: str, tool_name: str, arguments_json: bytes) -> CallRequest:
    return CallRequest(call=Call(session_handle=handle, server=_SERVER, tool=tool_name, arguments_json=arguments_json))


def _allowed(pdp: Embedded, handle: str, tool_name: str, arguments_json: bytes) -> bool:
    return pdp.authorizer.authorize(_request(handle, tool_name, arguments_json), PEP).allowed


def microseconds(ask: Ask, calls: int) -> float:
    """Return the CPU of this process for one call, without that of others, such as a database."""
    before = time.process_time()
    for _ in range(calls):
        if not ask():
            raise SystemExit("every call must be allowed")
    return (time.process_time() - before) / calls * 1e6


def _beside_reports(folder: Path, rounds: int, calls: int) -> None:
    first, last = cores()
    if first is None or last is None or first == last:
        raise SystemExit("this needs two cores, and a system that pins processes to them")
    with ExitStack() as running:
        ways: dict[str, _Served] = {}
        for workers, core, shared in ((1, first, {first}), (2, None, {first, last})):
            data, flags = folder / f"data-{workers}", (f"--server-workers={workers}", "--policies-watch=false")
            address, pid = running.enter_context(serving(data, folder / "policies", *flags, core=core))
            pep, session = running.enter_context(_opened(address, data))
            ways[f"authorize, workers: {workers}"] = _Served(
                partial(_authorize, pep, session, report=False), pid, shared
            )
            ways[f"the same and report, workers: {workers}"] = _Served(
                partial(_authorize, pep, session, report=True), pid, shared
            )
        found = _measured(ways, rounds, lambda way: way.microseconds(calls))
    print("\nServed, one call at a time:\n")
    _print(found, "authorize, workers: 1")


@contextmanager
def _opened(address: str, data: Path) -> Iterator[tuple[Client, ClientSession]]:
    """Open a session on a server; yield the gateway and the session."""
    with (
        Client(address, token_file=data / "tokens" / "pep.token", plaintext=True, data_dir=data) as pep,
        Client(address, token_file=data / "tokens" / "approver.token", plaintext=True, data_dir=data) as approver,
    ):
        opened = pep.request_session(
            user="alice", agent="worker", purpose="benchmark", tools=(f"{_SERVER}/*",), duration=7200
        )
        approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        yield pep, pep.attach(opened.session_handle, session_id=opened.session.session_id)


def _authorize(pep: Client, session: ClientSession, *, report: bool) -> None:
    answer = session.authorize(_SERVER, "plain", {"item": "a"})
    if not answer:
        raise SystemExit("every call must be allowed")
    if report:
        pep.report_outcome(answer)


def _measured(ways: Mapping[str, Way], rounds: int, cost: Callable[[Way], float]) -> dict[str, list[float]]:
    """Return what each way costs in each round, in turns; the first round warms up and does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            spent = cost(way)
            if number:
                found[name].append(spent)
    return found


def _print(found: Mapping[str, Sequence[float]], control: str) -> None:
    print("| call | CPU µs | times the control, median | least | most |\n|---|---|---|---|---|")
    for name, costs in found.items():
        ratios = [cost / beside for cost, beside in zip(costs, found[control], strict=True)]
        cells = (statistics.median(costs), statistics.median(ratios), min(ratios), max(ratios))
        print(
            f"| {name} | " + " | ".join(f"{cell:.{1 if place == 0 else 2}f}" for place, cell in enumerate(cells)) + " |"
        )


if __name__ == "__main__":
    sys.exit(main())
