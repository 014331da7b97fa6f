"""Open what the broker keeps in its folder: the record, and the vault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from pdp.broker.providers.files import FileProvider
from pdp.broker.store.marks import Marks
from pdp.broker.store.rows import BrokerStore
from pdp.broker.vault import Vault
from pdp.foundation.files import make_folder, sync_folder
from pdp.observer import Event
from pdp.record.keys import DIGEST_KEY_FILE, SIGNING_KEY_FILE, SigningKey, write_keys
from pdp.record.log import DecisionLog

RECORD_FOLDER: Final = "record"
_STORE, _KEYS, _VERSIONS = Path("store") / "broker.sqlite", "keys", "versions.sqlite"


@contextmanager
def opened_record(folder: Path) -> Iterator[DecisionLog]:
    """Provide the record in the broker's folder, and write its keys when there are none."""
    make_folder(folder, sync_folder)
    write_keys(folder)
    record = DecisionLog(
        folder / RECORD_FOLDER,
        key=(folder / DIGEST_KEY_FILE).read_bytes(),
        signer=SigningKey.load(folder / SIGNING_KEY_FILE),
    )
    with closing(record):
        record.start()
        yield record


@contextmanager
def opened_vault(folder: Path, observe: Callable[[Event], None]) -> Iterator[Vault]:
    """Provide the vault in the broker's folder. Raise `ConfigurationError` where there is none."""
    provider = FileProvider(folder / _KEYS)
    vault = Vault(
        store=BrokerStore(folder / _STORE),
        marks=Marks(folder / _KEYS / _VERSIONS),
        provider=provider,
        observe=observe,
        wall=time.time,
    )
    with closing(vault):
        yield vault
