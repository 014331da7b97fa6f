"""`pdp door envoy`: answer Envoy's questions about HTTP requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.serving import path_of, until_stopped
from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.config import LogSettings, Settings
from pdp.doors.envoy.asking import Asking
from pdp.doors.envoy.door import EnvoyDoor
from pdp.doors.envoy.httprequests import HTTPRequests
from pdp.doors.envoy.mcprequests import MCPRequests
from pdp.doors.envoy.port import serving
from pdp.doors.envoy.tables import Table, read_tables
from pdp.doors.isolation import keep_memory_private
from pdp.doors.mcp.methods import PASSABLE
from pdp.errors import ConfigurationError
from pdp.model import Role

_SECTIONS = {
    "For Envoy": ("--listen", "--listen-tls-certificate", "--listen-tls-key", "--listen-tls-clients"),
    "For the requests": ("--pass", "--http-table", "--without-reports"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _PortOptions:
    """Where Envoy asks, and the files of TLS; None for what is not given."""

    listen: str
    certificate: str | None
    key: str | None
    clients: str | None

    def credentials(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the credentials of the port; None without TLS. Raise `ConfigurationError`."""
        key, certificate, clients = (path_of(one) for one in (self.key, self.certificate, self.clients))
        if key is certificate is clients is None:
            return None
        if key is None or certificate is None or clients is None:
            raise ConfigurationError(
                "TLS needs three files: --listen-tls-certificate, --listen-tls-key and --listen-tls-clients"
            )
        # Imported here: only this needs the extra.
        from pdp.serving.certificates import ServerCertificates, TLSFiles  # noqa: PLC0415

        return ServerCertificates(TLSFiles(key=key, certificate=certificate, client_roots=clients)).credentials()


@click.command(
    "envoy", cls=SectionedCommand, sections=_SECTIONS, epilog="Example:  pdp door envoy --listen 127.0.0.1:9191"
)
@click.option("--listen", metavar="ADDRESS", required=True, help="Where Envoy asks, such as `127.0.0.1:9191`.")
@click.option("--listen-tls-certificate", metavar="FILE", help="The door's certificate chain; needed beyond loopback.")
@click.option("--listen-tls-key", metavar="FILE", help="The certificate's private key.")
@click.option("--listen-tls-clients", metavar="FILE", help="The authorities that sign the certificates of Envoys.")
@click.option(
    "--pass",
    "passes",
    metavar="METHOD",
    multiple=True,
    type=click.Choice(sorted(PASSABLE)),
    help="Let this method of MCP pass.",
)
@click.option("--http-table", metavar="FILE", help="Which HTTP requests are which calls, for routes that name a table.")
@click.option(
    "--without-reports",
    is_flag=True,
    help="Allow calls whose results should be reported. [denied: this door sees no results]",
)
@connection_options(Role.PEP)
@with_loader("data_dir")
def envoy(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    listen: str,
    listen_tls_certificate: str | None,
    listen_tls_key: str | None,
    listen_tls_clients: str | None,
    passes: tuple[str, ...],
    http_table: str | None,
    without_reports: bool,
) -> int:
    """Answer Envoy's questions about HTTP requests (ext_authz).

    A process of its own, which asks the server over gRPC before Envoy sends a request on. Each request brings the
    handle of its session in the header X-PDP-Session. `pdp/doors/ENVOY.md` has the configuration of Envoy.
    """
    log_to_stderr(LogSettings(level="warning"))
    keep_memory_private()
    port = _PortOptions(
        listen=listen, certificate=listen_tls_certificate, key=listen_tls_key, clients=listen_tls_clients
    )
    tables = {} if http_table is None else read_tables(Path(http_table))
    work = _serve(load_settings(), connection, port, frozenset(passes), tables, without_reports=without_reports)
    return asyncio.run(until_stopped(work))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    port: _PortOptions,
    passes: frozenset[str],
    tables: Mapping[str, Table],
    *,
    without_reports: bool,
) -> None:
    credentials = port.credentials()
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection))
        asking = Asking(client=client, without_reports=without_reports)
        door = EnvoyDoor(mcp=MCPRequests(asking=asking, passes=passes), http=HTTPRequests(asking=asking, tables=tables))
        address = await opened.enter_async_context(serving(door, port.listen, credentials=credentials))
        click.echo(f"serving Envoy at {address}", err=True)
        await asyncio.Event().wait()
