"""Open what the broker keeps in its folder: the record, the key provider, and the vault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from pdp.broker.oauth.people import People
from pdp.broker.providers import KeyProvider
from pdp.broker.providers.choosing import KEYS_FOLDER, PROVIDER_FILE, chosen_provider
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.store.consents import Consents
from pdp.broker.store.flows import Flows
from pdp.broker.store.marks import Marks
from pdp.broker.store.rows import BrokerStore
from pdp.broker.vault import Vault
from pdp.clock import SystemClock
from pdp.errors import ConfigurationError
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.ownership import require_own
from pdp.observer import Event
from pdp.record.keys import DIGEST_KEY_FILE, SIGNING_KEY_FILE, SigningKey, write_keys
from pdp.record.log import DecisionLog

RECORD_FOLDER: Final = "record"
_STORE, _VERSIONS = Path("store") / "broker.sqlite", "versions.sqlite"


def make_broker(folder: Path) -> tuple[Path, ...]:
    """Make the folder of a broker, with what its provider needs and the keys of its record. Return what was written.

    Keys are kept in files, unless `provider.yaml` in the folder names another provider. What exists stays as it is.
    """
    make_folder(folder, sync_folder)
    require_own(folder, "anyone could put files of theirs there")
    written = []
    if make_file(folder / PROVIDER_FILE, lambda: b"provider: file\n"):
        written.append(folder / PROVIDER_FILE)
    if chosen_provider(folder).make():
        written.append(folder / KEYS_FOLDER)
    return (*written, *write_keys(folder))


def require_made(folder: Path) -> None:
    """Raise `ConfigurationError` unless `pdp-broker init` has made the folder."""
    if not (folder / PROVIDER_FILE).exists():
        raise ConfigurationError(f"`{folder}` is no folder of a broker: run `pdp-broker init`, or see `--data-dir`")


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
def opened_checkouts(folder: Path) -> Iterator[CheckoutStore]:
    """Provide the checkouts in the broker's folder. Raise `ConfigurationError` where there is none."""
    require_made(folder)
    with closing(CheckoutStore(folder / _STORE)) as store:
        yield store


@contextmanager
def opened_vault(folder: Path, observe: Callable[[Event], None]) -> Iterator[Vault]:
    """Provide the vault in the broker's folder. Raise `ConfigurationError` where there is none."""
    require_made(folder)
    with ExitStack() as opened:
        provider: KeyProvider = opened.enter_context(closing(chosen_provider(folder).open()))
        store = opened.enter_context(closing(BrokerStore(folder / _STORE)))
        marks = opened.enter_context(closing(Marks(folder / KEYS_FOLDER / _VERSIONS)))
        yield Vault(store=store, marks=marks, provider=provider, observe=observe, wall=time.time)


@contextmanager
def opened_people(folder: Path, vault: Vault, observe: Callable[[Event], None]) -> Iterator[People]:
    """Provide what opens connections of people in the broker's folder."""
    with closing(Consents(folder / _STORE)) as consents:
        people = People(vault, consents, observe, SystemClock())
        try:
            yield people
        finally:
            people.close()


@contextmanager
def opened_flows(folder: Path) -> Iterator[Flows]:
    """Provide what people have begun to connect in the broker's folder."""
    with closing(Flows(folder / _STORE)) as flows:
        yield flows
