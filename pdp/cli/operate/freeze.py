"""`pdp freeze`: stop all calls of a tenant or of all, see what is stopped, and lift it."""

from __future__ import annotations

import getpass
from dataclasses import replace

import click

from pdp.app.record import open_record, record_key
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.connection import connect, with_client
from pdp.cli.fences import Fenced
from pdp.cli.groups import Group
from pdp.cli.options import ConnectionOptions, connection_options, json_option, with_settings
from pdp.cli.output import print_fields, print_json, print_table, time_text
from pdp.cli.sessions.frozen import COLUMNS, plain, row, what
from pdp.cli.sessions.selecting import Kind
from pdp.client import Client
from pdp.client.fencing import fence_of
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.counting import counted
from pdp.model import Role
from pdp.observer import EventKind
from pdp.registry.freezing import freeze_event
from pdp.sessions.offline import BY, lift_offline

_FREEZE = Kind(prefix="frz_", noun="freeze", empty="the freeze id is empty: `pdp freeze list` shows it")


@click.group(cls=Group)
def freeze() -> None:
    """Stop all calls of a tenant or of all tenants, and lift that."""


@freeze.command("set", epilog='Example:  pdp freeze set --tenant default --reason "the agents act strangely"')
@click.option("--tenant", default="", help="Freeze this tenant, your own.")
@click.option("--all-tenants", is_flag=True, help="Freeze all tenants, as an operator.")
@click.option("--reason", default="", help="The reason, for the record and the list. Required, except with --preview.")
@click.option("--preview", is_flag=True, help="Freeze nothing; say how many live sessions would be stopped.")
@connection_options(Role.APPROVER)
@json_option
@with_settings("data_dir")
def set_(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    tenant: str,
    all_tenants: bool,
    reason: str,
    preview: bool,
    as_json: bool,
) -> None:
    """Stop all calls of a tenant, or of all tenants, from now on.

    It ends no session: what has not expired goes on when two others have lifted it. Meanwhile nothing can be requested
    or approved, and sessions can still be ended and revoked. Without a token file, --all-tenants uses the token that
    `pdp init` wrote for `operator`.
    """
    if bool(reason) == preview:
        raise click.UsageError("pass either --reason or --preview")
    if bool(tenant) == all_tenants:
        raise click.UsageError("pass either --tenant or --all-tenants")
    with connect(Role.OPERATOR if all_tenants else Role.APPROVER, settings, connection) as client:
        if preview:
            _print_preview(client.preview_freeze(tenant=tenant, all_tenants=all_tenants), as_json=as_json)
            return
        fenced = Fenced()
        found = client.set_freeze(tenant=tenant, all_tenants=all_tenants, reason=reason, on_fence=fenced.take)
    if as_json:
        print_json({**plain(found), **fenced.plain()})
        return
    click.echo(f"froze {what(found)}: {found.freeze_id}")
    fenced.tell()
    click.echo(f"two others lift it with `pdp freeze lift {found.freeze_id}`", err=True)


@freeze.command("list", epilog="Example:  pdp freeze list --json")
@json_option
@with_client(Role.APPROVER)
def list_freezes(*, client: Client, as_json: bool) -> None:
    """List what stops the calls of your tenant.

    `until` is when another person must have lifted it, once one has confirmed.
    """
    found = client.list_freezes()
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table(COLUMNS, map(row, found))


@freeze.command(epilog="Example:  pdp freeze lift frz_… --token-file ~/.pdp/token")
@click.argument("freeze_id", required=False, default="")
@click.option("--yes", is_flag=True, help="Lift it without asking.")
@click.option("--offline", is_flag=True, help="Lift it alone, while no server runs; the only one needs no FREEZE_ID.")
@connection_options(Role.APPROVER)
@json_option
@with_settings("data_dir")
def lift(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    freeze_id: str,
    yes: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Confirm that a freeze is to be lifted, or lift it as the second who does so within an hour.

    Neither may be who set it. Shows the freeze, asks, and exits with 1 if the answer is no. With --offline, who can
    write to the data folder lifts it alone while no server runs; the decision log names the user of the machine.
    """
    if offline:
        _lift_offline(settings, freeze_id, as_json=as_json)
        return
    require_quiet(as_json=as_json, yes=yes)
    with connect(Role.APPROVER, settings, connection) as client:
        whole = _FREEZE.full_id(freeze_id, lambda: (one.freeze_id for one in client.list_freezes()))
        if not yes:
            _print_freeze(client, whole)
            require_yes("lift?", done="lifted", does="lifts")
        done, fenced = client.lift_freeze(whole), Fenced()
    fenced.take(fence_of(done))
    if as_json:
        print_json({"lifted": done.lifted, "freeze": None if done.lifted else plain(done.freeze), **fenced.plain()})
    elif done.lifted:
        click.echo(f"lifted {whole}")
        fenced.tell()
    else:
        until = time_text(done.freeze, "confirm_expire_time")
        click.echo(f"confirmed {whole}; another person can lift it until {until}")


def _print_preview(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"would_stop": count})
    else:
        click.echo(f"would stop {counted(count, 'session')}")


def _lift_offline(settings: Settings, freeze_id: str, *, as_json: bool) -> None:
    if settings.sessions.store != "sqlite":
        raise ConfigurationError(f"`sessions.store` is `{settings.sessions.store}`: there is no session store file")
    clock = SystemClock()
    # Opened first: what cannot be recorded is not lifted.
    log = open_record(settings, key=record_key(settings), clock=clock)
    try:
        now = clock.now()
        lifted = lift_offline(settings.sessions_file, freeze_id, now=now, known_revision=log.store_revision)
        event = freeze_event(EventKind.FREEZE_LIFTED, lifted, at=now.wall_at, caller_id=BY)
        log.event(replace(event, facts={**event.facts, "machine_user": getpass.getuser()}))
    finally:
        log.close()
    if as_json:
        print_json({"lifted": True, "freeze": None})
    else:
        click.echo(f"lifted {lifted.id}")
    if log.failures:
        raise PDPError(f"the freeze is lifted, but the decision log could not be written: {log.status().problem}")


def _print_freeze(client: Client, freeze_id: str) -> None:
    found = next((one for one in client.list_freezes() if one.freeze_id == freeze_id), None)
    if found is None:
        raise click.ClickException(f"nothing is frozen by `{freeze_id}`")
    print_fields(zip(COLUMNS, row(found), strict=True))
