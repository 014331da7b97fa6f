"""The real AgentDojo runs in which an injection won: the record names the right sessions and tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pdp.app.embedded import Embedded
from pdp.audit import AuditIndex, Search
from pdp.audit.values import Filter, Selector, Window
from pdp.model import Call, CallRequest
from pdp.registry.words import Selector as Revocation
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from tests.audit.attackruns import APPROVER, GATEWAY, Attack, Replayed, attacks, open_pdp, replay

ATTACKS = 1247
CALLS = 4712
# Of the whole, for every day.
SAMPLE = 12
ATTACKERS_ACCOUNT = "US133000000121212121212"

_MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The PDP after the attacks, what it recorded, and the moment when the investigator comes."""

    pdp: Embedded
    runs: list[Replayed]
    search: Search
    now_at: float


def scene(material: Path, folder: Path, chosen: list[Attack]) -> Iterator[Scene]:
    """Replay attacks, and index what was recorded."""
    clock, evidence = FakeClock(), Evidence(folder)
    pdp = open_pdp(material, folder / "policies", {attack.agent for attack in chosen}, clock, evidence)
    runs = [replay(pdp, attack, clock) for attack in chosen]
    with AuditIndex(evidence.record_folder) as index:
        index.refresh()
        yield Scene(pdp=pdp, runs=runs, search=Search(index), now_at=clock.now().wall_at)
        pdp.close()
        evidence.close()


@pytest.fixture(
    scope="module",
    params=[pytest.param(SAMPLE, id="sample"), pytest.param(1, id="all", marks=pytest.mark.long)],
)
def replayed(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Yield the scene after a sample of the attacks, or after all of them."""
    material = test_data / "agentdojo"
    found = attacks(material)
    assert (ATTACKS, CALLS) == (len(found), sum(len(attack.calls) for attack in found))
    yield from scene(material, tmp_path_factory.mktemp("attacks"), found[:: request.param])


def test_touched_names_the_tools_of_each_run(replayed: Scene) -> None:
    """For each attack its session shows exactly the tools that were called, allowed and denied apart, and how often."""
    for run in replayed.runs:
        touched = replayed.search.touched(Filter(session_id=run.session_id), limit=_MOST)

        calls = [(call["tool"], allowed) for call, allowed in zip(run.attack.calls, run.allowed, strict=True)]
        shown = Counter[tuple[str, bool]]()
        for one in touched:
            assert run.attack.suite == one.server
            shown.update({(one.tool, True): one.allowed, (one.tool, False): one.denied})
        assert Counter(calls) == +shown


def test_who_was_paid_is_named(replayed: Scene) -> None:
    """What a payment touched is the account that it went to."""
    for run in replayed.runs:
        touched = replayed.search.touched(Filter(session_id=run.session_id), limit=_MOST)

        assert {one.resource_id for one in touched if one.tool == "send_money" and one.allowed} == {
            call["args"]["recipient"]
            for call, allowed in zip(run.attack.calls, run.allowed, strict=True)
            if call["tool"] == "send_money" and allowed
        }


def test_the_plan_for_each_attack_is_its_session(replayed: Scene) -> None:
    """By the tool that the attacker wanted and the time of the attack, the plan is this session and no other."""
    for run in replayed.runs:
        window = Window(since_at=run.since_at, until_at=run.until_at)
        for tool in run.attack.harmful:
            done = any(
                allowed and call["tool"] == tool for call, allowed in zip(run.attack.calls, run.allowed, strict=True)
            )
            selector = Selector(tool=f"{run.attack.suite}/{tool}", window=window, tried=not done)

            planned = replayed.search.plan(selector, now_at=replayed.now_at, limit=_MOST)

            assert [(run.session_id, "emma", run.attack.agent, True)] == [
                (one.session_id, one.user, one.agent, one.matched) for one in planned
            ]


def test_the_plan_for_a_tool_is_every_session_that_used_it(replayed: Scene) -> None:
    """Without a window, each tool's plan is exactly the sessions in which a call of it was allowed."""
    expected: dict[str, set[str]] = {}
    for run in replayed.runs:
        for call, allowed in zip(run.attack.calls, run.allowed, strict=True):
            if allowed:
                expected.setdefault(f"{run.attack.suite}/{call['tool']}", set()).add(run.session_id)

    planned = {
        tool: {one.session_id for one in replayed.search.plan(Selector(tool=tool), now_at=replayed.now_at, limit=_MOST)}
        for tool in expected
    }

    assert expected == planned
    assert len(expected) > 15


def test_revoking_the_plan_stops_exactly_those_sessions(replayed: Scene) -> None:
    """Everybody who paid the attacker's account is stopped at the next call; everybody else goes on."""
    selector = Selector(resource=ATTACKERS_ACCOUNT)
    planned = {one.session_id for one in replayed.search.plan(selector, now_at=replayed.now_at, limit=_MOST)}
    for session_id in sorted(planned):
        replayed.pdp.registrar.revoke(Revocation(kind="session", value=session_id), reason="x", caller=APPROVER)

    paid = {
        run.session_id
        for run in replayed.runs
        for call, allowed in zip(run.attack.calls, run.allowed, strict=True)
        if allowed and call["tool"] == "send_money" and call["args"]["recipient"] == ATTACKERS_ACCOUNT
    }
    assert paid
    assert paid == planned
    stopped = {run.session_id for run in replayed.runs if basis(replayed.pdp, run) == "session_revoked"}
    assert planned == stopped


def basis(pdp: Embedded, run: Replayed) -> str:
    """Return what one more call in a run's session rests on."""
    call = Call(session_handle=run.handle, server=run.attack.suite, tool="no_such_tool")
    return pdp.authorizer.authorize(CallRequest(call=call), GATEWAY).ruling.basis.value
