"""`pdp-broker tenant`: the end of a tenant."""

from __future__ import annotations

import click

from pdp.broker.cli.opened import counted, json_option, with_vault, yes_option
from pdp.broker.vault import Vault
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.groups import Group
from pdp.cli.output import print_json


@click.group(cls=Group)
def tenant() -> None:
    """End a tenant: destroy its keys, and delete its connections and secrets."""


@tenant.command(epilog="Example:  pdp-broker tenant shred acme")
@click.argument("name", metavar="TENANT")
@yes_option
@json_option
@with_vault
def shred(*, vault: Vault, by: str, name: str, yes: bool, as_json: bool) -> None:
    """Destroy all keys of a tenant, and delete its connections and secrets. This cannot be undone.

    Secrets stay valid where they were issued: end them there. Backups of the store cannot be opened, unless a backup of
    the provider's keys brings back the tenant's: destroy those, or run `pdp-broker keys replace-root`, after which they
    are useless. If it fails half-way, run it again.
    """
    require_quiet(as_json=as_json, yes=yes)
    connections, keys = vault.connections(tenant=name), vault.keys(tenant=name)
    if not yes and (connections or keys):
        require_yes(
            f"destroy {counted(len(keys), 'key')} and {counted(len(connections), 'connection')} of `{name}` for ever?",
            done="destroyed",
            does="destroys them",
        )
    gone = vault.shred(name, by=by)
    if as_json:
        print_json({"tenant": name, "connections": list(gone.connection_ids), "keys": list(gone.kek_ids)})
    else:
        ended = counted(len(gone.connection_ids), "connection")
        click.echo(f"destroyed {counted(len(gone.kek_ids), 'key')} and {ended} of `{name}`")
