"""The output of a session for its approver: who, why and how long, and the dangerous tools first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from pdp.cli.output import STYLES, paragraphs, print_table
from pdp.cli.sessions.view import (
    duration_text,
    policies_text,
    print_fields_of,
    seconds_of,
    terms_of,
)
from pdp.client.connectionwords import connection_text
from pdp.client.enumwords import visibility
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible
from pdp.v1.authorization_pb2 import Visibility
from pdp.v1.session_pb2 import ReviewedTool, ReviewSessionResponse, Session

_RISKS = ("destructive", "mutating", "read_only")
# The lines besides the tools and the terms: the summary twice, the fields, and the question.
_LINES_ASIDE = 24
_PURPOSE_LINES = 4


def print_review(review: ReviewSessionResponse, *, asked: Session | None = None) -> None:
    """Print what an approver needs to judge a session.

    `asked` is the session as it was requested, to say what a narrowing leaves out. Who, why and how long, and how many
    tools of each risk, come first and once more at the end, above the question, there with what is unusual. A list that
    is longer than the terminal goes through the pager.
    """
    _print_summary(review, asked)
    click.echo()
    tools = sorted(review.tools, key=_order)
    console = Console(highlight=False)
    if console.is_terminal:
        _print_lines(console, tools, console.height - _LINES_ASIDE - len(terms_of(review.session)))
    elif tools:
        print_table(
            ("tool", "groups", "policies", "adds labels", "connection", "by", "opened by a grant"), map(_row, tools)
        )
    if not tools:
        click.echo("no tools")
    click.echo()
    print_fields_of(review.session, known_grants=tuple(review.known_grants))
    click.echo()
    _print_summary(review, asked, most_lines=_PURPOSE_LINES)
    for one in review.unusual:
        console.print(Text(visible(f"unusual: {one.sentence}"), style="bold"), soft_wrap=not console.is_terminal)


def _print_summary(review: ReviewSessionResponse, asked: Session | None, *, most_lines: int | None = None) -> None:
    session = review.session
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    console.print(Text(visible(_headline(session)), style="bold"))
    lines = paragraphs(session.purpose, console.width - 2)
    for line in lines[:most_lines]:
        console.print(Text(f"  {line}"))
    if lines[most_lines:] and most_lines is not None:
        console.print(Text("  … (the whole purpose is above)", style="dim"))
    console.print(_counts(review.tools))
    if asked is not None and (less := _less(review.session, asked)):
        console.print(Text(f"less than was asked for: {less}", style="bold"))


def _less(session: Session, asked: Session) -> str:
    """Say what a narrowing leaves of what was asked for; empty when it is all."""
    parts = []
    if len(session.tools) < len(asked.tools):
        parts.append(f"{len(session.tools)} of {len(asked.tools)} tools")
    if session.duration != asked.duration:
        parts.append(f"{duration_text(seconds_of(session))} of {duration_text(seconds_of(asked))}")
    if session.terms_json != asked.terms_json:
        parts.append("smaller terms")
    return ", ".join(parts)


def _headline(session: Session) -> str:
    return f"{session.agent} for {session.user}, {duration_text(seconds_of(session))}, asked by {session.opened_by}:"


def _counts(tools: Sequence[ReviewedTool]) -> Text:
    found = Counter(one.tool.risk for one in tools)
    parts = [Text(f"{found[risk]} {risk or 'unknown'}", STYLES.get(risk, "")) for risk in (*_RISKS, "") if found[risk]]
    shown = Text(counted(len(tools), "tool")).append(": " if parts else "")
    shown.append_text(Text(", ").join(parts))
    if closed := sum(one.visibility == Visibility.VISIBILITY_NEVER for one in tools):
        shown.append(f"; never allowed: {closed}")
    return shown


def _print_lines(console: Console, tools: Sequence[ReviewedTool], room: int) -> None:
    """Print a line for each tool.

    If there are more than `room` lines, only the dangerous ones are printed, and the pager shows the others.
    """
    kept = tools if len(tools) <= room else [one for one in tools if one.tool.risk == _RISKS[0]]
    if rest := [one for one in tools if one not in kept]:
        # As git does: what fits into the terminal needs no key, and stays there.
        os.environ.setdefault("LESS", "FRX")
        click.echo_via_pager(f"{_line(one).plain}\n" for one in rest)
        console.print(f"(and the {len(rest)} other tools that were shown before)", style="dim")
    for one in kept:
        console.print(_line(one), overflow="fold")


def _line(one: ReviewedTool) -> Text:
    name, _, policies, labels, used, by, grants = map(visible, _row(one))
    risk = one.tool.risk
    line = Text.assemble((f"{risk:<12}", STYLES.get(risk, "")), (f" {policies:<8}", STYLES.get(policies, "")), name)
    if one.tool.groups:
        line.append(f"  in {visible(', '.join(one.tool.groups))}", "bold")
    if labels:
        line.append(f"  adds {labels}", "bold")
    if used:
        line.append(f"  uses {used}", "bold")
    if by and one.visibility != Visibility.VISIBILITY_ALWAYS:
        line.append(f"  by {by}", "dim")
    return line.append(f"  opened by {grants}", "dim") if grants else line


def _row(one: ReviewedTool) -> tuple[str, ...]:
    groups = ", ".join((one.tool.risk, *one.tool.groups))
    labels = ", ".join(one.tool.adds_labels)
    name = f"{one.tool.server}/{one.tool.tool}"
    used = connection_text(one.tool)
    return name, groups, visibility(one), labels, used, policies_text(one), " ".join(one.opened_by)


def _order(one: ReviewedTool) -> tuple[int, int, str, str]:
    """Return a tool's position in the list: by its risk, then by its policies."""
    risk = _RISKS.index(one.tool.risk) if one.tool.risk in _RISKS else -1
    return risk, -one.visibility, one.tool.server, one.tool.tool
