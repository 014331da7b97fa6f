"""Fetch packed bundles from a URL: over TLS, within limits of size and time, and only when they have changed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import pack, packed_bytes, read_packed, unpack
from pdp.errors import BundleError, BundleUnavailableError, Problem
from pdp.foundation.egress import STEP_SECONDS, WHOLE_SECONDS
from pdp.foundation.files import USUAL, replacing
from pdp.foundation.webfile import WebEndpoint, WebFile, WebFileError, WebFileTooLargeError
from pdp.limits import Limits

_LOG = logging.getLogger("pdp")

# How long a read waits for another one to finish.
_PATIENCE_SECONDS = 2.0


class URLSource:
    """A `BundleSource`: a packed bundle at a URL. Keeps the last good one in the file `kept_at`.

    `step_seconds` and `whole_seconds` bound a fetch.
    """

    name = "policy-url"

    def __init__(
        self,
        endpoint: WebEndpoint,
        limits: Limits,
        *,
        kept_at: Path,
        step_seconds: float = STEP_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._kept_at = kept_at
        self._file = WebFile(endpoint, packed_bytes(limits), step_seconds=step_seconds, whole_seconds=whole_seconds)
        self._reading = threading.Lock()
        self._latest: Delivery | None = None
        self._entity_tag = ""
        self._kept: Delivery | None = None

    def read(self) -> Delivery:
        """Return the bundle at the URL; the previous read when the server reports no change."""
        if not self._reading.acquire(timeout=_PATIENCE_SECONDS):
            raise self._silent("is already being fetched; try again")
        try:
            try:
                found = self._file.fetch(self._entity_tag if self._latest is not None else "")
            except WebFileTooLargeError as error:
                problem = f"{str(error).removeprefix('is ')} (limit `bundle_bytes`)"
                raise BundleError((Problem(self._endpoint.shown, 0, problem),)) from None
            except WebFileError as error:
                raise self._silent(str(error)) from None
            if found is not None:
                packed, tag = found
                self._latest, self._entity_tag = None, ""
                self._latest = self._unpacked(packed)
                self._entity_tag = tag
            if self._latest is None:
                raise self._silent("says that nothing has changed, but nothing was read before")
            return self._latest
        finally:
            self._reading.release()

    def loaded(self, delivery: Delivery) -> None:
        """Keep a good bundle on disk, for a start while the URL does not answer."""
        if delivery == self._kept:
            return
        try:
            # Several workers may write the file at the same time.
            with replacing(self._kept_at, mode=USUAL) as file:
                file.write(pack(delivery.files, delivery.signature))
        except OSError as error:
            _LOG.warning("the last good bundle could not be kept in `%s`: %s", self._kept_at, error.strerror)
            return
        self._kept = delivery

    def last_good(self) -> Delivery | None:
        """Return the bundle that this process or an earlier one kept."""
        try:
            return read_packed(self._kept_at, self._limits)
        except BundleError:
            return None

    def close(self) -> None:
        """End a running fetch; later ones fail at once."""
        self._file.close()

    def _unpacked(self, packed: bytes) -> Delivery:
        try:
            return unpack(packed, self._limits)
        except BundleError as error:
            raise BundleError(
                tuple(p if p.file else Problem(self._endpoint.shown, 0, p.message) for p in error.problems)
            ) from None

    def _silent(self, problem: str) -> BundleUnavailableError:
        return BundleUnavailableError(f"`{self._endpoint.shown}` {problem}")
