"""`pdp door agentgateway`: answer agentgateway's questions about requests of MCP and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import click

from pdp.calltokens.claims import THUMBPRINT
from pdp.cli.connection import connect_async
from pdp.cli.doors.grpcport import PORT_FLAGS, PortOptions, port_options
from pdp.cli.doors.observing import observing
from pdp.cli.doors.serving import pass_option, run
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.config.settings import Settings
from pdp.doors.agentgateway.door import AgentgatewayDoor
from pdp.doors.agentgateway.exchanges import Exchanges
from pdp.doors.agentgateway.targets import Prefix, Targets, audience_table, target_table
from pdp.doors.asking import Asking
from pdp.model import Role

_SECTIONS = {
    "For agentgateway": (*PORT_FLAGS, "--target", "--prefix"),
    "For the requests": ("--pass", "--unseen-errors"),
    "For targets that take a call only with proof that it was allowed": ("--call-token", "--certificate"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@click.command(
    "agentgateway",
    cls=SectionedCommand,
    sections=_SECTIONS,
    epilog="Example:  pdp door agentgateway --listen 127.0.0.1:9191 --target git=git",
)
@port_options("agentgateway")
@click.option(
    "--target",
    "targets",
    metavar="TARGET=SERVER",
    multiple=True,
    help="A target of agentgateway, and the server that it is in the catalogue. Any other is denied.",
)
@click.option(
    "--prefix",
    type=click.Choice([one.value for one in Prefix]),
    default=Prefix.CONDITIONAL.value,
    show_default=True,
    help="agentgateway's `prefixMode`: when names in lists begin with their target.",
)
@click.option(
    "--call-token",
    "audiences",
    metavar="TARGET=AUDIENCE",
    multiple=True,
    help="Send each call of this target with a call token for this audience; one without is denied.",
)
@click.option(
    "--certificate",
    metavar="THUMBPRINT",
    default="",
    help="The `x5t#S256` of the certificate that agentgateway presents to these targets. [they are on its machine]",
)
@pass_option("Let this method of MCP pass.")
@click.option(
    "--unseen-errors",
    is_flag=True,
    help="Allow calls whose results must be redacted, bounded or reported, although errors pass unseen. [denied]",
)
@connection_options(Role.PEP)
@with_loader("data_dir")
def agentgateway(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    port: PortOptions,
    targets: tuple[str, ...],
    prefix: str,
    audiences: tuple[str, ...],
    certificate: str,
    passes: tuple[str, ...],
    unseen_errors: bool,
) -> int:
    """Answer agentgateway's questions about requests of MCP (ExtMcp).

    A process of its own, which asks the server over gRPC before agentgateway sends a request on, and sees the result
    before the agent does. Each request brings the handle of its session in the header X-PDP-Session.
    `pdp/doors/AGENTGATEWAY.md` has the configuration of agentgateway.
    """
    if certificate and not THUMBPRINT.fullmatch(certificate):
        raise click.UsageError("--certificate is not a SHA-256 in base64url without padding")
    servers = target_table(targets)
    known = Targets(
        servers=servers,
        prefix=Prefix(prefix),
        audiences=audience_table(audiences, servers),
        certificate=certificate,
    )
    return run(_serve(load_settings(), connection, port, known, frozenset(passes), unseen_errors=unseen_errors))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    port: PortOptions,
    targets: Targets,
    passes: frozenset[str],
    *,
    unseen_errors: bool,
) -> None:
    credentials = port.credentials()
    async with AsyncExitStack() as opened:
        observer = opened.enter_context(observing(settings, "agentgateway"))
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection))
        exchanges = Exchanges()
        opened.push_async_callback(exchanges.close)
        door = AgentgatewayDoor(
            asking=Asking(client=client, observer=observer),
            targets=targets,
            exchanges=exchanges,
            passes=passes,
            unseen_errors=unseen_errors,
        )
        address = await opened.enter_async_context(door.serving(port.listen, credentials))
        click.echo(f"serving agentgateway at {address}", err=True)
        await asyncio.Event().wait()
