"""What calls change, by many threads and two workers that are killed: nothing is overdrawn, forgotten or used twice.

`KILL_SEED` repeats the choices of a run; the threads of the machine still interleave as they like.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pdp.client import Answer, Client, ClientSession, PDPClientError
from pdp.record import read_records
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.machinery.agentruns import JSON
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.machinery.servers.several import workers_of

THREADS = 16
TO = {"to": {"type": "string"}}
# One name that the purpose holds, and one that nothing holds.
NAMED, STRANGE = "emma@x.com", "mallory@y.com"
POLICIES = """
@id("mail/all") permit (principal, action in [Action::"read_only", Action::"mutating"], resource);
@id("mail/named")
forbid (principal, action == Action::"mail/send", resource)
when { context.session.labels.contains("untrusted") }
unless { ["named"].containsAll(context.targets.provenance) };
@id("mail/delete")
@step_up("Delete it?")
forbid (principal, action == Action::"mail/delete", resource);
"""
OVERLAY = """
tools:
  read: {risk: read_only, adds_labels: [untrusted]}
  send: {risk: mutating, targets: {to: address}}
  delete: {risk: mutating}
"""


def bundle() -> dict[str, bytes]:
    """Return a bundle: what is read forbids to send where nothing has pointed, and a person allows each deletion."""
    return bundle_files(
        policies={"mail": POLICIES},
        tools={"mail": [tool("read"), tool("send", TO), tool("delete", {"id": {"type": "integer"}})]},
        directory='users: {alice: {}}\nagents: {coder: {ceiling: ["mail/*"]}}',
        overlays={"mail": OVERLAY},
        schema=with_terms("max_calls: Long"),
        labels=("untrusted",),
    )


@dataclass(kw_only=True)
class Seen:
    """What one thread was told, by request id."""

    allowed: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    asked: int = 0
    lost: int = 0
    approved: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all threads do: in which sessions, and how many calls each makes, or more until `enough` is set."""

    sessions: tuple[ClientSession, ...]
    calls: int
    enough: threading.Event = field(default_factory=threading.Event)

    def by(self, callers: Callers, choices: random.Random) -> Seen:
        """Make the calls of one thread; an answer that was lost is asked for again, with the same request id."""
        seen = Seen()
        for number in count():
            if number >= self.calls and self.enough.is_set():
                break
            session = choices.choice((self.sessions[0], *self.sessions))
            name, arguments = choices.choice(
                (
                    ("read", {}),
                    ("send", {"to": NAMED}),
                    ("send", {"to": STRANGE}),
                    ("send", {"to": STRANGE}),
                    ("delete", {"id": choices.randrange(50)}),
                )
            )
            request_id = f"{choices.randrange(2**64):x}-{number}"
            answer = self._asked(callers.pep, session, name, arguments, request_id, seen)
            if answer.basis == "approval_required" and choices.random() < 0.5:
                self._approve(callers.approver, answer, seen)
            # A gateway that never saw the answer asks once more.
            if choices.random() < 0.2:
                again = self._asked(callers.pep, session, name, arguments, request_id, seen)
                if answer and not again and again.basis not in ("budget_exhausted", "forbid", "approval_required"):
                    seen.wrong.append(f"{request_id}: allowed, and then {again.basis}")
        return seen

    def _asked(
        self, pep: Client, session: ClientSession, name: str, arguments: Mapping[str, Any], request_id: str, seen: Seen
    ) -> Answer:
        end = time.monotonic() + PATIENCE
        while True:
            answer = pep.authorize(
                session.handle, "mail", name, arguments, session_id=session.id, request_id=request_id
            )
            seen.asked += 1
            if answer:
                seen.allowed[request_id] = (session.id, name, str(arguments.get("to", "")))
            # Both say to ask again later, and a gateway does.
            if not answer.error and answer.basis != "ledger_unavailable":
                return answer
            assert time.monotonic() < end, answer
            seen.lost += 1
            time.sleep(0.05)

    def _approve(self, approver: Client, answer: Answer, seen: Seen) -> None:
        with suppress(PDPClientError):
            shown = approver.get_access_request(answer.access_request_id)
            approver.approve_call(answer.access_request_id, request_digest=shown.request_digest)
            seen.approved.add(answer.access_request_id)


@pytest.mark.parametrize(
    ("calls", "kills", "pauses", "many"),
    [
        (60, 2, (0.1, 1.0), 1),
        (60, 1, (0.1, 1.0), 20),
        # A server whose worker ends six times soon after its start stops: workers here serve for more than ten seconds.
        pytest.param(3200, 40, (12.0, 13.0), 1, marks=pytest.mark.long),
        pytest.param(3200, 40, (12.0, 13.0), 200, marks=pytest.mark.long),
    ],
)
def test_what_calls_change_survives_kills(
    tmp_path: Path, calls: int, kills: int, pauses: tuple[float, float], many: int
) -> None:
    """On one session and on many: budgets hold, labels close what they close, each approval serves one call."""
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
    choices = random.Random(seed)  # noqa: S311 - no secret
    most = THREADS * calls * 2 // many
    write_folder(tmp_path / "policies", bundle())
    with ServerProcess(tmp_path, server_workers="2") as server, Callers.of(server) as callers:
        sessions = tuple(opened(callers, most) for _ in range(many))
        work = Work(sessions=sessions, calls=calls)
        with ThreadPoolExecutor(max_workers=THREADS) as threads:
            randoms = [random.Random(choices.randrange(2**32)) for _ in range(THREADS)]  # noqa: S311 - no secret
            done = [threads.submit(work.by, callers, one) for one in randoms]
            try:
                kill_now_and_then(server, choices, kills, pauses)
            finally:
                work.enough.set()
            seen = [one.result() for one in done]
        left = {one.id: budget_left(callers.pep, one.id) for one in sessions}
        assert server.terminate() == 0
    told = [record for _, _, record in read_records(server.record_folder) if record["kind"] == "decision"]
    print(f"seed {seed}: {figures(told, seen, kills)}")  # noqa: T201 - the figures of the proof

    assert [] == [line for one in seen for line in one.wrong]
    assert [] == [*overdrawn(told, most, left), *sent_after_reading(told), *used_twice(told), *paid_twice(told)]


def opened(callers: Callers, most: int) -> ClientSession:
    """Return an approved session with a budget of calls."""
    asked = callers.pep.request_session(
        user="alice", agent="coder", purpose=f"write to {NAMED}", tools=("mail/*",), terms={"max_calls": most}
    )
    callers.approver.approve_session(asked.session.session_id, request_digest=asked.session.request_digest)
    return callers.pep.attach(asked.session_handle, session_id=asked.session.session_id)


def kill_now_and_then(server: ServerProcess, choices: random.Random, kills: int, pauses: tuple[float, float]) -> None:
    """Kill one of the workers at random moments, so often, each time when both serve; pauses are in seconds."""
    for _ in range(kills):
        time.sleep(choices.uniform(*pauses))
        before = workers_of(server)
        number = choices.choice(sorted(before))
        os.kill(before[number], signal.SIGKILL)
        wait_until(partial(_is_replaced, server, number, before[number]), seconds=PATIENCE)


def _is_replaced(server: ServerProcess, number: int, process: int) -> bool:
    return workers_of(server)[number] != process


def budget_left(pep: Client, session_id: str) -> int:
    """Return how many calls a session may still make."""
    (budget,) = pep.get_session(session_id).budgets
    return int(budget.left)


def overdrawn(told: Iterable[JSON], most: int, left: Mapping[str, int]) -> Iterator[str]:
    """Yield each session of which more calls were paid than its budget, or than it says."""
    paid = Counter(one["session_id"] for one in told if one["outcome"] == "allow" and "debits" in one)
    for session_id, calls in paid.items():
        if not calls <= most - left[session_id] <= most:
            yield f"{session_id}: {calls} calls paid, and {left[session_id]} of {most} left"


def sent_after_reading(told: Iterable[JSON]) -> Iterator[str]:
    """Yield each call that went where nothing has pointed, in a session that had read."""
    read: dict[str, int] = {}
    for one in told:
        if one.get("labels_added"):
            read[one["session_id"]] = one["session_epoch"]
    for one in told:
        strange = one["tool"] == "send" and one["outcome"] == "allow" and one["targets"] != ["named"]
        # The epoch after that of the call that has read is the first with the label.
        if strange and one["session_epoch"] > read.get(one["session_id"], one["session_epoch"]):
            yield f"{one['id']}: sent at epoch {one['session_epoch']}"


def used_twice(told: Iterable[JSON]) -> Iterator[str]:
    """Yield each approval that let two calls through; a retry is the same call."""
    uses: dict[str, set[str]] = defaultdict(set)
    for one in told:
        if one["outcome"] == "allow" and one["tool"] == "delete":
            if not one.get("access_request_id"):
                yield f"{one['id']}: deleted without an approval"
            uses[one.get("access_request_id", "")].add(one["request_id"])
    for access_request_id, calls in uses.items():
        if len(calls) > 1:
            yield f"{access_request_id}: used for {sorted(calls)}"


def paid_twice(told: Iterable[JSON]) -> Iterator[str]:
    """Yield each request that took of a budget more than once."""
    times = Counter(one["request_id"] for one in told if one["outcome"] == "allow" and "debits" in one)
    yield from (f"{request_id}: paid {count} times" for request_id, count in times.items() if count > 1)


def figures(told: Sequence[JSON], seen: Sequence[Seen], kills: int) -> str:
    """Return in words what happened."""
    bases = Counter(one["basis"] for one in told)
    asked, lost = sum(one.asked for one in seen), sum(one.lost for one in seen)
    return f"{asked} asked, {lost} lost, {kills} kills; {dict(bases)}"
