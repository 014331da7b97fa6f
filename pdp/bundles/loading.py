"""The bundles that this worker has in memory: loads them, and catches up when another worker activates one."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import unpack
from pdp.bundles.peers import Compiled, Peers, read_news
from pdp.bundles.signing import Trust, Verified
from pdp.clock import Clock
from pdp.errors import BundleUnavailableError, PDPError, Problem, one_line
from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.policy.entities import EntityMemory
from pdp.policy.loading import Compile, assemble, load_bundle
from pdp.sessions.store import BundleHistory
from pdp.sessions.values import ActiveBundle

_LOG = logging.getLogger("pdp")
_CATCH_UP_PAUSE_SECONDS = 5.0
# A catalogue may hold thousands of tools; `pdp check` names all.
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A bundle that may run here: the verified delivery, and the compiled bundle."""

    verified: Verified
    bundle: Bundle


class LoadedBundles:
    """Holds bundles by version: the active one, the latest, and the one before it. Safe for threads.

    What is compiled here is left to `peers`, for the workers that begin later. `failed` is called with the reasons when
    a bundle could not be loaded in the background.
    """

    def __init__(
        self,
        *,
        compile_files: Compile,
        history: BundleHistory,
        clock: Clock,
        limits: Limits,
        trust: Trust,
        failed: Callable[[tuple[Problem, ...]], None],
        peers: Peers | None = None,
    ) -> None:
        self._compile = compile_files
        self._history = history
        self._clock = clock
        self._limits = limits
        self._trust = trust
        self._failed = failed
        self._peers = peers
        self._memory = EntityMemory()
        self._bundles: Mapping[str, Bundle] = {}
        self._keeping = threading.Lock()
        self._catching_up = threading.Lock()
        self._catch_up_at = 0.0

    def get(self, version: str) -> Bundle | None:
        """Return a bundle in memory, or None."""
        return self._bundles.get(version)

    def load(self, verified: Verified) -> Loaded:
        """Return a bundle that may run. Raises what `load_bundle` raises."""
        delivery = verified.delivery
        bundle = self._bundles.get(delivery.version) or self._left(delivery)
        if bundle is None:
            bundle = self.bundle_of(delivery)
            if self._peers is not None:
                self._peers.leave(Compiled(delivery=delivery, parts=bundle.parts).written())
        return Loaded(verified=verified, bundle=bundle)

    def bundle_of(self, delivery: Delivery) -> Bundle:
        """Return a bundle that need not run here; compile it unless in memory. Raises what `load_bundle` raises."""
        found = self._bundles.get(delivery.version)
        return found or load_bundle(delivery.files, self._limits, self._compile, self._memory)

    def take(self, compiled: Compiled) -> None:
        """Hold a bundle that another worker has compiled. Raise `BundleError` when it may not run here."""
        verified = self._trust.verify(compiled.delivery)
        bundle = assemble(compiled.delivery.files, compiled.parts, self._limits, self._memory)
        self.keep(Loaded(verified=verified, bundle=bundle))

    def keep(self, loaded: Loaded) -> None:
        """Hold a bundle, and log which of its tools cannot be called."""
        bundle = loaded.bundle
        if bundle.version not in self._bundles:
            _log_unusable(bundle)
        with self._keeping:
            # The active one always stays, and so does the previous one, for decisions that began with it.
            active = self._history.active_bundle()
            others = [one for one in self._bundles.values() if one.version != bundle.version]
            kept = [one for one in others[:-1] if active is not None and one.version == active.version] + others[-1:]
            self._bundles = {one.version: one for one in [*kept, bundle]}

    def kept_in_store(self, version: str) -> Delivery | None:
        """Return a version from the store, or None. Raise `BundleError` when it is beyond the limits."""
        content = self._history.bundle_content(version)
        if content is None:
            return None
        if content.startswith(b"{"):
            # Stored by a release that did not pack bundles. No packed bundle begins like this.
            return Delivery(files={name: base64.b64decode(text) for name, text in json.loads(content).items()})
        return unpack(content, self._limits)

    def catch_up(self, active: ActiveBundle) -> None:
        """Load the active bundle from the store. Raise `BundleError` when it may not run here."""
        delivery = self.kept_in_store(active.version)
        if delivery is None:
            raise BundleUnavailableError("the store does not hold the active bundle")
        self.keep(self.load(self._trust.verify(delivery)))

    def _left(self, delivery: Delivery) -> Bundle | None:
        """Return the bundle of verified files from what another worker has compiled of them; None to compile them."""
        active = self._history.active_bundle()
        # INVARIANT: only the active bundle, which one of the workers has compiled, or has taken from one that has.
        if self._peers is None or active is None or active.version != delivery.version:
            return None
        news = self._peers.left()
        try:
            left = read_news(news, self._limits) if news is not None else None
            if not isinstance(left, Compiled) or left.delivery.version != delivery.version:
                return None
            return assemble(delivery.files, left.parts, self._limits, self._memory)
        except (PDPError, ValueError) as error:
            _LOG.warning("what another worker has compiled cannot be used, and is compiled again: %s", error)
            return None

    def catch_up_soon(self, active: ActiveBundle) -> None:
        """Load the active bundle in the background."""
        # One thread at a time, with a pause after a failure; calls that arrive meanwhile get "try again".
        if self._clock.now().boot_at >= self._catch_up_at and self._catching_up.acquire(blocking=False):
            try:
                threading.Thread(
                    target=self._catch_up_then_release, args=(active,), name="pdp-catch-up", daemon=True
                ).start()
            except RuntimeError:
                # No thread can be started now; the next call tries again.
                self._catching_up.release()

    def _catch_up_then_release(self, active: ActiveBundle) -> None:
        try:
            self.catch_up(active)
        except PDPError as error:
            self._catch_up_at = self._clock.now().boot_at + _CATCH_UP_PAUSE_SECONDS
            self._failed((Problem("", 0, f"the active bundle cannot be loaded: {error}"),))
        finally:
            self._catching_up.release()


def _log_unusable(bundle: Bundle) -> None:
    unusable = [tool for tool in bundle.catalogue.tools.values() if tool.unusable]
    for tool in unusable[:_MOST_NAMED]:
        _LOG.warning("every call of `%s` is denied: %s", one_line(tool.action), one_line(tool.unusable))
    if len(unusable) > _MOST_NAMED:
        _LOG.warning("every call of %d more tools is denied; `pdp check` names them", len(unusable) - _MOST_NAMED)
