"""The running bundle: a bad one never replaces a good one, and all workers follow the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pdp.clock import Clock
from pdp.errors import BundleError, BundleUnavailableError, EvaluatorUnavailableError, Problem
from pdp.keeper import BundleKeeper, pack, unpack
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.waiting import wait_until

DIRECTORY = "users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}"


def contents(policy: str) -> dict[str, bytes]:
    """Return a bundle with one policy."""
    return bundle_files(
        policies={"files": f'@id("files/{policy}") permit (principal, action, resource);'},
        tools={"files": [tool("read")]},
        directory=DIRECTORY,
    )


class Folder:
    """A policy folder whose files a test changes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def read(self) -> dict[str, bytes]:
        """Return the files."""
        return self.files


class Events:
    """Keeps the events it is told of."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - the observer's signature
        """Pass a decision on."""
        return decision

    def event(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


def keeper(folder: Folder, store: SessionStore, clock: Clock, events: Events | None = None) -> BundleKeeper:
    """Return a keeper that compiles in this process."""
    return BundleKeeper(
        read=folder.read,
        compile_files=compile_here,
        sessions=store,
        clock=clock,
        observer=events or Events(),
        limits=DEFAULT_LIMITS,
    )


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[[], SQLiteSessionStore]:
    """Return what opens the same file again and again, as workers do."""
    return lambda: SQLiteSessionStore(tmp_path / "data" / "sessions.sqlite")


def test_bad_bundle_changes_nothing(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """The bundle that runs goes on, and the status says why the other does not."""
    folder, events = Folder(contents("one")), Events()
    kept = keeper(folder, open_store(), clock, events)
    kept.start(by="test")
    before = kept.current()

    folder.files = {**folder.files, "files.cedar": b"permit ("}
    with pytest.raises(BundleError, match=r"files\.cedar:1"):
        kept.reload(by="test")

    assert before is kept.current()
    assert ("files.cedar", 1) == (kept.status().load_errors[0].file, kept.status().load_errors[0].line)
    assert ["bundle.activated", "bundle.refused"] == [event.kind for event in events.events]


def test_good_bundle_after_a_bad_one_clears_the_errors(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """What was mended is told no more."""
    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    kept.start(by="test")
    good, folder.files = folder.files, {}
    with pytest.raises(BundleError):
        kept.reload(by="test")

    folder.files = good

    assert kept.reload(by="test") is False
    assert () == kept.status().load_errors


def test_start_on_a_bad_folder_goes_on_with_the_last_good_bundle(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """A restart beside a broken folder serves what was active before."""
    first = keeper(Folder(contents("one")), open_store(), clock)
    first.start(by="test")

    second = keeper(Folder({"bundle.yaml": b"nme: x"}), open_store(), clock)
    second.start(by="test")

    assert first.current().version == second.current().version
    assert second.status().load_errors


def test_first_start_on_a_bad_folder_fails(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """Without any good bundle there is nothing to serve."""
    kept = keeper(Folder({"bundle.yaml": b"nme: x"}), open_store(), clock)

    with pytest.raises(BundleError, match="did you mean `name`"):
        kept.start(by="test")


def test_worker_that_is_behind_is_unavailable_and_catches_up(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """Another worker's bundle is never guessed: unavailable until it is loaded, from the store."""
    here, there = Folder(contents("one")), Folder(contents("one"))
    first, second = keeper(here, open_store(), clock), keeper(there, open_store(), clock)
    first.start(by="test")
    second.start(by="test")

    here.files = contents("two")
    first.reload(by="test")
    with pytest.raises(BundleUnavailableError):
        second.current()
    wait_until(second.serves)

    assert first.current().version == second.current().version


def test_two_workers_on_one_folder_activate_once(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """The second worker finds the version active and changes nothing."""
    events = Events()
    folder = Folder(contents("one"))
    keeper(folder, open_store(), clock).start(by="first")
    second = keeper(folder, open_store(), clock, events)

    second.start(by="second")

    assert [] == events.events
    status = second.status()
    assert status.active is not None
    assert "first" == status.active.activated_by


def test_child_that_dies_is_a_refused_bundle(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """Policies that crash the engine are told like any other bad bundle."""

    def crash(_: object) -> dict[str, object]:
        raise EvaluatorUnavailableError("the policies crashed the engine")

    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    kept.start(by="test")
    kept._compile = crash
    folder.files = contents("two")

    with pytest.raises(EvaluatorUnavailableError):
        kept.reload(by="test")

    assert (Problem("", 0, "the policies crashed the engine"),) == kept.status().load_errors
    assert {"files/one", "sessions/all"} == set(kept.current().policies)


def test_packing_loses_nothing() -> None:
    """What the store keeps is the bundle, byte for byte."""
    files = {"bundle.yaml": bytes(range(256)), "a.cedar": b""}

    assert files == unpack(pack(files))
