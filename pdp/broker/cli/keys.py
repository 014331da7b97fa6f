"""`pdp-broker keys`: the keys under which secrets are sealed."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import click

from pdp.broker.cli.opened import (
    compartment_option,
    data_dir_option,
    json_option,
    recording,
    tenant_option,
    with_reading,
    with_vault,
    yes_option,
)
from pdp.broker.providers.choosing import chosen_provider
from pdp.broker.providers.files import FileProvider
from pdp.broker.vault import Vault
from pdp.broker.words import Kek
from pdp.cli.asking import require_yes
from pdp.cli.groups import Group
from pdp.cli.output import moment_text, print_json, print_table, progress
from pdp.errors import WrongStateError
from pdp.foundation.counting import counted
from pdp.foundation.ownership import local_user
from pdp.observer import Event, EventKind


@click.group(cls=Group)
def keys() -> None:
    """List, rotate and retire the keys under which secrets are sealed."""


@keys.command("list", epilog="Example:  pdp-broker keys list --tenant acme")
@click.option("--tenant", metavar="NAME", help="Only those of this tenant.")
@json_option
@with_reading
def list_(*, vault: Vault, tenant: str | None, as_json: bool) -> None:
    """List the keys of each tenant and compartment, with how many secrets are sealed under each.

    Access tokens that are out are too. New secrets are sealed under the latest generation.
    """
    found = vault.keys(tenant=tenant)
    if as_json:
        print_json({"keys": [_plain(kek, sealed) for kek, sealed in found]})
    elif not found:
        click.echo("no keys: the first secret of a compartment makes one")
    else:
        print_table(
            ("key", "tenant", "compartment", "generation", "created", "secrets"),
            [
                (kek.id, kek.tenant, kek.compartment, str(kek.generation), moment_text(kek.created_at), str(sealed))
                for kek, sealed in found
            ],
        )


@keys.command(epilog="Example:  pdp-broker keys rotate --tenant acme --compartment prod")
@tenant_option
@compartment_option
@json_option
@with_vault
def rotate(*, vault: Vault, by: str, tenant: str, compartment: str, as_json: bool) -> None:
    """Make a new key for a compartment, and bring its secrets to it, one by one, and access tokens that are out.

    Secrets stay usable meanwhile. When it was interrupted, run it again. The former keys stay until you retire them.
    """
    kek = vault.rotate_key(tenant, compartment, by=by)
    with progress("wrapping the keys of secrets again"):
        moved = vault.rewrap(tenant, compartment)
    idle = [one.id for one, sealed in vault.keys(tenant=tenant) if one.compartment == compartment and not sealed]
    former = [one for one in idle if one != kek.id]
    if as_json:
        print_json({**_plain(kek, moved), "rewrapped": moved, "can_be_retired": former})
        return
    click.echo(f"made {kek.id}, generation {kek.generation}, and brought {counted(moved, 'secret')} to it")
    for one in former:
        click.echo(f"nothing is sealed under {one}: `pdp-broker keys retire {one}` destroys it")


@keys.command(epilog="Example:  pdp-broker keys retire kek_…")
@click.argument("kek_id", metavar="KEY")
@json_option
@with_vault
def retire(*, vault: Vault, by: str, kek_id: str, as_json: bool) -> None:
    """Destroy a key under which nothing is sealed any more.

    Refused while a secret is, or an access token that is out. Copies of the store from before the rotation cannot be
    opened afterwards.
    """
    kek = vault.retire(kek_id, by=by)
    if as_json:
        print_json(_plain(kek, 0))
    else:
        click.echo(f"destroyed {kek_id}")


@keys.command("replace-root", epilog="Example:  pdp-broker keys replace-root")
@data_dir_option
@yes_option
def replace_root(*, folder: Path, yes: bool) -> None:
    """Wrap all keys by a new root key, while no broker runs.

    Copies of the folder of keys from before open nothing that is stored afterwards, and no tenant that was shredded
    before: `tenant shred` needs this to reach backups. When it was interrupted, run it again. Only where keys are kept
    in files.
    """
    with recording(folder) as record, closing(chosen_provider(folder).open()) as provider:
        if not isinstance(provider, FileProvider):
            raise WrongStateError("this provider has no root key in a file")
        if not yes:
            require_yes(
                "replace the root key? former backups of keys become useless", done="changed", does="replaces it"
            )
        provider.replace_root()
        record.event(Event(kind=EventKind.KEY_ROOT_REPLACED, at=time.time(), caller_id=local_user()))
    click.echo("replaced the root key; back up the folder of keys again, and destroy its former backups")


def _plain(kek: Kek, sealed: int) -> dict[str, object]:
    return {
        "key": kek.id,
        "tenant": kek.tenant,
        "compartment": kek.compartment,
        "generation": kek.generation,
        "create_time": moment_text(kek.created_at),
        "secrets": sealed,
    }
