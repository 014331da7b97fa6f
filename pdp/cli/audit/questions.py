"""The questions of `pdp audit`: what happened, who approved this, who executed it, what did it touch?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import click

from pdp.audit.values import Filter, Found, Window, logged_values
from pdp.cli.audit.entries import print_entries, tail_line
from pdp.cli.audit.source import Source, first, with_source
from pdp.cli.audit.view import (
    OWN_KINDS,
    approval_object,
    print_approvals,
    print_record,
    print_touched,
    touched_object,
)
from pdp.cli.options import json_option
from pdp.cli.output import print_json
from pdp.cli.window import argument_option, window_options
from pdp.cli.window import who as read_who
from pdp.foundation.printable import escaped_json
from pdp.record.fields import resource_of, text_of

C = TypeVar("C", bound=Callable[..., Any])

_POLL_SECONDS = 0.25


def _limited(function: C) -> C:
    return click.option(
        "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Show at most this many."
    )(function)


@click.command(epilog="Example:  pdp audit tail -n 20 --outcome deny")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Start with this many of the latest records.",
)
@click.option("--no-follow", is_flag=True, help="Stop after these instead of waiting for new records.")
@click.option("--outcome", type=click.Choice(["allow", "deny"]), help="Only decisions with this outcome.")
@click.argument("who", nargs=-1, callback=read_who)
@argument_option
@click.option("--json", "as_json", is_flag=True, help="Print the records as they were written, in JSON.")
@with_source
def tail(
    *,
    source: Source,
    arguments: tuple[tuple[str, str], ...],
    lines: int,
    no_follow: bool,
    outcome: str | None,
    who: dict[str, str],
    as_json: bool,
) -> None:
    """Follow the records of all workers as they are written.

    WHO is `session:ID`, `user:ID`, `agent:ID` or `pep:ID`, or of a call `tool:SERVER/TOOL`, `server:ID`, `resource:ID`
    or `basis:BASIS`; a record must match all of them. Follows rotated files. Ctrl-C ends it.
    """
    fields = who | ({"outcome": outcome} if outcome else {})

    def wanted(one: Found) -> bool:
        record = one.record()
        own = not as_json and text_of(record, "kind") in OWN_KINDS
        named = all(_field(record, name) == value for name, value in fields.items())
        return not own and named and set(arguments) <= set(logged_values(record))

    def show(found: list[Found]) -> None:
        for one in found:
            click.echo(escaped_json(one.line.decode("utf-8").rstrip("\n")) if as_json else tail_line(one.record()))
        sys.stdout.flush()

    try:
        # The last ones that match, however many others are between them.
        show(list(islice(filter(wanted, reversed(source.start())), lines))[::-1])
        while not no_follow:
            time.sleep(_POLL_SECONDS)
            show(list(filter(wanted, source.poll())))
    except (KeyboardInterrupt, BrokenPipeError):
        return


@click.command(epilog="Example:  pdp audit show dec_…")
@click.argument("decision_id")
@json_option
@with_source
def show(*, source: Source, decision_id: str, as_json: bool) -> None:
    """Show the records of a decision, oldest first.

    A decision has several records if a gateway sent its request again and the outcome was the same. Exit code 1: there
    is no record of it.
    """
    records = [one.record() for one in source.show(decision_id)]
    if as_json:
        print_json(records)
        return
    for index, record in enumerate(records):
        if index:
            click.echo()
        print_record(record)


@click.command(epilog="Example:  pdp audit session ses_… --delegated")
@click.argument("session_id", metavar="SESSION|DECISION")
@click.option("--delegated", is_flag=True, help="Include the sessions that were delegated from it.")
@argument_option
@window_options
@_limited
@json_option
@with_source
def session(
    *,
    source: Source,
    session_id: str,
    delegated: bool,
    arguments: tuple[tuple[str, str], ...],
    window: Window,
    limit: int,
    as_json: bool,
) -> None:
    """Show the history of a session, oldest first: request, approval, calls, end.

    The id of a decision selects its session. Exit code 1: there is no session with this id.
    """
    approvals = source.approvals(session_id)
    which = Filter(session_id=approvals[0].session_id, delegated=delegated, window=window, arguments=arguments)
    found, more = first(source.records(which), limit)
    if as_json:
        print_json({"session": approval_object(approvals[0]), "entries": [one.record() for one in found]})
    else:
        print_approvals(approvals[:1])
        click.echo()
        print_entries(found)
    _say_more(more=more)


@click.command("who-approved", epilog="Example:  pdp audit who-approved ses_…")
@click.argument("subject", metavar="SESSION|DECISION")
@json_option
@with_source
def who_approved(*, source: Source, subject: str, as_json: bool) -> None:
    """Show who approved a session, and every session above it.

    The id of a decision selects its session. Exit code 1: there is no session or decision with this id.
    """
    approvals = source.approvals(subject)
    if as_json:
        print_json([approval_object(one) for one in approvals])
    else:
        print_approvals(approvals)


@click.command("executed-by", epilog="Example:  pdp audit executed-by agent:coder --since 2h")
@click.argument("who", nargs=-1, required=True, callback=read_who)
@click.option("--outcome", type=click.Choice(["allow", "deny", "all"]), default="allow", show_default=True)
@argument_option
@window_options
@_limited
@json_option
@with_source
def executed_by(
    *,
    source: Source,
    who: dict[str, str],
    outcome: str,
    arguments: tuple[tuple[str, str], ...],
    window: Window,
    limit: int,
    as_json: bool,
) -> None:
    """List the calls that an agent, a user, a gateway or a session was allowed to make.

    WHO is `agent:ID`, `user:ID`, `pep:ID`, `session:ID`, `tool:SERVER/TOOL`, `server:ID`, `resource:ID` or
    `basis:BASIS`; a call must match all of them.
    """
    wanted = "" if outcome == "all" else outcome
    which = Filter(kind="decision", outcome=wanted, arguments=arguments, window=window, **who)  # type: ignore[arg-type]  # by name
    found, more = first(source.records(which), limit)
    if as_json:
        print_json([one.record() for one in found])
    else:
        print_entries(found, with_who=True)
        _say_none(found)
    _say_more(more=more)


@click.command(epilog="Example:  pdp audit touched user:alice --since 2026-01-05")
@click.argument("who", nargs=-1, callback=read_who)
@click.option("--delegated", is_flag=True, help="Include the sessions that were delegated from `session:ID`.")
@argument_option
@window_options
@json_option
@with_source
def touched(
    *,
    source: Source,
    who: dict[str, str],
    delegated: bool,
    arguments: tuple[tuple[str, str], ...],
    window: Window,
    as_json: bool,
) -> None:
    """List the tools, servers and resources that calls reached, and separately those that were denied.

    WHO is `agent:ID`, `user:ID`, `pep:ID`, `session:ID`, `tool:SERVER/TOOL`, `server:ID`, `resource:ID` or
    `basis:BASIS`; a call must match all of them. Without WHO all calls count.
    """
    if delegated and "session_id" not in who:
        raise click.UsageError("--delegated needs `session:ID`")
    found = list(source.touched(Filter(delegated=delegated, arguments=arguments, window=window, **who)))
    if as_json:
        print_json(touched_object(found))
    else:
        print_touched(found)
        _say_none(found)


def _field(record: Mapping[str, Any], name: str) -> object:
    """Return a field of a filter as a record has it."""
    if name == "tool":
        return f"{record.get('server')}/{record.get('tool')}"
    return resource_of(record) if name == "resource" else record.get(name)


def _say_none(found: Sequence[object]) -> None:
    if not found:
        # An answer, and not a failure: the exit code stays 0.
        click.echo("no call matches", err=True)


def _say_more(*, more: bool) -> None:
    if more:
        click.echo("there are more; raise --limit", err=True)
