"""Choose from the settings the source of bundles, its watch, and the trusted signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pdp.bundles.delivery import BundleSource
from pdp.bundles.localsources import FolderSource, PackedFileSource
from pdp.bundles.signing import Trust, read_public_keys
from pdp.bundles.urlsource import URLSource
from pdp.bundles.watching import FolderWatch, PollWatch
from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.ownership import require_own
from pdp.foundation.repeating import Repeater
from pdp.foundation.webfile import WebEndpoint

if TYPE_CHECKING:
    from pdp.config.settings import Settings

_LAST_GOOD_FILE = "last-good.bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourcing:
    """A source, its name in the log, and `watch`, which returns a watch that calls a function on each change.

    `close` ends a running read.
    """

    source: BundleSource
    name: str
    watch: Callable[[Callable[[], bool]], Repeater]
    close: Callable[[], None] = lambda: None


def sourcing_of(settings: Settings) -> Sourcing:
    """Return the source that the settings name: a URL, else a packed file, else a folder."""
    policies, limits = settings.policies, settings.limits
    if policies.url:
        endpoint = WebEndpoint(url=policies.url, ca_file=policies.url_ca_file, token_file=policies.url_token_file)
        fetched = URLSource(endpoint, limits, kept_at=Path(settings.data_dir) / _LAST_GOOD_FILE)

        def poll(follow: Callable[[], bool]) -> Repeater:
            return PollWatch(follow, policies.poll_seconds, abort=fetched.close)

        return Sourcing(source=fetched, name=f"policy URL `{endpoint.shown}`", watch=poll, close=fetched.close)
    if policies.file:
        file = Path(policies.file)
        return Sourcing(
            source=PackedFileSource(file, limits),
            name=f"policy file `{file}`",
            watch=lambda follow: FolderWatch(file, follow),
        )
    folder = Path(policies.folder)
    return Sourcing(
        source=FolderSource(folder, limits),
        name=f"policy folder `{folder}`",
        watch=lambda follow: FolderWatch(folder, follow),
    )


def trust_of(settings: Settings) -> Trust:
    """Return the trusted signers. Raise `ConfigurationError` when the public keys cannot be read."""
    name = settings.policies.public_keys
    if not name:
        return Trust()
    try:
        require_own(Path(name), "anyone could sign a bundle")
        keys = read_public_keys(Path(name).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read `policies.public_keys`: `{name}`: {reason_of(error)}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"`policies.public_keys`: `{name}` {error}") from None
    return Trust(keys=keys, required=settings.policies.require_signature)
