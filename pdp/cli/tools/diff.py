"""`pdp tools diff`: the changes of a server's tools since the catalogue was approved, and who is affected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pdp.app.embedded import compile_once
from pdp.cli.options import ConnectionOptions, connection_options, json_option, with_settings
from pdp.cli.output import print_json
from pdp.cli.root import NO, YES
from pdp.cli.tools.toollist import AsksServer, ToolListOptions, policies_option, read_tool_list, tool_list_options
from pdp.config.settings import Settings
from pdp.foundation.printable import visible
from pdp.model import Role
from pdp.policy.contents import read_folder
from pdp.v1.session_pb2 import Session
from pdp.workbench.toolsdiff import ToolDifference, ToolsDifference, compare_tools

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


@click.command(
    "diff",
    cls=AsksServer,
    short_help="Compare a server's tools with the approved ones.",
    epilog='Example:  pdp tools diff git --command "python -m mcp_server_git" --sessions',
)
@click.argument("server")
@tool_list_options
@policies_option
@click.option(
    "--sessions", is_flag=True, help="Show the active sessions that hold a changed or removed tool; asks the server."
)
@connection_options(Role.AUDITOR)
@json_option
@with_settings("data_dir")
def diff(
    *,
    settings: Settings,
    server: str,
    tool_list: ToolListOptions,
    policies: str | None,
    sessions: bool,
    connection: ConnectionOptions,
    as_json: bool,
) -> int:
    """Compare a server's tools with those of its approved catalogue, and show what each difference affects.

    Changes nothing. Exit code 0: the tools are as approved. 1: they are not.
    """
    definitions = read_tool_list(server, tool_list)
    files = read_folder(Path(policies or settings.policies.folder), settings.limits)
    found = compare_tools(server, definitions, files, settings.limits, compile_once())
    holders: Mapping[str, Sequence[Session]] | None = None
    if sessions:
        from pdp.cli.connection import connect  # noqa: PLC0415 - no other command about tools needs gRPC

        with connect(Role.AUDITOR, settings, connection) as client:
            holders = _holders(found.tools, client.list_sessions(state="active"))
    if as_json:
        print_json(_json(found, holders))
    else:
        _print(found, holders)
    return NO if found.tools else YES


def _holders(changes: Iterable[ToolDifference], sessions: Iterable[Session]) -> dict[str, list[Session]]:
    """Return, by tool, the sessions that hold a definition that the server dropped."""
    now = {change.tool: change.now for change in changes}
    holders: dict[str, list[Session]] = {tool: [] for tool in now}
    for session in sessions:
        for held in session.tools:
            tool = f"{held.server}/{held.tool}"
            if tool in now and held.definition_digest != now[tool]:
                holders[tool].append(session)
    return holders


def _print(found: ToolsDifference, holders: Mapping[str, Sequence[Session]] | None) -> None:
    counts = ", ".join(f"{sum(one.kind == kind for one in found.tools)} {kind}" for kind in _SIGNS)
    click.echo(f"{found.server}: {found.approved} tools approved, {found.present} now: {counts}")
    for one in found.tools:
        click.echo(f"\n{_SIGNS[one.kind]} {visible(one.tool)}  ({', '.join((one.risk, *one.groups))})")
        for line in _lines(one, None if holders is None else holders[one.tool]):
            click.echo(f"    {visible(line)}")
    if found.problems:
        click.echo("\nafter an import the bundle would not load:")
        for problem in found.problems:
            click.echo(f"    {visible(str(problem))}")


def _lines(one: ToolDifference, holders: Sequence[Session] | None) -> Iterable[str]:
    yield from (f"changed: {part}" for part in one.parts)
    if one.named_by:
        yield f"policies that name it: {', '.join(one.named_by)}"
    if one.covered_by:
        yield f"policies that could match it: {', '.join(one.covered_by)}"
    if not one.named_by and not one.covered_by:
        yield "no policy could match it"
    if one.kind != "removed":
        yield f"agents that may have it: {', '.join(one.agents) or 'none'}"
    if one.kind == "added":
        yield "no session has it: a new tool is in no approved scope"
    elif holders is not None:
        yield from (f"active session: {held.session_id} ({held.user}, {held.agent})" for held in holders)
        yield f"{len(holders)} active sessions lose it after an import: {_basis(one)}"


def _basis(one: ToolDifference) -> str:
    return f"their calls are denied as `{'unknown_tool' if one.kind == 'removed' else 'tool_changed'}`"


def _json(found: ToolsDifference, holders: Mapping[str, Sequence[Session]] | None) -> dict[str, Any]:
    return {
        "server": found.server,
        "approved": found.approved,
        "present": found.present,
        "tools": [
            {
                "tool": one.tool,
                "kind": one.kind,
                "risk": one.risk,
                "groups": one.groups,
                "was": one.was,
                "now": one.now,
                "changed": one.parts,
                "policies_naming_it": one.named_by,
                "policies_covering_it": one.covered_by,
                "agents": one.agents,
                **({} if holders is None else {"sessions": [held.session_id for held in holders[one.tool]]}),
            }
            for one in found.tools
        ],
        "problems_after_import": [str(problem) for problem in found.problems],
    }
