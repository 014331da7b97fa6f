"""Replay real agent runs in which an injection won through a real PDP, each in a session of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.app.embedded import Embedded, open_embedded
from pdp.foundation.jsontext import canonical
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.observer import Observer
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import bundle_files, compile_here
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from tests.machinery.agentruns import rows

SUITES = ("banking", "workspace")
SECONDS_BETWEEN_RUNS = 10.0

GATEWAY = Caller(id="gateway", kind="embedded", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="embedded", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
# Who is paid is the resource of a payment; everything else happens to the server.
OVERLAYS = {"banking": 'tools:\n  send_money:\n    resource: {type: Thing, id: "{recipient}"}\n'}

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One run in which the injection won: what was called, and which of these tools the attacker wanted."""

    agent: str
    suite: str
    calls: tuple[JSON, ...]
    harmful: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """An attack after its replay: its session, when it ran, and what was answered to each call."""

    attack: Attack
    session_id: str
    handle: str
    since_at: float
    until_at: float
    allowed: tuple[bool, ...]


def attacks(material: Path) -> list[Attack]:
    """Return every successful attack with a call."""
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows(material / "calls.jsonl.gz"):
        if row["kind"] == "injection":
            wanted[row["suite"], row["task"]].add(row["tool"])
    return [
        _attack(run, wanted[run["suite"], run["injection_task"]])
        for run in rows(material / "model_runs.jsonl.gz")
        if run["attack"] is not None and run["security"] and run["calls"]
    ]


def open_pdp(material: Path, folder: Path, agents: Iterable[str], clock: FakeClock, observer: Observer) -> Embedded:
    """Open a PDP that knows the suites' tools and allows them all: an allow-list stops no injection."""
    listed = {suite: [row for row in rows(material / "tools.jsonl.gz") if row["suite"] == suite] for suite in SUITES}
    ceilings = "".join(f'  "{agent}": {{ceiling: ["banking/*", "workspace/*"]}}\n' for agent in sorted(set(agents)))
    files = bundle_files(
        policies={
            suite: f'@id("{suite}/all") permit (principal, action, resource in Server::"{suite}");' for suite in SUITES
        },
        tools={
            suite: [{key: row[key] for key in ("name", "description", "inputSchema")} for row in found]
            for suite, found in listed.items()
        },
        overlays=OVERLAYS,
        directory=f"users: {{emma: {{}}}}\nagents:\n{ceilings}",
    )
    write_folder(folder, files)
    return open_embedded(folder, clock=clock, observer=observer, compile_files=compile_here)


def replay(pdp: Embedded, attack: Attack, clock: FakeClock) -> Replayed:
    """Run the calls of one attack in a fresh session, some seconds after the one before."""
    clock.advance(SECONDS_BETWEEN_RUNS)
    wanted = SessionRequest(
        user="emma",
        agent=attack.agent,
        purpose="A task",
        tool_patterns=(f"{attack.suite}/*",),
        duration=8 * 3600.0,
    )
    view, handle = pdp.registrar.request(wanted, GATEWAY)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    at = clock.now().wall_at
    return Replayed(
        attack=attack,
        session_id=view.session.id,
        handle=handle,
        since_at=at,
        until_at=at + SECONDS_BETWEEN_RUNS / 2,
        allowed=tuple(asked(pdp, attack.suite, call, handle) for call in attack.calls),
    )


def asked(pdp: Embedded, suite: str, call: JSON, handle: str) -> bool:
    """Ask about one call of a run, and say whether it may go ahead."""
    wanted = Call(session_handle=handle, server=suite, tool=call["tool"], arguments_json=canonical(call["args"]))
    return pdp.authorizer.authorize(CallRequest(call=wanted), GATEWAY).allowed


def _attack(run: JSON, wanted: set[str]) -> Attack:
    called = {call["tool"] for call in run["calls"]}
    # Some reached the attacker's aim by another tool; the last call did it then.
    harmful = called & wanted or {run["calls"][-1]["tool"]}
    return Attack(agent=run["pipeline"], suite=run["suite"], calls=tuple(run["calls"]), harmful=frozenset(harmful))
