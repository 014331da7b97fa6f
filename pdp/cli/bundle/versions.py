"""`pdp bundle`: the versions that a server keeps, and packed bundles."""

from __future__ import annotations

from typing import Any

import click

from pdp.cli.connection import with_client
from pdp.cli.fences import Fenced
from pdp.cli.groups import CommandEntry, CommandTable
from pdp.cli.options import json_option
from pdp.cli.output import print_json, print_table, progress, time_text
from pdp.client import Client
from pdp.client.fencing import fence_of
from pdp.errors import ConfigurationError
from pdp.foundation.printable import visible
from pdp.model import Role
from pdp.v1.policy_pb2 import ActivateBundleResponse, Bundle, ReloadBundleResponse

_SCHEME = "sha256:"
_SHOWN_DIGITS = 12


# These sign, or need the engine: asking a server needs neither.
PACKING = {
    "build": CommandEntry("pdp.cli.bundle.packing", "Check a policy folder, and pack it into one file."),
    "keygen": CommandEntry("pdp.cli.bundle.packing", "Create an Ed25519 key pair for signing bundles."),
    "sign": CommandEntry("pdp.cli.bundle.packing", "Sign a packed bundle together with a number."),
    "verify": CommandEntry(
        "pdp.cli.bundle.packing", "Verify that a packed bundle is intact, and was signed by a trusted key."
    ),
    "show": CommandEntry("pdp.cli.bundle.packing", "Show what a packed bundle holds."),
}


@click.group(cls=CommandTable, entries=PACKING)
def bundle() -> None:
    """Pack, sign and verify bundles; list and activate versions."""


@bundle.command("list", epilog="Example:  pdp bundle list --json")
@json_option
@with_client(Role.AUTHOR)
def list_(*, client: Client, as_json: bool) -> None:
    """List the bundles that can be activated again, latest activation first."""
    bundles = client.list_bundles()
    if as_json:
        print_json([_shown(one) for one in bundles])
        return
    source_version = client.get_bundle().source_version
    if source_version and not any(one.active and one.version == source_version for one in bundles):
        click.echo(f"the source holds {_short(source_version)}, which the server did not activate by itself", err=True)
    columns = ("version", "", "activated", "by", "number", "signed by", "name", "label", "reason")
    print_table(columns, [_row(one) for one in bundles])


@bundle.command(epilog="Example:  pdp bundle activate 3f2a91c0 --reason 'the new one denies every call'")
@click.argument("version")
@click.option("--reason", default="", help="The reason, for the record.")
@click.option(
    "--preview", is_flag=True, help="Activate nothing; say how many sessions a version that is kept would deny."
)
@json_option
@with_client(Role.AUTHOR)
def activate(*, client: Client, version: str, reason: str, preview: bool, as_json: bool) -> None:
    """Activate a version that the server keeps, or that the source delivered and the server did not activate.

    The first digits of the version are enough. It stays active until the source delivers content that was never active
    before, or a person activates or reloads a bundle. Sessions whose terms do not fit its schema are denied every call.
    """
    full = _full_version(client, version)
    if preview:
        kept = client.get_bundle(full, with_sessions=True)
        if as_json:
            print_json(_plain(kept.bundle, unfit=kept.sessions_unfit))
        else:
            _say(kept.bundle, "would be active", unfit=kept.sessions_unfit)
        return
    with progress("activating the bundle in every worker"):
        done = client.activate_bundle(full, reason=reason)
    _say_active(done, as_json=as_json)


@bundle.command("reload", epilog="Example:  pdp bundle reload")
@json_option
@with_client(Role.AUTHOR)
def reload_(*, client: Client, as_json: bool) -> None:
    """Make the server load what its source holds now: the folder, the packed file or the URL."""
    with progress("loading what the source holds"):
        done = client.reload_bundle()
    _say_active(done, as_json=as_json)


def _full_version(client: Client, prefix: str) -> str:
    """Return the one version that begins with the given text."""
    wanted = prefix if prefix.startswith(_SCHEME) else _SCHEME + prefix
    known = {one.version for one in client.list_bundles()} | {client.get_bundle().source_version}
    found = sorted(version for version in known if version.startswith(wanted))
    if len(found) != 1:
        problem = "no version that the server keeps begins with" if not found else "more than one version begins with"
        raise ConfigurationError(f"{problem} `{prefix}`; see `pdp bundle list`")
    return found[0]


def _say_active(done: ActivateBundleResponse | ReloadBundleResponse, *, as_json: bool) -> None:
    fenced = Fenced()
    fenced.take(fence_of(done))
    if as_json:
        more = {"servers_lacking": list(done.servers_lacking), **fenced.plain()}
        print_json({**_plain(done.bundle, unfit=done.sessions_unfit, changed=done.changed), **more})
        return
    # Even of the running version, a choice changes what the server may activate by itself.
    same = "already active, and chosen" if done.bundle.chosen else "already active"
    _say(done.bundle, "now active" if done.changed else same, unfit=done.sessions_unfit)
    for one in done.servers_lacking:
        click.echo(visible(f"warning: a server answers nothing until it has loaded it: {one}"), err=True)
    fenced.tell()


def _plain(one: Bundle, *, unfit: int, changed: bool = False) -> dict[str, Any]:
    return {"changed": changed, "bundle": _shown(one), "sessions_unfit": unfit}


def _say(one: Bundle, words: str, *, unfit: int) -> None:
    click.echo(f"{words}: bundle `{one.name}`, {one.version}")
    if unfit:
        sessions = "1 active session" if unfit == 1 else f"{unfit} active sessions"
        click.echo(f"warning: the terms of {sessions} do not fit its schema: all their calls are denied", err=True)


def _short(version: str) -> str:
    return version.removeprefix(_SCHEME)[:_SHOWN_DIGITS]


def _row(one: Bundle) -> tuple[str, ...]:
    return (
        _short(one.version),
        ("active, chosen" if one.chosen else "active") if one.active else "",
        time_text(one, "activate_time"),
        one.activated_by,
        str(one.number or ""),
        one.signed_by,
        one.name,
        one.label,
        one.reason,
    )


def _shown(one: Bundle) -> dict[str, Any]:
    return {
        "version": one.version,
        "active": one.active,
        "chosen": one.chosen,
        "activate_time": time_text(one, "activate_time"),
        "activated_by": one.activated_by,
        "reason": one.reason,
        "number": one.number,
        "signed_by": one.signed_by,
        "name": one.name,
        "label": one.label,
    }
