"""`kill -9` under load: what was acknowledged is there after a restart, and the restart needs nothing but the command.

`KILL_SEED` repeats the choices of a run; the threads of the machine still interleave as they like.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from pdp.client import Client, NotFoundError
from pdp.model import Role
from pdp.record import read_records
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.testing.inprocess import write_folder
from pdp.v1.session_pb2 import SessionState
from tests.machinery.servers.ledger import EVENTS, NOTE, Entry, Ledger, Worker
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess

THREADS = 4
# The kill comes after so many acknowledgements at most, counted over all threads.
MOST_ACKNOWLEDGED = 200


class Progress:
    """Counts acknowledgements over all threads, and lets the test wait for a number of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def __call__(self) -> None:
        """Count one acknowledgement."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        """Wait until there are so many; False when the server got stuck."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count >= count, PATIENCE)


@pytest.mark.parametrize(
    ("durability", "kills"),
    [
        ("written", 6),
        ("durable", 2),
        # A thousand in all.
        pytest.param("written", 800, marks=pytest.mark.long),
        pytest.param("durable", 200, marks=pytest.mark.long),
    ],
)
def test_what_was_acknowledged_survives_kills(tmp_path: Path, durability: str, kills: int) -> None:
    """Approvals, revocations, ends and records are all there after each of many kills at random moments."""
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # noqa: T201 - to repeat it
    choices = random.Random(seed)  # noqa: S311 - no secret
    write_folder(tmp_path / "policies", notes_bundle())
    everything: list[Ledger] = []
    wrong: list[str] = []

    for _ in range(kills):
        with ServerProcess(tmp_path, record_durability=durability) as server:
            wrong += disagreements(server, everything[-THREADS:])
            everything += killed_under_load(server, choices)
    with ServerProcess(tmp_path, record_durability=durability) as server:
        wrong += disagreements(server, everything)
        wrong += [*lost_records(server, everything), *damage(server)]
        assert server.terminate() == 0

    wrong += [line for ledger in everything for line in ledger.wrong]
    print(summary(kills, everything))  # noqa: T201 - the figures of the proof
    assert wrong == []
    assert THREADS * kills == len(everything)
    assert {"requested", "active", "revoked", "ended"} == {
        state for ledger in everything for entry in ledger.entries for state in entry.acknowledged
    }


def killed_under_load(server: ServerProcess, choices: random.Random) -> list[Ledger]:
    """Have threads work until the server is killed at a random moment; return what was acknowledged to each."""
    progress, stopping = Progress(), threading.Event()
    moment = choices.randrange(1, MOST_ACKNOWLEDGED)
    # On a busy machine an answer may take long: a call that gives up looks like a server that was lost.
    with Callers.of(server, timeout=PATIENCE / 2) as callers:
        workers = [
            Worker(callers, progressed=progress, client_random=random.Random(choices.randrange(2**32)))  # noqa: S311 - no secret
            for _ in range(THREADS)
        ]
        with ThreadPoolExecutor(max_workers=THREADS) as threads:
            working = [threads.submit(worker.run, stopping) for worker in workers]
            reached = progress.wait_for(moment)
            stopping.set()
            server.kill()
            for one in working:
                one.result(PATIENCE)
    assert reached
    return [worker.ledger for worker in workers]


def disagreements(server: ServerProcess, ledgers: Iterable[Ledger]) -> list[str]:
    """Return each session that is not as it was acknowledged, or whose calls are not answered by its state."""
    entries = [entry for ledger in ledgers for entry in ledger.entries]
    with server.client(Role.PEP) as pep:
        return [f"{entry.id}: {problem}" for entry in entries for problem in problems(pep, entry)]


def problems(pep: Client, entry: Entry) -> Iterable[str]:
    """Yield what is wrong with a session."""
    try:
        state = SessionState.Name(pep.get_session(entry.id).state).removeprefix("SESSION_STATE_").lower()
    except NotFoundError:
        state = "lost"
    if state not in entry.possible:
        yield f"is `{state}` instead of one of {sorted(entry.possible)}"
    answer = pep.authorize(entry.handle, "notes", READ, NOTE, session_id=entry.id)
    if answer.error:
        yield answer.error
    if answer.allowed != (state == "active"):
        yield f"is `{state}`, and a call is answered by `{answer.basis}`"


def lost_records(server: ServerProcess, ledgers: Iterable[Ledger]) -> list[str]:
    """Return each answered decision that the record does not hold exactly once, and each change that it lacks."""
    records = [record for _, _, record in read_records(server.record_folder)]
    decided = Counter((one["id"], one["outcome"]) for one in records if one["kind"] == "decision")
    happened = {(record["kind"], record["session_id"]) for record in records if record["kind"].startswith("session.")}
    lost = []
    for ledger in ledgers:
        answered = [(name, "allow" if allowed else "deny") for name, allowed in ledger.decisions.items()]
        lost += [f"{name}: recorded {decided[name]} times" for name in answered if decided[name] != 1]
        changes = [(EVENTS[state], entry.id) for entry in ledger.entries for state in entry.acknowledged]
        lost += [f"{change}: not recorded" for change in changes if change not in happened]
    return lost


def damage(server: ServerProcess) -> list[str]:
    """Return what SQLite finds wrong with the store, each finding in the record, and each error of a server."""
    with apsw.Connection(str(server.store), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    keys = PublicKeys.load([server.record_folder.parent / PUBLIC_KEY_FILE])
    found += [str(finding) for finding in verify(server.record_folder, keys).findings]
    return found + [line for line in server.log.read_text().splitlines() if " ERROR " in line]


def summary(kills: int, ledgers: list[Ledger]) -> str:
    """Say how much was acknowledged, and how much was in doubt."""
    entries = [entry for ledger in ledgers for entry in ledger.entries]
    acknowledged = Counter(state for entry in entries for state in entry.acknowledged)
    doubtful = sum(len(entry.possible) > 1 for entry in entries)
    decisions = sum(len(ledger.decisions) for ledger in ledgers)
    return f"{kills} kills, {decisions} decisions, {dict(acknowledged)} acknowledged, {doubtful} changes in doubt"
