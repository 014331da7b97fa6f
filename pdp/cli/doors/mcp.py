"""`pdp mcp`: put the PDP before an MCP server."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath

import click

from pdp.cli.connection import reaching, token_of, ways
from pdp.cli.options import HANDLE_VARIABLE, ConnectionOptions, connection_options, duration, read_handle, with_settings
from pdp.cli.sessions.terms import terms_text
from pdp.client import AsyncClient
from pdp.config import Settings
from pdp.doors.isolation import keep_memory_private
from pdp.doors.mcp.methods import PASSABLE
from pdp.doors.mcp.stdio import serve_stdio
from pdp.doors.session import DoorSession, GivenSession, RequestedSession, Wish
from pdp.model import Role

_SERVER_NAME = re.compile(r"(?:mcp-)?server-(?P<after>.+)|(?P<before>.+?)-mcp(?:-server)?|(?P<between>.+)-server")


@click.command(
    "mcp",
    context_settings={"ignore_unknown_options": False},
    epilog="Example:  pdp mcp --request 'Read the history' --user alice --agent coder -- mcp-server-git --repository .",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--server", "name", metavar="NAME", help="The server's name in the catalogue. [that in the command's name]"
)
@click.option("--request", "purpose", metavar="PURPOSE", help="Ask for a session for this task, and end it afterwards.")
@click.option("--user", default="", help="With --request: the user whose authority is used.")
@click.option("--agent", default="", help="With --request: the agent that makes the calls.")
@click.option(
    "--tool",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="With --request: the tools to ask for. [all of the server]",
)
@click.option(
    "--duration", "lifetime", type=duration, help="With --request: how long the session lives, such as `30m`."
)
@click.option("--environment", default="", help="With --request: the environment, such as `production`.")
@click.option("--label", "labels", multiple=True, help="With --request: a label of the session.")
@click.option("--terms", metavar="JSON", default="", help="With --request: the terms of the session.")
@click.option("--term", "single_terms", metavar="NAME=VALUE", multiple=True, help="With --request: one term.")
@click.option(
    "--session-handle-file",
    metavar="FILE",
    help=f"The file of the secret handle of a session that exists. [{HANDLE_VARIABLE} holds the handle itself]",
)
@click.option("--session-handle-fd", metavar="NUMBER", type=int, help="The open file from which to read the handle.")
@click.option(
    "--wait", type=duration, default="30s", show_default=True, help="Let a call wait this long for a person's yes."
)
@click.option(
    "--pass",
    "passes",
    metavar="METHOD",
    multiple=True,
    type=click.Choice(sorted(PASSABLE)),
    help="Let this method pass.",
)
@click.option("--run-as", metavar="USER", default="", help="Run the server as this user of the machine; needs root.")
@connection_options(Role.PEP)
@with_settings("data_dir")
def mcp(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    command: tuple[str, ...],
    name: str | None,
    purpose: str | None,
    user: str,
    agent: str,
    patterns: tuple[str, ...],
    lifetime: float | None,
    environment: str,
    labels: tuple[str, ...],
    terms: str,
    single_terms: tuple[str, ...],
    session_handle_file: str | None,
    session_handle_fd: int | None,
    wait: float,
    passes: tuple[str, ...],
    run_as: str,
) -> int:
    """Run an MCP server, and ask before every call of its tools.

    Takes the place of the server's command in the configuration of an MCP client. Only what the session allows reaches
    the server, and of its list of tools only what the session can see is shown. Exits as the server does.
    """
    server = name or _server_of(command)
    keep_memory_private()

    if purpose is not None:
        if session_handle_file is not None or session_handle_fd is not None:
            raise click.UsageError("--request asks for a session: leave out the handle of another")
        if not (user and agent):
            raise click.UsageError("--request needs --user and --agent")
        wish = Wish(
            user=user,
            agent=agent,
            purpose=purpose,
            tools=patterns or (f"{server}/*",),
            duration=lifetime,
            environment=environment,
            terms=os.fsencode(terms_text(terms, single_terms)) or None,
            labels=labels,
        )

        def session_of(client: AsyncClient) -> DoorSession:
            return RequestedSession(client, wish, approval="pdp session approve {}".format, wait_for_approval=wait)
    else:
        handle = _handle(session_handle_file, session_handle_fd)

        def session_of(client: AsyncClient) -> DoorSession:
            return GivenSession(client.attach(handle, wait_for_approval=wait))

    return asyncio.run(_serve(settings, connection, session_of, command, server, frozenset(passes), run_as))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    session_of: Callable[[AsyncClient], DoorSession],
    command: Sequence[str],
    server: str,
    passes: frozenset[str],
    run_as: str,
) -> int:
    with reaching(settings, connection) as address:
        token = connection.token_file or (None if connection.tls_certificate else token_of(Role.PEP, settings))
        control = connection.control_address or (None if connection.address else settings.control_address)
        async with AsyncClient(
            address, control_address=control, token_file=token, **ways(settings, connection)
        ) as client:
            session = session_of(client)
            try:
                return await serve_stdio(command, server=server, session=session, passes=passes, run_as=run_as)
            finally:
                await session.close()


def _handle(file: str | None, descriptor: int | None) -> str:
    if descriptor is not None:
        file = f"/dev/fd/{descriptor}"
    elif file is None and os.environ.get(HANDLE_VARIABLE):
        click.echo(
            f"warning: {HANDLE_VARIABLE} can be read by other processes of this user; --session-handle-file is safer",
            err=True,
        )
    try:
        return read_handle(file)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _server_of(command: Sequence[str]) -> str:
    """Return the name in the first word of a command that is called as servers are, such as `mcp-server-git`."""
    for word in command:
        if found := _SERVER_NAME.fullmatch(PurePath(word).name.replace("_", "-")):
            return str(next(filter(None, found.groups())))
    raise click.UsageError("pass --server with the server's name in the catalogue")
