"""Run a receiver of signals: what it is made of, where it listens, and its end."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.client import Client
from pdp.clock import Clock, SystemClock
from pdp.errors import ConfigurationError
from pdp.foundation.files import make_folder, sync_folder
from pdp.foundation.ownership import read_secret
from pdp.foundation.repeating import Repeater
from pdp.messages.receivers import read_receivers
from pdp.observer import DoorObserver, Event
from pdp.record.keys import DIGEST_KEY_FILE, SIGNING_KEY_FILE, SigningKey, write_keys
from pdp.record.log import DecisionLog
from pdp.serving.weblistener import Listener, serve
from pdp.signals.applying import Applier, Revoker
from pdp.signals.leaks import fingerprint_key
from pdp.signals.rate import Rate
from pdp.signals.readers import reader_of
from pdp.signals.receiving import Receiver, Source
from pdp.signals.settings import Sender, SignalSettings
from pdp.signals.store import SignalStore
from pdp.signals.telling import Teller
from pdp.signals.words import OPEN

RECORD_FOLDER: Final = "record"
STORE_FILE: Final = "signals.sqlite"
# How often keys are read, and how often signals are tried that wait.
_KEYS_SECONDS, _APPLY_SECONDS = 300.0, 5.0
_CALL_SECONDS: Final = 10.0
# Between two looks at what is held.
_TELL_SECONDS: Final = 5.0
_MOST_TOKEN_BYTES: Final = 8192
_MOST_COUNTED: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A receiver and what carries its signals out."""

    receiver: Receiver
    applier: Applier
    store: SignalStore


@contextmanager
def opened_record(folder: Path) -> Iterator[DecisionLog]:
    """Provide the record in the folder of a receiver, and write its keys when there are none."""
    make_folder(folder, sync_folder)
    write_keys(folder)
    signer = SigningKey.load(folder / SIGNING_KEY_FILE)
    record = DecisionLog(folder / RECORD_FOLDER, key=(folder / DIGEST_KEY_FILE).read_bytes(), signer=signer)
    with closing(record):
        record.start()
        yield record


@contextmanager
def assembled(
    settings: SignalSettings,
    observe: Callable[[Event], None],
    *,
    revoker: Revoker | None = None,
    observer: DoorObserver | None = None,
    clock: Clock | None = None,
) -> Iterator[Parts]:
    """Provide a receiver, with its threads, and release what it holds.

    It asks the server of the settings, unless a `revoker` is passed.
    """
    clock = clock or SystemClock()
    with ExitStack() as opened:
        store = opened.enter_context(closing(SignalStore(settings.data_dir / STORE_FILE)))
        pdp = settings.pdp
        if revoker is None:
            revoker = opened.enter_context(Client(pdp.address, management_timeout=_CALL_SECONDS, **pdp.options))
        applier = Applier(
            store=store,
            revoker=revoker,
            senders=settings.senders,
            broker_record=settings.broker_record,
            observe=observe,
            wall=lambda: clock.now().wall_at,
        )
        applying = Repeater("signals", applier.run, every=_APPLY_SECONDS)
        receiver = Receiver(
            sources=_sources(settings, clock, opened),
            store=store,
            clock=clock,
            wake=applying.wake,
            problem=lambda: applier.problem,
            observe=observe,
            observer=observer,
        )
        if settings.receivers_file is not None:
            receivers = read_receivers(settings.receivers_file)
            teller = Teller(receivers, store=store, wall=lambda: clock.now().wall_at)
            opened.enter_context(Repeater("signals-telling", teller.run, every=_TELL_SECONDS))
            # Before its thread is waited for.
            opened.callback(teller.close)
        if observer is not None:
            observer.watch_signals(lambda: {one.value: len(store.signals(one, limit=_MOST_COUNTED)) for one in OPEN})
        opened.enter_context(applying)
        yield Parts(receiver=receiver, applier=applier, store=store)


async def serve_until(
    stopped: asyncio.Event, settings: SignalSettings, receiver: Receiver, *, listening: Callable[[str], object]
) -> None:
    """Take signals until it is stopped. `listening` is told the URL."""
    with Listener(settings.listen, certificate=settings.certificate, key=settings.key) as listener:
        listening(listener.url)
        serving = asyncio.ensure_future(serve(receiver, listener))
        waiting = asyncio.ensure_future(stopped.wait())
        done, left = await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


def bearer_of(sender: Sender) -> bytes:
    """Return the digest of the header by which a sender is known; empty where it sends none.

    Raise `ConfigurationError` for a file that holds no token, or that others can read.
    """
    path = sender.authorization_file
    if path is None:
        return b""
    token = read_secret(path, "anyone could send signals", most=_MOST_TOKEN_BYTES).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"`{path}` must hold the bearer token of `{sender.name}`, and nothing else")
    return hashlib.sha256(f"Bearer {token}".encode()).digest()


def source_of(sender: Sender, settings: SignalSettings, clock: Clock, monotonic: Callable[[], float]) -> Source:
    """Return a sender as its signals are received. Its keys are not read yet."""
    reader = reader_of(sender, clock=clock, key=lambda: fingerprint_key(settings.data_dir))
    return Source(name=sender.name, reader=reader, rate=Rate(monotonic), bearer=bearer_of(sender))


def _sources(settings: SignalSettings, clock: Clock, opened: ExitStack) -> Mapping[str, Source]:
    found = {}
    for name, one in settings.senders.items():
        source = found[name] = source_of(one, settings, clock, time.monotonic)
        keys = source.reader.keys
        opened.enter_context(Repeater(f"keys-{name}", keys.refresh, every=_KEYS_SECONDS))
        # Before its thread is waited for.
        opened.callback(keys.close)
    return found
