"""Follows the source of bundles while the server runs, and logs which bundle runs and which was refused."""

from __future__ import annotations

import logging

from pdp.bundles.keeper import BundleKeeper
from pdp.errors import PDPError, UnavailableError

_LOG = logging.getLogger("pdp")


class BundleFollower:
    """Takes each change of a source, and logs each result once. One thread at a time.

    `source_name` describes the source: "policy folder", and its path.
    """

    def __init__(self, keeper: BundleKeeper, source_name: str) -> None:
        self._keeper = keeper
        self._source_name = source_name
        self._running = ""
        self._refused = ""
        self._held = ""

    def began(self) -> None:
        """Log what runs after the start, and what was wrong with the source."""
        self._say_what_runs()
        problems = self._keeper.status().load_errors
        if problems:
            self._say_refused("; ".join(str(problem) for problem in problems))

    def follow(self) -> bool:
        """Read the source; return whether nothing is left to do until its next change."""
        try:
            if not self._keeper.follow():
                # It is read when this server has the turn, although it may not change until then.
                return False
        except PDPError as error:
            self._say_refused(str(error))
            return not isinstance(error, UnavailableError)
        if not self._keeper.status().load_errors:
            self._say_what_runs()
        return True

    def _say_what_runs(self) -> None:
        status = self._keeper.status()
        bundle = status.bundle
        if bundle is None:
            return
        # Also logged when a refused source is restored to the running version: its author waits for this line.
        if self._refused or bundle.version != self._running:
            counts = len(bundle.policies), len(bundle.catalogue.tools)
            _LOG.info("bundle `%s` runs: %d policies, %d tools, %s", bundle.name, *counts, bundle.version)
        self._running, self._refused = bundle.version, ""
        held = status.source_version if status.source_version != bundle.version else ""
        if held and held != self._held:
            _LOG.warning(
                "%s holds %s, which was active before and is not activated again: `pdp bundle activate` or "
                "`pdp bundle reload` brings it back",
                self._source_name,
                held,
            )
        self._held = held

    def _say_refused(self, problem: str) -> None:
        # The keeper has already reported it to the observers.
        if problem != self._refused:
            _LOG.error("%s was not loaded; the server keeps its active bundle: %s", self._source_name, problem)
        self._refused = problem
