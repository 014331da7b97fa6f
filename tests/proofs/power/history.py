"""A real PDP whose power will go: what was acknowledged at each moment, and what must be found afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import apsw

from pdp.app.embedded import open_embedded
from pdp.decision.cache import DecisionCache
from pdp.errors import NotFoundError, StoreUnavailableError
from pdp.model import Call, CallRequest
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.bundles import compile_here
from pdp.testing.clock import FakeClock
from tests.machinery.oracle.bundles import all_bundles
from tests.machinery.oracle.choices import CALLS, GRANTS, LABELS, PATTERNS
from tests.machinery.oracle.judge import Answer
from tests.machinery.oracle.model import Oracle
from tests.machinery.oracle.opened import write
from tests.machinery.oracle.world import CALLERS, UNKNOWN_HANDLE, Product, ToolCall, World, spoken
from tests.proofs.power.journalvfs import journaled
from tests.proofs.power.platter import WAYS, Journal, Platter, Way

_DEEDS = (
    *("open",) * 12,
    *("request", "delegate", "approve", "end", "revoke", "narrow", "wait", "restart") * 2,
    *("deny", "revoke many", "reload", "call"),
)
# How many pages the log holds before they are brought into the database; the last is SQLite's own number.
_LOG_PAGES = (4, 16, 1000)
# How the wall clock stands when the machine comes back: on time, later, much later, and after a dead battery.
_AWAY = (5.0, 1000.0, 8 * 3600.0, -24 * 3600.0)
_SHARED_MEMORY_BYTES = 32 * 1024

_STORE = "sessions.sqlite"

Asked = tuple[str, ToolCall]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was acknowledged when the journal was so long: a model of it, the number of the bundle, and the time.

    `signal` is what processes had told each other by then. `halfway` is another model, of what is found while what was
    done last is under way; None where that is one step.
    """

    length: int
    model: Oracle
    bundle: int
    wall_at: float
    signal: bytes
    halfway: Oracle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The files that are left; what was acknowledged when the power went, and then what was under way if anything.

    `length` is that of the journal when the power went.
    """

    way: Way
    length: int
    files: dict[str, bytes]
    around: tuple[Moment, ...]


class Found(NamedTuple):
    """What is said of one session: its state, labels and tools."""

    state: str
    labels: tuple[str, ...] = ()
    tools: tuple[tuple[str, str], ...] = ()


class History:
    """What a PDP on a journaled disk was asked to do, as `choices` has it. Close it when it is asked no more.

    `synchronous` is how SQLite waits for the disk; the store chooses `FULL`.
    """

    def __init__(self, folder: Path, choices: random.Random, *, deeds: int, synchronous: str = "FULL") -> None:
        self._folder, self._choices, self._synchronous = folder, choices, synchronous
        self._opened = ExitStack()
        self.moments: list[Moment] = []
        self._halfway: Oracle | None = None
        self.done: Counter[str] = Counter()
        for number, (_, files) in enumerate(all_bundles()):
            write(folder / f"policies-{number}", files)
        with journaled(folder / "disk") as self.journal:
            self.world = World(self.done, remembering_on_disk=True, open_disk=self._open_store)
            self._opened.callback(self.world.close)
            self._acknowledged()
            for _ in range(deeds):
                self._do(choices.choice(_DEEDS))
                self._acknowledged()

    def close(self) -> None:
        """Release stores and files."""
        self._opened.close()

    def images(self, count: int) -> Iterator[Image]:
        """Yield what is left when the power goes: half of the times just after something was acknowledged."""
        choices, platter = self._choices, Platter(self.journal)
        just_after = choices.choices([moment.length for moment in self.moments], k=count // 2)
        at_any_time = [choices.randrange(len(self.journal) + 1) for _ in range(count - count // 2)]
        for length in sorted([*just_after, *at_any_time]):
            platter.go_on(length)
            way = choices.choice(WAYS)
            yield Image(way=way, length=length, files=platter.image(way, choices), around=self._around(length))

    def what_is_wrong(self, image: Image) -> str:
        """Open a PDP on an image as a start does; say in what it is not as it should be, nothing when it is."""
        clock = FakeClock(image.around[-1].wall_at + self._choices.choice(_AWAY))
        clock.reboot()
        try:
            with self._started(image) as (store, _):
                return damage(store) or self._difference(store, clock, image.around)
        except StoreUnavailableError as error:
            return f"damaged: {error}"

    def again(self, image: Image) -> Image:
        """Return what is left when the power goes once more, at some moment of the start that follows."""
        with self._started(image) as (store, journal):
            store.touch(wall_at=0.0)
        platter = Platter(journal)
        platter.go_on(self._choices.randrange(len(Journal.of(image.files)), len(journal) + 1))
        return replace(image, files=platter.image(image.way, self._choices))

    @contextmanager
    def _started(self, image: Image) -> Iterator[tuple[SQLiteSessionStore, Journal]]:
        with TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            write(folder, {**image.files, **self._debris(image)})
            with journaled(folder, image.files) as journal, closing(SQLiteSessionStore(folder / _STORE)) as store:
                yield store, journal

    def _difference(self, store: SQLiteSessionStore, clock: FakeClock, around: tuple[Moment, ...]) -> str:
        known = self.world.products[0]
        embedded = open_embedded(
            self._folder / f"policies-{around[0].bundle}",
            sessions=store,
            clock=clock,
            cache=DecisionCache(size=24),
            trusted_attributes=frozenset({"level"}),
            compile_files=compile_here,
        )
        product = Product(embedded, ids=known.ids, handles=known.handles)
        asked = self._calls(around[0].model)
        answered = answers(product, asked)
        self.done.update("allows" if answer.basis == "permit" else "denies" for answer in answered)
        found = [*found_states(product), *answered]
        expected = [[*expected_states(one, clock, known.ids), *expected_answers(one, asked)] for one in around]
        store.touch(wall_at=clock.now().wall_at)
        if any(all(map(_same, found, one)) for one in expected):
            return ""
        was, now = next((was, now) for was, now in zip(expected[0], found, strict=True) if was != now)
        return f"lost: {now} instead of {was}"

    def _calls(self, model: Oracle) -> list[Asked]:
        # Half of the sessions are active, and half of the calls are simple: otherwise next to nothing is allowed.
        active = [name for name, session in model.sessions.items() if session.state == "active"]
        names = self._choices.choices(["nobody", *self.world.names], k=5) + self._choices.choices(
            active, k=5 * bool(active)
        )
        return [(name, self._choices.choice(self._choices.choice((CALLS, CALLS[:2])))) for name in names]

    def _debris(self, image: Image) -> dict[str, bytes]:
        # What processes share while they live is never synced: it is of some moment, or torn, or nothing.
        choices = self._choices
        # Before anything was acknowledged, nothing was said.
        said = [moment.signal for moment in self.moments if moment.length <= image.length] or [b""]
        signals = (said[-1], choices.choice(said), choices.randbytes(24), b"")
        return {
            f"{_STORE}-shm": choices.randbytes(choices.choice((0, 100, _SHARED_MEMORY_BYTES))),
            f"{_STORE}-signal": choices.choice(signals)[: choices.choice((24, 24, 24, 8, 3))],
        }

    def _around(self, length: int) -> tuple[Moment, ...]:
        done = [moment for moment in self.moments if moment.length <= length]
        if not done:
            return (self.moments[0],)
        under_way = self.moments[len(done) : len(done) + 1] if done[-1].length < length else []
        halfway = [replace(one, model=one.halfway) for one in under_way if one.halfway]
        return (done[-1], *halfway, *under_way)

    def _acknowledged(self) -> None:
        world, now = self.world, self.world.clock.now()
        self.moments.append(
            Moment(
                length=len(self.journal),
                model=copy_of(world.oracle),
                bundle=world.bundle_number,
                wall_at=now.wall_at,
                signal=(self._folder / "disk" / f"{_STORE}-signal").read_bytes(),
                halfway=self._halfway,
            )
        )
        self._halfway = None

    def _open_store(self) -> SQLiteSessionStore:
        store = SQLiteSessionStore(self._folder / "disk" / _STORE)
        store._connection.execute(f"PRAGMA synchronous={self._synchronous}")
        store._connection.execute(f"PRAGMA wal_autocheckpoint={self._choices.choice(_LOG_PAGES)}")
        return store

    # What happens.

    def _do(self, deed: str) -> None:
        world, choices = self.world, self._choices
        if deed == "open" or not world.names:
            if name := self._request():
                # Two words that are given, one after the other.
                self._acknowledged()
                world.approve(name, choices.choice(GRANTS))
            return
        name = choices.choice(world.names[-8:])
        narrower = (choices.choice(PATTERNS), choices.choice((None, 900.0)), choices.choice(LABELS))
        deeds: dict[str, Callable[[], object]] = {
            "request": self._request,
            "delegate": lambda: self._request(parent=name),
            "approve": lambda: world.approve(name, choices.choice(GRANTS)),
            "deny": lambda: world.deny(name),
            "end": lambda: world.end(name, "gateway-1"),
            "revoke": lambda: world.revoke("session", name, "ann"),
            "revoke many": lambda: self._revoke_many(choices.choice(("coder", "helper"))),
            "narrow": lambda: world.narrow(name, *narrower),
            "reload": lambda: world.reload(choices.randrange(len(all_bundles()))),
            "call": lambda: world.call(name, choices.choice(CALLS)),
            "wait": self._wait,
            "restart": lambda: world.restart(self._open_store),
        }
        deeds[deed]()

    def _revoke_many(self, agent: str) -> None:
        # First one row revokes all of the agent; what others have below them is revoked when each is written down.
        # Until then that is denied as well, but for what stands above it.
        halfway = copy_of(self.world.oracle)
        halfway._close([one for one in halfway.sessions.values() if one.agent == agent], "revoked")
        self._halfway = halfway
        self.world.revoke("agent", agent, "ann")

    def _wait(self) -> None:
        self.world.clock.advance(self._choices.choice((1.0, 300.0)))
        self.world.touch()

    def _request(self, parent: str = "") -> str:
        choices = self._choices
        above = self.world.oracle.sessions.get(parent)
        return self.world.request(
            parent=parent,
            user=above.user if above else choices.choice(("alice", "bob", "carol")),
            agent=choices.choice(("coder", "helper")),
            patterns=choices.choice(PATTERNS),
            duration=choices.choice((900.0, 3600.0)),
            labels=choices.choice(LABELS),
            may_delegate=choices.random() < 0.5,
        )


def damage(store: SQLiteSessionStore) -> str:
    """Return what SQLite finds wrong with a store."""
    try:
        found = [line for (line,) in store._connection.execute("PRAGMA integrity_check").fetchall() if line != "ok"]
    except apsw.Error as error:
        found = [str(error)]
    return f"damaged: {found}" if found else ""


def found_states(product: Product) -> list[Found]:
    """Return how a PDP has each session."""
    return [_found(product, session_id) for session_id in product.ids.values()]


def _found(product: Product, session_id: str) -> Found:
    try:
        view = product.embedded.registrar.get(session_id, caller=CALLERS["ann"])
    except NotFoundError:
        return Found("unknown")
    tools = sorted((f"{tool.server}/{tool.tool}", tool.definition_digest) for tool in view.tools)
    return Found(view.state.value, view.session.labels, tuple(tools))


def expected_states(moment: Moment, clock: FakeClock, names: dict[str, str]) -> list[Found]:
    """Return how the model has each session, now that the clock stands where it does."""
    now = clock.now()
    model = moment.model
    model._clock = lambda: (now.wall_at, now.boot_at, now.boot_id)
    return [_expected(model, name) for name in names]


def _expected(model: Oracle, name: str) -> Found:
    session = model.sessions.get(name)
    if session is None:
        return Found("unknown")
    state = model.state(session)
    tools = model.expansion(session) if state == "requested" else session.scope
    return Found(state, tuple(sorted(session.labels)), tuple(sorted(tools.items())))


def answers(product: Product, asked: list[Asked]) -> list[Answer]:
    """Return what a PDP answers to calls."""
    calls = [
        Call(
            session_handle=product.handles.get(name, UNKNOWN_HANDLE),
            server=wanted.server,
            tool=wanted.tool,
            arguments_json=wanted.arguments,
            facts_json=wanted.facts,
        )
        for name, wanted in asked
    ]
    return [
        spoken(product.embedded.authorizer.authorize(CallRequest(call=call), CALLERS["gateway-1"]), product)
        for call in calls
    ]


def expected_answers(moment: Moment, asked: list[Asked]) -> list[Answer]:
    """Return what the model answers to calls."""
    return [
        moment.model.call(name, "default", "gateway-1", wanted.server, wanted.tool, wanted.arguments, "", wanted.facts)
        for name, wanted in asked
    ]


def copy_of(model: Oracle) -> Oracle:
    """Return a model of its own of the same sessions, in front of the same bundle."""
    copy = Oracle(model._clock)
    vars(copy).update(vars(model) | {"sessions": deepcopy(model.sessions)})
    return copy


def _same(now: object, was: object) -> bool:
    """Say whether an answer is as expected by a server that has only the sessions, and not the history of their calls.

    Then counts are unknown, which denies, and a person is asked by another request.
    """
    if not isinstance(now, Answer) or not isinstance(was, Answer):
        return now == was
    return now.basis == "budget_exhausted" or now._replace(question="") == was._replace(question="")
