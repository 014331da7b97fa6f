"""Keeps the running bundle: loads, activates, follows its source and other workers, and never takes a bad one.

The rule of what becomes active:

- An explicit activation or reload always takes effect.
- Without one, content of the source that was never active before becomes active.
- Content that was active before becomes active again only when the source goes back: it held the active bundle, now
  holds an earlier one, and the active one was not chosen by its version.

So a rollback stays until there is new content, a worker that starts on an old folder brings nothing back, and undoing
a change of the folder undoes its activation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from pdp.bundles.activation import Activation, Activations, BundleSessions, OnLacking
from pdp.bundles.delivery import BundleSource, Delivery
from pdp.bundles.loading import Loaded, LoadedBundles
from pdp.bundles.packing import unpack
from pdp.bundles.peers import Compiled, Peers, Seen, SourceView, read_news
from pdp.bundles.replicas import Replicas
from pdp.bundles.signing import Trust, Verified
from pdp.clock import Clock, no_earlier
from pdp.errors import BundleError, BundleUnavailableError, ConflictError, NotFoundError, PDPError, Problem
from pdp.limits import Limits
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.policy.contents import titles_of
from pdp.policy.loading import CheckReport, Compile, inspect_bundle
from pdp.sessions.values import ActiveBundle, Expected
from pdp.sessions.writes import Write

_LOG = logging.getLogger("pdp")

_TRIES = 10
# The length of the reasons for a refusal in the record; the rest is in the answer and in the server's log.
_REPORTED_CHARACTERS = 2000
# A reload waits while another one loads a bundle, but not while another one reads a source that stalls.
_PATIENCE_SECONDS = 2.0
_PATIENCES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleStatus:
    """The running bundle, the active version in the store, and why the last load failed (empty when it did not).

    `source_version` is what the source held when it was last read successfully; empty before that.
    """

    bundle: Bundle | None
    active: ActiveBundle | None
    load_errors: tuple[Problem, ...]
    source_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBundle:
    """A bundle that can be activated again: its latest activation, its name and its label."""

    activation: ActiveBundle
    name: str
    label: str


class BundleKeeper:
    """Holds the running bundle; the store says which one is active.

    `compile_files` compiles in a child process. With `never_older`, a source brings only bundles with a higher number
    than any that was active. Every worker has its own keeper, which sends `peers`, the other workers, each bundle
    before it activates it, and what it has read from the source. `replicas`, the other servers on the same database,
    get the bundle as well, and take turns to follow their sources. A worker that has not yet loaded the active bundle
    raises `BundleUnavailableError` and catches up in the background from the store.
    """

    def __init__(
        self,
        *,
        source: BundleSource,
        compile_files: Compile,
        history: BundleSessions,
        clock: Clock,
        observer: Observer,
        limits: Limits,
        trust: Trust | None = None,
        never_older: bool = False,
        peers: Peers | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._source = source
        self._compile = compile_files
        self._history = history
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._trust = trust or Trust()
        self._never_older = never_older
        self._bundles = LoadedBundles(
            compile_files=compile_files,
            history=history,
            clock=clock,
            limits=limits,
            trust=self._trust,
            failed=self._fell_behind,
            peers=peers,
        )
        self._activations = Activations(
            history=history, bundles=self._bundles, clock=clock, observer=observer, peers=peers, replicas=replicas
        )
        self._peers = peers
        self._replicas = replicas
        # What the source held when it was last read, by this worker or by another one.
        self._view = self._sent = SourceView()
        # News from another worker must not be lost between reading the view and replacing it.
        self._viewing = threading.Lock()
        # Why this worker could not load the active bundle.
        self._behind: tuple[Problem, ...] = ()
        # What the source brought and was not taken; it can be activated by its version.
        self._held: Delivery | None = None
        # A source may take long to answer; an activation by version does not wait for it.
        self._following = threading.Lock()
        self._reading = False

    def bundle_for(self, active: ActiveBundle | None) -> Bundle:
        """Return the bundle of the active version. Raise `BundleUnavailableError` when it is not loaded."""
        if active is None:
            raise BundleUnavailableError("no bundle is loaded")
        bundle = self._bundles.get(active.version)
        if bundle is None:
            self._bundles.catch_up_soon(active)
            raise BundleUnavailableError("this worker is loading the active bundle; try again")
        return bundle

    def current(self) -> Bundle:
        """Return the active bundle. Raise `BundleUnavailableError` when it is not loaded."""
        return self.bundle_for(self._history.active_bundle())

    def serves(self) -> bool:
        """Return whether the store answers and its active bundle is loaded; never raises."""
        try:
            self.current()
        except PDPError:
            return False
        return True

    def running_version(self) -> str:
        """Return the version of the active bundle, empty when it is not loaded; never raises."""
        try:
            return self.current().version
        except PDPError:
            return ""

    def status(self) -> BundleStatus:
        """Return the running bundle, which version is active, and why the last load failed."""
        active, view = self._history.active_bundle(), self._view
        bundle = self._bundles.get(active.version) if active else None
        return BundleStatus(
            bundle=bundle,
            active=active,
            load_errors=view.load_errors or (() if bundle else self._behind),
            source_version=view.good.version if view.good else "",
        )

    def start(self, *, by: str) -> None:
        """Start with what the source holds if it may be taken, otherwise with the store's active bundle.

        Without either, start with the last good bundle that the source kept. Raise `PDPError` when there is none.
        """
        with self._following:
            try:
                with self._telling():
                    delivery = self._read()
                    self._begin(delivery, by)
                    self._settle(Seen.of(delivery))
            except PDPError:
                if self._go_on():
                    return
                last_good = self._source.last_good()
                if last_good is None:
                    raise
                self._begin(last_good, by)
                self._update_view(lambda view: replace(view, good=Seen.of(last_good)))

    def follow(self) -> bool:
        """Take what the source holds now, if the rule permits it without an explicit activation.

        Return False without reading it when another server has the turn to follow its source. Raises what `reload`
        raises, but only once for the same bad bundle.
        """
        with self._following, self._telling(only_news=True):
            # INVARIANT: the turn is older than what is read in it, so that nothing that was read before a later turn
            # began is activated after it.
            turn = self._replicas.turn() if self._replicas is not None else ""
            if turn is None:
                return False
            delivery = self._read()
            seen, view = Seen.of(delivery), self._view
            if seen == view.bad:
                # Already reported; but the source may have been silent meanwhile.
                self._update_view(lambda view: replace(view, load_errors=view.bad_problems))
                return True
            if seen != view.good:
                try:
                    self._take(delivery, self._source.name, turn)
                except BundleError as error:
                    with self._viewing:
                        self._view = replace(self._view, bad=seen, bad_problems=error.problems)
                    raise
            self._settle(seen)
            return True

    def reload(self, *, by: str, write: Write | None = None, on_lacking: OnLacking = None) -> bool:
        """Load and activate what the source holds; return whether it differs from the one before.

        With a `write`, here and for `activate`, it is remembered, so that it can be asked for again: see `written`.
        `on_lacking` is called as `Activation` says.
        Raise `BundleError` or `BundleUnavailableError`; a bad bundle does not affect the running one. With
        `never_older`, raise `ConflictError` when another bundle became active meanwhile, which may be newer.
        """
        if not self._has_turn():
            raise BundleUnavailableError("the source of bundles is being read; try again")
        try:
            with self._telling():
                # INVARIANT: read before the number is compared with those that were active.
                active = self._history.active_bundle() if self._never_older else None
                verified = self._offered()
                loaded = self._load(verified)
            self._settle(Seen.of(verified.delivery))
            expected = Expected(version=active.version if active else "") if self._never_older else None
            return self._activate(loaded, Activation(by=by, expected=expected, write=write, on_lacking=on_lacking))
        finally:
            self._following.release()

    def activate(
        self, version: str, *, by: str, reason: str = "", write: Write | None = None, on_lacking: OnLacking = None
    ) -> bool:
        """Activate a version that the store keeps, or that the source brought and was not taken.

        Return whether it differs from the one before. It stays until the source brings content that was never active,
        or the next explicit activation. Raise `NotFoundError`, or `BundleError` when it may not run here.
        """
        verified = self._trust.verify(self._known(version))
        how = Activation(by=by, reason=reason, chosen=True, write=write, on_lacking=on_lacking)
        return self._activations.activate(self._bundles.load(verified), how)

    def written(self, write: Write) -> tuple[str, ...] | None:
        """Return the version that the caller has activated before, followed by that of the bundle before it, if any.

        None when that is not known. Raise `RequestIdConflictError` when something else was asked for under the same
        request id.
        """
        now = no_earlier(self._clock.now(), self._history.high_water_at())
        return self._history.written(write, wall_at=now.wall_at)

    def unfit_sessions(self, bundle: Bundle) -> int:
        """Count the active sessions whose terms do not fit a bundle; 0 when they cannot be read now.

        While that bundle is active, all their calls are denied.
        """
        return self._activations.unfit_sessions(bundle)

    def hear(self, news: bytes) -> None:
        """Take the news of another worker; after unusable news, catch up from the store later."""
        try:
            taken = read_news(news, self._limits)
            if isinstance(taken, SourceView):
                with self._viewing:
                    self._view = self._sent = taken
            else:
                self._bundles.take(taken)
        except (PDPError, ValueError) as error:
            _LOG.warning("a message from another worker cannot be used: %s", error)

    def prepare(self, content: bytes) -> None:
        """Hold a packed bundle that another server is about to activate, with the other workers of this one.

        Raise `BundleError` when it may not run here.
        """
        delivery = unpack(content, self._limits)
        if self._bundles.get(delivery.version) is None:
            loaded = self._bundles.load(self._trust.verify(delivery))
            self._bundles.keep(loaded)
            if self._peers is not None:
                self._peers.tell(Compiled(delivery=delivery, parts=loaded.bundle.parts).written())

    def catch_up(self) -> None:
        """Load what became active since the start, if it may run here."""
        active = self._history.active_bundle()
        if active is not None and self._bundles.get(active.version) is None:
            self._go_on()

    def kept(self) -> tuple[KeptBundle, ...]:
        """Return the bundles that can be activated again, by their latest activation, newest first."""
        return tuple(self._kept(activation) for activation in self._history.kept_bundles())

    def find(self, version: str) -> tuple[Bundle, ActiveBundle]:
        """Return a kept bundle and its latest activation. Raise `NotFoundError`."""
        activation = next((one for one in self._history.kept_bundles() if one.version == version), None)
        delivery = self._bundles.kept_in_store(version) if activation else None
        if activation is None or delivery is None:
            raise _not_kept(version)
        return self._bundles.bundle_of(delivery), activation

    def check(self, files: Mapping[str, bytes] | None) -> CheckReport:
        """Return what is wrong with a bundle (None: what the source holds), lints included."""
        try:
            checked = self._offered().delivery.files if files is None else files
        except BundleError as error:
            return CheckReport(errors=error.problems)
        return inspect_bundle(checked, self._limits, self._compile)

    def _has_turn(self) -> bool:
        """Wait for the thread that follows the source, as long as the source answers."""
        for _ in range(_PATIENCES):
            if self._following.acquire(timeout=_PATIENCE_SECONDS):
                return True
            if self._reading:
                break
        return False

    def _read(self) -> Delivery:
        self._reading = True
        try:
            return self._source.read()
        finally:
            self._reading = False

    def _offered(self) -> Verified:
        """Return what the source holds, if it may run here."""
        verified = self._trust.verify(self._source.read())
        self._require_newer(verified.delivery)
        return verified

    def _begin(self, delivery: Delivery, by: str) -> None:
        if self._take(delivery, by) is None and not self._go_on():
            # The active bundle may not run here, for example because signatures are now required: replace it.
            self._activate(self._load(self._trust.verify(delivery)), Activation(by=by))

    def _go_on(self) -> bool:
        """Load the active bundle of the store; return whether there is one that may run here."""
        active = self._history.active_bundle()
        try:
            if active is not None:
                self._bundles.catch_up(active)
        except BundleError:
            return False
        return active is not None

    def _take(self, delivery: Delivery, by: str, turn: str = "") -> bool | None:
        """Activate what a source brings, by the rule above; return whether it is new, None when not taken.

        `turn` is that in which it was read.
        """
        came_from = self._view.good.version if self._view.good else ""
        loaded: Loaded | None = None
        for _ in range(_TRIES):
            active = self._history.active_bundle()
            same = active is not None and active.version == delivery.version
            self._require_newer(delivery)
            if not same and not self._may_take(active, delivery.version, came_from):
                self._held = delivery
                return None
            if loaded is None:
                # Loading takes time: check once more whether the bundle may be taken.
                loaded = self._load(self._trust.verify(delivery))
                continue
            if active is not None and same and loaded.verified.signed_by in ("", active.signed_by):
                self._bundles.keep(loaded)
                return False
            chosen = active is not None and same and active.chosen
            expected = Expected(version=active.version if active else "", turn=turn)
            with suppress(ConflictError):
                return self._activate(loaded, Activation(by=by, chosen=chosen, expected=expected))
        raise BundleUnavailableError("other workers keep activating bundles; try again")

    def _may_take(self, active: ActiveBundle | None, version: str, came_from: str) -> bool:
        if active is None or not self._history.bundle_past(version).was_active:
            return True
        return not active.chosen and came_from == active.version

    def _require_newer(self, delivery: Delivery) -> None:
        if not self._never_older:
            return
        active = self._history.active_bundle()
        if active is not None and active.version == delivery.version:
            return
        number = self._trust.verify(delivery).number
        highest = self._history.bundle_past(delivery.version).highest_number
        if number <= highest:
            self._held = delivery
            problem = (
                f"the bundle has number `{number}`, but `{highest}` was already active; only newer ones are taken, "
                f"unless `{delivery.version}` is activated by its version"
            )
            raise BundleError((Problem("", 0, problem),))

    def _load(self, verified: Verified) -> Loaded:
        loaded = self._bundles.load(verified)
        self._source.loaded(verified.delivery)
        return loaded

    def _activate(self, loaded: Loaded, how: Activation) -> bool:
        changed = self._activations.activate(loaded, how)
        self._held = None
        return changed

    def _kept(self, activation: ActiveBundle) -> KeptBundle:
        try:
            delivery = self._bundles.kept_in_store(activation.version)
        except BundleError:
            # The limits were wider when it ran; it is still listed.
            delivery = None
        name, label = titles_of(delivery.files) if delivery else ("", "")
        return KeptBundle(activation=activation, name=name, label=label)

    def _known(self, version: str) -> Delivery:
        """Return a version that the store keeps, or that a source brought to this or another worker."""
        held = self._held
        if held is not None and held.version == version:
            return held
        delivery = self._bundles.kept_in_store(version)
        if delivery is None and self._view.holds(version):
            delivery = self._source.read()
        if delivery is None or delivery.version != version:
            raise _not_kept(version)
        return delivery

    def _settle(self, seen: Seen) -> None:
        self._update_view(lambda _: SourceView(good=seen))

    def _update_view(self, change: Callable[[SourceView], SourceView]) -> None:
        """Change what is known of the source, and send it to the other workers."""
        with self._viewing:
            view = self._view = change(self._view)
            sent, self._sent = self._sent, view if self._peers is not None else self._sent
        if self._peers is not None and view != sent:
            self._peers.tell(view.written())

    @contextmanager
    def _telling(self, *, only_news: bool = False) -> Iterator[None]:
        try:
            yield
        except PDPError as error:
            problems = error.problems if isinstance(error, BundleError) else (Problem("", 0, str(error)),)
            if not only_news or problems != self._view.load_errors:
                self._refused(problems)
            self._update_view(lambda view: replace(view, load_errors=problems))
            raise

    def _fell_behind(self, problems: tuple[Problem, ...]) -> None:
        self._behind = problems
        self._refused(problems)

    def _refused(self, problems: tuple[Problem, ...]) -> None:
        facts = {"problems": "; ".join(str(problem) for problem in problems[:20])[:_REPORTED_CHARACTERS]}
        self._observer.event(Event(kind=EventKind.BUNDLE_REFUSED, at=self._clock.now().wall_at, facts=facts))


def _not_kept(version: str) -> NotFoundError:
    return NotFoundError(f"no bundle with this version is kept: `{version}`")
