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
from pdp.client.enumwords import former_visibility, visibility
from pdp.client.reviewing import reach_changed, reach_unused
from pdp.config.settings import Settings
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
@click.option(
    "--former",
    metavar="VERSION",
    default="",
    help="Show beside it what this version of the bundle says, which the server keeps (`pdp bundle list --json`).",
)
@click.option("--changed", is_flag=True, help="With --former: only the tools that the two versions judge differently.")
@click.option(
    "--unused", is_flag=True, help="Only tools that were not used in these --days, as far as the record knows."
)
@json_option
@connection_options(Role.APPROVER)
@with_settings()
def reach(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    against: str | None,
    changed: bool,
    unused: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the options that say what is asked, whoever answers
) -> None:
    """Show which tools a session, a user or an agent can call, and when they last did.

    Each tool is `always` allowed, `never`, or it `depends` on the call, by the policies that are named. Of several
    sessions, the one that allows most counts. Gives and changes nothing. For approvers, auditors and admins.
    """
    _require_fitting(against=against, **asked)
    if changed and not asked["former"]:
        raise click.UsageError("--changed needs --former")
    with terms_named(asked["terms"]):
        if against is not None:
            # A server is asked without the engine.
            from pdp.cli.sessions.reachfolders import print_changes  # noqa: PLC0415

            session = {name: asked[name] for name in ("user", "agent", "terms")}
            print_changes(against, settings, **session, as_json=as_json)
            return
        with connect(Role.APPROVER, settings, connection) as client:
            pages = list(_pages(client, **asked))
    tools = [
        one
        for page in pages
        for one in page.tools
        if (reach_changed(one) or not changed) and (reach_unused(one, page) or not unused)
    ]
    if as_json:
        print_json(_plain(pages[0], tools, former=asked["former"]))
    else:
        _print(pages[0], tools, asked_now=asked["asked_now"], former=asked["former"])


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
    client: Client, *, session_id: str, user: str, agent: str, asked_now: bool, terms: str, days: int, former: str
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
            former_version=former,
        )
        yield page
        token = page.next_page_token
        if not token:
            return


def _print(first: GetReachResponse, tools: list[ReachedTool], *, asked_now: bool, former: str) -> None:
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
    before = ("formerly", "by") if former else ()
    print_table(
        ("tool", "groups", "policies", "by", *before, last, "last used"),
        (_row(one, first, asked_now=asked_now, former=former) for one in tools),
    )


def _row(one: ReachedTool, first: GetReachResponse, *, asked_now: bool, former: str) -> tuple[str, ...]:
    further = " ".join(one.opened_by) if asked_now else str(one.session_count)
    groups = ", ".join(filter(None, (one.tool.risk, *one.tool.groups)))
    name = f"{one.tool.server}/{one.tool.tool}"
    before = (former_visibility(one), " ".join(one.former_policy_ids)) if former else ()
    return name, groups, visibility(one), policies_text(one), *before, further, _used(one, first)


def _used(one: ReachedTool, first: GetReachResponse) -> str:
    """Say when a tool was last used, in words that claim no more than the record knows."""
    if used := time_text(one, "last_allow_time"):
        return used
    since = time_text(first, "used_since_time")
    return f"not since {since}" if since else "unknown"


def _plain(first: GetReachResponse, tools: list[ReachedTool], *, former: str) -> dict[str, Any]:
    return {
        "bundle_version": first.bundle_version,
        "session_count": first.session_count,
        "sessions_left_out": first.sessions_left_out,
        "used_since_time": time_text(first, "used_since_time"),
        "use_unknown": first.use_unknown,
        "freeze_id": first.freeze_id,
        "former_version": former,
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
                "former_visibility": former_visibility(one) if former else "",
                "former_policy_ids": list(one.former_policy_ids),
            }
            for one in tools
        ],
    }
