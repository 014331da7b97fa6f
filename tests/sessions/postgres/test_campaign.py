"""Three replicas under faults allow nothing that was acknowledged as revoked, and keep all that was acknowledged.

`CAMPAIGN_SEED` repeats the choices of a run; processes and networks still take the time that they take. The histories
and their figures are written to `CAMPAIGN_FOLDER`, or else with the temporary files of the tests.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.audit.notedcheck import compared
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.sessions.notedheads import NotedHeads
from pdp.sessions.postgresheads import noted_in
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.campaign.campaign import TERMS, Setting, campaign
from tests.sessions.postgres.campaign.replicas import Replica, conninfo_of, started
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.replicachecker import violations
from tests.sessions.replicafigures import figures
from tests.sessions.replicahistory import Kind, Operation, write_history

pytestmark = pytest.mark.replicas

DATABASE = "campaign"


@pytest.fixture(scope="module")
def setting(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Give three replicas on a database of their own."""
    replicas = started(tmp_path_factory.mktemp("campaign"), [server], DATABASE, 3)
    yield Setting(replicas=replicas, server=server, database=DATABASE)
    for replica in replicas:
        replica.close()


@pytest.mark.parametrize(
    ("rounds", "seconds"),
    [
        pytest.param(1, 15.0, id="ci"),
        pytest.param(6, 300.0, id="long", marks=[pytest.mark.long, pytest.mark.timeout(0)]),
    ],
)
def test_what_was_acknowledged_holds_at_all_replicas(
    setting: Setting, tmp_path: Path, rounds: int, seconds: float
) -> None:
    """Whatever stops, dies, is cut off or is late; each answer is recorded, and in the end all replicas agree."""
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CAMPAIGN_SEED={seed}")  # noqa: T201 - to repeat it
    choices = random.Random(seed)  # noqa: S311 - no secret
    folder = Path(os.environ.get("CAMPAIGN_FOLDER") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    everything: list[Operation] = []
    for number in range(1, rounds + 1):
        history = campaign(setting, choices, seconds=seconds, number=number)
        write_history(folder / f"history-{seed}-{number}.jsonl", history)
        everything += history
        found = violations(history, TERMS)
        print(figures(everything), flush=True)  # noqa: T201 - the figures of the proof

        assert [] == [str(one) for one in found[:20]]
        assert [] == [one for one in history if ":" in one.name]
    (folder / f"figures-{seed}.md").write_text(f"{figures(everything)}\n", encoding="utf-8")

    # What the invariants are about was there.
    assert {Kind.REVOKE, Kind.ACTIVATE, Kind.READ, Kind.RECORDED, Kind.CALM} <= {one.kind for one in everything}
    names, conninfo = {replica.name for replica in setting.replicas}, conninfo_of([setting.server.port], DATABASE)
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
