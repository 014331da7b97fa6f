"""Three servers of a release before are upgraded one after the other, while clients work at all of them.

The older program is a wheel of its own, which `make replicas-long` builds of its commit in the history.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import pytest

from pdp.sessions.postgressteps import BASE_VERSION, POSTGRES_SCHEMA_VERSION
from pdp.testing.waiting import wait_until
from tests.machinery.servers.notes import READ
from tests.machinery.servers.server_process import THIS_PROGRAM
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.campaign import TERMS, campaign
from tests.sessions.postgres.campaign.faults import Faults
from tests.sessions.postgres.campaign.questions import Known, Question
from tests.sessions.postgres.campaign.replicas import Replica, Setting, started
from tests.sessions.postgres.onpostgres import older
from tests.sessions.postgres.postgrescluster import replicated
from tests.sessions.replicachecker import violations
from tests.sessions.replicafigures import figures
from tests.sessions.replicahistory import HistoryFile, Operation, Result

pytestmark = [pytest.mark.replicas, pytest.mark.long, pytest.mark.timeout(0)]

VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))
DATABASE = "upgrade"
# What programs must know, what is prepared, and what has begun.
NUMBERS = "SELECT schema_version, there, begun FROM pdp_sessions.meta, pdp_sessions.steps"
MIXED = (BASE_VERSION, POSTGRES_SCHEMA_VERSION, BASE_VERSION)
AFTER = (POSTGRES_SCHEMA_VERSION,) * 3
REFUSAL = f"has schema `{POSTGRES_SCHEMA_VERSION}`, but this program knows only `{BASE_VERSION}`: upgrade the program"
# It begins a minute after the last earlier server was there.
PATIENCE = 180.0
SECONDS = 20.0
# Enough to see all that a server does in a third of its lease.
LEAST_ANSWERS = 100


@pytest.fixture
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """Give three earlier servers, on a database of their own: alone, or one that fails over as the test says."""
    replication = getattr(request, "param", "none")
    with replicated(VERSION, synchronous=replication == "quorum", alone=replication == "none") as cluster:
        replicas = started(tmp_path, cluster.servers, DATABASE, 3, replication=replication, program=older())
        yield Setting(replicas=replicas, cluster=cluster, database=DATABASE, replication=replication)
        for replica in replicas:
            replica.close()


def numbers(setting: Setting) -> tuple[object, ...]:
    """Return how far the database is."""
    with setting.cluster.primary.connect(dbname=DATABASE) as connection:
        return connection.execute(NUMBERS).fetchone() or ()


def require_begun(setting: Setting) -> None:
    """Wait until what is new has begun; then an earlier server is refused."""
    wait_until(lambda: numbers(setting) == AFTER, seconds=PATIENCE)
    last = setting.replicas[-1]
    last.kill()
    last.program = older()
    assert REFUSAL in last.refused()


def test_an_upgrade_of_one_server_after_the_other_refuses_no_call(setting: Setting) -> None:
    """All that are not being replaced answer at once, also while what is new begins."""
    found = []
    for replica in setting.replicas:
        with asking([one for one in setting.replicas if one is not replica]):
            replica.replace(THIS_PROGRAM)
            found.append(numbers(setting))
    with asking(setting.replicas):
        wait_until(lambda: numbers(setting) == AFTER, seconds=PATIENCE)

    assert [MIXED] * 3 == found
    require_begun(setting)


@contextmanager
def asking(replicas: Sequence[Replica]) -> Iterator[None]:
    """Have clients ask some servers about calls of a session in the `with` block: each is answered, and allowed.

    When it is revoked at one of them afterwards, none allows any more.
    """
    history: list[Operation] = []
    stopping = Event()
    with closing(Calls(0, history.append)) as calls, ThreadPoolExecutor() as threads:
        session = calls.request(replicas[0], seconds=3600.0)
        assert session is not None
        assert calls.approve(replicas[0], session).result is Result.OK
        asked = [threads.submit(ask, replica, session, stopping) for replica in replicas]
        try:
            yield
        finally:
            stopping.set()
        refused = [[one for one in answers.result() if not one.allowed] for answers in asked]
        assert calls.revoke(replicas[0], session).result is Result.OK
        late = [calls.ask(replica, Question(session=session, tool=READ)) for replica in replicas]

    assert [[]] * len(replicas) == refused
    assert ["session_revoked"] * len(replicas) == [one.basis for one in late]


def ask(replica: Replica, session: Known, stopping: Event) -> list[Operation]:
    """Ask a server about calls, each once, until it is enough."""
    history: list[Operation] = []
    with closing(Calls(0, history.append)) as calls:
        while len(history) < LEAST_ANSWERS or not stopping.is_set():
            calls.ask(replica, Question(session=session, tool=READ))
            stopping.wait(0.005)
    return history


@pytest.mark.parametrize("setting", ["none", "quorum"], indirect=True)
def test_under_faults_an_upgrade_allows_nothing_that_was_revoked(setting: Setting, tmp_path: Path) -> None:
    """Two servers are replaced while clients work, before things break; so is the last one, after a round beside it.

    Where a standby can take over, one does so between the first two as well.
    """
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CAMPAIGN_SEED={seed}")  # noqa: T201 - to repeat it
    folder = Path(os.environ.get("CAMPAIGN_FOLDER") or tmp_path)
    replaced: Mapping[int, Sequence[Replica]] = {1: setting.replicas[:2], 2: setting.replicas[2:]}
    found = []

    def upgrade(number: int, faults: Faults) -> None:
        if number > 1:
            found.append(numbers(setting))
        for replica in replaced.get(number, ()):
            faults.replace(replica, THIS_PROGRAM)
            if replica is setting.replicas[0] and setting.replication == "quorum":
                faults.all()["failover"]("failover", replica)

    with closing(HistoryFile(folder / f"history-upgrade-{setting.replication}-{seed}.jsonl")) as history:
        choices = random.Random(seed)  # noqa: S311 - no secret
        expected = campaign(setting, choices, history, rounds=2, seconds=SECONDS, first=upgrade)
    # The earlier program records nothing of a change after whose commit it was killed.
    seen, terms = figures(history), replace(TERMS, tell=False)
    (folder / f"figures-upgrade-{setting.replication}-{seed}.md").write_text(f"{seen}\n", encoding="utf-8")
    print(seen, flush=True)  # noqa: T201 - the figures of the proof

    assert [] == [str(one) for one in islice(violations(history, terms), 20)]
    # Calls that come in the moment in which a server is ended in order.
    assert {"CANCELLED: CANCELLED"} >= {one.name for one in history if ":" in one.name}
    assert expected | {"replace"} <= seen.faults.keys()
    assert [MIXED] == found
    require_begun(setting)
