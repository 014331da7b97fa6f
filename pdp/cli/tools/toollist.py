"""The source of a server's `tools/list` answer: a file, stdin, or the MCP server itself, over pipes or HTTP."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click

from pdp.cli.moments import duration
from pdp.cli.options import path_of
from pdp.doors.mcp.serversfile import ServerEntry, read_servers
from pdp.errors import InvalidJSONError
from pdp.foundation.yamltext import unknown
from pdp.policy.tools.catalogue import server_name_problem, tool_definitions

C = TypeVar("C", bound=Callable[..., Any])
# The entries of a `tools/list` answer.
ToolDefinitions: TypeAlias = Sequence[Mapping[str, Any]]

policies_option = click.option("--policies", metavar="DIR", help="The policy folder. [policies.folder]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolListOptions:
    """The options for the source of a `tools/list` answer: one of `source`, `command`, `upstream` and `servers` is set.

    `source` is a file, or `-` for stdin. `timeout` is seconds.
    """

    source: str | None = None
    command: str | None = None
    upstream: str | None = None
    upstream_tls_roots: str | None = None
    headers_file: str | None = None
    servers: str | None = None
    timeout: float = 0.0


class AsksServer(click.Command):
    """A command with `tool_list_options`: what follows `--` is the command of a server, as in `pdp mcp`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        if "--" in args:
            at = args.index("--")
            args = [*args[:at], "--command", shlex.join(args[at + 1 :])]
        return super().parse_args(ctx, args)


def tool_list_options(function: C) -> Callable[..., Any]:
    """Offer `[FILE|-]` and the options of a live server, and pass them as `tool_list`.

    `read_tool_list` and `read_tool_lists` take them.
    """

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
        options = {field.name: given.pop(field.name) for field in fields(ToolListOptions)}
        return function(*args, tool_list=ToolListOptions(**options), **given)

    decorated: Callable[..., Any] = command
    for parameter in (
        click.option(
            "--timeout", type=duration, default="30s", show_default=True, help="How long to wait for the answer."
        ),
        click.option("--servers", metavar="FILE", help="Ask the MCP servers in this file, which `pdp mcp` takes too."),
        click.option(
            "--headers-file", metavar="FILE", help="Send the server these headers: lines `Name: value`, for you alone."
        ),
        click.option(
            "--upstream-tls-roots", metavar="FILE", help="Trust these root certificates at the URL. [the system's]"
        ),
        click.option("--upstream", metavar="URL", help="Ask the MCP server at this URL: https, or http on loopback."),
        click.option(
            "--command", metavar="COMMAND", help="Start this MCP server and ask it; or `-- COMMAND`, at the end."
        ),
        click.argument("source", metavar="[FILE|-]", required=False),
    ):
        decorated = parameter(decorated)
    return decorated


def read_tool_list(server: str, options: ToolListOptions) -> ToolDefinitions:
    """Return the entries of a server's `tools/list` answer.

    Raise `click.ClickException` when there is none, and `ConfigurationError` for a faulty file.
    """
    ((_, definitions),) = read_tool_lists(server, options)
    return definitions


def read_tool_lists(server: str | None, options: ToolListOptions) -> Sequence[tuple[str, ToolDefinitions]]:
    """Return the name and the entries of one server, or of all servers of a file. Raise as `read_tool_list`."""
    _require_one_source(options)
    if options.servers is not None:
        return [(entry.name, _fetch(entry, options.timeout)) for entry in _entries(options.servers, server)]
    if server is None:
        raise click.UsageError("pass the server's name in the catalogue")
    if (problem := server_name_problem(server)) is not None:
        raise click.UsageError(problem)
    if options.upstream is not None:
        entry = ServerEntry(
            name=server,
            upstream=options.upstream,
            tls_roots=path_of(options.upstream_tls_roots),
            headers_file=path_of(options.headers_file),
        )
        return [(server, _fetch(entry, options.timeout))]
    if options.command is not None:
        return [(server, _ask(options.command, options.timeout))]
    return [(server, _read(str(options.source)))]


def _require_one_source(options: ToolListOptions) -> None:
    sources = (options.source, options.command, options.upstream, options.servers)
    if sources.count(None) != len(sources) - 1:
        raise click.UsageError("pass either a file (`-` for stdin), --command, --upstream or --servers")
    for flag, value in (
        ("--headers-file", options.headers_file),
        ("--upstream-tls-roots", options.upstream_tls_roots),
    ):
        if value is not None and options.upstream is None:
            raise click.UsageError(f"{flag} needs --upstream")


def _entries(file: str, server: str | None) -> Sequence[ServerEntry]:
    entries = read_servers(Path(file))
    if server is None:
        return entries
    found = [entry for entry in entries if entry.name == server]
    if not found:
        raise click.UsageError(f"`{file}`: {unknown('server', server, (entry.name for entry in entries))}")
    return found


def _fetch(server: ServerEntry, seconds: float) -> ToolDefinitions:
    from pdp.cli.tools.urlserver import tools_at  # noqa: PLC0415 - what speaks HTTP is an extra

    return tools_at(server, seconds=seconds)


def _ask(command: str, seconds: float) -> ToolDefinitions:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--command is not a command line: {str(error).lower()}") from None
    if not words:
        raise click.UsageError("--command is empty")
    from pdp.cli.tools.mcpserver import listed_tools  # noqa: PLC0415 - the `mcp` package is an extra

    return listed_tools(words, os.environ, seconds=seconds)


def _read(source: str) -> ToolDefinitions:
    text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return tool_definitions(text)
    except InvalidJSONError as error:
        name = "stdin" if source == "-" else f"`{source}`"
        raise click.ClickException(f"{name}: {error}") from None
