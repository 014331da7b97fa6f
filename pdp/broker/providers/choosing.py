"""Which key provider a broker has: `provider.yaml` in its folder says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pdp.broker.providers import KeyProvider
from pdp.broker.providers.files import FileProvider
from pdp.broker.reading import Reader, content_of
from pdp.foundation.nearest import hint
from pdp.foundation.yamltext import Section

PROVIDER_FILE: Final = "provider.yaml"
KEYS_FOLDER: Final = "keys"
_PROVIDERS: Final = ("file",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A provider that was chosen: `make` what it needs, which says whether it was not there yet, and `open` it."""

    make: Callable[[], bool]
    open: Callable[[], KeyProvider]


def chosen_provider(folder: Path) -> Chosen:
    """Return the provider of a broker. Raise `ConfigurationError` with every mistake in its file and its line."""
    path = folder / PROVIDER_FILE
    return _Settings(folder).whole(str(path), content_of(path), _Settings.provider)


class _Settings(Reader):
    """Reads `provider.yaml`."""

    def provider(self, document: Section) -> Chosen:
        """Return the chosen provider."""
        name = self.take(document, "provider", str, "file")
        known = name in _PROVIDERS
        self.require(document, "provider", f"is unknown: `{name}`{hint(name, _PROVIDERS)}", good=known)
        keys = self._folder / KEYS_FOLDER
        self.problems += document.unknown_keys(("provider",))
        return Chosen(make=partial(FileProvider.initialize, keys), open=partial(FileProvider, keys))
