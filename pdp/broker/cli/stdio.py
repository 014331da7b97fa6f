"""`pdp-broker stdio`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import click

from pdp.broker.settings import UNIX
from pdp.broker.stdioserver import StdioServer
from pdp.foundation.isolation import keep_memory_private

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example:  pdp-broker stdio --server gitlab --broker unix:/run/pdp-broker/http.sock "
    "--key-variable GITLAB_PERSONAL_ACCESS_TOKEN --url-variable GITLAB_API_URL=/api/v4 -- mcp-server-gitlab",
)
@click.option("--server", metavar="NAME", required=True, help="The server's name in the catalogue.")
@click.option("--broker", metavar="ADDRESS", required=True, help="The broker's `http` address: `unix:PATH`.")
@click.option("--key-variable", metavar="NAME", required=True, help="The variable that gets the placeholder.")
@click.option(
    "--url-variable",
    metavar="NAME[=/PATH]",
    required=True,
    help="The variable that gets the base URL, and the path with which that ends.",
)
@click.argument("command", nargs=-1, required=True)
@click.pass_context
def stdio(
    context: click.Context, *, server: str, broker: str, key_variable: str, url_variable: str, command: Sequence[str]
) -> None:
    """Run an MCP server over pipes without its key.

    The server gets a placeholder for its key, and a base URL of this process, which sends its requests to the broker
    with the call token of the call that is made. Run it behind `pdp mcp --call-token`. A server that takes no base URL
    cannot be run so.
    """
    name, _, path = url_variable.partition("=")
    for option, text in (("--key-variable", key_variable), ("--url-variable", name)):
        if not _VARIABLE.fullmatch(text):
            raise click.UsageError(f"{option}: not the name of a variable: `{text}`")
    if not _PATH.fullmatch(path):
        raise click.UsageError(f"--url-variable: not a path such as `/api/v4`: `{path}`")
    if not broker.startswith(UNIX):
        raise click.UsageError("--broker: only a broker on this machine, at `unix:PATH`, knows who asks")
    keep_memory_private()
    run = StdioServer(
        command=command,
        server=server,
        broker=Path(broker.removeprefix(UNIX)),
        key_variable=key_variable,
        url_variable=name,
        base_path=path,
    )
    context.exit(asyncio.run(run.run()))
