"""`pdp health`, for probes."""

from __future__ import annotations

import click

from pdp.cli.connection import reaching, ways
from pdp.cli.moments import duration
from pdp.cli.options import ConnectionOptions, connection_options, json_option, with_settings
from pdp.cli.output import print_json
from pdp.cli.root import NO
from pdp.client.connection import Connection
from pdp.client.health import is_serving
from pdp.config.settings import Settings
from pdp.model import Role


@click.command(epilog="Example:  pdp health --address localhost:50151 --tls-roots /etc/pdp/tls/ca.crt")
@click.option(
    "--service",
    default="",
    metavar="NAME",
    help="Check only this service, `pdp.record` or `pdp.store`, not the whole server.",
)
@click.option("--timeout", type=duration, default="5s", help="How long to wait, such as `5s`.")
@json_option
@connection_options(Role.PEP)
@with_settings("data_dir", "server.address")
def health(*, settings: Settings, connection: ConnectionOptions, service: str, timeout: float, as_json: bool) -> None:
    """Check whether a server serves, for probes.

    A server serves while it has a bundle and a live store, until it is told to stop. Needs no token. Exit code 0: it
    serves. 1: it does not. 2: nothing answers.
    """
    with reaching(settings, connection) as server:
        serving = is_serving(Connection.to(server, **ways(settings, connection)), service, timeout=timeout)
    if as_json:
        print_json({"address": server, "service": service, "serving": serving})
    else:
        click.echo("serving" if serving else "not serving")
    if not serving:
        raise click.exceptions.Exit(NO)
