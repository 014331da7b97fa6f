"""The table of commands, and the boundary where every error becomes one line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from pdp import __version__
from pdp.cli.groups import CommandEntry, CommandTable
from pdp.errors import BundleError, PDPError, reason_of
from pdp.foundation.extras import missing
from pdp.foundation.printable import visible

YES, NO, ERROR = 0, 1, 2


# Modules are imported when their command is used: `pdp --help` needs neither the engine nor gRPC.
COMMANDS: Mapping[str, CommandEntry] = {
    "init": CommandEntry(
        "pdp.cli.operate.init", "Write a token for each role, the keys of the record, and a certificate."
    ),
    "caller": CommandEntry("pdp.cli.operate.caller", "List callers; create, replace and remove their tokens."),
    "serve": CommandEntry("pdp.cli.operate.serve", "Run the server."),
    "authorize": CommandEntry(
        "pdp.cli.sessions.authorize", "Ask whether a tool call may go ahead, and with which obligations."
    ),
    "session": CommandEntry("pdp.cli.sessions.session", "Request, approve, show and end sessions."),
    "approvals": CommandEntry("pdp.cli.sessions.approvals", "List and answer calls that wait for a person."),
    "console": CommandEntry(
        "pdp.cli.operate.console",
        "Approve, watch and revoke in the browser, under your own name.",
    ),
    "login": CommandEntry(
        "pdp.cli.operate.login", "Log in at the provider, as in the console, for the commands that follow."
    ),
    "freeze": CommandEntry("pdp.cli.operate.freeze", "Stop all calls of a tenant or of all tenants, and lift that."),
    "whoami": CommandEntry(
        "pdp.cli.sessions.whoami", "Show who the server takes you for: id, roles, tenants, and how you proved it."
    ),
    "reach": CommandEntry(
        "pdp.cli.sessions.reach", "Show which tools a session, a user or an agent can call, and when they last did."
    ),
    "calltokens": CommandEntry(
        "pdp.cli.sessions.calltokens", "Show and withdraw the keys that sign call tokens, and check a token."
    ),
    "mcp": CommandEntry("pdp.cli.doors.mcp", "Run an MCP server, and ask before every call of its tools."),
    "door": CommandEntry("pdp.cli.doors.group", "Answer gateways that ask by other protocols, such as AuthZEN."),
    "tools": CommandEntry("pdp.cli.tools.group", "Import, list and compare the tools that policies are about."),
    "new": CommandEntry("pdp.cli.author.new", "Create a policy folder."),
    "test": CommandEntry("pdp.cli.author.test", "Run the tests of a policy folder."),
    "check": CommandEntry("pdp.cli.author.check", "Check a policy folder."),
    "fmt": CommandEntry("pdp.cli.author.fmt", "Format the policies of a folder."),
    "diff": CommandEntry("pdp.cli.author.diff", "Compare the policies and decisions of two bundles."),
    "explain": CommandEntry("pdp.cli.author.explain", "Explain why a tool call is allowed or denied."),
    "bundle": CommandEntry("pdp.cli.bundle.versions", "Pack, sign and verify bundles; list and activate versions."),
    "schema": CommandEntry("pdp.cli.author.check", "Print the whole Cedar schema of a policy folder."),
    "audit": CommandEntry("pdp.cli.audit.group", "Query the record of decisions, and verify that it is intact."),
    "signals": CommandEntry(
        "pdp.cli.signals.group",
        "Take signals that authority must end, such as of a closed account, and revoke what they name.",
    ),
    "top": CommandEntry("pdp.cli.operate.top", "Watch decisions as they are made."),
    "telemetry": CommandEntry(
        "pdp.cli.operate.telemetry", "Print the dashboard, the alert rules and the names of telemetry."
    ),
    "health": CommandEntry("pdp.cli.operate.health", "Check whether a server serves, for probes."),
    "doctor": CommandEntry("pdp.cli.operate.doctor", "Check a deployment, and say what to fix."),
    "bench": CommandEntry("pdp.cli.operate.bench", "Measure this server beside one that decides nothing."),
    "messages": CommandEntry(
        "pdp.cli.operate.messages", "Show what receivers are told, send again what was given up, and try a receiver."
    ),
    "store": CommandEntry(
        "pdp.cli.operate.store", "Back up, restore, check and move the session store, and forget a person."
    ),
    "deployment": CommandEntry(
        "pdp.cli.operate.deployment", "Print files that deploy the server: container, systemd, Kubernetes."
    ),
    "version": CommandEntry("pdp.cli.operate.version", "Print the version."),
}


class Bounded(click.Command):
    """A command within the boundary where every error becomes one line."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - click's own parameters
        """Run a command and exit: errors are lines on stderr.

        `PDP_DEBUG=1` adds their tracebacks.
        """
        _escape_what_cannot_be_shown()
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(ERROR)
        except Exception as error:  # noqa: BLE001 - a person gets one line about whatever went wrong, and exit code 2
            if os.environ.get("PDP_DEBUG") == "1":
                traceback.print_exc()
            if isinstance(error, click.Abort):
                # The cursor is after a question, or after the `^C` of the terminal.
                click.echo(err=True)
            for line in error_lines(error):
                # It can hold the words of a server or a file of others.
                click.echo(f"error: {visible(line)}", err=True)
            sys.exit(ERROR)
        sys.exit(code if isinstance(code, int) else YES)


class Root(Bounded, CommandTable):
    """The program: the table of all commands."""


def _escape_what_cannot_be_shown() -> None:
    """Have letters escaped that a terminal lacks, such as Greek ones in Windows-1252: else output ends at the first.

    In UTF-8 only what is no text cannot be written, and that is an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="backslashreplace")


def error_lines(error: Exception) -> Iterable[str]:
    """Return the problems of an error, one line each."""
    if isinstance(error, BundleError):
        return [str(problem) for problem in error.problems] or [str(error)]
    if isinstance(error, PDPError):
        return str(error).splitlines()
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split()).removesuffix(".")
        return [message[:1].lower() + message[1:]]
    return [_line(error)]


def _line(error: Exception) -> str:
    if isinstance(error, ImportError) and (lacking := missing(error)):
        return lacking
    if isinstance(error, click.Abort):
        return "interrupted"
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
        # Only values from the command line or the environment can hold bytes that are no text.
        return f"`{ascii(error.object)[1:-1]}` is not UTF-8 text"
    if isinstance(error, OSError):
        problem = reason_of(error)
        return f"`{error.filename}`: {problem}" if error.filename else problem
    return f"internal error: {' '.join(str(error).split())}; `PDP_DEBUG=1` shows where"


@click.group(
    cls=Root,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`pdp COMMAND --help` shows an example of each. `PDP_DEBUG=1` shows where an error comes from.",
)
@click.version_option(__version__, message="pdp %(version)s", help="Print the version.")
def root() -> None:
    """Authorize the tool calls of AI agents."""
