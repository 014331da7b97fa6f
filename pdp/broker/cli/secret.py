"""`pdp-broker secret`: secrets come from standard input, and never leave by a command."""

from __future__ import annotations

import sys

import click

from pdp.broker.cli.opened import json_option, with_vault
from pdp.broker.headers import HeadersError, with_secret
from pdp.broker.oauth.assertions import require_key
from pdp.broker.replacing import renew_password
from pdp.broker.vault import Vault
from pdp.broker.words import MOST_SECRET_BYTES, ClientAuth, Connection, SecretVersion
from pdp.cli.groups import Group
from pdp.cli.output import moment_text, print_json
from pdp.errors import PDPError, WrongStateError


@click.group(cls=Group)
def secret() -> None:
    """Store the secrets of connections.

    A secret is read from standard input. There is no flag and no variable for it, because other users of the machine
    can read flags, and programs that are started inherit variables. No command shows a secret.
    """


@secret.command(epilog="Example:  pdp-broker secret put github < token")
@click.argument("id_", metavar="CONNECTION")
@json_option
@with_vault
def put(*, vault: Vault, by: str, id_: str, as_json: bool) -> None:
    """Store the first secret of a connection, from standard input. One line break at its end is not part of it."""
    one = vault.connection(id_)
    if one.version:
        raise WrongStateError(f"`{id_}` has a secret already: `pdp-broker secret rotate {id_}` replaces it")
    _print(vault.put(id_, _read(one), by=by), as_json=as_json)


@secret.command(epilog="Example:  pdp-broker secret rotate github < token")
@click.argument("id_", metavar="CONNECTION")
@click.option(
    "--generate", is_flag=True, help="Have the database take a password that nobody has seen; nothing is read."
)
@json_option
@with_vault
def rotate(*, vault: Vault, by: str, id_: str, generate: bool, as_json: bool) -> None:
    """Replace the secret of a connection by another one, from standard input.

    The next call uses the new one. End the former one where it was issued: the broker cannot. With --generate it can:
    the password of its role in a database is replaced there too, and whoever is in by the former one is put out.
    """
    one = vault.connection(id_)
    if not one.version:
        raise WrongStateError(f"`{id_}` has no secret yet: `pdp-broker secret put {id_}` stores the first")
    _print(_generated(vault, one, by) if generate else vault.put(id_, _read(one), by=by), as_json=as_json)


def _generated(vault: Vault, one: Connection, by: str) -> SecretVersion:
    """Have a database take another password. Raise `WrongStateError` for any other connection."""
    if one.logins is None:
        raise WrongStateError(f"the secret of `{one.id}` is made by its issuer: pass another one on standard input")
    return renew_password(vault, one, by=by)


def _read(one: Connection) -> bytes:
    """Return the secret on standard input; a person types it without seeing it."""
    if one.is_consented:
        raise WrongStateError(f"the secret of `{one.id}` is what its provider gives when `{one.owner}` connects")
    if sys.stdin.isatty():
        content = str(click.prompt("secret", hide_input=True, err=True)).encode()
    else:
        # More than a secret and its line break may have: then the vault refuses it.
        content = sys.stdin.buffer.read(MOST_SECRET_BYTES + 3)
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if one.source is not None and one.source.auth is ClientAuth.PRIVATE_KEY:
        require_key(secret)
        return secret
    try:
        with_secret(one.header, one.scheme, secret)
    except HeadersError:
        raise PDPError("the secret is empty, or not one line of printable ASCII: no header can hold it") from None
    return secret


def _print(version: SecretVersion, *, as_json: bool) -> None:
    if as_json:
        plain = {"version": version.version, "key": version.kek_id, "digest": version.digest}
        print_json({"connection": version.connection_id, **plain, "store_time": moment_text(version.stored_at)})
    else:
        click.echo(f"stored version {version.version} of the secret of `{version.connection_id}`")
