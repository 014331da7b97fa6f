"""What workers tell each other: a bundle before it is active, and what the source holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pdp.bundles.delivery import Delivery, Signature
from pdp.bundles.keeper import BundleKeeper
from pdp.bundles.packing import pack
from pdp.bundles.peers import Compiled, Seen, SourceView, read_news
from pdp.bundles.signing import Trust
from pdp.errors import BundleError, BundleUnavailableError, EvaluatorUnavailableError, NotFoundError, Problem
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.testing.bundles import compile_here
from pdp.testing.clock import FakeClock
from tests.machinery.keeping import Folder, contents, keeper, version

OpenStore = Callable[[], SessionStore]


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def open_store(tmp_path: Path) -> OpenStore:
    """Return what opens the same file again and again, as workers do."""
    return lambda: SQLiteSessionStore(tmp_path / "data" / "sessions.sqlite")


class Linked:
    """The peers of a keeper that has one other worker; what one has left others that have the same peers find."""

    def __init__(self) -> None:
        self.others: list[BundleKeeper] = []
        self.kept: bytes | None = None

    def begin(self, hear: Callable[[bytes], None]) -> None:
        """Nobody calls this here."""

    def tell(self, news: bytes) -> None:
        """Tell the other worker."""
        for other in self.others:
            other.hear(news)

    def leave(self, news: bytes) -> None:
        """Keep the news."""
        self.kept = news

    def left(self) -> bytes | None:
        """Return the news."""
        return self.kept

    def close(self) -> None:
        """Nobody waits here."""


def unable(_: Mapping[str, Any]) -> dict[str, Any]:
    """Compile nothing."""
    raise EvaluatorUnavailableError("the policies crashed the engine")


@pytest.fixture
def pair(open_store: OpenStore, clock: FakeClock) -> tuple[Folder, BundleKeeper, BundleKeeper]:
    """Return a folder, the keeper that follows it, and another that hears of it and cannot compile."""
    folder, peers = Folder(contents("one")), Linked()
    first = keeper(folder, open_store(), clock, peers=peers)
    second = keeper(folder, open_store(), clock, compile_files=unable)
    first.start(by="start")
    peers.others.append(second)
    return folder, first, second


def test_another_worker_has_a_bundle_before_it_is_active(pair: tuple[Folder, BundleKeeper, BundleKeeper]) -> None:
    """What one worker compiled and activates the other one runs at its next call, and need not compile."""
    folder, first, second = pair
    folder.files = contents("two")

    first.follow()

    assert version("two") == second.current().version
    assert first.current().policies == second.current().policies


def test_another_worker_says_what_the_source_holds(pair: tuple[Folder, BundleKeeper, BundleKeeper]) -> None:
    """What is wrong with the source, and that it has been mended, can be asked of each worker."""
    folder, first, second = pair
    shown = []
    for files in (contents("two"), {**contents("two"), "files.cedar": b"permit ("}, contents("two")):
        folder.files = files
        with suppress(BundleError):
            first.follow()
        assert first.status().load_errors == second.status().load_errors
        shown.append((second.status().source_version, bool(second.status().load_errors)))

    assert [(version("two"), False), (version("two"), True), (version("two"), False)] == shown


def test_another_worker_activates_what_the_source_brought(open_store: OpenStore, clock: FakeClock) -> None:
    """A version that one worker saw and did not take may be activated over the other one."""
    folder, peers = Folder(contents("one")), Linked()
    first = keeper(folder, open_store(), clock, peers=peers, never_older=True)
    peers.others.append(second := keeper(folder, open_store(), clock))
    with pytest.raises(BundleError, match="only newer ones are taken"):
        first.follow()

    assert second.activate(version("one"), by="author")

    with pytest.raises(NotFoundError):
        second.activate(version("two"), by="author")


def test_unsigned_news_are_not_taken_where_signatures_are_required(open_store: OpenStore, clock: FakeClock) -> None:
    """Whether a bundle may run here is each worker's own question, whoever tells of it."""
    folder, peers = Folder(contents("one")), Linked()
    first = keeper(folder, open_store(), clock, peers=peers)
    peers.others.append(second := keeper(folder, open_store(), clock, trust=Trust(required=True)))

    first.start(by="start")

    with pytest.raises(BundleUnavailableError):
        second.current()


def test_the_workers_of_another_server_have_a_bundle_before_it_is_active(
    pair: tuple[Folder, BundleKeeper, BundleKeeper], open_store: OpenStore, clock: FakeClock
) -> None:
    """The one that hears of it compiles it for all of them, and nothing is active by that."""
    _, first, second = pair
    first.prepare(pack(contents("two"), None))
    before = first.current().version
    keeper(Folder(contents("two")), open_store(), clock).start(by="another server")

    assert version("one") == before
    assert [version("two")] * 2 == [first.current().version, second.current().version]


def test_what_another_server_activates_unsigned_is_not_held_where_signatures_are_required(
    open_store: OpenStore, clock: FakeClock
) -> None:
    """That server says so before it is active."""
    kept = keeper(Folder(contents("one")), open_store(), clock, trust=Trust(required=True))

    with pytest.raises(BundleError, match="is not signed"):
        kept.prepare(pack(contents("two"), None))


def test_a_bundle_that_was_not_told_of_is_loaded_before_serving(open_store: OpenStore, clock: FakeClock) -> None:
    """What became active while a worker was starting it loads before it takes calls, and not only at the first one."""
    folder = Folder(contents("one"))
    first, second = (keeper(folder, open_store(), clock) for _ in range(2))
    first.start(by="start")
    second.start(by="start")
    folder.files = contents("two")
    first.follow()

    second.catch_up()

    assert version("two") == second.current().version


def test_a_worker_that_begins_later_need_not_compile(open_store: OpenStore, clock: FakeClock) -> None:
    """It has what the first one compiled of the active bundle, at a first start, after a change, or at a later one."""
    folder, peers = Folder(contents("one")), Linked()
    first = keeper(folder, open_store(), clock, peers=peers)
    began = []
    for files in (contents("one"), contents("two")):
        folder.files = files
        first.reload(by="author")
        began.append(keeper(folder, open_store(), clock, peers=peers, compile_files=unable))
        began[-1].start(by="start")
    again = Linked()
    keeper(folder, open_store(), clock, peers=again).start(by="start")
    began.append(keeper(folder, open_store(), clock, peers=again, compile_files=unable))
    began[-1].start(by="start")

    assert [version("two")] * 2 == [one.current().version for one in began[1:]]
    assert first.current().policies == began[1].current().policies == began[2].current().policies


@pytest.mark.parametrize("left", ["nothing", "another bundle", "of another release", "what is none"])
def test_a_worker_that_finds_nothing_of_use_compiles(open_store: OpenStore, clock: FakeClock, left: str) -> None:
    """It starts as the first one did."""
    folder, peers, other = Folder(contents("one")), Linked(), Linked()
    keeper(folder, open_store(), clock, peers=peers).start(by="start")
    keeper(Folder(contents("two")), MemorySessionStore(), clock, peers=other).start(by="start")
    assert peers.kept is not None
    peers.kept = {
        "nothing": None,
        "another bundle": other.kept,
        "of another release": peers.kept.replace(b'"program": "', b'"program": "9', 1),
        "what is none": b"news",
    }[left]
    jobs: list[Mapping[str, Any]] = []

    def counted(job: Mapping[str, Any]) -> dict[str, Any]:
        jobs.append(job)
        return compile_here(job)

    second = keeper(folder, open_store(), clock, peers=peers, compile_files=counted)
    second.start(by="start")

    assert (version("one"), 1) == (second.current().version, len(jobs))


def test_what_was_left_is_used_for_the_active_bundle_alone(open_store: OpenStore, clock: FakeClock) -> None:
    """What a worker compiled and did not activate another one compiles itself, before it activates it."""
    folder, peers = Folder(contents("one")), Linked()
    first = keeper(folder, open_store(), clock, peers=peers)
    first.start(by="start")
    keeper(Folder(contents("two")), MemorySessionStore(), clock, peers=peers).start(by="start")

    with pytest.raises(EvaluatorUnavailableError):
        keeper(Folder(contents("two")), open_store(), clock, peers=peers, compile_files=unable).reload(by="author")

    assert version("one") == first.current().version


def test_what_was_left_unsigned_does_not_run_where_signatures_are_required(
    open_store: OpenStore, clock: FakeClock
) -> None:
    """Each worker verifies for itself that the bundle may run."""
    folder, peers = Folder(contents("one")), Linked()
    keeper(folder, open_store(), clock, peers=peers).start(by="start")
    second = keeper(folder, open_store(), clock, peers=peers, trust=Trust(required=True))

    with pytest.raises(BundleError, match="is not signed"):
        second.start(by="start")

    assert "" == second.running_version()


def test_a_compiled_bundle_reads_as_it_was_written(project_root: Path) -> None:
    """Whoever is told of a bundle has the same policies, with all that was found in them, as who compiled it."""
    files = read_folder(project_root / "policies", DEFAULT_LIMITS)
    bundle = load_bundle(files, DEFAULT_LIMITS, compile_here)
    delivery = Delivery(files=files, signature=Signature(key_id="key", number=7, value=bytes(64)))

    told = read_news(Compiled(delivery=delivery, parts=bundle.parts).written(), DEFAULT_LIMITS)

    assert isinstance(told, Compiled)
    assert delivery == told.delivery
    assert bundle.parts == told.parts
    assert told.parts.terms


@pytest.mark.parametrize("signature", [None, Signature(key_id="key", number=7, value=bytes(range(64)))])
def test_what_the_source_holds_reads_as_it_was_written(signature: Signature | None) -> None:
    """Versions, signatures and problems arrive as they were sent."""
    problem = Problem("notes.cedar", 3, "not a policy", code="syntax", column=4, width=2, help="mend it")
    view = SourceView(
        good=Seen(version="one", signature=signature),
        bad=Seen(version="two", signature=None),
        bad_problems=(problem,),
        load_errors=(problem, problem),
    )

    told = read_news(view.written(), DEFAULT_LIMITS)

    assert isinstance(told, SourceView)
    assert view == told
    assert problem.as_json() == told.bad_problems[0].as_json()
    assert SourceView() == read_news(SourceView().written(), DEFAULT_LIMITS)


@pytest.mark.parametrize("news", [b"", b"news", b"{}", b"[]", b'{"program": "0"}', b'{"program": "0", "kind": 1}\nx'])
def test_news_that_cannot_be_used_are_left(
    pair: tuple[Folder, BundleKeeper, BundleKeeper], news: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """News of another release, or that are none, change nothing."""
    _, _, second = pair
    before = second.status()

    second.hear(news)

    assert before == second.status()
    assert ["a message from another worker cannot be used"] == [text.partition(":")[0] for text in caplog.messages]
