"""`pdp audit revoke-plan`: name the sessions to revoke, revoke them through the server, and report each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from pdp.audit.coverage import Lacking
from pdp.audit.values import PlannedSession, Selector, Window, selector_of
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.audit.containing import Contained, contained, lost_lines, lost_object
from pdp.cli.audit.leaked import Leaked, leak_options
from pdp.cli.audit.source import Reach, Source, with_source_and_reach
from pdp.cli.audit.view import lacking_object, planned_object, print_plan
from pdp.cli.broker import BrokerOptions, broker_options
from pdp.cli.options import grouped, json_option
from pdp.cli.output import print_json
from pdp.cli.root import NO, YES
from pdp.cli.window import window_options
from pdp.client import NotFoundError, PDPClientError
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible
from pdp.model import Role
from pdp.record.secretuses import SecretTrail

REVOKED = "revoked"
OVER = "already over"
UNKNOWN = "unknown to the server"
NOT_TRIED = "not tried"


@click.command(
    "revoke-plan", epilog='Example:  pdp audit revoke-plan tool:git/git_push --since 1h --apply --reason "leak"'
)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--tried", is_flag=True, help="Count denied calls too.")
@leak_options
@grouped(BrokerOptions, "broker", broker_options("--broker-address", " With --apply, it replaces the secret."))
@window_options
@click.option("--apply", is_flag=True, help="Revoke these sessions through the server, as the approver.")
@click.option("--reason", default="", help="The reason, for the record; required with --apply.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@click.option("--incomplete", is_flag=True, help="Apply although records of other machines are lacking.")
@json_option
@with_source_and_reach
def revoke_plan(
    *,
    source: Source,
    reach: Reach,
    selectors: tuple[str, ...],
    tried: bool,
    leaked: Leaked | None,
    broker: BrokerOptions,
    window: Window,
    apply: bool,
    reason: str,
    yes: bool,
    incomplete: bool,
    as_json: bool,
) -> None:
    """List exactly the live sessions to revoke, including those below them.

    SELECTOR is KIND:VALUE with session, user, agent, pep, approver, tool (`server/tool`), server, resource or bundle
    (a version). A session must match all selectors, and one allowed call must match all of tool, server, resource and
    bundle. The time window applies to that call, or to the approval, or else to any record of the session.

    With --connection, the sessions are those that used its secret in the time window, by the record of the broker in
    --broker; a SELECTOR narrows that. With --broker-address too, --apply has the broker end what was handed out, and
    replace the secret where it can by itself; what a person must do is listed, and what nobody can take back.

    Where several machines keep records, --apply revokes nothing while the plan lacks some of them, unless --incomplete
    is passed too.

    Exit code 1 with --apply: some of the sessions were not revoked, or something is left to do.
    """
    if leaked is None and broker.broker_address:
        raise click.UsageError("--broker-address needs --connection")
    if apply and not reason:
        raise click.UsageError("--apply needs --reason")
    if apply:
        require_quiet(as_json=as_json, yes=yes)
    # Without a selector, all sessions that used the secret are meant.
    every = Selector(window=window, tried=tried)
    selector = every if leaked and not selectors else selector_of(selectors, window=window, tried=tried)
    trail = leaked.trail(window) if leaked else None
    planned = leaked.plan(trail, selector, source) if leaked and trail else list(source.plan(selector))
    if not as_json:
        _show_plan(planned, trail)
    lacking = source.lacking
    refused = apply and bool(lacking) and not incomplete
    if refused or not apply or not (planned or leaked):
        if as_json:
            print_json(_plan_object(planned, trail, lacking))
        if refused:
            click.echo(f"error: nothing was revoked, since {lacking}; --incomplete revokes what is listed", err=True)
            raise click.exceptions.Exit(NO)
        return
    if not yes:
        replaced = leaked.connection if leaked and broker.broker_address else ""
        require_yes(_question(len(planned), replaced), done="revoked", does="revokes")
    outcomes = revoke_planned(planned, reason=reason, reach=reach) if planned else Outcomes(by_session={})
    done = contained(leaked, broker, reach) if leaked else None
    if as_json:
        more = {"secret": done.plain} if done else {}
        print_json({**_plan_object(planned, trail, lacking), "outcomes": outcomes.by_session, **more})
    else:
        _show_outcomes(outcomes, done)
    raise click.exceptions.Exit(YES if outcomes.complete and (done is None or done.complete) else NO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The result of each session: revoked, over already, unknown to the server, failed, or not tried after that."""

    by_session: dict[str, str]

    @property
    def complete(self) -> bool:
        """Say whether every session is revoked or was over."""
        return set(self.by_session.values()) <= {REVOKED, OVER}


def _question(count: int, replaced: str) -> str:
    revoked = f"revoke {counted(count, 'session')}"
    return f"{revoked}, and have the secret of `{replaced}` replaced?" if replaced else f"{revoked}?"


def _plan_object(planned: Sequence[PlannedSession], trail: SecretTrail | None, lacking: Lacking) -> dict[str, Any]:
    lost = {"beyond_recall": lost_object(trail)} if trail else {}
    left_out = {"lacking": lacking_object(lacking)} if lacking else {}
    return {"sessions": [planned_object(one) for one in planned], **lost, **left_out}


def _show_plan(planned: Sequence[PlannedSession], trail: SecretTrail | None) -> None:
    print_plan(planned)
    if not planned:
        click.echo("no live session matches", err=True)
    for line in lost_lines(trail) if trail else ():
        click.echo(line)


def _show_outcomes(outcomes: Outcomes, done: Contained | None) -> None:
    for session_id, outcome in outcomes.by_session.items():
        click.echo(visible(f"{outcome}  {session_id}"))
    for line in done.lines if done else ():
        click.echo(line)


def revoke_planned(planned: Sequence[PlannedSession], *, reason: str, reach: Reach) -> Outcomes:
    """Revoke every session of a plan.

    A session that ended with the session above it counts as revoked. Sessions that the server revokes beyond the plan,
    because they were delegated since, are reported too. When the server fails, the rest is not tried; the plan can be
    made and applied again.
    """
    found: dict[str, str] = {}
    with reach.client(Role.APPROVER) as client:
        for one in planned:
            if one.session_id in found:
                continue
            try:
                revoked = client.revoke_sessions(session_id=one.session_id, reason=reason)
            except NotFoundError:
                found[one.session_id] = UNKNOWN
            except PDPClientError as error:
                found[one.session_id] = f"failed: {error}"
                break
            else:
                found |= dict.fromkeys(revoked, REVOKED)
                found.setdefault(one.session_id, OVER)
    return Outcomes(by_session=dict.fromkeys((one.session_id for one in planned), NOT_TRIED) | found)
