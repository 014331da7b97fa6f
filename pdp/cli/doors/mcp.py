"""`pdp mcp`: put the PDP before an MCP server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath

import click
from click.core import ParameterSource

from pdp.cli.doors.asking import HANDLE_FLAGS, WISH_FLAGS, SessionOptions, session_options
from pdp.cli.doors.piping import PipeProxy
from pdp.cli.doors.serving import pass_option
from pdp.cli.doors.web import WEB_FLAGS, WebOptions, web_options
from pdp.cli.moments import duration
from pdp.cli.options import (
    CONNECTION_FLAGS,
    ConnectionOptions,
    SectionedCommand,
    connection_options,
    with_loader,
)
from pdp.config.settings import Settings
from pdp.doors.calltokens import wanted_by
from pdp.doors.mcp.serversfile import presenting_problem
from pdp.model import Role

_SERVER_NAME = re.compile(r"(?:mcp-)?server-(?P<after>.+)|(?P<before>.+?)-mcp(?:-server)?|(?P<between>.+)-server")
_RUN_FLAGS = ("--run-as",)
_TOKEN_FLAGS = ("--call-token",)
_SECTIONS = {
    "For a server that this command runs": _RUN_FLAGS,
    "For a server that takes a call only with proof that it was allowed": _TOKEN_FLAGS,
    "For a session that it asks for and ends": WISH_FLAGS,
    "For a session that exists": HANDLE_FLAGS,
    "For servers at URLs": WEB_FLAGS,
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@click.command(
    "mcp",
    cls=SectionedCommand,
    sections=_SECTIONS,
    epilog="Example:  pdp mcp --request 'Read the history' --user alice --agent coder -- mcp-server-git --repository .",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--server", "name", metavar="NAME", help="The server's name in the catalogue. [the one in the command's name]"
)
@session_options
@click.option(
    "--wait", type=duration, default="30s", show_default=True, help="Let a call wait this long for a person's yes."
)
@pass_option("Let this method pass.")
@click.option("--run-as", metavar="USER", default="", help="Run the server as this user of the machine; needs root.")
@click.option(
    "--call-token",
    metavar="AUDIENCE",
    default="",
    help="Send each call of a tool with a call token for this audience; one without is denied.",
)
@web_options
@connection_options(Role.PEP)
@with_loader("data_dir")
def mcp(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    command: tuple[str, ...],
    name: str | None,
    session: SessionOptions,
    wait: float,
    passes: tuple[str, ...],
    run_as: str,
    call_token: str,
    web: WebOptions,
) -> int:
    """Run an MCP server, and ask before every call of its tools.

    Takes the place of the server's command in the configuration of an MCP client. Only what the session allows reaches
    the server, and of its list of tools only what the session can see is shown. Exits as the server does.

    With --upstream and --listen it does the same over HTTP, in front of a server at a URL; with --servers, of several.
    Each request brings the handle of its own session in the header X-PDP-Session.
    """
    if web.given:
        _require_web_alone(command, web)
        servers = web.entries(name, call_token, passes)
        # Imported here: only this needs the extra `mcp`.
        from pdp.cli.doors.proxying import WebProxy  # noqa: PLC0415

        return WebProxy(
            settings=load_settings(),
            connection=connection,
            web=web,
            servers=servers,
            wait=wait,
        ).serve()
    if not command:
        raise click.UsageError("pass the command of a server after `--`, or --upstream (or --servers) and --listen")
    server = name or _server_of(command)
    if problem := presenting_problem("", certificate=None, key=None, call_token=call_token):
        raise click.UsageError(problem)
    with session.asking(load_settings, connection, server=server, wait=wait) as asking:
        return PipeProxy(
            asking=asking,
            command=command,
            server=server,
            passes=frozenset(passes),
            run_as=run_as,
            call_token=wanted_by(call_token),
            environment=click.get_current_context().find_root().obj or os.environ,
        ).run()


def _require_web_alone(command: Sequence[str], web: WebOptions) -> None:
    """Raise `UsageError` for what does not go with a server at a URL."""
    if not ((web.upstream or web.servers) and web.listening.listen):
        raise click.UsageError("--upstream (or --servers) and --listen belong together")
    if command:
        raise click.UsageError("pass the command of a server, or the URL of one with --listen, but not both")
    context = click.get_current_context()
    for parameter in context.command.params:
        option = parameter.opts[0]
        if context.get_parameter_source(parameter.name or "") is not ParameterSource.COMMANDLINE:
            continue
        if option in (*WISH_FLAGS, *HANDLE_FLAGS):
            raise click.UsageError(f"{option} does not go with --listen: each request brings its own session")
        if option in _RUN_FLAGS:
            raise click.UsageError(f"{option} does not go with --listen: it runs no server")


def _server_of(command: Sequence[str]) -> str:
    """Return the name in the first word of a command that is called as servers are, such as `mcp-server-git`."""
    for word in command:
        if found := _SERVER_NAME.fullmatch(PurePath(word).name.replace("_", "-")):
            return str(next(filter(None, found.groups())))
    raise click.UsageError("pass --server with the server's name in the catalogue")
