"""The questions of `pdp audit`: who approved this, who executed it, what did it touch, what must be revoked now?"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from pdp.audit.export import WRITERS
from pdp.audit.values import Filter, Found, Window, selector_of
from pdp.cli.auditsource import Reach, Source, first, with_source
from pdp.cli.auditview import (
    OWN_KINDS,
    approval_object,
    planned_object,
    print_approvals,
    print_calls,
    print_ledger,
    print_plan,
    print_record,
    print_touched,
    tail_line,
    touched_object,
)
from pdp.cli.options import json_option
from pdp.cli.output import print_json
from pdp.cli.revoking import revoke_planned
from pdp.cli.window import window_options

C = TypeVar("C", bound=Callable[..., Any])

_POLL_SECONDS = 0.25
_WHO = {"session": "session_id", "user": "user", "agent": "agent", "pep": "caller_id"}


def _who(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read arguments such as `agent:coder`."""
    found: dict[str, str] = {}
    for value in values:
        kind, _colon, name = value.partition(":")
        if kind not in _WHO or not name:
            raise click.BadParameter(f"`{value}` must read KIND:ID, with {', '.join(_WHO)}")
        if found.setdefault(_WHO[kind], name) != name:
            raise click.BadParameter(f"`{kind}` stands twice, and no record has both")
    return found


def _limited(function: C) -> C:
    return click.option(
        "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many."
    )(function)


@click.command(epilog="Example:  pdp audit tail -n 20 --outcome deny")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="Begin with so many.")
@click.option("--no-follow", is_flag=True, help="Stop after the lines that are there.")
@click.option("--outcome", type=click.Choice(["allow", "deny"]), help="Only decisions with this outcome.")
@click.argument("who", nargs=-1, callback=_who)
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they were written.")
@with_source
def tail(
    *,
    source: Source,
    reach: Reach,  # noqa: ARG001 - for those that revoke
    lines: int,
    no_follow: bool,
    outcome: str | None,
    who: dict[str, str],
    as_json: bool,
) -> None:
    """Show records while they are written, of all workers, over rotations.

    WHO is `session:ID`, `user:ID`, `agent:ID` or `pep:ID`; several must all hold. Ctrl-C ends it.
    """
    wanted = who | ({"outcome": outcome} if outcome else {})

    def show(found: list[Found]) -> None:
        for one in found:
            record = one.record()
            own = not as_json and record["kind"] in OWN_KINDS
            if not own and all(record.get(name) == value for name, value in wanted.items()):
                click.echo(one.line.decode("utf-8").rstrip("\n") if as_json else tail_line(record))
        sys.stdout.flush()

    try:
        show(source.start(lines))
        while not no_follow:
            time.sleep(_POLL_SECONDS)
            show(source.poll())
    except (KeyboardInterrupt, BrokenPipeError):
        return


@click.command(epilog="Example:  pdp audit show dec_…")
@click.argument("decision_id")
@json_option
@with_source
def show(*, source: Source, reach: Reach, decision_id: str, as_json: bool) -> None:  # noqa: ARG001 - for those that revoke
    """Show the record of a decision. Exit code 1: there is none."""
    record = source.show(decision_id).record()
    if as_json:
        print_json(record)
    else:
        print_record(record)


@click.command(epilog="Example:  pdp audit session ses_… --delegated")
@click.argument("session_id", metavar="SESSION|DECISION")
@click.option("--delegated", is_flag=True, help="With the sessions that were delegated from it.")
@window_options
@_limited
@json_option
@with_source
def session(
    *,
    source: Source,
    reach: Reach,  # noqa: ARG001 - for those that revoke
    session_id: str,
    delegated: bool,
    window: Window,
    limit: int,
    as_json: bool,
) -> None:
    """Show the whole ledger of a session in order: request, approval, calls, end.

    A decision's id means its session. Exit code 1: there is no such session.
    """
    approvals = source.approvals(session_id)
    which = Filter(session_id=approvals[0].session_id, delegated=delegated, window=window)
    found, more = first(source.records(which), limit)
    if as_json:
        print_json({"session": approval_object(approvals[0]), "entries": [one.record() for one in found]})
    else:
        print_approvals(approvals[:1])
        click.echo()
        print_ledger(found)
    _say_more(more=more)


@click.command("who-approved", epilog="Example:  pdp audit who-approved ses_…")
@click.argument("subject", metavar="SESSION|DECISION")
@json_option
@with_source
def who_approved(*, source: Source, reach: Reach, subject: str, as_json: bool) -> None:  # noqa: ARG001 - for those that revoke
    """Say who approved a session, or the session of a decision, and every session above it.

    Exit code 1: there is no such session or decision.
    """
    approvals = source.approvals(subject)
    if as_json:
        print_json([approval_object(one) for one in approvals])
    else:
        print_approvals(approvals)


@click.command("executed-by", epilog="Example:  pdp audit executed-by agent:coder --since 2h")
@click.argument("who", nargs=-1, required=True, callback=_who)
@click.option("--outcome", type=click.Choice(["allow", "deny", "all"]), default="allow", show_default=True)
@window_options
@_limited
@json_option
@with_source
def executed_by(
    *,
    source: Source,
    reach: Reach,  # noqa: ARG001 - for those that revoke
    who: dict[str, str],
    outcome: str,
    window: Window,
    limit: int,
    as_json: bool,
) -> None:
    """List the calls that an agent, a user, a gateway or a session was allowed to make.

    WHO is `agent:ID`, `user:ID`, `pep:ID` or `session:ID`; several must all hold.
    """
    which = Filter(kind="decision", outcome="" if outcome == "all" else outcome, window=window, **who)  # type: ignore[arg-type]  # by name
    found, more = first(source.records(which), limit)
    if as_json:
        print_json([one.record() for one in found])
    else:
        print_calls(found)
    _say_more(more=more)


@click.command(epilog="Example:  pdp audit touched user:alice --since 2026-01-05")
@click.argument("who", nargs=-1, callback=_who)
@click.option("--delegated", is_flag=True, help="With the sessions that were delegated from `session:ID`.")
@window_options
@json_option
@with_source
def touched(
    *,
    source: Source,
    reach: Reach,  # noqa: ARG001 - for those that revoke
    who: dict[str, str],
    delegated: bool,
    window: Window,
    as_json: bool,
) -> None:
    """List the tools, servers and resources that were reached, and apart from them those that were denied.

    WHO is `agent:ID`, `user:ID`, `pep:ID` or `session:ID`; several must all hold, and without one all calls count.
    """
    if delegated and "session_id" not in who:
        raise click.UsageError("--delegated is only for `session:ID`")
    found = list(source.touched(Filter(delegated=delegated, window=window, **who)))
    if as_json:
        print_json(touched_object(found))
    else:
        print_touched(found)


@click.command(
    "revoke-plan", epilog='Example:  pdp audit revoke-plan tool:git/git_push --since 1h --apply --reason "leak"'
)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--tried", is_flag=True, help="Count denied calls too.")
@window_options
@click.option("--apply", is_flag=True, help="Revoke them through the server, as the approver.")
@click.option("--reason", default="", help="Why, for the record; needed with --apply.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@json_option
@with_source
def revoke_plan(
    *,
    source: Source,
    reach: Reach,
    selectors: tuple[str, ...],
    tried: bool,
    window: Window,
    apply: bool,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Name exactly the live sessions to revoke, with those below them.

    SELECTOR is KIND:VALUE with session, user, agent, pep, approver, tool (`server/tool`), server, resource or bundle
    (a version). Several must all hold; tool, server, resource and bundle for one and the same allowed call. A window
    bounds that call, or the approval, or else any record of the session.

    With --apply, exit code 1: not all of them are revoked.
    """
    if apply and not reason:
        raise click.UsageError("--apply needs --reason")
    if apply and as_json and not yes:
        raise click.UsageError("--json needs --yes: a question and JSON do not go together")
    planned = list(source.plan(selector_of(selectors, window=window, tried=tried)))
    if not as_json:
        print_plan(planned)
    if not apply or not planned:
        if as_json:
            print_json({"sessions": [planned_object(one) for one in planned]})
        return
    if not yes and not click.confirm(f"revoke {len(planned)} session{'' if len(planned) == 1 else 's'}?"):
        raise click.exceptions.Exit(1)
    outcomes = revoke_planned(planned, reason=reason, reach=reach)
    if as_json:
        print_json({"sessions": [planned_object(one) for one in planned], "outcomes": outcomes.by_session})
    else:
        for session_id, outcome in outcomes.by_session.items():
            click.echo(f"{outcome}  {session_id}")
    raise click.exceptions.Exit(0 if outcomes.complete else 1)


@click.command(epilog="Example:  pdp audit export --format parquet --output calls.parquet agent:coder --since 24h")
@click.argument("who", nargs=-1, callback=_who)
@click.option("--format", "kind", type=click.Choice(list(WRITERS)), default="jsonl", show_default=True)
@click.option("--outcome", type=click.Choice(["allow", "deny"]), help="Only decisions with this outcome.")
@click.option("--output", metavar="FILE", help="Write to this new file, not to stdout.")
@window_options
@with_source
def export(
    *,
    source: Source,
    reach: Reach,  # noqa: ARG001 - for those that revoke
    who: dict[str, str],
    kind: str,
    outcome: str | None,
    output: str | None,
    window: Window,
) -> None:
    """Write records in order of time for other tools: JSON lines as they are, CSV, or Parquet.

    WHO is `agent:ID`, `user:ID`, `pep:ID` or `session:ID`; several must all hold. In CSV a text that a spreadsheet
    would run as a formula gets an apostrophe before it. Parquet needs the extra `pdp[parquet]`.
    """
    if kind == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output FILE")
    records = source.records(Filter(outcome=outcome or "", window=window, **who))  # type: ignore[arg-type]  # by name
    with _output(output) as out:
        count = WRITERS[kind](records, out)
    click.echo(f"wrote {count} record{'' if count == 1 else 's'}", err=True)


COMMANDS = (tail, show, session, who_approved, executed_by, touched, revoke_plan, export)


@contextmanager
def _output(path: str | None) -> Iterator[IO[bytes]]:
    """Open a new file of mode 0600, or stdout; remove the file when nothing came of it."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"`{path}` exists already; remove it, or name a new file") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def _say_more(*, more: bool) -> None:
    if more:
        click.echo("there are more; raise --limit", err=True)
