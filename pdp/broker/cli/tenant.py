"""`pdp-broker tenant`: the end of a tenant."""

from __future__ import annotations

from typing import Final

import click

from pdp.broker.checkouts.words import Outcome
from pdp.broker.cli.opened import Opened, json_option, with_broker, yes_option
from pdp.broker.shredding import Shredding
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.groups import Group
from pdp.cli.output import moment_text, print_json
from pdp.foundation.counting import counted


@click.group(cls=Group)
def tenant() -> None:
    """End a tenant: destroy its keys, and delete its connections and secrets."""


@tenant.command(epilog="Example:  pdp-broker tenant shred acme")
@click.argument("name", metavar="TENANT")
@yes_option
@json_option
@with_broker
def shred(*, broker: Opened, name: str, yes: bool, as_json: bool) -> None:
    """Destroy all keys of a tenant, and delete its connections and secrets. This cannot be undone.

    First the tokens of people are revoked at their providers, and what was handed out is ended. A provider that cannot
    be told does not stop it, and is named; a login that cannot be dropped does. Keys, and the secrets of clients, stay
    valid where they were issued: end them there.

    Backups of the store cannot be opened, unless a backup of the provider's keys brings back the tenant's: destroy
    those, or run `pdp-broker keys replace-root`, after which they are useless. If it fails half-way, run it again.
    """
    require_quiet(as_json=as_json, yes=yes)
    connections, keys = broker.vault.connections(tenant=name), broker.vault.keys(tenant=name)
    if not yes and (connections or keys):
        require_yes(
            f"destroy {counted(len(keys), 'key')} and {counted(len(connections), 'connection')} of `{name}` for ever?",
            done="destroyed",
            does="destroys them",
        )
    shredding = Shredding(vault=broker.vault, checkouts=broker.store, sweeper=broker.sweeper, severing=broker.severing)
    done = shredding.shred(name, by=broker.by)
    # Those that were disconnected are no longer there when the rest is destroyed.
    gone = sorted({*done.ended, *done.gone.connection_ids})
    if as_json:
        print_json(
            {
                "tenant": name,
                "connections": gone,
                "keys": list(done.gone.kek_ids),
                "disconnected": {
                    one: {"outcome": ended.outcome.value, "expire_time": _end(ended.expires_at)}
                    for one, ended in done.ended.items()
                },
                "left": [{"checkout": one.id, "user": one.user, "problem": one.problem} for one in done.left],
            }
        )
        return
    click.echo(f"destroyed {counted(len(done.gone.kek_ids), 'key')} and {counted(len(gone), 'connection')} of `{name}`")
    for one, ended in done.ended.items():
        click.echo(f"`{one}`: {_ENDED[ended.outcome].format(_end(ended.expires_at) or 'its end')}")
    for left in done.left:
        click.echo(f"`{left.id}` of `{left.user}` may be good still: {left.problem or f'until {_end(left.ends_at)}'}")


_ENDED: Final = {
    Outcome.REVOKED: "the provider says that its tokens count no longer",
    Outcome.EXPIRES_AT: "whether its tokens count is unknown; the access token is good until {} at most",
    Outcome.FAILED: "its tokens count on at the provider, which could not be told: end them there",
}


def _end(at: float) -> str:
    return moment_text(at) if at else ""
