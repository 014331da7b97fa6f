"""Three replicas under faults allow nothing that was acknowledged as revoked, and keep all that was acknowledged.

`CAMPAIGN_SEED` repeats the choices of a run; processes and networks still take the time that they take. The histories
and their figures are written to `CAMPAIGN_FOLDER`, or else with the temporary files of the tests.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pdp.audit.notedcheck import compared
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.sessions.notedheads import NotedHeads
from pdp.sessions.postgresheads import noted_in
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.campaign.campaign import TERMS, campaign
from tests.sessions.postgres.campaign.replicas import Replica, Setting, conninfo_of, started
from tests.sessions.postgres.postgrescluster import replicated
from tests.sessions.replicachecker import violations
from tests.sessions.replicafigures import figures
from tests.sessions.replicahistory import HistoryFile

pytestmark = pytest.mark.replicas

DATABASE = "campaign"
NEWEST = 18
VERSION = int(os.environ.get("POSTGRES_VERSION", NEWEST))


@pytest.fixture
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """Give three replicas on a database that fails over as the test says."""
    replication = request.param
    with replicated(VERSION, synchronous=replication == "quorum", alone=replication == "none") as cluster:
        replicas = started(tmp_path, cluster.servers, DATABASE, 3, replication=replication)
        yield Setting(replicas=replicas, cluster=cluster, database=DATABASE, replication=replication)
        for replica in replicas:
            replica.close()


def long(replication: str, rounds: int) -> Any:
    """Return the parameters of a long run, with ten minutes in a round."""
    newest = pytest.mark.skipif(VERSION != NEWEST, reason="on the newest version only")
    marks = [pytest.mark.long, pytest.mark.timeout(0), newest]
    return pytest.param(replication, rounds, 600.0, id=replication, marks=marks)


@pytest.mark.parametrize(
    ("setting", "rounds", "seconds"),
    [pytest.param("quorum", 1, 60.0, id="ci"), long("quorum", 6), long("async", 1), long("none", 1)],
    indirect=["setting"],
)
def test_what_was_acknowledged_holds_at_all_replicas(
    setting: Setting, tmp_path: Path, rounds: int, seconds: float
) -> None:
    """Whatever stops, dies, is cut off or is late; each answer is recorded, and in the end all replicas agree.

    Where a standby takes over that lacks what was acknowledged, nothing goes on from before, and the record says so.
    """
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CAMPAIGN_SEED={seed}")  # noqa: T201 - to repeat it
    folder = Path(os.environ.get("CAMPAIGN_FOLDER") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(HistoryFile(folder / f"history-{setting.replication}-{seed}.jsonl")) as history:
        expected = campaign(setting, random.Random(seed), history, rounds=rounds, seconds=seconds)  # noqa: S311 - no secret
    found = figures(history)
    (folder / f"figures-{setting.replication}-{seed}.md").write_text(f"{found}\n", encoding="utf-8")
    print(found, flush=True)  # noqa: T201 - the figures of the proof

    assert [] == [str(one) for one in islice(violations(history, TERMS), 20)]
    # What a caller has heard of may be lost with a server: then it is told so.
    loses = setting.replication == "async"
    assert [] == [one for one in history if ":" in one.name and not (loses and one.least >= 0)]
    # What the invariants are about was there.
    assert expected <= found.faults.keys()
    assert found.late > 0
    assert found.acknowledged.keys() >= {"request", "approve", "revoke", "end", "narrow", "label", "activate"}
    names, conninfo = {one.name for one in setting.replicas}, conninfo_of([setting.cluster.primary.port], DATABASE)
    wait_until(lambda: {head.replica for head in noted_in(conninfo).heads} == names)
    assert [0, 0, 0] == [replica.process.terminate() for replica in setting.replicas]
    heads = noted_in(conninfo)
    assert [] == [finding for replica in setting.replicas for finding in damage(replica, heads)]


def damage(replica: Replica, heads: NotedHeads) -> list[str]:
    """Return what is wrong with the record of a replica, or lacks what it has noted in the database."""
    folder = replica.process.record_folder
    keys = PublicKeys.load([folder.parent / PUBLIC_KEY_FILE])
    # A process that was killed at once has noted nothing.
    noted = compared(folder, lambda: heads, keys, replicas=frozenset({replica.name}))
    return [str(one) for one in verify(folder, keys, known=noted.known).findings]
