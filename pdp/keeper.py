"""Keeps the running bundle: loads, activates, catches up with other workers, and never takes a bad one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pdp.clock import Clock, Instant, no_earlier
from pdp.errors import BundleError, BundleUnavailableError, PDPError, Problem
from pdp.limits import Limits
from pdp.model import Session, SessionState
from pdp.observer import Event, Observer
from pdp.policy.bundle import Bundle, Compile, check_bundle, load_bundle
from pdp.policy.contents import version_of
from pdp.sessions.lifecycle import recapture
from pdp.sessions.store import ActiveBundle, SessionStore

Files = Mapping[str, bytes]

_CATCH_UP_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleStatus:
    """The running bundle, the active version in the store, and why the last load failed (empty when it did not)."""

    bundle: Bundle | None
    active: ActiveBundle | None
    load_errors: tuple[Problem, ...]


class BundleKeeper:
    """Holds loaded bundles by version; the store says which one is active.

    `read` returns the files of the policy folder as they are now; `compile_files` compiles them in a child process.
    Every worker keeps its own; a worker that has not loaded the active bundle yet answers `BundleUnavailableError`
    and catches up in the background from the content that the store keeps.
    """

    def __init__(
        self,
        *,
        read: Callable[[], Files],
        compile_files: Compile,
        sessions: SessionStore,
        clock: Clock,
        observer: Observer,
        limits: Limits,
    ) -> None:
        self._read = read
        self._compile = compile_files
        self._sessions = sessions
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._loaded: Mapping[str, Bundle] = {}
        self._load_errors: tuple[Problem, ...] = ()
        self._changing = threading.Lock()
        self._keeping = threading.Lock()
        self._catching_up = threading.Lock()
        self._catch_up_at = 0.0

    def bundle_for(self, active: ActiveBundle | None) -> Bundle:
        """Return the loaded bundle of the active version. Raise `BundleUnavailableError` when it is not loaded."""
        if active is None:
            raise BundleUnavailableError("no bundle is loaded")
        bundle = self._loaded.get(active.version)
        if bundle is None:
            self._catch_up_soon(active)
            raise BundleUnavailableError("this worker is loading the active bundle; try again")
        return bundle

    def current(self) -> Bundle:
        """Return the active bundle. Raise `BundleUnavailableError` when it is not loaded."""
        return self.bundle_for(self._sessions.active_bundle())

    def serves(self) -> bool:
        """Say whether the store answers and its active bundle is loaded; for health, never raises."""
        try:
            self.current()
        except PDPError:
            return False
        return True

    def status(self) -> BundleStatus:
        """Return the running bundle, which version is active, and why the last load failed."""
        active = self._sessions.active_bundle()
        bundle = self._loaded.get(active.version) if active else None
        return BundleStatus(bundle=bundle, active=active, load_errors=self._load_errors)

    def start(self, *, by: str) -> None:
        """Load the folder's bundle; when it is bad, go on with the last good one that the store keeps.

        Raise `BundleError` when there is neither.
        """
        try:
            self.reload(by=by)
        except PDPError:
            active = self._sessions.active_bundle()
            if active is None:
                raise
            self._catch_up(active)

    def reload(self, *, by: str) -> bool:
        """Load the policy folder and make it the active bundle; say whether it differs from the one before.

        Raise `BundleError`; the bundle that runs is not touched by a bad one.
        """
        with self._changing:
            try:
                files = self._read()
                bundle = self._loaded.get(version_of(files)) or load_bundle(files, self._limits, self._compile)
            except BundleError as error:
                self._refused(error.problems)
                raise
            except PDPError as error:
                self._refused((Problem("", 0, str(error)),))
                raise
            self._load_errors = ()
            return self._activate(bundle, files, by)

    def check(self, files: Files | None) -> tuple[tuple[Problem, ...], str]:
        """Return what is wrong with a bundle (None: the policy folder), and its version when nothing is."""
        try:
            checked = self._read() if files is None else files
            check_bundle(checked, self._limits, self._compile)
        except BundleError as error:
            return error.problems, ""
        return (), version_of(checked)

    def _activate(self, bundle: Bundle, files: Files, by: str) -> bool:
        before = self._sessions.active_bundle()
        # INVARIANT: loaded before active, so that this worker never lacks what it activates itself.
        self._keep(bundle)
        # As everywhere: what was once written down, the wall clock cannot take back.
        now = no_earlier(self._clock.now(), self._sessions.view(bytes(32)).high_water_at)
        active = ActiveBundle(version=bundle.version, activated_at=now.wall_at, activated_by=by)

        def recaptured(session: Session) -> Session | None:
            return recapture(session, now, bundle.directory.capture(session.user, session.agent), by=by)

        changed = self._sessions.activate_bundle(active, pack(files), recaptured)
        if before is not None and before.version == bundle.version:
            return False
        facts = {"version": bundle.version, "sessions_changed": str(len(changed))}
        self._observer.event(Event(kind="bundle.activated", at=now.wall_at, caller_id=by, facts=facts))
        for session in changed:
            self._tell(session, by, now)
        return True

    def _tell(self, session: Session, by: str, now: Instant) -> None:
        revoked = session.state is SessionState.REVOKED
        self._observer.event(
            Event(
                kind="session.revoked" if revoked else "session.recaptured",
                at=now.wall_at,
                caller_id=by,
                session_id=session.id,
                user=session.user,
                agent=session.agent,
                tenant=session.tenant,
                facts={"reason": session.reason} if revoked else {},
            )
        )

    def _keep(self, bundle: Bundle) -> None:
        with self._keeping:
            # The active one stays whatever is loaded beside it, and the one before for decisions that began with it.
            active = self._sessions.active_bundle()
            others = [one for one in self._loaded.values() if one.version != bundle.version]
            kept = [one for one in others[:-1] if active is not None and one.version == active.version] + others[-1:]
            self._loaded = {one.version: one for one in [*kept, bundle]}

    def _refused(self, problems: tuple[Problem, ...]) -> None:
        self._load_errors = problems
        facts = {"problems": "; ".join(str(problem) for problem in problems[:20])}
        self._observer.event(Event(kind="bundle.refused", at=self._clock.now().wall_at, facts=facts))

    def _catch_up_soon(self, active: ActiveBundle) -> None:
        # One thread at a time, and after a failure a pause; the calls that arrive meanwhile are told to try again.
        if self._clock.now().boot_at >= self._catch_up_at and self._catching_up.acquire(blocking=False):
            try:
                threading.Thread(target=self._catch_up_then_release, args=(active,), daemon=True).start()
            except RuntimeError:
                # No thread is to be had now; the next call tries again.
                self._catching_up.release()

    def _catch_up_then_release(self, active: ActiveBundle) -> None:
        try:
            self._catch_up(active)
        except PDPError as error:
            self._catch_up_at = self._clock.now().boot_at + _CATCH_UP_PAUSE_SECONDS
            self._refused((Problem("", 0, f"the active bundle cannot be loaded: {error}"),))
        finally:
            self._catching_up.release()

    def _catch_up(self, active: ActiveBundle) -> None:
        content = self._sessions.bundle_content(active.version)
        if content is None:
            raise BundleUnavailableError("the store does not hold the active bundle")
        self._keep(load_bundle(unpack(content), self._limits, self._compile))


def pack(files: Files) -> bytes:
    """Pack a bundle's files into one text for the store."""
    return json.dumps({name: base64.b64encode(files[name]).decode("ascii") for name in sorted(files)}).encode("ascii")


def unpack(content: bytes) -> dict[str, bytes]:
    """Unpack what `pack` packed."""
    return {name: base64.b64decode(text) for name, text in json.loads(content).items()}
