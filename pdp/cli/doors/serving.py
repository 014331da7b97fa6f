"""What the commands of doors over HTTP share: where they listen, who may call, and when they end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # Only what listens needs the extra.
    from pdp.doors.listening import Listener
    from pdp.doors.web import Doorstep


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where a door listens, and for whom; None and empty for what is not given."""

    listen: str
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    allowed_host: tuple[str, ...]
    allowed_origin: tuple[str, ...]

    @contextmanager
    def opened(self, hosts: Collection[str] = ()) -> Iterator[tuple[Listener, Doorstep]]:
        """Open the port while the `with` block runs. `hosts` are further names by which callers know the door."""
        from pdp.doors.listening import Listener  # noqa: PLC0415
        from pdp.doors.web import Doorstep  # noqa: PLC0415

        certificate, key = path_of(self.listen_tls_certificate), path_of(self.listen_tls_key)
        allowed = {host.lower() for host in (*self.allowed_host, *hosts)}
        origins = {origin.lower() for origin in self.allowed_origin}
        with Listener(self.listen, certificate=certificate, key=key) as listener:
            if not (listener.hosts or allowed):
                raise click.UsageError("beyond loopback --allowed-host is needed: the name by which clients call it")
            yield listener, Doorstep(hosts=listener.hosts | allowed, origins=listener.origins | origins)


async def serve(door: Any, listener: Listener) -> None:  # noqa: ANN401 - an ASGI application
    """Serve a door until this is cancelled."""
    from pdp.doors.listening import serve as listen  # noqa: PLC0415

    await listen(door, listener)


async def until_stopped(serving: Coroutine[Any, Any, None]) -> int:
    """Serve until the process is asked to end."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(serving)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return 0


def path_of(text: str | None) -> Path | None:
    """Return the path that an option names."""
    return None if text is None else Path(text)
