"""`pdp bundle`: the versions that a server keeps, and packed bundles."""

from __future__ import annotations

from typing import Any

import click

from pdp.cli.connection import with_client
from pdp.cli.groups import CommandEntry, CommandTable
from pdp.cli.options import json_option
from pdp.cli.output import print_json, print_table, progress
from pdp.client import Client
from pdp.errors import ConfigurationError
from pdp.model import Role
from pdp.v1.policy_pb2 import Bundle

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
@json_option
@with_client(Role.AUTHOR)
def activate(*, client: Client, version: str, reason: str, as_json: bool) -> None:
    """Activate a version that the server keeps, or that the source delivered and the server did not activate.

    The first digits of the version are enough. It stays active until the source delivers content that was never active
    before, or a person activates or reloads a bundle.
    """
    with progress("activating the bundle in every worker"):
        done = client.activate_bundle(_full_version(client, version), reason=reason)
    _say(done.bundle, changed=done.changed, as_json=as_json)


@bundle.command("reload", epilog="Example:  pdp bundle reload")
@json_option
@with_client(Role.AUTHOR)
def reload_(*, client: Client, as_json: bool) -> None:
    """Make the server load what its source holds now: the folder, the packed file or the URL."""
    with progress("loading what the source holds"):
        done = client.reload_bundle()
    _say(done.bundle, changed=done.changed, as_json=as_json)


def _full_version(client: Client, prefix: str) -> str:
    """Return the one version that begins with the given text."""
    wanted = prefix if prefix.startswith(_SCHEME) else _SCHEME + prefix
    known = {one.version for one in client.list_bundles()} | {client.get_bundle().source_version}
    found = sorted(version for version in known if version.startswith(wanted))
    if len(found) != 1:
        problem = "no version that the server keeps begins with" if not found else "more than one version begins with"
        raise ConfigurationError(f"{problem} `{prefix}`; see `pdp bundle list`")
    return found[0]


def _say(running: Bundle, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"changed": changed, "bundle": _shown(running)})
        return
    click.echo(f"{'now active' if changed else 'already active'}: bundle `{running.name}`, {running.version}")


def _short(version: str) -> str:
    return version.removeprefix(_SCHEME)[:_SHOWN_DIGITS]


def _row(one: Bundle) -> tuple[str, ...]:
    return (
        _short(one.version),
        ("active, chosen" if one.chosen else "active") if one.active else "",
        _time(one),
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
        "activate_time": _time(one),
        "activated_by": one.activated_by,
        "reason": one.reason,
        "number": one.number,
        "signed_by": one.signed_by,
        "name": one.name,
        "label": one.label,
    }


def _time(one: Bundle) -> str:
    return one.activate_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ")
