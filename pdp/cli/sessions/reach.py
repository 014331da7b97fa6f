"""`pdp reach`: which tools a session, a user or an agent can call, and when they last did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pdp.cli.connection import connect
from pdp.cli.options import ConnectionOptions, connection_options, json_option, with_settings
from pdp.cli.output import print_json, print_table, time_text
from pdp.cli.sessions.terms import terms_named
from pdp.cli.sessions.view import policies_text
from pdp.client import Client
from pdp.client.enumwords import visibility
from pdp.config import Settings
from pdp.model import Role
from pdp.v1.reach_pb2 import GetReachResponse, ReachedTool

_LARGEST_PAGE = 100


@click.command(
    epilog="Example:  pdp reach --user alice  |  pdp reach --user alice --agent coder --asked-now  |  "
    "pdp reach --user alice --agent coder --against main:policies"
)
@click.argument("session_id", metavar="[SESSION]", default="")
@click.option("--user", default="", help="All active sessions of this user.")
@click.option("--agent", default="", help="All active sessions of this agent; with --user, those for the user.")
@click.option(
    "--asked-now", is_flag=True, help="Instead: a session that the agent asks for now, with all tools of its ceiling."
)
@click.option("--terms", metavar="JSON", default="", help="With --asked-now or --against: the terms of the session.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="The days of `last used`.")
@click.option(
    "--against",
    metavar="BUNDLE",
    help="Show what differs in the policy folder from this folder, git revision or REVISION:FOLDER; asks no server.",
)
@json_option
@connection_options(Role.APPROVER)
@with_settings()
def reach(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    against: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the options that say what is asked, whoever answers
) -> None:
    """Show which tools a session, a user or an agent can call, and when they last did.

    Each tool is `always` allowed, `never`, or it `depends` on the call, by the policies that are named. Of several
    sessions, the one that allows most counts. Gives and changes nothing. For approvers, auditors and admins.
    """
    _require_fitting(against=against, **asked)
    with terms_named(asked["terms"]):
        if against is not None:
            # A server is asked without the engine.
            from pdp.cli.sessions.reachfolders import print_changes  # noqa: PLC0415

            changed = {name: asked[name] for name in ("user", "agent", "terms")}
            print_changes(against, settings, **changed, as_json=as_json)
            return
        with connect(Role.APPROVER, settings, connection) as client:
            pages = list(_pages(client, **asked))
    if as_json:
        print_json(_plain(pages))
    else:
        _print(pages, asked_now=asked["asked_now"])


def _require_fitting(
    *,
    against: str | None,
    session_id: str,
    user: str,
    agent: str,
    asked_now: bool,
    **_: Any,  # noqa: ANN401 - see `reach`
) -> None:
    if bool(session_id) == bool(user or agent):
        raise click.UsageError("pass either a session, or --user, --agent or both")
    if (asked_now or against is not None) and not (user and agent):
        raise click.UsageError(f"{'--asked-now' if asked_now else '--against'} needs both --user and --agent")


def _pages(
    client: Client, *, session_id: str, user: str, agent: str, asked_now: bool, terms: str, days: int
) -> Iterator[GetReachResponse]:
    token = ""
    while True:
        page = client.get_reach(
            session_id=session_id,
            user=user,
            agent=agent,
            asked_now=asked_now,
            terms=terms.encode(),
            used_days=days,
            page_size=_LARGEST_PAGE,
            page_token=token,
        )
        yield page
        token = page.next_page_token
        if not token:
            return


def _print(pages: list[GetReachResponse], *, asked_now: bool) -> None:
    first, tools = pages[0], [one for page in pages for one in page.tools]
    if not asked_now:
        more = "more than " if first.sessions_left_out else ""
        click.echo(f"active sessions: {more}{first.session_count}")
        if first.sessions_left_out:
            click.echo("only the newest of them are shown", err=True)
    if first.freeze_id:
        click.echo(f"frozen (`{first.freeze_id}`): every call is denied until that is lifted", err=True)
    if first.use_unknown:
        click.echo(f"when tools were last used is not known: {first.use_unknown}", err=True)
    if not tools:
        click.echo("no tools")
        return
    last = "opened by a grant" if asked_now else "sessions"
    print_table(("tool", "groups", "policies", "by", last, "last used"), (_row(one, first, asked_now) for one in tools))


def _row(one: ReachedTool, first: GetReachResponse, asked_now: bool) -> tuple[str, ...]:  # noqa: FBT001 - of one caller
    further = " ".join(one.opened_by) if asked_now else str(one.session_count)
    groups = ", ".join(filter(None, (one.tool.risk, *one.tool.groups)))
    name = f"{one.tool.server}/{one.tool.tool}"
    return name, groups, visibility(one), policies_text(one), further, _used(one, first)


def _used(one: ReachedTool, first: GetReachResponse) -> str:
    """Say when a tool was last used, in words that claim no more than the record knows."""
    if used := time_text(one, "last_allow_time"):
        return used
    since = time_text(first, "used_since_time")
    return f"not since {since}" if since else "unknown"


def _plain(pages: list[GetReachResponse]) -> dict[str, Any]:
    first = pages[0]
    return {
        "bundle_version": first.bundle_version,
        "session_count": first.session_count,
        "sessions_left_out": first.sessions_left_out,
        "used_since_time": time_text(first, "used_since_time"),
        "use_unknown": first.use_unknown,
        "freeze_id": first.freeze_id,
        "tools": [
            {
                "server": one.tool.server,
                "tool": one.tool.tool,
                "risk": one.tool.risk,
                "groups": list(one.tool.groups),
                "visibility": visibility(one),
                "policy_ids": list(one.policy_ids),
                "policies_left_out": one.policies_left_out,
                "opened_by": list(one.opened_by),
                "session_count": one.session_count,
                "session_ids": list(one.session_ids),
                "last_allow_time": time_text(one, "last_allow_time"),
            }
            for page in pages
            for one in page.tools
        ],
    }
