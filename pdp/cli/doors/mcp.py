"""`pdp mcp`: put the PDP before an MCP server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path, PurePath

import click
from click.core import ParameterSource

from pdp.cli.connection import connect_async
from pdp.cli.doors.embedded import EmbeddedServer, data_folder, embedded_settings
from pdp.cli.doors.guarding import guarded
from pdp.cli.doors.web import WebOptions, web_options
from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.options import (
    CONNECTION_FLAGS,
    HANDLE_VARIABLE,
    ConnectionOptions,
    SectionedCommand,
    connection_options,
    duration,
    flags_of,
    read_handle,
    with_loader,
)
from pdp.cli.sessions.terms import terms_text
from pdp.client import AsyncClient
from pdp.config import LogSettings, Settings
from pdp.doors.isolation import keep_memory_private
from pdp.doors.mcp.methods import PASSABLE
from pdp.doors.mcp.stdio import serve_stdio
from pdp.doors.session import DoorSession, GivenSession, RequestedSession
from pdp.doors.tasks import Task
from pdp.doors.wish import Wish
from pdp.model import Role

_SERVER_NAME = re.compile(r"(?:mcp-)?server-(?P<after>.+)|(?P<before>.+?)-mcp(?:-server)?|(?P<between>.+)-server")
_WEB_SECTIONS = ("For a server at a URL", "For the connection to the policy decision point")
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What stands behind the proxy: the command of the server, its name, what may pass, and as whom it runs."""

    command: Sequence[str]
    server: str
    passes: frozenset[str]
    run_as: str


_SECTIONS = {
    "For a server that this command runs": ("--run-as",),
    "For a session that it asks for and ends": (
        "--request",
        "--user",
        "--agent",
        "--tool",
        "--duration",
        "--environment",
        "--label",
        "--terms",
        "--term",
        "--task",
        "--embedded",
        "--policies",
    ),
    "For a session that exists": ("--session-handle-file", "--session-handle-fd"),
    "For a server at a URL": (
        "--upstream",
        "--upstream-tls-roots",
        "--headers-file",
        "--listen",
        "--listen-tls-certificate",
        "--listen-tls-key",
        "--access-tokens",
        "--allowed-host",
        "--allowed-origin",
    ),
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
@click.option("--request", "purpose", metavar="PURPOSE", help="Ask for a session for this task, and end it afterwards.")
@click.option("--user", default="", help="The user whose authority is used.")
@click.option("--agent", default="", help="The agent that makes the calls.")
@click.option(
    "--tool",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="The tools to ask for. [all of the server]",
)
@click.option("--duration", "lifetime", type=duration, help="How long the session lives, such as `30m`.")
@click.option("--environment", default="", help="The environment, such as `production`.")
@click.option("--label", "labels", multiple=True, help="A label of the session.")
@click.option("--terms", metavar="JSON", default="", help="The terms of the session.")
@click.option("--term", "single_terms", metavar="NAME=VALUE", multiple=True, help="One term.")
@click.option(
    "--task",
    metavar="NAME",
    default="",
    help="Share one session with every `pdp mcp` that has the same --task. The first one asks for it.",
)
@click.option("--embedded", is_flag=True, help="Decide in this process, without a server. Needs --request.")
@click.option(
    "--policies", metavar="FOLDER", default="policies", show_default=True, help="With --embedded: the bundle."
)
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
@web_options
@connection_options(Role.PEP)
@with_loader("data_dir")
def mcp(
    *,
    load_settings: Callable[[], Settings],
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
    task: str,
    embedded: bool,
    policies: str,
    session_handle_file: str | None,
    session_handle_fd: int | None,
    wait: float,
    passes: tuple[str, ...],
    run_as: str,
    web: WebOptions,
) -> int:
    """Run an MCP server, and ask before every call of its tools.

    Takes the place of the server's command in the configuration of an MCP client. Only what the session allows reaches
    the server, and of its list of tools only what the session can see is shown. Exits as the server does.

    With --upstream and --listen it does the same over HTTP, before a server at a URL. Each request brings the handle of
    its own session in the header X-PDP-Session.
    """
    log_to_stderr(LogSettings(level="warning"))
    if web.given:
        _require_web_alone(command, web)
        if not name:
            raise click.UsageError("pass --server with the server's name in the catalogue")
        # Imported here: only this needs the extra `mcp`.
        from pdp.cli.doors.proxying import WebProxy  # noqa: PLC0415

        return WebProxy(
            settings=load_settings(),
            connection=connection,
            web=web,
            server=name,
            passes=frozenset(passes),
            wait=wait,
        ).serve()
    if not command:
        raise click.UsageError("pass the command of a server after `--`, or --upstream and --listen")
    before = _Before(command=command, server=name or _server_of(command), passes=frozenset(passes), run_as=run_as)
    if purpose is None:
        if embedded or task or user or agent or patterns:
            raise click.UsageError("--request is missing: the task for which to ask for a session")
        handle = _handle(session_handle_file, session_handle_fd)
        keep_memory_private()
        given = partial(_given, handle, wait)
        return asyncio.run(_serve(load_settings(), connection, before, given, _pdp))
    if session_handle_file is not None or session_handle_fd is not None:
        raise click.UsageError("--request asks for a session: leave out the handle of another")
    if not (user and agent):
        raise click.UsageError("--request needs --user and --agent")
    if embedded:
        connection = _to_itself()
    wish = Wish(
        user=user,
        agent=agent,
        purpose=purpose,
        tools=patterns or (f"{before.server}/*",),
        duration=lifetime,
        environment=environment,
        terms=os.fsencode(terms_text(terms, single_terms)) or None,
        labels=labels,
    )
    keep_memory_private()
    server, told = None, _pdp
    if embedded:
        chosen = click.get_current_context().params.get("setting_data_dir")
        folder = Path(chosen) if chosen else data_folder(Path(policies), os.environ)
        settings = embedded_settings(folder, Path(policies))
        server = EmbeddedServer(settings)
        # Flags, since variables about another server would win over a file.
        options: tuple[str, ...] = ("--data-dir", settings.data_dir, "--address", settings.server.address)
        told = partial(_pdp, options=options)
    else:
        settings = load_settings()
        options = flags_of(connection, settings)
    part = Task(Path(settings.data_dir) / "tasks", task, wish)
    with guarded(part, options):
        requested = partial(_requested, part, told, wait)
        return asyncio.run(_serve(settings, connection, before, requested, told, server))


def _given(handle: str, wait: float, client: AsyncClient) -> DoorSession:
    return GivenSession(client.attach(handle, wait_for_approval=wait))


def _requested(task: Task, pdp_command: Callable[[str], str], wait: float, client: AsyncClient) -> DoorSession:
    return RequestedSession(client, task, pdp_command=pdp_command, wait_for_approval=wait)


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    before: _Before,
    session_of: Callable[[AsyncClient], DoorSession],
    pdp_command: Callable[[str], str],
    embedded: EmbeddedServer | None = None,
) -> int:
    """Stand between client and server; return the server's exit code, or that of a signal."""
    loop = asyncio.get_running_loop()
    if embedded is not None:
        embedded.prepare()
    serving = asyncio.ensure_future(_between(settings, connection, before, session_of, pdp_command))
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        # What ends this process ends the session first, however often it says so.
        if not received:
            serving.cancel()
        received.append(number)

    for number in _STOPPING:
        loop.add_signal_handler(number, stop, number)
    if embedded is not None:
        # The client is answered meanwhile.
        embedded.start(on_failure=lambda: loop.call_soon_threadsafe(stop, signal.SIGTERM))
    await asyncio.wait([serving])
    if embedded is not None:
        await asyncio.to_thread(embedded.stop)
    return 128 + received[0] if serving.cancelled() else serving.result()


async def _between(
    settings: Settings,
    connection: ConnectionOptions,
    before: _Before,
    session_of: Callable[[AsyncClient], DoorSession],
    pdp_command: Callable[[str], str],
) -> int:
    async with connect_async(Role.PEP, settings, connection) as client:
        session = session_of(client)
        try:
            return await serve_stdio(
                before.command,
                server=before.server,
                session=session,
                pdp_command=pdp_command,
                passes=before.passes,
                run_as=before.run_as,
            )
        finally:
            await session.close()


def _pdp(words: str, options: Sequence[str] = ()) -> str:
    return " ".join(("pdp", words, *options))


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


def _to_itself() -> ConnectionOptions:
    """Return the connection of a proxy to its own server, whatever variables say about another.

    Raise `UsageError` for a flag about another.
    """
    context = click.get_current_context()
    for field in fields(ConnectionOptions):
        if context.get_parameter_source(field.name) is ParameterSource.COMMANDLINE:
            option = field.name.replace("_", "-")
            raise click.UsageError(f"--{option} does not go with --embedded, which asks no other server")
    return ConnectionOptions(
        address=None,
        control_address=None,
        token_file=None,
        tls_roots=None,
        tls_certificate=None,
        tls_key=None,
        plaintext=False,
    )


def _require_web_alone(command: Sequence[str], web: WebOptions) -> None:
    """Raise `UsageError` for what does not go with a server at a URL."""
    if not (web.upstream and web.listen):
        raise click.UsageError("--upstream and --listen belong together")
    if command:
        raise click.UsageError("pass the command of a server, or --upstream and --listen, but not both")
    context = click.get_current_context()
    own = {option for title in _SECTIONS if title not in _WEB_SECTIONS for option in _SECTIONS[title]}
    for parameter in context.command.params:
        option = parameter.opts[0]
        if option in own and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            why = "each request brings its own session" if option != "--run-as" else "it runs no server"
            raise click.UsageError(f"{option} does not go with --listen: {why}")


def _server_of(command: Sequence[str]) -> str:
    """Return the name in the first word of a command that is called as servers are, such as `mcp-server-git`."""
    for word in command:
        if found := _SERVER_NAME.fullmatch(PurePath(word).name.replace("_", "-")):
            return str(next(filter(None, found.groups())))
    raise click.UsageError("pass --server with the server's name in the catalogue")
