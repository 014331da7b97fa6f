"""Servers on one database load a bundle before it is active, and follow their sources one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pdp.bundles.delivery import Delivery
from pdp.bundles.keeper import BundleKeeper
from pdp.errors import BundleUnavailableError, EvaluatorUnavailableError
from pdp.sessions.postgresreplicas import PostgresReplicas
from pdp.testing.bundles import compile_here
from pdp.testing.clock import FakeClock
from pdp.testing.waiting import wait_until
from tests.machinery.keeping import Events, Folder, contents, keeper, version
from tests.sessions.postgres.conftest import leased_store
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

# How often servers say that they are there, and look for what is asked.
EVERY = 0.02


class Source(Folder):
    """A policy folder; `meanwhile` is called when it was read and nothing has come of that yet."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def read(self) -> Delivery:
        """Read it."""
        delivery = super().read()
        self.meanwhile()
        return delivery


class Compiler:
    """Compiles in this process while it can."""

    able = True

    def __call__(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Compile a bundle."""
        if not self.able:
            raise EvaluatorUnavailableError("the policies crashed the engine")
        return compile_here(job)


class Time:
    """A clock of one server that passes by a step with each reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.at, self._step = 0.0, step
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        """Return the time."""
        self.at += self._step
        self.meanwhile()
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A server with a store that has a lease, a source of bundles, and the means to hear of others."""

    source: Source
    replicas: PostgresReplicas
    keeper: BundleKeeper
    compiler: Compiler
    events: Events = field(default_factory=Events)

    def brings(self, policy: str) -> None:
        """Have its source hold another bundle."""
        self.source.files = contents(policy)

    @property
    def lacking(self) -> str:
        """Return how many servers lacked what it has activated last, as the record says it."""
        return self.events.events[-1].facts.get("servers_lacking", "")


Start = Callable[..., Machine]
# Those that live answer, however busy the machine is.
PATIENT_WITH_OTHERS = {"silent_seconds": 60.0, "patience": 60.0}


@pytest.fixture
def start(conninfo: str, tmp_path: Path) -> Iterator[Start]:
    """Give what starts a server of a name, with options of `PostgresReplicas`; it `hears` of others by itself."""
    with ExitStack() as opened:

        def start(name: str, *, hears: bool = True, **options: Any) -> Machine:
            replicas = PostgresReplicas(conninfo, name=name, every=EVERY, **options)
            source, compiler, events = Source(contents("one")), Compiler(), Events()
            store = opened.enter_context(closing(leased_store(conninfo, tmp_path / name)))
            opened.callback(replicas.close)
            kept = keeper(source, store, FakeClock(), events, compile_files=compiler, replicas=replicas)
            if hears:
                replicas.begin(kept.prepare)
            kept.start(by="start")
            return Machine(source=source, replicas=replicas, keeper=kept, compiler=compiler, events=events)

        yield start


@pytest.fixture
def present(server: PostgresServer, conninfo: str) -> Iterator[Callable[[], list[str]]]:
    """Give what returns the names of the servers that are there."""
    assert conninfo
    with server.connect() as connection:
        yield lambda: [
            str(name) for (name,) in connection.execute("SELECT name FROM pdp_sessions.bundle_servers ORDER BY name")
        ]


def test_a_bundle_is_loaded_everywhere_before_it_is_active(start: Start, present: Callable[[], list[str]]) -> None:
    """When its activation returns, each server decides by it at once, and has compiled it itself."""
    here, there = start("here", **PATIENT_WITH_OTHERS), start("there")
    wait_until(lambda: present() == ["here", "there"])
    here.brings("two")
    here.keeper.reload(by="author")

    assert version("two") == there.keeper.current().version
    assert not here.lacking


def test_a_server_that_cannot_load_a_bundle_answers_nothing(
    start: Start, present: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """It says why at once, and nothing goes by the bundle before."""
    here, there = start("here", **PATIENT_WITH_OTHERS), start("there")
    wait_until(lambda: present() == ["here", "there"])
    there.compiler.able = False
    here.brings("two")
    here.keeper.reload(by="author")

    assert version("two") == here.keeper.current().version
    assert "1" == here.lacking
    assert any(text.endswith("`there`: the policies crashed the engine") for text in caplog.messages)
    with pytest.raises(BundleUnavailableError):
        there.keeper.current()


def test_a_server_that_has_stopped_is_waited_for_once(start: Start, present: Callable[[], list[str]]) -> None:
    """It says nothing for some seconds, and counts no more until it is back."""
    start("there", hears=False).replicas.beat()
    here = start("here", silent_seconds=0.1, patience=5.0)
    lacking = []
    for policy in ("two", "three"):
        here.brings(policy)
        here.keeper.reload(by="author")
        lacking.append(here.lacking)

    assert ["1", ""] == lacking
    assert "there" not in present()


def test_a_server_that_lives_is_waited_for_as_long_as_patience_lasts(
    start: Start, present: Callable[[], list[str]]
) -> None:
    """It may take long to load, and stays in the list."""
    time = Time(step=1.0)
    here, there = start("here", hears=False, monotonic=time), start("there", hears=False)
    there.replicas.beat()
    time.at, time.meanwhile = 0.0, there.replicas.beat
    lacking = here.replicas.prepare(b"")

    assert ("`there`: no answer",) == lacking
    assert 10.0 <= time.at
    assert ["there"] == present()


def test_what_a_server_that_ended_has_asked_is_removed(start: Start, server: PostgresServer) -> None:
    """And what was answered to it."""
    here = start("here", hears=False)
    with server.connect() as connection:
        connection.execute("SET search_path = pdp_sessions")
        connection.execute("INSERT INTO preparing VALUES ('old', 'ended', '', now() - interval '2 minutes')")
        connection.execute("INSERT INTO prepared VALUES ('old', 'there', ''), ('older', 'there', '')")
        for _ in range(2):
            here.replicas.prepare(b"")

        assert [] == connection.execute("SELECT id FROM preparing").fetchall()
        assert [] == connection.execute("SELECT asked FROM prepared").fetchall()


def test_one_server_at_a_time_follows_its_source(start: Start) -> None:
    """Another one takes over when it is told so, or has heard nothing for three seconds of its own clock."""
    time = Time()
    here, there = start("here", hears=False), start("there", hears=False, monotonic=time)
    turns = []

    def both() -> None:
        for one in (here, there):
            one.replicas.beat()
        turns.append((here.replicas.turn(), there.replicas.turn()))

    both()
    time.at = 3.0
    both()
    there.replicas.beat()
    time.at = 6.0
    there.replicas.beat()
    both()
    there.replicas.close()
    here.replicas.beat()
    (first, none), (still, not_yet), (lost, taken) = turns

    assert first is not None
    assert (first, None, None, None) == (still, none, not_yet, lost)
    assert taken not in (None, first)
    assert here.replicas.turn() not in (None, first, taken)


def test_a_server_without_the_turn_reads_nothing(start: Start) -> None:
    """It looks again when the turn is its own."""
    here, there = start("here", hears=False), start("there", hears=False)
    for one in (here, there):
        one.replicas.beat()
        one.brings("two")
    before = there.keeper.follow(), there.keeper.current().version
    here.replicas.close()
    there.replicas.beat()

    assert (False, version("one")) == before
    assert there.keeper.follow()
    assert version("two") == there.keeper.current().version


def test_what_was_read_in_a_turn_that_is_over_is_not_activated(start: Start) -> None:
    """A server that stops between reading and activating, and goes on when another one has followed its own source."""
    here, there = start("here", hears=False), start("there", hears=False, silent_seconds=0.0)
    here.replicas.beat()

    def overtaken() -> None:
        there.replicas.beat()
        there.brings("three")
        there.keeper.follow()

    here.brings("two")
    here.source.meanwhile = overtaken
    with pytest.raises(BundleUnavailableError, match="another server follows"):
        here.keeper.follow()
    here.replicas.beat()

    assert version("three") == there.keeper.current().version
    assert not here.keeper.follow()


def test_a_person_activates_out_of_turn(start: Start) -> None:
    """The turn is for sources."""
    here, there = start("here", hears=False), start("there", hears=False, silent_seconds=0.0)
    here.replicas.beat()
    there.brings("two")

    assert there.keeper.reload(by="author")
    assert version("two") == here.keeper._history.active_bundle().version  # type: ignore[union-attr]


def test_without_the_database_nobody_can_be_asked() -> None:
    """That is said, and raises nothing."""
    with closing(PostgresReplicas("host=127.0.0.1 port=1")) as replicas:
        replicas.beat()
        lacking = replicas.prepare(b"")

    assert 1 == len(lacking)
    assert lacking[0].startswith("the other servers could not be asked: ")
    assert replicas.turn() is None
