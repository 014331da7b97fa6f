"""`pdp-broker forget`: remove what the broker keeps of one person, and say what stays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pdp.broker.cli.opened import data_dir_option, json_option, recording, yes_option
from pdp.broker.opening import RECORD_FOLDER, opened_vault
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.output import print_json, print_table, progress
from pdp.foundation.ownership import local_user
from pdp.foundation.places import gone, staying
from pdp.record.naming import naming


@click.command(epilog="Example:  pdp-broker forget alice@example.org --tenant acme --apply")
@click.argument("user")
@click.option("--tenant", default="default", show_default=True, metavar="NAME", help="The tenant of the person.")
@click.option("--apply", is_flag=True, help="Remove it. [only say what would be removed]")
@yes_option
@json_option
@data_dir_option
def forget(*, folder: Path, user: str, tenant: str, apply: bool, yes: bool, as_json: bool) -> None:
    """Remove the connections of a person with their secrets, and say what stays.

    The broker may run meanwhile. End the tokens at their provider first: the broker cannot any more when they are gone.
    The record stays as it is, because each line is bound to the one before. That somebody was forgotten is recorded
    without their id.
    """
    if apply:
        require_quiet(as_json=as_json, yes=yes)
    with progress("looking through the record"):
        named = naming(folder / RECORD_FOLDER, user, tenant=tenant)
    with opened_vault(folder, lambda _: None) as vault:
        count = len(vault.owned(user, tenant=tenant))
    if apply:
        if not yes:
            require_yes(f"remove what is kept of `{user}`?", done="removed", does="removes")
        with recording(folder) as record, opened_vault(folder, record.event) as vault:
            count = len(vault.forget(user, tenant=tenant, by=local_user()))
    why = f"in {named.segments} segments, the last at {named.last[:19]}Z: remove these, the oldest first"
    places = [
        gone("connections, with their secrets", count, apply=apply),
        staying("ids of these connections", count, "so that no version of a secret comes twice: they name nobody"),
        staying("record", named.records, why if named.records else ""),
    ]
    if as_json:
        print_json({"places": [asdict(one) for one in places]})
    else:
        print_table(("place", "entries", "", "why"), [(one.where, str(one.found), one.fate, one.why) for one in places])
