"""The source of a server's `tools/list` answer: a file, stdin, or the MCP server itself, by stdio or HTTP."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from pdp.cli.options import duration
from pdp.errors import InvalidJSONError
from pdp.foundation.loopback import is_loopback
from pdp.policy.tools.catalogue import server_name_problem, tool_definitions

C = TypeVar("C", bound=Callable[..., Any])

policies_option = click.option("--policies", metavar="DIR", help="The policy folder. [policies.folder]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolListOptions:
    """The options for the source of a `tools/list` answer: exactly one of `source`, `command` and `url` is set.

    `source` is a file, or `-` for stdin. `timeout` is seconds.
    """

    source: str | None = None
    command: str | None = None
    url: str | None = None
    url_token_file: str | None = None
    timeout: float = 0.0


def tool_list_options(function: C) -> Callable[..., Any]:
    """Offer `[FILE|-]`, --command, --url, --url-token-file and --timeout, and pass them as `tool_list`.

    `read_tool_list` takes them.
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
        click.option("--url-token-file", metavar="FILE", help="The file of a bearer token for --url."),
        click.option("--url", metavar="URL", help="Ask the MCP server at this URL, by streamable HTTP."),
        click.option("--command", metavar="COMMAND", help="Start this MCP server and ask it."),
        click.argument("source", metavar="[FILE|-]", required=False),
    ):
        decorated = parameter(decorated)
    return decorated


def read_tool_list(server: str, options: ToolListOptions) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a server's `tools/list` answer.

    Raise `click.ClickException` when there is none.
    """
    if (problem := server_name_problem(server)) is not None:
        raise click.UsageError(problem)
    if [options.source, options.command, options.url].count(None) != 2:  # noqa: PLR2004 - all but one
        raise click.UsageError("pass either a file (`-` for stdin), --command or --url")
    if options.url_token_file is not None and options.url is None:
        raise click.UsageError("--url-token-file needs --url")
    if options.url is not None:
        return _fetch(options.url, options.url_token_file, options.timeout)
    if options.command is not None:
        return _ask(options.command, options.timeout)
    return _read(str(options.source))


def _fetch(url: str, token_file: str | None, seconds: float) -> Sequence[Mapping[str, Any]]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError("--url must begin with `https://` or `http://`")
    if token_file is not None and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise click.UsageError("a token is sent only over `https://`")
    token = None if token_file is None else Path(token_file).read_text(encoding="ascii").strip()
    from pdp.cli.tools.mcpserver import tools_at  # noqa: PLC0415 - the `mcp` package is an extra

    return tools_at(url, token, seconds=seconds)


def _ask(command: str, seconds: float) -> Sequence[Mapping[str, Any]]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--command is not a command line: {str(error).lower()}") from None
    if not words:
        raise click.UsageError("--command is empty")
    from pdp.cli.tools.mcpserver import listed_tools  # noqa: PLC0415 - the `mcp` package is an extra

    return listed_tools(words, os.environ, seconds=seconds)


def _read(source: str) -> Sequence[Mapping[str, Any]]:
    text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return tool_definitions(text)
    except InvalidJSONError as error:
        name = "stdin" if source == "-" else f"`{source}`"
        raise click.ClickException(f"{name}: {error}") from None
