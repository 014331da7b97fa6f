"""Which key provider a broker has: `provider.yaml` in its folder says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pdp.broker.providers import KeyProvider
from pdp.broker.providers.files import Cover, FileProvider, Plain
from pdp.broker.upstream import Upstream, UpstreamError
from pdp.broker.words import SENT_ELSEWHERE
from pdp.foundation.nearest import hint
from pdp.foundation.settingsfile import Reader, content_of
from pdp.foundation.yamltext import Section

PROVIDER_FILE: Final = "provider.yaml"
KEYS_FOLDER: Final = "keys"
# Each provider, and what its file says of it.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "file": (),
    "age": ("recipients", "identity_file"),
    "transit": ("address", "mount", "token_file", "ca_file", "namespace"),
    "pkcs11": ("module", "token", "pin_file"),
}
_EXAMPLE: Final = "https://bao.example.org:8200"
_MOUNT: Final = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A provider that was chosen: `make` what it needs, which says whether it was not there yet, and `open` it."""

    make: Callable[[], bool]
    open: Callable[[], KeyProvider]


def chosen_provider(folder: Path) -> Chosen:
    """Return the provider of a broker. Raise `ConfigurationError` with every mistake in its file and its line."""
    path = folder / PROVIDER_FILE
    return _Settings(folder).whole(str(path), content_of(path, SENT_ELSEWHERE), _Settings.provider)


class _Settings(Reader):
    """Reads `provider.yaml`."""

    def provider(self, document: Section) -> Chosen:
        """Return the chosen provider."""
        name = self.take(document, "provider", str, "file")
        if name not in _KEYS:
            self.require(document, "provider", f"is unknown: `{name}`{hint(name, _KEYS)}", good=False)
            return _chosen_files(self._folder, Plain)
        self.problems += document.unknown_keys(("provider", *_KEYS[name]))
        return {"file": self._files, "age": self._age, "transit": self._transit, "pkcs11": self._pkcs11}[name](document)

    def _files(self, _: Section) -> Chosen:
        return _chosen_files(self._folder, Plain)

    def _age(self, document: Section) -> Chosen:
        from pdp.broker.providers.age import AgeCover  # noqa: PLC0415 - an extra of its own

        recipients = self.texts(document, "recipients")
        self.require(document, "recipients", "must list who can open the root key", good=recipients)
        return _chosen_files(self._folder, partial(AgeCover, recipients, self.named(document, "identity_file")))

    def _transit(self, document: Section) -> Chosen:
        from pdp.broker.providers.transit import TransitProvider  # noqa: PLC0415 - only where it is chosen

        address = self.take(document, "address", str, "")
        self.require(document, "address", f"must be an origin such as `{_EXAMPLE}`", good=_is_origin(address))
        mount, namespace, ca_file = (
            self.take(document, key, str, default)
            for key, default in (("mount", "transit"), ("namespace", ""), ("ca_file", ""))
        )
        self.require(document, "mount", "must be a path without a `/` at its ends", good=_MOUNT.fullmatch(mount))
        return _chosen(
            partial(
                TransitProvider,
                address,
                token_file=self.named(document, "token_file"),
                mount=mount,
                namespace=namespace,
                ca_file=str(self.file(ca_file) or ""),
            )
        )

    def _pkcs11(self, document: Section) -> Chosen:
        from pdp.broker.providers.pkcs11 import Pkcs11Provider  # noqa: PLC0415 - an extra of its own

        token = self.take(document, "token", str, "")
        self.require(document, "token", "must be the label of a token", good=token)
        module, pin_file = self.named(document, "module"), self.named(document, "pin_file")
        return _chosen(partial(Pkcs11Provider, module, token=token, pin_file=pin_file))


def _is_origin(text: str) -> bool:
    try:
        Upstream.read(text)
    except UpstreamError:
        return False
    return True


def _chosen_files(folder: Path, cover: Callable[[], Cover]) -> Chosen:
    keys = folder / KEYS_FOLDER
    return Chosen(
        make=lambda: FileProvider.initialize(keys, cover()),
        open=lambda: FileProvider(keys, cover()),
    )


def _chosen(opened: Callable[[], KeyProvider]) -> Chosen:
    """Return a provider that needs nothing in the broker's folder."""
    return Chosen(make=lambda: False, open=opened)
