"""`pdp door envoy`: answer Envoy's questions about HTTP requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.grpcport import PORT_FLAGS, PortOptions, port_options
from pdp.cli.doors.observing import observing
from pdp.cli.doors.serving import pass_option, run
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.config.settings import Settings
from pdp.doors.asking import Asking
from pdp.doors.envoy.door import EnvoyDoor
from pdp.doors.envoy.httprequests import HTTPRequests
from pdp.doors.envoy.mcprequests import MCPRequests
from pdp.doors.envoy.tables import Table, read_tables
from pdp.model import Role

_SECTIONS = {
    "For Envoy": PORT_FLAGS,
    "For the requests": ("--pass", "--http-table"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@click.command(
    "envoy", cls=SectionedCommand, sections=_SECTIONS, epilog="Example:  pdp door envoy --listen 127.0.0.1:9191"
)
@port_options("Envoy")
@pass_option("Let this method of MCP pass.")
@click.option("--http-table", metavar="FILE", help="Which HTTP requests are which calls, for routes that name a table.")
@connection_options(Role.PEP)
@with_loader("data_dir")
def envoy(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    port: PortOptions,
    passes: tuple[str, ...],
    http_table: str | None,
) -> int:
    """Answer Envoy's questions about HTTP requests (ext_authz).

    A process of its own, which asks the server over gRPC before Envoy sends a request on. Each request brings the
    handle of its session in the header X-PDP-Session. `pdp/doors/ENVOY.md` has the configuration of Envoy.
    """
    tables = {} if http_table is None else read_tables(Path(http_table))
    return run(_serve(load_settings(), connection, port, frozenset(passes), tables))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    port: PortOptions,
    passes: frozenset[str],
    tables: Mapping[str, Table],
) -> None:
    credentials = port.credentials()
    async with AsyncExitStack() as opened:
        observer = opened.enter_context(observing(settings, "envoy"))
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection))
        asking = Asking(client=client, observer=observer)
        door = EnvoyDoor(mcp=MCPRequests(asking=asking, passes=passes), http=HTTPRequests(asking=asking, tables=tables))
        address = await opened.enter_async_context(door.serving(port.listen, credentials))
        click.echo(f"serving Envoy at {address}", err=True)
        await asyncio.Event().wait()
