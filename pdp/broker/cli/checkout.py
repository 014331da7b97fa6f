"""`pdp-broker checkout`: credentials that left the broker, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pdp.broker.checkouts.sweeping import OVERDUE_SECONDS
from pdp.broker.checkouts.words import Checkout
from pdp.broker.cli.opened import Opened, data_dir_option, json_option, with_broker, yes_option
from pdp.broker.opening import opened_checkouts
from pdp.calltokens.checkouts import RecipientKey
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.groups import Group
from pdp.cli.output import moment_text, print_json, print_table
from pdp.errors import PDPError
from pdp.foundation.counting import counted
from pdp.foundation.files import make_file

C = TypeVar("C", bound=Callable[..., Any])
_COLUMNS: Final = ("checkout", "kind", "connection", "session", "user", "tool", "state", "ends", "tries", "problem")


@click.group(cls=Group)
def checkout() -> None:
    """List and end credentials that were handed out.

    A running broker ends each with its session, or at its own end. These commands may run beside it.
    """


@checkout.command("list", epilog="Example:  pdp-broker checkout list")
@data_dir_option
@json_option
def list_(*, folder: Path, as_json: bool) -> None:
    """List the credentials that are out, oldest first; `overdue` are those that should have ended."""
    with opened_checkouts(folder) as store:
        found, looks = store.all(), store.looks()
    overdue_at = time.time() - OVERDUE_SECONDS
    if as_json:
        orphans = [{"connection": one.connection_id, "orphans": one.orphans, "problem": one.problem} for one in looks]
        print_json({"checkouts": [_plain(one, overdue_at) for one in found], "looks": orphans})
        return
    if found:
        print_table(_COLUMNS, [_row(one, overdue_at) for one in found])
    else:
        click.echo("nothing is out")
    for look in looks:
        if look.orphans or look.problem:
            click.echo(f"`{look.connection_id}`: {look.problem or counted(look.orphans, 'role') + ' of no checkout'}")


@checkout.command(epilog="Example:  pdp-broker checkout revoke --session ses_n4xw2v7yq3kz5m6j8p9r0s1t2u")
@click.argument("ids", metavar="[CHECKOUT]...", nargs=-1)
@click.option("--session", "session_id", default="", metavar="SESSION", help="Those of a session, and of those below.")
@click.option("--connection", "connection_id", default="", metavar="CONNECTION", help="Those of a connection.")
@click.option("--tenant", default="", metavar="NAME", help="Those of a tenant.")
@json_option
@with_broker
@click.pass_context
def revoke(
    context: click.Context,
    *,
    broker: Opened,
    ids: Sequence[str],
    session_id: str,
    connection_id: str,
    tenant: str,
    as_json: bool,
) -> None:
    """End credentials now. The sessions for which they were handed out go on.

    Exit code 1: one of them has not ended. It is tried again by the broker, and stays in the list until it has.
    """
    if not (ids or session_id or connection_id or tenant):
        raise click.UsageError("name checkouts, or --session, --connection or --tenant")
    named = {broker.store.get(one).id for one in ids}
    of_tenant = {one.id for one in broker.vault.connections(tenant=tenant)} if tenant else set[str]()
    chosen = [
        one.id
        for one in broker.store.all()
        if one.id in named
        or session_id in one.session_ids
        or one.connection_id == connection_id
        or one.connection_id in of_tenant
    ]
    broker.sweeper.end(chosen)
    _tell_of_left(context, broker, chosen, as_json=as_json)


@checkout.command(epilog="Example:  pdp-broker checkout sweep")
@json_option
@with_broker
@click.pass_context
def sweep(context: click.Context, *, broker: Opened, as_json: bool) -> None:
    """End what should have ended, without waiting, and look for roles that no checkout names.

    Exit code 1: something has not ended.
    """
    chosen = [one.id for one in broker.store.all() if one.tries or one.next_at <= time.time()]
    broker.sweeper.end(chosen)
    broker.sweeper.look()
    _tell_of_left(context, broker, chosen, as_json=as_json)


@checkout.command(epilog="Example:  pdp-broker checkout forget chk_n4xw2v7yq3kz5m6j8p9r0s1t2u")
@click.argument("id_", metavar="CHECKOUT")
@yes_option
@json_option
@with_broker
def forget(*, broker: Opened, id_: str, yes: bool, as_json: bool) -> None:
    """Give up a credential that can never be ended, as when its database is gone. It is not ended by this."""
    one = broker.store.get(id_)
    require_quiet(as_json=as_json, yes=yes)
    if not yes:
        require_yes(f"forget `{id_}`, which may still be good?", done="forgotten", does="forgets")
    broker.sweeper.forget(one, by=broker.by)
    if as_json:
        print_json({"checkout": id_})
    else:
        click.echo(
            f"forgot `{id_}`; drop the role `{one.role}` wherever it still is" if one.is_login else f"forgot `{id_}`"
        )


@checkout.command(epilog="Example:  pdp-broker checkout key checkout-key.pem")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def key(*, file: Path, as_json: bool) -> None:
    """Make the key of a tool server in a file, and print its public half, for `checkout.key` of the rules.

    Run it where the tool server is: credentials are sealed to this key, and the broker needs the public half alone.
    """
    made = RecipientKey()
    if not make_file(file, lambda: made.pem):
        raise PDPError(f"`{file}` exists already, and is left as it is")
    if as_json:
        print_json({"file": str(file), "key": made.public})
    else:
        click.echo(made.public)


def _tell_of_left(context: click.Context, broker: Opened, chosen: Sequence[str], *, as_json: bool) -> None:
    """Say how many of the chosen have ended, and which have not. Exit with 1 for these."""
    left = [one for one in broker.store.all() if one.id in chosen]
    ended = len(chosen) - len(left)
    if as_json:
        print_json({"ended": ended, "left": [_plain(one, 0.0) for one in left]})
    else:
        click.echo(f"ended {counted(ended, 'credential')}")
        for one in left:
            click.echo(f"not ended: `{one.id}`: {one.problem or f'it is good until {moment_text(one.ends_at)}'}")
    context.exit(1 if left else 0)


def _row(one: Checkout, overdue_at: float) -> tuple[str, ...]:
    ends = moment_text(one.ends_at) if one.ends_at else ""
    state = "overdue" if one.is_overdue(overdue_at) else one.state.value
    about = (one.id, one.kind.value, one.connection_id, one.session_id, one.user, one.action)
    return (*about, state, ends, str(one.tries), one.problem)


def _plain(one: Checkout, overdue_at: float) -> dict[str, object]:
    return {
        "checkout": one.id,
        "connection": one.connection_id,
        "kind": one.kind.value,
        "session": one.session_id,
        "ancestors": list(one.session_ids[1:]),
        "user": one.user,
        "agent": one.agent,
        "tool": one.action,
        "scopes": list(one.scopes),
        "decision": one.decision_id,
        "token": one.token_id,
        "state": one.state.value,
        "overdue": one.is_overdue(overdue_at),
        "begin_time": moment_text(one.begun_at),
        "expire_time": moment_text(one.ends_at) if one.ends_at else "",
        "next_time": moment_text(one.next_at),
        "tries": one.tries,
        "problem": one.problem,
    }
