"""Whose session `pdp mcp` asks in over pipes: one that it asks for and ends, or one that exists."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pdp.cli.doors.embedded import EmbeddedServer, data_folder, embedded_settings
from pdp.cli.doors.guarding import guarded
from pdp.cli.moments import duration
from pdp.cli.options import HANDLE_VARIABLE, ConnectionOptions, flags_of, grouped, read_handle
from pdp.cli.sessions.terms import terms_text
from pdp.client import AsyncClient
from pdp.config.settings import Settings
from pdp.doors.session import DoorSession, GivenSession, RequestedSession
from pdp.doors.tasks import Task
from pdp.doors.wish import Wish

C = TypeVar("C", bound=Callable[..., Any])

WISH_FLAGS = (
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
)
HANDLE_FLAGS = ("--session-handle-file", "--session-handle-fd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The server that is asked, the session to ask in, and how people are told to approve.

    `session_of` returns the session for a client of the server. `pdp_command` is that of `Gate`. `embedded` is the
    server itself, where it is in this process.
    """

    settings: Settings
    connection: ConnectionOptions
    session_of: Callable[[AsyncClient], DoorSession]
    pdp_command: Callable[[str], str]
    embedded: EmbeddedServer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """The options of the session; None and empty for what is not given."""

    purpose: str | None
    user: str
    agent: str
    patterns: tuple[str, ...]
    lifetime: float | None
    environment: str
    labels: tuple[str, ...]
    terms: str
    single_terms: tuple[str, ...]
    task: str
    embedded: bool
    policies: str
    session_handle_file: str | None
    session_handle_fd: int | None

    @contextmanager
    def asking(
        self, load_settings: Callable[[], Settings], connection: ConnectionOptions, *, server: str, wait: float
    ) -> Iterator[Asking]:
        """Provide the session for the calls of a server. A call waits so many seconds for a person's yes.

        Raise `UsageError` for options that do not go together.
        """
        if self.purpose is None:
            yield self._existing(load_settings, connection, wait)
            return
        if self.session_handle_file is not None or self.session_handle_fd is not None:
            raise click.UsageError("--request asks for a session: leave out the handle of another")
        if not (self.user and self.agent):
            raise click.UsageError("--request needs --user and --agent")
        wish = self._wish(self.purpose, server)
        embedded, told = None, _pdp
        if self.embedded:
            connection = _to_itself()
            settings = self._embedded_settings()
            embedded = EmbeddedServer(settings)
            # Flags, since variables about another server would win over a file.
            options: tuple[str, ...] = ("--data-dir", settings.data_dir, "--address", settings.server.address)
            told = partial(_pdp, program=_own_program(), options=options)
        else:
            settings = load_settings()
            options = flags_of(connection, settings)
        task = Task(Path(settings.data_dir) / "tasks", self.task, wish)
        with guarded(task, options):
            yield Asking(
                settings=settings,
                connection=connection,
                session_of=partial(_requested, task, told, wait),
                pdp_command=told,
                embedded=embedded,
            )

    def _existing(self, load_settings: Callable[[], Settings], connection: ConnectionOptions, wait: float) -> Asking:
        if self.embedded or self.task or self.user or self.agent or self.patterns:
            raise click.UsageError("--request is missing: the task for which to ask for a session")
        handle = _handle(self.session_handle_file, self.session_handle_fd)
        return Asking(
            settings=load_settings(),
            connection=connection,
            session_of=partial(_given, handle, wait),
            pdp_command=_pdp,
        )

    def _wish(self, purpose: str, server: str) -> Wish:
        return Wish(
            user=self.user,
            agent=self.agent,
            purpose=purpose,
            tools=self.patterns or (f"{server}/*",),
            duration=self.lifetime,
            environment=self.environment,
            terms=os.fsencode(terms_text(self.terms, self.single_terms)) or None,
            labels=self.labels,
        )

    def _embedded_settings(self) -> Settings:
        chosen = click.get_current_context().params.get("setting_data_dir")
        folder = Path(chosen) if chosen else data_folder(Path(self.policies), os.environ)
        return embedded_settings(folder, Path(self.policies))


_OPTIONS = (
    click.option(
        "--request", "purpose", metavar="PURPOSE", help="Ask for a session for this task, and end it afterwards."
    ),
    click.option("--user", default="", help="The user whose authority is used."),
    click.option("--agent", default="", help="The agent that makes the calls."),
    click.option(
        "--tool", "patterns", metavar="PATTERN", multiple=True, help="The tools to ask for. [all of the server]"
    ),
    click.option("--duration", "lifetime", type=duration, help="How long the session lives, such as `30m`."),
    click.option("--environment", default="", help="The environment, such as `production`."),
    click.option("--label", "labels", multiple=True, help="A label of the session."),
    click.option("--terms", metavar="JSON", default="", help="The terms of the session."),
    click.option("--term", "single_terms", metavar="NAME=VALUE", multiple=True, help="One term."),
    click.option(
        "--task",
        metavar="NAME",
        default="",
        help="Share one session with every `pdp mcp` that has the same --task. The first one asks for it.",
    ),
    click.option("--embedded", is_flag=True, help="Decide in this process, without a server. Needs --request."),
    click.option(
        "--policies", metavar="FOLDER", default="policies", show_default=True, help="With --embedded: the bundle."
    ),
    click.option(
        "--session-handle-file",
        metavar="FILE",
        help=f"The file of the secret handle of a session that exists. [{HANDLE_VARIABLE} holds the handle itself]",
    ),
    click.option(
        "--session-handle-fd", metavar="NUMBER", type=int, help="The open file from which to read the handle."
    ),
)


# Offers the options of the session, and passes them as `session`.
session_options = grouped(SessionOptions, "session", _OPTIONS)


def _given(handle: str, wait: float, client: AsyncClient) -> DoorSession:
    return GivenSession(client.attach(handle, wait_for_approval=wait))


def _requested(task: Task, pdp_command: Callable[[str], str], wait: float, client: AsyncClient) -> DoorSession:
    return RequestedSession(client, task, pdp_command=pdp_command, wait_for_approval=wait)


def _pdp(words: str, program: str = "pdp", options: Sequence[str] = ()) -> str:
    return f"{shlex.quote(program)} {words} {shlex.join(options)}".rstrip()


def _own_program() -> str:
    """Return this program by its path, since the shell of the person may not find it, or another one."""
    own = Path(sys.argv[0])
    return str(own.absolute()) if own.name == "pdp" else "pdp"


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
