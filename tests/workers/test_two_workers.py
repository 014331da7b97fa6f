"""Two server processes on one SQLite file: what one acknowledges, the other obeys at its next call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdp.client import Answer, ClientSession
from pdp.client.errors import FrozenError, UnavailableError
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.inprocess import write_folder
from pdp.v1 import session_pb2
from tests.machinery.servers.notes import READ, WRITE, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess

ROUNDS = 20
NOTE = {"name": "shopping"}

Pair = tuple[Callers, Callers]
Reload = Callable[[str], str]


@dataclass(slots=True)
class Pauses:
    """Takes the place of a client's pause before its one retry: the retry comes at once, and is counted."""

    taken: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        """Note a pause instead of making it."""
        self.taken.append(seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that both workers share."""
    shared = tmp_path_factory.mktemp("workers")
    write_folder(shared / "policies", notes_bundle())
    return shared


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Return two workers on one folder."""
    with ServerProcess(folder) as first, ServerProcess(folder) as second:
        yield first, second
        assert (0, 0) == (first.terminate(), second.terminate())


@pytest.fixture
def workers(servers: tuple[ServerProcess, ServerProcess]) -> Iterator[Pair]:
    """Return the callers of both workers."""
    with Callers.of(servers[0]) as first, Callers.of(servers[1]) as second:
        yield first, second


@pytest.fixture
def reload(workers: Pair, folder: Path) -> Iterator[Reload]:
    """Return what has the first worker load a bundle with a new guardrail; afterwards all is as before."""

    def load(guardrail: str) -> str:
        write_folder(folder / "policies", notes_bundle(guardrail))
        loaded = workers[0].admin.reload_bundle()
        assert loaded.changed
        return loaded.bundle.version

    yield load
    load("")
    deadline = time.monotonic() + PATIENCE
    while not (up := caught_up(workers[1])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert up


def caught_up(callers: Callers) -> bool:
    """Say whether a worker has loaded the active bundle."""
    try:
        request(callers)
    except UnavailableError:
        return False
    return True


def request(callers: Callers, user: str = "alice", agent: str = "coder") -> session_pb2.RequestSessionResponse:
    """Request a session over all notes."""
    return callers.pep.request_session(user=user, agent=agent, purpose="keep notes", tools=("notes/*",))


def approve(callers: Callers, opened: session_pb2.RequestSessionResponse) -> None:
    """Approve what was requested."""
    callers.approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)


def seen_by(callers: Callers, opened: session_pb2.RequestSessionResponse) -> ClientSession:
    """Return a session as the gateway of one worker holds it."""
    return callers.pep.attach(opened.session_handle, session_id=opened.session.session_id)


def open_session(callers: Callers, user: str = "alice", agent: str = "coder") -> session_pb2.RequestSessionResponse:
    """Request a session and have it approved."""
    opened = request(callers, user, agent)
    approve(callers, opened)
    return opened


def basis(callers: Callers, opened: session_pb2.RequestSessionResponse, tool: str = READ) -> str:
    """Return what the answer about one call rests on, or why there is none."""
    answer = seen_by(callers, opened).authorize("notes", tool, NOTE)
    return answer.error or answer.basis


@pytest.mark.parametrize("number", range(ROUNDS))
def test_approvals_and_revocations_hold_at_the_next_call(workers: Pair, number: int) -> None:
    """One worker takes the request, the other approves, the first revokes: each sees the latest at once."""
    here, there = workers if number % 2 else workers[::-1]

    opened = request(here)
    requested = basis(there, opened)
    approve(there, opened)
    approved = [basis(here, opened), basis(there, opened)]
    here.approver.revoke_sessions(session_id=opened.session.session_id, reason="enough")
    revoked = [basis(there, opened), basis(here, opened)]

    assert "session_not_approved" == requested
    assert ["permit", "permit"] == approved
    assert ["session_revoked", "session_revoked"] == revoked


def test_the_end_of_a_session_holds_at_the_next_call(workers: Pair) -> None:
    """A session that one worker ends is over for the other, although that one remembers its answers."""
    here, there = workers
    opened = open_session(here)
    before = [basis(there, opened), basis(there, opened)]

    here.pep.end_session(opened.session_handle)

    assert ["permit", "permit"] == before
    assert "session_ended" == basis(there, opened)


@pytest.mark.parametrize("selector", [{"user": "alice"}, {"agent": "coder"}], ids=["user", "agent"])
def test_revoking_many_reaches_the_other_worker(workers: Pair, selector: dict[str, Any]) -> None:
    """A revocation by user or agent ends all sessions that it names for the other worker too, and no other one."""
    here, there = workers
    opened = [open_session(callers) for callers in (here, there, here)]
    other = open_session(here, user="bob", agent="reviewer")

    revoked = here.admin.revoke_sessions(reason="something is wrong", **selector)

    assert {one.session.session_id for one in opened} <= set(revoked)
    assert ["session_revoked"] * 3 == [basis(there, one) for one in opened]
    assert "permit" == basis(there, other)


@pytest.mark.parametrize("number", range(3))
def test_a_freeze_is_overtaken_by_no_worker(workers: Pair, folder: Path, number: int) -> None:
    """When one worker acknowledges it, what the other has opened or approved by then is all that there will be."""
    here, there = workers if number % 2 else workers[::-1]
    active, waiting, start = open_session(there), [request(there) for _ in range(6)], threading.Barrier(3)

    def approve_all() -> list[bool]:
        start.wait()
        return [_done(partial(approve, there, one)) for one in waiting]

    def request_many() -> list[str]:
        start.wait()
        return [basis(there, active) for _ in range(20)]

    with ThreadPoolExecutor(2) as threads:
        approving, calling = threads.submit(approve_all), threads.submit(request_many)
        start.wait()
        freeze = here.admin.set_freeze(tenant="default", reason="acts strangely")
        after = [basis(one, active) for one in (there, here)]
        states = [here.pep.get_session(one.session.session_id).state for one in waiting]
        approved, calls = approving.result(), calling.result()
    with closing(SQLiteSessionStore(folder / "data" / "sessions.sqlite", busy_seconds=PATIENCE)) as store:
        store.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)

    assert ["frozen", "frozen"] == after
    assert [state == session_pb2.SESSION_STATE_ACTIVE for state in states] == approved
    assert calls == sorted(calls, key=["permit", "frozen"].index)
    assert ["permit", "permit"] == [basis(one, active) for one in (there, here)]


def _done(work: Callable[[], None]) -> bool:
    """Say whether work was done, and not refused because of a freeze."""
    try:
        work()
    except FrozenError:
        return False
    return True


def test_narrowing_holds_at_the_next_call(workers: Pair) -> None:
    """A tool that one worker takes out of a session is out of scope for the other."""
    here, there = workers
    opened = open_session(here)
    before = basis(there, opened, WRITE)

    here.approver.narrow_session(opened.session.session_id, tools=(f"notes/{READ}",))

    assert "permit" == before
    assert ["out_of_scope", "permit"] == [basis(there, opened, WRITE), basis(there, opened, READ)]


def test_a_bundle_change_reaches_the_other_worker(
    servers: tuple[ServerProcess, ServerProcess], workers: Pair, reload: Reload
) -> None:
    """After the change was acknowledged the other worker is unavailable until it has loaded it, and never behind."""
    opened, pauses = open_session(workers[0]), Pauses()

    with Callers.of(servers[1], sleep=pauses) as there:
        before = seen_by(there, opened).authorize("notes", WRITE, NOTE)
        for number in range(ROUNDS):
            new = reload(f"reaches-the-other-{number}")
            answers = answers_until_there_is_a_decision(seen_by(there, opened))
            # Now and then it has loaded the bundle before the call comes.
            if pauses.taken:
                break

    assert before.allowed
    # The first try found the worker behind: it was refused with the advice to try again.
    assert pauses.taken
    assert all(answer.error.startswith("unavailable: ") for answer in answers[:-1])
    assert before.bundle_version != new == answers[-1].bundle_version
    assert ("forbid", (f"guardrails/reaches-the-other-{number}",)) == (answers[-1].basis, answers[-1].policies)


def test_no_call_after_a_bundle_change_sees_the_old_one(workers: Pair, reload: Reload) -> None:
    """Under load on both workers, no call that begins after the acknowledgement is answered by the bundle before."""
    opened = open_session(workers[0])
    acknowledged, enough = threading.Event(), threading.Event()
    begun = threading.Barrier(5)
    late: list[Answer] = []

    def ask(callers: Callers) -> Answer:
        session, is_late = seen_by(callers, opened), False
        first = session.authorize("notes", WRITE, NOTE)
        begun.wait(PATIENCE)
        while not (enough.is_set() and is_late):
            is_late = acknowledged.is_set()
            answer = session.authorize("notes", WRITE, NOTE)
            if is_late:
                late.append(answer)
        return first

    with ThreadPoolExecutor(max_workers=4) as threads:
        asking = [threads.submit(ask, callers) for callers in (*workers, *workers)]
        try:
            begun.wait(PATIENCE)
            new = reload("never-behind")
            acknowledged.set()
            for callers in workers:
                answers_until_there_is_a_decision(seen_by(callers, opened))
        finally:
            acknowledged.set()
            enough.set()
        early = [one.result(PATIENCE) for one in asking]

    assert all(early)
    assert not any(late)
    assert {new} == {answer.bundle_version for answer in late if not answer.error}


def test_a_rollback_reaches_the_other_worker(workers: Pair, reload: Reload) -> None:
    """What one worker activates by version holds for the other at its next decision, with who did it and why."""
    opened, before = open_session(workers[0]), workers[0].admin.get_bundle().bundle.version
    new = reload("goes-back")
    forbidden = answers_until_there_is_a_decision(seen_by(workers[1], opened))[-1]

    workers[0].admin.activate_bundle(before, reason="it denies too much")
    allowed = answers_until_there_is_a_decision(seen_by(workers[1], opened))[-1]
    shown = workers[1].admin.list_bundles()[0]
    workers[1].admin.activate_bundle(new)

    assert [(new, "forbid"), (before, "permit")] == [(one.bundle_version, one.basis) for one in (forbidden, allowed)]
    assert (before, "admin", "it denies too much") == (shown.version, shown.activated_by, shown.reason)


def test_a_worker_that_is_behind_opens_no_session(servers: tuple[ServerProcess, ServerProcess], reload: Reload) -> None:
    """A worker that has not loaded the active bundle takes no request: its directory may be out of date."""
    pauses = Pauses()

    with Callers.of(servers[1], sleep=pauses) as there:

        def refused(number: int) -> bool:
            reload(f"opens-no-session-{number}")
            with suppress(UnavailableError):
                request(there)
            return bool(pauses.taken)

        # Now and then it has loaded the bundle before the request comes.
        assert any(map(refused, range(ROUNDS)))


def answers_until_there_is_a_decision(session: ClientSession) -> list[Answer]:
    """Ask until a worker has caught up; the last answer is a decision, those before are errors."""
    deadline = time.monotonic() + PATIENCE
    answers = [session.authorize("notes", WRITE, NOTE)]
    while answers[-1].error and time.monotonic() < deadline:
        answers.append(session.authorize("notes", WRITE, NOTE))
    return answers
