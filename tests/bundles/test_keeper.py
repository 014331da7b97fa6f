"""The running bundle: a bad one never replaces a good one, and all workers follow the store."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pdp.bundles.delivery import Delivery
from pdp.bundles.following import BundleFollower
from pdp.bundles.keeper import BundleKeeper
from pdp.bundles.packing import pack
from pdp.bundles.peers import Seen, SourceView
from pdp.bundles.signing import Trust, generate_key, read_public_keys, sign
from pdp.errors import (
    BundleError,
    BundleUnavailableError,
    ConflictError,
    EvaluatorUnavailableError,
    NotFoundError,
    Problem,
)
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import ActiveBundle
from pdp.testing.bundles import compile_here
from pdp.testing.clock import FakeClock
from pdp.testing.stores.samples import unchanged
from pdp.testing.waiting import wait_until
from tests.machinery.keeping import Events, Folder, contents, keeper, version


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


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
    kept._bundles._compile = crash
    folder.files = contents("two")

    with pytest.raises(EvaluatorUnavailableError):
        kept.reload(by="test")

    assert (Problem("", 0, "the policies crashed the engine"),) == kept.status().load_errors
    assert {"files/one", "sessions/all"} == set(kept.current().policies)


# The rule of what becomes active, by itself and by somebody's word.


def active(kept: BundleKeeper) -> str:
    """Return which policy's bundle is active."""
    return next(name for name in ("one", "two", "three") if version(name) == kept.current().version)


Followed = tuple[Folder, Callable[[str], str], BundleKeeper]


@pytest.fixture
def following(open_store: Callable[[], SessionStore], clock: FakeClock) -> Followed:
    """Give a folder with bundle `one`, what changes it and tells which bundle runs then, and its keeper."""
    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    kept.start(by="start")

    def change(policy: str) -> str:
        folder.files = contents(policy)
        kept.follow()
        return active(kept)

    return folder, change, kept


def test_change_of_the_source_is_taken_and_so_is_its_undoing(following: Followed) -> None:
    """Who takes back a change of the folder gets what was there before."""
    _, change, _ = following

    assert ["two", "one", "two"] == [change(policy) for policy in ("two", "one", "two")]


def test_rollback_stays_while_the_source_is_as_it_was(following: Followed) -> None:
    """A look at a folder that has not changed brings nothing back."""
    _, change, kept = following
    change("two")

    kept.activate(version("one"), by="author")

    assert "one" == change("two")
    assert version("two") == kept.status().source_version


def test_rollback_stays_until_there_is_new_content(following: Followed) -> None:
    """After a rollback the folder may come and go among what was active before; new content is taken."""
    _, change, kept = following
    change("two")
    kept.activate(version("one"), by="author")

    assert ["one", "one", "three"] == [change(policy) for policy in ("one", "two", "three")]


def test_choosing_the_running_version_holds_it(following: Followed) -> None:
    """Somebody who activates what runs already wants it to stay."""
    _, change, kept = following
    change("two")

    changed = kept.activate(version("two"), by="author")

    assert changed is False
    assert "two" == change("one")


def test_reload_has_its_way_and_ends_the_hold(following: Followed) -> None:
    """Who reloads wants what the folder holds, and the folder is followed again."""
    _, change, kept = following
    change("two")
    kept.activate(version("one"), by="author")

    assert kept.reload(by="author") is True
    assert ["two", "one"] == [active(kept), change("one")]


def test_worker_that_starts_on_an_old_folder_brings_nothing_back(
    following: Followed, open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """A start is no change: what was active before stays out, and the worker runs what the others run."""
    _, change, first = following
    change("two")
    late = keeper(Folder(contents("one")), open_store(), clock)

    late.start(by="start")
    late.follow()

    assert ["two", "two"] == [active(first), active(late)]
    assert version("one") == late.status().source_version


def test_worker_that_starts_on_a_new_folder_brings_it(
    following: Followed, open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """Content that was never active is taken at a start too, also after a rollback."""
    _, change, first = following
    change("two")
    first.activate(version("one"), by="author")
    late = keeper(Folder(contents("three")), open_store(), clock)

    late.start(by="start")
    wait_until(first.serves)

    assert ["three", "three"] == [active(first), active(late)]


def test_worker_that_is_late_with_a_change_does_not_go_back(
    following: Followed, open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """A folder that changes to what others have left behind already is not news."""
    _, change, first = following
    late_folder = Folder(contents("one"))
    late = keeper(late_folder, open_store(), clock)
    late.start(by="start")
    change("two")
    change("three")

    late_folder.files = contents("two")
    late.follow()
    wait_until(late.serves)

    assert ["three", "three"] == [active(first), active(late)]


def test_bad_content_between_two_good_ones_is_no_step(following: Followed) -> None:
    """A folder that was broken for a while and then undone counts as undone."""
    folder, change, kept = following
    change("two")
    folder.files = {**contents("two"), "files.cedar": b"permit ("}
    with pytest.raises(BundleError):
        kept.follow()

    assert "one" == change("one")
    assert () == kept.status().load_errors


def test_same_bad_content_is_told_once(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """Looking again and again at a bad source neither compiles nor complains again; a reload does."""
    folder, events = Folder(contents("one")), Events()
    kept = keeper(folder, open_store(), clock, events)
    kept.start(by="start")
    folder.files = {**contents("two"), "files.cedar": b"permit ("}
    with pytest.raises(BundleError):
        kept.follow()

    kept.follow()
    with pytest.raises(BundleError):
        kept.reload(by="author")

    assert ["bundle.activated", "bundle.refused", "bundle.refused"] == [event.kind for event in events.events]


def test_source_that_answers_again_is_well_again(following: Followed) -> None:
    """What was wrong while the source was silent is not told any more once it holds what it held."""
    folder, change, kept = following
    good, folder.files = folder.files, {}
    with pytest.raises(BundleError):
        kept.follow()
    folder.files = good

    assert "one" == change("one")
    assert () == kept.status().load_errors


def test_bad_source_that_was_silent_is_bad_again(following: Followed) -> None:
    """The status names what is wrong now."""
    folder, _, kept = following
    bad = {**contents("two"), "files.cedar": b"permit ("}
    problems = []
    for files in (bad, {}, bad):
        folder.files = files
        with suppress(BundleError):
            kept.follow()
        problems.append(kept.status().load_errors)

    assert problems[0] == problems[2] != problems[1]


def test_what_another_worker_tells_is_not_lost_in_a_change(following: Followed) -> None:
    """A change of what is known of the source, and news of it, come one after the other."""
    kept = following[2]
    told = SourceView(good=Seen(version=version("three"), signature=None))
    hearing = threading.Thread(target=kept.hear, args=(told.written(),))

    def change(view: SourceView) -> SourceView:
        hearing.start()
        hearing.join(0.2)
        return view

    kept._update_view(change)
    hearing.join()

    assert version("three") == kept.status().source_version


def test_rollback_says_who_when_and_why(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """The listing and the event name the version, the one before, the person, the time and the reason."""
    folder, events = Folder(contents("one")), Events()
    kept = keeper(folder, open_store(), clock, events)
    kept.start(by="start")
    folder.files = contents("two")
    kept.follow()
    clock.advance(60)

    kept.activate(version("one"), by="author", reason="two denies everybody")

    listed = [(one.activation.version, one.activation.activated_by, one.name) for one in kept.kept()]
    assert [(version("one"), "author", "test"), (version("two"), "folder", "test")] == listed
    first = kept.kept()[0].activation
    assert ("two denies everybody", True) == (first.reason, first.chosen)
    assert 60 == first.activated_at - kept.kept()[1].activation.activated_at
    assert {
        "version": version("one"),
        "before": version("two"),
        "reason": "two denies everybody",
        "chosen": "true",
        "sessions_changed": "0",
    } == events.events[-1].facts


def test_rollback_reaches_the_other_worker(
    following: Followed, open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """A worker that never had the version loads it from the store."""
    _, change, first = following
    change("two")
    other = keeper(Folder(contents("two")), open_store(), clock)
    other.start(by="start")

    first.activate(version("one"), by="author")
    wait_until(other.serves)

    assert "one" == active(other)


def test_version_that_is_not_kept_cannot_be_activated(following: Followed) -> None:
    """The store and the source are looked at, and the answer names the version."""
    _, _, kept = following

    with pytest.raises(NotFoundError, match=version("three")):
        kept.activate(version("three"), by="author")

    assert "one" == active(kept)


def test_what_was_not_taken_can_be_activated(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """What the source brought may be chosen although its content is kept no more."""
    store = open_store()
    store.activate_bundle(
        ActiveBundle(version=version("one"), activated_at=1.0, activated_by="start"), pack(contents("one")), unchanged
    )
    for number in range(20):
        bundle = ActiveBundle(version=f"v{number}", activated_at=2.0, activated_by="start")
        store.activate_bundle(bundle, b"", unchanged)
    keeper(Folder(contents("two")), open_store(), clock).start(by="start")
    kept = keeper(Folder(contents("one")), store, clock)
    kept.start(by="start")
    before = active(kept)

    kept.activate(version("one"), by="author")

    assert ["two", "one"] == [before, active(kept)]


def test_reload_compiles_once(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """A bundle is compiled when it is new, and not again when it is looked at again."""
    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    compiled: list[Mapping[str, Any]] = []

    def counting(job: Mapping[str, Any]) -> dict[str, Any]:
        compiled.append(job)
        return compile_here(job)

    kept._bundles._compile = counting
    kept.start(by="start")
    folder.files = contents("two")
    kept.follow()
    folder.files = contents("three")
    kept.reload(by="author")
    kept.reload(by="author")
    kept.follow()

    assert 3 == len(compiled)


def test_reload_does_not_wait_for_another_reading(
    open_store: Callable[[], SessionStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while a source stalls is told to try again, and who activates by version is not held up."""
    monkeypatch.setattr("pdp.bundles.keeper._PATIENCE_SECONDS", 0.01)
    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    kept.start(by="start")
    kept._reading = True

    with kept._following:
        with pytest.raises(BundleUnavailableError, match="is being read"):
            kept.reload(by="author")
        kept.activate(version("one"), by="author")

    assert kept.kept()[0].activation.chosen


def test_reload_waits_while_a_bundle_is_loaded(
    open_store: Callable[[], SessionStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who changes a large bundle and reloads is not told to try again because the change has been noticed already."""
    monkeypatch.setattr("pdp.bundles.keeper._PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("pdp.bundles.keeper._PATIENCES", 1_000_000)
    folder, loading, asked = Folder(contents("one")), threading.Event(), threading.Event()
    kept = keeper(folder, open_store(), clock)
    kept.start(by="start")
    folder.files = contents("two")

    def slow(job: Mapping[str, Any]) -> dict[str, Any]:
        loading.set()
        asked.wait()
        return compile_here(job)

    kept._bundles._compile = slow
    following = threading.Thread(target=kept.follow)
    following.start()
    loading.wait()
    has_turn = kept._has_turn

    def asks() -> bool:
        asked.set()
        return has_turn()

    monkeypatch.setattr(kept, "_has_turn", asks)

    changed = kept.reload(by="author")

    following.join()
    assert (False, "two") == (changed, active(kept))


def test_choice_that_is_made_meanwhile_holds(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """Somebody chooses the running bundle while a change of the folder is being compiled: it stays."""
    folder = Folder(contents("one"))
    kept = keeper(folder, open_store(), clock)
    kept.start(by="start")
    folder.files = contents("two")
    kept.follow()
    folder.files = contents("three")
    kept.follow()
    folder.files = contents("one")

    def choosing(job: Mapping[str, Any]) -> dict[str, Any]:
        kept._bundles._compile = compile_here
        kept.activate(version("three"), by="author")
        return compile_here(job)

    kept._bundles._compile = choosing
    kept.follow()

    assert "three" == active(kept)


def test_a_reload_brings_nothing_older_than_what_became_active_meanwhile(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """Its number was compared before it was compiled; a later reload compares it again."""
    private, public = generate_key()

    def signed(policy: str, number: int) -> Delivery:
        return sign(Delivery(files=contents(policy)), private, number)

    class Signed(Folder):
        holds = signed("one", 1)

        def read(self) -> Delivery:
            return self.holds

        def loaded(self, delivery: Delivery) -> None:
            if delivery.version == version("two"):
                there.start(by="another worker")

    trusted: dict[str, Any] = {"trust": Trust(keys=read_public_keys(public), required=True), "never_older": True}
    here, newer = Signed({}), Signed({})
    kept, there = keeper(here, open_store(), clock, **trusted), keeper(newer, open_store(), clock, **trusted)
    kept.start(by="test")
    here.holds, newer.holds = signed("two", 2), signed("three", 3)

    with pytest.raises(ConflictError, match="another bundle was activated meanwhile"):
        kept.reload(by="author")
    with pytest.raises(BundleError, match="number `2`, but `3` was already active"):
        kept.reload(by="author")

    wait_until(kept.serves)
    assert "three" == active(kept)


def test_content_that_an_earlier_program_kept_is_understood(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """Before bundles were packed, the store kept them as JSON."""
    old = json.dumps({name: base64.b64encode(text).decode() for name, text in contents("one").items()})
    store = open_store()
    store.activate_bundle(
        ActiveBundle(version=version("one"), activated_at=1.0, activated_by="start"), old.encode(), unchanged
    )
    kept = keeper(Folder({}), store, clock)

    kept.start(by="start")

    assert "one" == active(kept)


class Others:
    """Other servers on the same database: they follow their sources when this one has no turn, and load nothing."""

    now: str | None = None

    def begin(self, load: Callable[[bytes], None]) -> None:
        """Ask for nothing."""

    def prepare(self, _: bytes) -> tuple[str, ...]:
        """Return why the only one has loaded nothing."""
        return ("`there`: no answer",)

    def turn(self) -> str | None:
        """Return the turn of this server."""
        return self.now

    def close(self) -> None:
        """Wait for nothing."""


def test_a_source_is_read_in_turn(open_store: Callable[[], SessionStore], clock: FakeClock) -> None:
    """Until then it is tried again, although it does not change; what lacked the bundle is in the record."""
    folder, others, events = Folder(contents("one")), Others(), Events()
    kept = keeper(folder, open_store(), clock, events, replicas=others)
    kept.start(by="test")
    follower = BundleFollower(kept, "folder")
    folder.files = contents("two")
    waiting = follower.follow(), kept.current().version
    others.now = ""
    followed = follower.follow(), kept.current().version

    assert (False, version("one")) == waiting
    assert (True, version("two")) == followed
    assert "1" == events.events[-1].facts["servers_lacking"]


def test_who_activates_hears_which_servers_lack_the_bundle(
    open_store: Callable[[], SessionStore], clock: FakeClock
) -> None:
    """Each answers nothing until it has it; of a bundle that is active already none is asked."""
    folder, lines = Folder(contents("one")), list[str]()
    kept = keeper(folder, open_store(), clock, Events(), replicas=Others())
    kept.start(by="test")
    folder.files = contents("two")
    kept.reload(by="author", on_lacking=lines.extend)
    kept.activate(version("one"), by="author", on_lacking=lines.extend)
    kept.activate(version("one"), by="author", on_lacking=lines.extend)

    assert ["`there`: no answer"] * 2 == lines
