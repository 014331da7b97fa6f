"""The table of the broker's commands."""

from __future__ import annotations

from collections.abc import Mapping

import click

from pdp import __version__
from pdp.cli.groups import CommandEntry
from pdp.cli.root import Root

# Modules are imported when their command is used.
COMMANDS: Mapping[str, CommandEntry] = {
    "serve": CommandEntry("pdp.broker.cli.serve", "Use secrets for calls that were allowed."),
    "stdio": CommandEntry("pdp.broker.cli.stdio", "Run an MCP server over pipes without its key."),
    "init": CommandEntry("pdp.broker.cli.init", "Make the folder of a broker: its store and its keys."),
    "connection": CommandEntry(
        "pdp.broker.cli.connection", "Add, list and remove connections: ways to other systems, each with a secret."
    ),
    "secret": CommandEntry("pdp.broker.cli.secret", "Store the secrets of connections."),
    "checkout": CommandEntry("pdp.broker.cli.checkout", "List and end credentials that were handed out."),
    "keys": CommandEntry("pdp.broker.cli.keys", "List, rotate and retire the keys under which secrets are sealed."),
    "exposure": CommandEntry("pdp.broker.cli.exposure", "Say which calls, sessions and people used a secret."),
    "doctor": CommandEntry(
        "pdp.broker.cli.doctor", "Examine a broker: is everything that it needs present, sound and private?"
    ),
    "inventory": CommandEntry(
        "pdp.broker.cli.inventory", "Find secrets in files of MCP clients, .env files and environments."
    ),
    "forget": CommandEntry(
        "pdp.broker.cli.forget",
        "Remove the connections of a person with their secrets, and say what stays.",
    ),
    "tenant": CommandEntry(
        "pdp.broker.cli.tenant", "End a tenant: destroy its keys, and delete its connections and secrets."
    ),
}


@click.group(
    cls=Root,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`pdp-broker COMMAND --help` shows an example of each. `PDP_DEBUG=1` shows where an error comes from.",
)
@click.version_option(__version__, message="pdp-broker %(version)s", help="Print the version.")
def root() -> None:
    """Keep downstream secrets, and use them for calls that were allowed."""
