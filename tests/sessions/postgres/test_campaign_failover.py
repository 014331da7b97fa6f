"""A standby is promoted between a commit and its answer, and the old primary lives on: what was revoked stays so.

The clients of two replicas and the checker are those of the campaign.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from pdp.testing.waiting import wait_until
from tests.machinery.servers.notes import READ
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.campaign import TERMS
from tests.sessions.postgres.campaign.questions import Known, Question
from tests.sessions.postgres.campaign.replicas import Replica, started
from tests.sessions.postgres.postgrescluster import Cluster, replicated
from tests.sessions.replicachecker import violations
from tests.sessions.replicahistory import Kind, Operation, Result

pytestmark = pytest.mark.replicas

DATABASE = "failover"
VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))
# A change of sessions that waits for a standby.
WAITING = """
SELECT 1 FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE wait_event = 'SyncRep' AND relation = 'pdp_sessions.sessions'::regclass AND mode = 'RowExclusiveLock'
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Give a primary whose commits wait for one of two standbys."""
    with replicated(VERSION, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
def replicas(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas on it."""
    servers = [cluster.primary, *cluster.standbys]
    here, there = started(tmp_path, servers, DATABASE, 2, replication="quorum")
    yield here, there
    for replica in (here, there):
        replica.close()


def test_a_promotion_between_commit_and_answer_allows_nothing_from_before(
    cluster: Cluster, replicas: tuple[Replica, Replica]
) -> None:
    """One replica reaches the old primary alone, the other one what was promoted; a lost answer is asked for again."""
    (here, there), old = replicas, cluster.primary
    history: list[Operation] = []
    stopping = Event()
    with closing(Calls(0, history.append)) as calls, ThreadPoolExecutor() as threads:
        session = opened(calls, here, there)
        asking = threads.submit(ask, there, session, history, stopping)
        cluster.cut_off()
        revoking = threads.submit(calls.revoke, here, session, request_id="revoke")
        with old.connect(dbname=DATABASE) as connection:
            wait_until(lambda: connection.execute(WAITING).fetchone() is not None)
        here.proxies[0].close()
        for proxy in there.proxies[1:]:
            proxy.close()
        cluster.promote()
        lost = revoking.result()
        while calls.revoke(here, session, request_id="revoke").result is not Result.OK:
            pass
        acknowledged = len(history)
        wait_until(lambda: sum(one.kind is Kind.AUTHORIZE for one in history[acknowledged:]) > 10, seconds=60)
        stopping.set()
        asking.result()

    assert Result.UNKNOWN == lost.result
    assert [] == [str(one) for one in violations(history, TERMS)]


def opened(calls: Calls, here: Replica, there: Replica) -> Known:
    """Open a session here that the other replica allows calls in, and remembers."""
    while True:
        session = calls.request(here, seconds=3600.0)
        if session is None or calls.approve(here, session).result is not Result.OK:
            continue
        if all(calls.ask(there, Question(session=session, tool=READ)).allowed for _ in range(2)):
            return session


def ask(at: Replica, session: Known, history: list[Operation], stopping: Event) -> None:
    """Ask until `stopping`."""
    with closing(Calls(1, history.append)) as calls:
        while not stopping.is_set():
            calls.ask(at, Question(session=session, tool=READ), patience=0.2)
