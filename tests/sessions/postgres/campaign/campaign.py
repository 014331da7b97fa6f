"""A campaign: clients work at three replicas while things break, and what they saw is written down and checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Final

from pdp.record import read_records
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.clients import Client, Population
from tests.sessions.postgres.campaign.ears import Ears
from tests.sessions.postgres.campaign.faults import Faults
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica
from tests.sessions.postgres.campaign.scripts import Scripts
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.replicachecker import Terms
from tests.sessions.replicahistory import Kind, Operation

CLIENTS_OF_EACH: Final = 2
TERMS: Final = Terms(lease=LEASE_SECONDS, clock=0.5, fence=2.0, settling=10.0)
# How long clients go on when all answer again.
_AFTERWARDS_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where campaigns take place."""

    replicas: Sequence[Replica]
    server: PostgresServer
    database: str


def campaign(setting: Setting, choices: random.Random, *, seconds: float, number: int) -> list[Operation]:
    """Play all scripts, then have clients work while things break at random for some seconds; return what was seen.

    Each campaign of a setting has a `number` of its own, from 1.
    """
    history: list[Operation] = []
    stopping = Event()
    population = Population()
    clients = [
        Client(number, replica, population, history.append, stopping, random.Random(choices.getrandbits(64)))  # noqa: S311 - no secret
        for number, replica in enumerate([*setting.replicas] * CLIENTS_OF_EACH)
    ]
    faults = Faults(setting.replicas, setting.server, setting.database, history.append, choices)
    ears = Ears(setting.replicas, population, stopping)
    shuffled = choices.sample(setting.replicas, len(setting.replicas))
    scripts = Scripts(shuffled, faults, lambda: Calls(len(clients), history.append), number=number)
    with closing(scripts):
        for play in scripts.all():
            play()
        with _working([ears.run, *(one.run for one in clients)], stopping):
            faults.run(stopping, seconds)
            history.append(_calm(setting, scripts))
            stopping.wait(_AFTERWARDS_SECONDS)
    _read_all(setting, history)
    history += _recorded(setting.replicas, history)
    return history


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


def _read_all(setting: Setting, history: list[Operation]) -> None:
    """Read each session at each replica."""
    calls = Calls(-1, history.append)
    names = [one.session for one in history if one.kind is Kind.REQUEST and one.session]
    for replica in setting.replicas:
        for name in names:
            calls.read(replica, name)
    calls.close()


def _recorded(replicas: Sequence[Replica], history: Sequence[Operation]) -> Iterator[Operation]:
    """Yield how often each decision of a history is recorded."""
    asked = {one.decision for one in history if one.decision}
    counts: Counter[str] = Counter()
    for replica in replicas:
        for _, _, record in read_records(replica.process.record_folder):
            if record["kind"] == "decision" and record["id"] in asked:
                counts[record["id"]] += 1
    return (Operation(kind=Kind.RECORDED, decision=decision, count=count) for decision, count in counts.items())
