"""`pdp-broker connection`: which ways to other systems there are."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from pdp.broker.checkouts.servers import is_server, server_text
from pdp.broker.checkouts.words import Outcome
from pdp.broker.cli.logins import login_fields, login_options, plain_logins, require_modes, taken_logins
from pdp.broker.cli.opened import (
    Opened,
    compartment_option,
    json_option,
    tenant_option,
    with_broker,
    with_reading,
    with_standing,
    with_vault,
    yes_option,
)
from pdp.broker.cli.sources import plain_source, source_fields, source_options, taken_source
from pdp.broker.headers import never_passes
from pdp.broker.oauth.people import People
from pdp.broker.upstream import Upstream, UpstreamError
from pdp.broker.vault import Vault
from pdp.broker.words import NAME, Connection, Consent, Mode, SecretVersion
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.groups import Group
from pdp.cli.output import moment_text, print_fields, print_json, print_table

# Where a secret may be sent, of the headers that nobody else can set.
_SECRET: Final = ("authorization", "cookie")
_SCHEME: Final = re.compile(r"[A-Za-z0-9._~+/-]{0,32}")


def _name(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(f"`{value}` is not up to 64 of `a-z`, `0-9`, `.`, `_` and `-`", param=parameter)
    return value


def _origin(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return server_text(value) if is_server(value) else Upstream.read(value).origin
    except UpstreamError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _header(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if value.lower() not in _SECRET and never_passes(value.lower()):
        raise click.BadParameter(f"no secret can be sent in `{value}`", param=parameter)
    return value


def _scheme(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _SCHEME.fullmatch(value):
        raise click.BadParameter(f"`{value}` is not one word, such as `Bearer`", param=parameter)
    return value


@click.group(cls=Group)
def connection() -> None:
    """Add, list and remove connections: ways to other systems, each with a secret."""


@connection.command(
    epilog="Example:  pdp-broker connection add github --kind github --upstream https://api.github.com --tenant acme "
    "--compartment prod"
)
@click.argument("id_", metavar="CONNECTION", callback=_name)
@click.option("--kind", required=True, metavar="NAME", callback=_name, help="What the catalogue calls it: `github`.")
@click.option(
    "--upstream",
    required=True,
    metavar="ORIGIN",
    callback=_origin,
    help="The only origin to which the secret is sent: `https://api.github.com`, or `postgresql://db.example.com`.",
)
@tenant_option
@compartment_option
@click.option("--owner", default="", metavar="USER", help="The user whose it is; without one it is the tenant's.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope that the secret has. Repeatable.")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice([mode.value for mode in Mode]),
    help="Who may build requests: the broker, a tool server behind it, or one with a short-lived credential that it is "
    "handed. Repeatable. [connector; checkout for PostgreSQL]",
)
@click.option(
    "--header",
    default="Authorization",
    show_default=True,
    metavar="NAME",
    callback=_header,
    help="Where the secret is sent.",
)
@click.option(
    "--scheme",
    callback=_scheme,
    default="Bearer",
    show_default=True,
    metavar="WORD",
    help="What stands before the secret in the header; empty for nothing.",
)
@source_options
@login_options
@json_option
@with_vault
def add(*, vault: Vault, by: str, id_: str, as_json: bool, modes: tuple[str, ...], **given: Any) -> None:  # noqa: ANN401 - options by name
    """Add a connection. Its secret is stored afterwards, with `pdp-broker secret put`.

    With --token-endpoint and --client-id that is the secret of a client, and access tokens are used for requests. With
    --database and --role it is the password of a role that makes logins of PostgreSQL, and each --scope a group role.

    What a connection may be used for is sealed with its secret, so it cannot be changed: remove it, and add it again.
    """
    source, logins = taken_source(given), taken_logins(given)
    if source and logins:
        raise click.UsageError("--token-endpoint: PostgreSQL takes no access tokens of it")
    known = tuple(map(Mode, dict.fromkeys(modes))) or (Mode.CHECKOUT if logins else Mode.CONNECTOR,)
    one = Connection(id=id_, source=source, logins=logins, modes=known, **given)
    require_modes(one)
    added = vault.add(one, by=by)
    if as_json:
        print_json(_plain(added))
    else:
        click.echo(f"added `{id_}`; store its secret with `pdp-broker secret put {id_}`, from standard input")


@connection.command("list", epilog="Example:  pdp-broker connection list --tenant acme")
@click.option("--tenant", metavar="NAME", help="Only those of this tenant.")
@json_option
@with_reading
def list_(*, vault: Vault, tenant: str | None, as_json: bool) -> None:
    """List connections, without their secrets."""
    found = vault.connections(tenant=tenant)
    if as_json:
        print_json({"connections": [_plain(one) for one in found]})
    elif not found:
        click.echo("no connections")
    else:
        print_table(
            ("connection", "tenant", "compartment", "kind", "owner", "upstream", "version"),
            [(one.id, one.tenant, one.compartment, one.kind, one.owner, one.upstream, _version(one)) for one in found],
        )


@connection.command(epilog="Example:  pdp-broker connection show github")
@click.argument("id_", metavar="CONNECTION")
@json_option
@with_standing
def show(*, vault: Vault, people: People, id_: str, as_json: bool) -> None:
    """Show a connection, which version its secret has, and how a person's is doing."""
    one, version = vault.connection(id_), vault.version(id_)
    consent = people.standing(one) if one.is_consented else None
    if as_json:
        print_json({**_plain(one), **_plain_version(version), **_plain_consent(consent)})
        return
    print_fields(
        [
            ("connection", one.id),
            ("tenant", one.tenant),
            ("compartment", one.compartment),
            ("kind", one.kind),
            ("owner", one.owner),
            ("upstream", one.upstream),
            ("scopes", " ".join(one.scopes)),
            ("modes", " ".join(one.modes)),
            ("header", f"{one.header}: {one.scheme} …" if one.scheme else f"{one.header}: …"),
            ("added", moment_text(one.created_at)),
            *source_fields(one.source),
            *login_fields(one.logins),
            *_consent_fields(consent),
            ("version", _version(one)),
            ("stored", moment_text(version.stored_at) if version else ""),
            ("key", version.kek_id if version else ""),
        ]
    )


@connection.command(epilog="Example:  pdp-broker connection remove github")
@click.argument("id_", metavar="CONNECTION")
@yes_option
@json_option
@with_vault
def remove(*, vault: Vault, by: str, id_: str, yes: bool, as_json: bool) -> None:
    """Remove a connection with its secret. End the secret where it was issued, too: others may hold it."""
    one = vault.connection(id_)
    require_quiet(as_json=as_json, yes=yes)
    if not yes:
        require_yes(f"remove `{id_}` of `{one.tenant}`, with its secret?", done="removed", does="removes")
    removed = vault.remove(id_, by=by)
    if as_json:
        print_json(_plain(removed))
    else:
        click.echo(f"removed `{id_}`")


@connection.command(epilog="Example:  pdp-broker connection disconnect con_4dk2")
@click.argument("id_", metavar="CONNECTION")
@yes_option
@json_option
@with_broker
def disconnect(*, broker: Opened, id_: str, yes: bool, as_json: bool) -> int:
    """Disconnect a person's connection: its provider is told to revoke the tokens, and then they are deleted.

    Exit code 1: the provider could not be told. The tokens are kept for that alone, and a running broker tries again
    until it is; see `pdp-broker checkout list`.
    """
    one = broker.vault.connection(id_)
    if not one.is_consented:
        raise click.UsageError(f"`{id_}` is no account of a person: `pdp-broker connection remove {id_}` removes it")
    account = broker.people.standing(one).account
    require_quiet(as_json=as_json, yes=yes)
    if not yes:
        whose = f"`{one.owner}`, at `{account}`" if account else f"`{one.owner}`"
        require_yes(f"disconnect `{id_}` of {whose}?", done="disconnected", does="disconnects")
    ended = broker.severing.end(id_, by=broker.by)
    until = moment_text(ended.expires_at) if ended.expires_at else ""
    if as_json:
        print_json({"connection": id_, "outcome": ended.outcome.value, "expire_time": until})
    else:
        click.echo(_ENDED[ended.outcome].format(id_, f" at {until}" if until else ", where it has an end"))
    return 1 if ended.outcome is Outcome.FAILED else 0


_ENDED: Final = {
    Outcome.REVOKED: "disconnected `{}`: the provider says that its tokens count no longer",
    Outcome.EXPIRES_AT: "disconnected `{}`: whether its tokens count is unknown; the access token ends by itself{}",
    Outcome.FAILED: "`{}` is no longer used, but its provider did not revoke the tokens: the broker tries again",
}


def _version(one: Connection) -> str:
    return str(one.version) if one.version else "no secret"


def _plain(one: Connection) -> dict[str, object]:
    return {
        "connection": one.id,
        "tenant": one.tenant,
        "compartment": one.compartment,
        "kind": one.kind,
        "owner": one.owner,
        "upstream": one.upstream,
        "scopes": list(one.scopes),
        "modes": [mode.value for mode in one.modes],
        "header": one.header,
        "scheme": one.scheme,
        **plain_source(one.source),
        **plain_logins(one.logins),
        "version": one.version,
        "add_time": moment_text(one.created_at),
    }


def _consent_fields(consent: Consent | None) -> list[tuple[str, str]]:
    if consent is None:
        return []
    used = moment_text(consent.used_at) if consent.used_at else "never"
    return [("state", consent.state.value), ("account", consent.account), ("used", used)]


def _plain_consent(consent: Consent | None) -> dict[str, object]:
    if consent is None:
        return {"state": "", "account": "", "use_time": ""}
    used = moment_text(consent.used_at) if consent.used_at else ""
    return {"state": consent.state.value, "account": consent.account, "use_time": used}


def _plain_version(version: SecretVersion | None) -> dict[str, object]:
    if version is None:
        return {"key": "", "digest": "", "store_time": ""}
    return {"key": version.kek_id, "digest": version.digest, "store_time": moment_text(version.stored_at)}
