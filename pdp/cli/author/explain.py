"""`pdp explain`: why a call is allowed or denied, asked of a server or of a policy folder."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from pdp.cli.author.explainview import plain, print_explanation
from pdp.cli.connection import connect
from pdp.cli.options import ConnectionOptions, connection_options, json_option, with_settings
from pdp.cli.output import print_json
from pdp.cli.sessions.terms import terms_named
from pdp.config.settings import Settings
from pdp.model import Role
from pdp.v1.explain_pb2 import ExplainResponse


@click.command(
    epilog="Example:  pdp explain --policies policies --user alice --agent coder --tool git/git_status "
    '--arguments \'{"repo_path": "/srv/app"}\''
)
@click.option("--tool", metavar="SERVER/TOOL", required=True, help="The tool to call.")
@click.option("--arguments", metavar="JSON|-", default="{}", help="Its arguments, as JSON; `-` reads them from stdin.")
@click.option(
    "--session", "session_id", metavar="ID", default="", help="The public id of the session that makes the call."
)
@click.option("--user", default="", help="Without a session: the user whose authority is used.")
@click.option("--agent", default="", help="Without a session: the agent that makes the call.")
@click.option("--grant", "grants", metavar="NAME", multiple=True, help="Without a session: a grant to assume.")
@click.option("--label", "labels", metavar="NAME", multiple=True, help="Without a session: a label to assume.")
@click.option("--purpose", default="", help="Without a session: its purpose.")
@click.option("--environment", default="", help="Without a session: its environment, such as `production`.")
@click.option("--attributes", metavar="JSON", default="", help="Without a session: vouched attributes of the user.")
@click.option("--terms", metavar="JSON", default="", help="Without a session: its terms.")
@click.option("--facts", metavar="JSON", default="", help="Facts that the gateway vouches for.")
@click.option(
    "--caller", "caller_id", metavar="ID", default="", help="The gateway that sends the call. [the session's, or `pep`]"
)
@click.option(
    "--definition-digest",
    metavar="DIGEST",
    default="",
    help="The digest of the tool's definition as the gateway sees it.",
)
@click.option("--at", metavar="TIME", help="The time of the call, such as `2026-01-05T10:00:00Z`. [now]")
@click.option("--policies", "folder", metavar="DIR", help="Use this policy folder instead of asking a server.")
@json_option
@connection_options(Role.AUTHOR)
@with_settings("data_dir")
def explain(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    folder: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the options that say what is asked, whoever answers
) -> None:
    """Explain why a tool call is allowed or denied.

    Shows every policy that could match the tool, with the value of each of its conditions for this call.
    Decides nothing: exit code 0 means that there is an answer, whichever it is. A server explains only to authors and
    auditors, not to gateways and agents, and records who asked.
    """
    question = _question(**asked)
    with terms_named(asked["terms"], field="supposed.terms_json"):
        answer = _answer(question, folder, settings, connection)
    if as_json:
        print_json(plain(answer))
    else:
        print_explanation(answer)


def _answer(
    question: dict[str, Any], folder: str | None, settings: Settings, connection: ConnectionOptions
) -> ExplainResponse:
    if folder is not None:
        from pdp.cli.author.explainfolder import ask_folder  # noqa: PLC0415 - a server is asked without the engine

        return ask_folder(folder, settings, **question)
    with connect(Role.AUTHOR, settings, connection) as client:
        return client.explain(**question)


def _question(
    *,
    tool: str,
    arguments: str,
    at: str | None,
    attributes: str,
    terms: str,
    facts: str,
    **rest: Any,  # noqa: ANN401 - see `explain`
) -> dict[str, Any]:
    """Return the arguments of the question for the client."""
    server, _, name = tool.partition("/")
    if not server or not name:
        raise click.UsageError(f"`--tool` must be written `server/tool`: `{tool}`")
    if bool(rest["session_id"]) == bool(rest["user"] and rest["agent"]):
        raise click.UsageError("pass either --session, or --user and --agent")
    text = sys.stdin.read() if arguments == "-" else arguments
    return {
        **rest,
        "server": server,
        "tool": name,
        "arguments": text.encode(),
        "user_attributes": attributes.encode(),
        "terms": terms.encode(),
        "facts": facts.encode(),
        "at": None if at is None else _moment(at),
    }


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"`--at` is not a time such as `2026-01-05T10:00:00Z`: `{text}`") from None
    if not 1970 < found.year < 9999:  # noqa: PLR2004 - what every clock and the engine know, with a day to spare
        raise click.UsageError(f"`--at` must be within the years 1971 to 9998: `{text}`")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
