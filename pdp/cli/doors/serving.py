"""What the commands of doors share: how they begin, where they listen, who may call, and when they end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.options import grouped, path_of
from pdp.config.settings import LogSettings
from pdp.doors.mcp.methods import PASSABLE
from pdp.foundation.isolation import keep_memory_private

if TYPE_CHECKING:  # Only what listens needs the extra.
    from pdp.serving.web import Doorstep
    from pdp.serving.weblistener import Listener

C = TypeVar("C", bound=Callable[..., Any])

# For the help of commands that list their options by subject.
LISTEN_FLAGS = ("--listen", "--listen-tls-certificate", "--listen-tls-key")
CALLER_FLAGS = ("--allowed-host", "--allowed-origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where a door listens, and who may call it over HTTP; None and empty for what is not given."""

    listen: str | None
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    allowed_host: tuple[str, ...]
    allowed_origin: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Say whether one of them is given."""
        return any(getattr(self, one.name) for one in fields(self))

    @contextmanager
    def opened(self, hosts: Collection[str] = ()) -> Iterator[tuple[Listener, Doorstep]]:
        """Open the port while the `with` block runs. `hosts` are further names by which callers know the door."""
        from pdp.serving.web import Doorstep  # noqa: PLC0415
        from pdp.serving.weblistener import Listener  # noqa: PLC0415

        certificate, key = path_of(self.listen_tls_certificate), path_of(self.listen_tls_key)
        allowed = {host.lower() for host in (*self.allowed_host, *hosts)}
        origins = {origin.lower() for origin in self.allowed_origin}
        with Listener(self.listen or "", certificate=certificate, key=key) as listener:
            if not (listener.hosts or allowed):
                raise click.UsageError("beyond loopback --allowed-host is needed: the name by which clients call it")
            yield listener, Doorstep(hosts=listener.hosts | allowed, origins=listener.origins | origins)


def address_options(where: str, *, what: str = "door", required: bool = True) -> tuple[Callable[[Any], Any], ...]:
    """Return the options of where a door, or `what` else, listens. `where` is the help of --listen."""
    return (
        click.option("--listen", metavar="ADDRESS", required=required, help=where),
        click.option(
            "--listen-tls-certificate", metavar="FILE", help=f"The {what}'s certificate chain; needed beyond loopback."
        ),
        click.option("--listen-tls-key", metavar="FILE", help="The certificate's private key."),
    )


def listen_options(where: str, *, hosts: str, required: bool = True) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers where a door over HTTP listens and who may call, and passes `listening`.

    `where` is the help of --listen, and `hosts` says what --allowed-host is unless it is given.
    """
    options = (
        *address_options(where, required=required),
        click.option(
            "--allowed-host",
            metavar="HOST",
            multiple=True,
            help=f"A name by which clients call it, with its port. [{hosts}]",
        ),
        click.option(
            "--allowed-origin",
            metavar="ORIGIN",
            multiple=True,
            help="Pages that may call it, such as `https://example.org`.",
        ),
    )
    return grouped(ListenOptions, "listening", options)


def pass_option(text: str) -> Callable[[C], C]:
    """Offer the methods of MCP that may pass, as `passes`. `text` is the help."""
    methods = click.Choice(sorted(PASSABLE))
    return click.option("--pass", "passes", metavar="METHOD", multiple=True, type=methods, help=text)


def begin() -> None:
    """Log to stderr, and keep what this process knows from others of its user."""
    log_to_stderr(LogSettings(level="warning"))
    keep_memory_private()


def run(serving: Coroutine[Any, Any, None]) -> int:
    """Serve until the process is asked to end."""
    begin()
    return asyncio.run(_until_stopped(serving))


async def serve(door: Any, listener: Listener) -> None:  # noqa: ANN401 - an ASGI application
    """Serve a door until this is cancelled."""
    from pdp.serving.weblistener import serve as listen  # noqa: PLC0415

    await listen(door, listener)


async def _until_stopped(serving: Coroutine[Any, Any, None]) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(serving)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return 0
