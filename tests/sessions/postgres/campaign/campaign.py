"""A campaign: clients work at three replicas while things break, and what they saw is written down and checked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import Final

from pdp.observer import EventKind
from pdp.record import read_records
from pdp.sessions.postgresfailover import SETTLING_SECONDS
from pdp.testing.waiting import wait_until
from tests.machinery.servers.server_process import PATIENCE
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.clients import Client, Population
from tests.sessions.postgres.campaign.ears import Ears
from tests.sessions.postgres.campaign.faults import Faults
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica, Setting
from tests.sessions.postgres.campaign.scripts import Scripts
from tests.sessions.replicachecker import Terms
from tests.sessions.replicahistory import HistoryFile, Kind, Operation

CLIENTS_OF_EACH: Final = 2
TERMS: Final = Terms(lease=LEASE_SECONDS, clock=0.5, fence=2.0, settling=SETTLING_SECONDS + 10.0)
_TOLD: Final = frozenset({EventKind.SESSION_APPROVED, EventKind.SESSION_ENDED, EventKind.SESSION_REVOKED})
_UNRECORDED: Final = "SELECT count(*) FROM pdp_sessions.unrecorded"
# How long clients go on when all answer again.
_AFTERWARDS_SECONDS: Final = 1.0


def campaign(
    setting: Setting,
    choices: random.Random,
    history: HistoryFile,
    *,
    rounds: int,
    seconds: float,
    first: Callable[[int, Faults], None] = lambda *_: None,
) -> frozenset[str]:
    """Play all scripts, then have clients work while things break for some seconds, in each round.

    What was seen goes to the history. Return the names of all faults and scripts that must be in it. `first` is called
    in each round with its number, from 1, before anything breaks while clients work.
    """
    names: set[str] = set()
    for number in range(1, rounds + 1):
        names |= _round(setting, choices, history, seconds=seconds, number=number, first=first)
    _read_all(setting.replicas, history)
    with setting.cluster.primary.connect(dbname=setting.database) as connection:
        # Each change goes from there once the record has on its disk what it came to.
        wait_until(lambda: connection.execute(_UNRECORDED).fetchone() == (0,), seconds=PATIENCE)
    for one in _recorded(setting.replicas):
        history.note(one)
    return frozenset(names)


def _round(
    setting: Setting,
    choices: random.Random,
    history: HistoryFile,
    *,
    seconds: float,
    number: int,
    first: Callable[[int, Faults], None],
) -> frozenset[str]:
    stopping = Event()
    population = Population()
    clients = [
        Client(number, replica, population, history.note, stopping, random.Random(choices.getrandbits(64)))  # noqa: S311 - no secret
        for number, replica in enumerate([*setting.replicas] * CLIENTS_OF_EACH)
    ]
    faults = Faults(setting, history.note, choices)
    ears = Ears(setting.replicas, population, stopping)
    scripts = Scripts(setting, faults, lambda: Calls(len(clients), history.note), choices, number=number)
    with closing(scripts):
        for name, play in scripts.all().items():
            play(name)
        with _working([ears.run, *(one.run for one in clients)], stopping):
            first(number, faults)
            faults.run(stopping, seconds)
            history.note(_calm(setting, scripts))
            stopping.wait(_AFTERWARDS_SECONDS)
    return frozenset({*scripts.all(), *faults.all()})


@contextmanager
def _working(workers: Sequence[Callable[[], None]], stopping: Event) -> Iterator[None]:
    """Have threads work in the `with` block, until `stopping`; raise what one of them has raised."""
    with ThreadPoolExecutor(max_workers=len(workers)) as threads:
        working = [threads.submit(work) for work in workers]
        try:
            yield
        finally:
            stopping.set()
        for one in working:
            one.result()


def _calm(setting: Setting, scripts: Scripts) -> Operation:
    """Wait until all replicas answer again, and return how long that took."""
    began = time.monotonic()
    for replica in setting.replicas:
        scripts.wait_for(replica)
    return Operation(kind=Kind.CALM, invoked=began, returned=time.monotonic())


def _read_all(replicas: Sequence[Replica], history: HistoryFile) -> None:
    """Read each session at each replica."""
    names = [one.session for one in history if one.kind is Kind.REQUEST and one.session]

    def read(at: Replica) -> None:
        with closing(Calls(-1, history.note)) as calls:
            for name in names:
                calls.read(at, name)

    with ThreadPoolExecutor(max_workers=len(replicas)) as threads:
        for _ in threads.map(read, replicas):
            pass


def _recorded(replicas: Sequence[Replica]) -> Iterator[Operation]:
    """Yield what replicas have recorded: decisions, what became of sessions, and a database that has gone back."""
    for replica in replicas:
        for _, _, record in read_records(replica.process.record_folder):
            if record["kind"] == "decision":
                yield Operation(kind=Kind.RECORDED, decision=record["id"])
            elif record["kind"] in _TOLD:
                name = record["kind"].removeprefix("session.")
                yield Operation(kind=Kind.TOLD, replica=replica.number, session=record["session_id"], name=name)
            elif record["kind"] == EventKind.STORE_WENT_BACK:
                yield Operation(kind=Kind.WENT_BACK, replica=replica.number, name=record["facts"]["timeline"])
