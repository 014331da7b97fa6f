"""`pdp console`: the web application in which people approve, watch and revoke."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.serving import run
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.clock import SystemClock
from pdp.config import Settings
from pdp.console.assembly import local_console
from pdp.console.local import LINK_SECONDS, LocalEntry, local_name
from pdp.console.shell import Place
from pdp.model import Role
from pdp.serving.weblistener import LoopbackListener, serve

_SECTIONS = {
    "On this machine": ("--open", "--port"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@click.command(cls=SectionedCommand, sections=_SECTIONS, epilog="Example:  pdp console --open")
@click.option("--open", "opens", is_flag=True, help="Open the console in the browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on. [a free one]")
@connection_options(Role.APPROVER)
@with_loader("data_dir")
def console(*, load_settings: Callable[[], Settings], connection: ConnectionOptions, opens: bool, port: int) -> int:
    """Approve, watch and revoke in the browser, with the authority of your own token.

    Listens on this machine alone, under a name that nobody can guess. The link is in a file that only you can read, and
    works once, within a minute. `pdp/console/README.md` says what the console does.
    """
    return run(_serve_here(load_settings(), connection, port, opens=opens))


async def _serve_here(settings: Settings, connection: ConnectionOptions, port: int, *, opens: bool) -> None:
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(connect_async(Role.APPROVER, settings, connection))
        # What is wrong with the server or the token is said here, and not first in the browser.
        caller = await client.get_caller()
        listener = opened.enter_context(LoopbackListener(port))
        place = Place(f"http://{local_name()}:{listener.port}")
        app, entry = local_console(client, place, SystemClock())
        link = opened.enter_context(_link_file(entry, Path(settings.data_dir) / f"console-{listener.port}.html"))
        click.echo(f"the console serves `{caller.caller_id}` on port {listener.port} until Ctrl-C", err=True)
        click.echo(f"open it within {LINK_SECONDS:.0f} seconds: {link.absolute().as_uri()}", err=True)
        if opens:
            await asyncio.to_thread(webbrowser.open, link.absolute().as_uri())
        await serve(app, listener)


@contextmanager
def _link_file(entry: LocalEntry, path: Path) -> Iterator[Path]:
    """Write the file with the link; remove it when the link is of no more use."""
    entry.write_link(path)
    timer = asyncio.get_running_loop().call_later(LINK_SECONDS, lambda: path.unlink(missing_ok=True))
    try:
        yield path
    finally:
        timer.cancel()
        path.unlink(missing_ok=True)
