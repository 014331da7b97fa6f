"""Vaults of the tests: with files in a folder, and a provider of which they can be copies."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pdp.broker.providers.files import FileProvider
from pdp.broker.store.marks import Marks
from pdp.broker.store.rows import BrokerStore
from pdp.broker.vault import Vault
from pdp.broker.words import Connection
from pdp.observer import Event

BY = "tests"


def connection(id_: str = "github", **other: object) -> Connection:
    """Return a connection; `other` replaces its fields."""
    fields = {"tenant": "acme", "compartment": "prod", "kind": id_, "upstream": "https://api.example.com"}
    return Connection(id=id_, **{**fields, **other})  # type: ignore[arg-type]  # fields by name


@dataclass
class Files:
    """The files of one broker, and what it has recorded."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """Return the file of the store."""
        return self.folder / "store" / "broker.sqlite"

    @property
    def keys(self) -> Path:
        """Return the folder of the provider, with the highest versions beside its keys."""
        return self.folder / "keys"

    def open(self) -> Vault:
        """Open the vault, as each process does for itself."""
        FileProvider.initialize(self.keys)
        return Vault(
            store=BrokerStore(self.store),
            marks=Marks(self.keys / "versions.sqlite"),
            provider=FileProvider(self.keys),
            observe=self.events.append,
            wall=lambda: 1_700_000_000.0,
        )

    def copy(self, to: Path) -> Files:
        """Copy all files; the vault must be closed."""
        shutil.copytree(self.folder, to)
        return Files(to)
