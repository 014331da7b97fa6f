"""`pdp calltokens`: the keys of call tokens, and whether a token still counts."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pdp.cli.connection import with_client
from pdp.cli.groups import Group
from pdp.cli.options import json_option
from pdp.cli.output import print_json, print_table, time_text
from pdp.cli.root import NO
from pdp.client import Client
from pdp.model import Role
from pdp.v1.calltoken_pb2 import CallTokenKey


@click.group(cls=Group)
def calltokens() -> None:
    """Show and withdraw the keys that sign call tokens, and check a token."""


@calltokens.command(epilog="Example:  pdp calltokens keys --jwks > keys.json")
@click.option("--jwks", is_flag=True, help="Print a JSON Web Key Set, for verifiers that cannot ask the server.")
@json_option
@with_client(Role.ADMIN)
def keys(*, client: Client, jwks: bool, as_json: bool) -> None:
    """List the public keys of all call tokens that can still be met.

    Each worker makes a key in memory when the first call token is asked for, and a new one every hour.
    """
    found = client.get_call_token_keys()
    if jwks:
        print_json(json.loads(found.jwks_json))
    elif as_json:
        print_json({"issuer": found.issuer, "keys": [_plain(key) for key in found.keys]})
    elif not found.issuer:
        click.echo("this server issues no call tokens: it has no `call_tokens.issuer`")
    elif not found.keys:
        click.echo("no keys: no call token was asked for lately")
    else:
        print_table(
            ("key", "published", "last token ends"),
            [(key.key_id, time_text(key, "publish_time"), time_text(key, "expire_time")) for key in found.keys],
        )


@calltokens.command(epilog="Example:  pdp calltokens check < token")
@json_option
@with_client(Role.BROKER)
def check(*, client: Client, as_json: bool) -> None:
    """Say whether the call token on standard input still counts.

    Exits with 0 if it does and 1 if it does not. Whether it was used before is known only where it is used.
    """
    answer = client.check_call_token(sys.stdin.read().strip())
    if as_json:
        shown = {"valid": answer.valid, "reason": answer.reason, "message": answer.message}
        print_json({**shown, "session_expire_time": time_text(answer, "session_expire_time")})
    else:
        click.echo("valid" if answer.valid else f"{answer.reason}: {answer.message}")
    if not answer.valid:
        raise click.exceptions.Exit(NO)


@calltokens.command(epilog='Example:  pdp calltokens withdraw 8Kq… --reason "core dump of worker 2 left the machine"')
@click.argument("key_id")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the record.")
@json_option
@with_client(Role.ADMIN)
def withdraw(*, client: Client, key_id: str, reason: str, as_json: bool) -> None:
    """Withdraw a key: no call token that it has signed counts from now on.

    Whoever checks tokens live refuses them at once, and whoever keeps the published keys within five minutes. Its
    worker signs with a new key. Exits with 1 when there is no such key.
    """
    known = client.withdraw_call_token_key(key_id, reason=reason)
    if as_json:
        print_json({"key_id": key_id, "known": known})
    elif known:
        click.echo(f"withdrew {key_id}")
    else:
        click.echo(
            f"there is no key {key_id}, so no call token by it counts; `pdp calltokens keys` lists those that do"
        )
    if not known:
        raise click.exceptions.Exit(NO)


def _plain(key: CallTokenKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "publish_time": time_text(key, "publish_time"),
        "expire_time": time_text(key, "expire_time"),
    }
