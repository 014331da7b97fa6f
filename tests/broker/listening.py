"""A broker that listens in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdp.broker.counter import Counter
from pdp.broker.serving import serve_until
from pdp.broker.settings import BrokerSettings
from pdp.client.pdpsettings import PDPSettings
from tests.broker.notes import AUDIENCE, ISSUER, RULES
from tests.machinery.servers.running import PATIENCE


@contextmanager
def listening(
    settings: BrokerSettings, made: Any, observer: Any = None, counter: Counter | None = None
) -> Iterator[list[str]]:
    """Serve a broker while the block runs, and provide where it listens."""
    addresses: list[str] = []
    begun, stops = threading.Event(), []
    expected = bool(settings.calls) + bool(settings.http) + bool(counter and counter.callback)

    def told(address: str) -> None:
        addresses.append(address)
        if len(addresses) == expected:
            begun.set()

    async def run() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stopped.set))
        await serve_until(stopped, settings, made, observer=observer, listening=told, counter=counter)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield addresses
    finally:
        stops[0]()
        thread.join(PATIENCE)


def settings_of(folder: Path, address: str, token: str, **more: Any) -> BrokerSettings:
    """Return the settings of a broker that asks a server in plain text on loopback."""
    (folder / "rules.yaml").write_text(more.pop("rules", RULES))
    (folder / "token").write_text(token)
    for name in ("rules.yaml", "token"):
        (folder / name).chmod(0o600)
    pdp = PDPSettings(
        address=address, token_file=folder / "token", tls_roots=None, tls_certificate=None, tls_key=None, plaintext=True
    )
    known = {"issuer": ISSUER, "audience": AUDIENCE, "rules": folder / "rules.yaml", "calls": "", "http": ""}
    return BrokerSettings(**{**known, "tls": None, "pdp": pdp, "data_dir": folder, "telemetry": "", **more})
