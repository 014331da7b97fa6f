"""`pdp tools list`: the tools of a policy folder."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table
from pdp.cli.tools.toollist import policies_option
from pdp.config.settings import Settings
from pdp.policy.contents import read_folder
from pdp.policy.tools.catalogue import Tool, load_catalogue


@click.command("list", epilog="Example:  pdp tools list --policies policies")
@policies_option
@json_option
@with_settings()
def list_tools(*, settings: Settings, policies: str | None, as_json: bool) -> None:
    """List the tools of a policy folder."""
    catalogue = load_catalogue(read_folder(Path(policies or settings.policies.folder), settings.limits))
    listed = [catalogue.tools[action] for action in sorted(catalogue.tools)]
    if as_json:
        print_json(
            [
                {
                    "server": tool.server,
                    "tool": tool.name,
                    "risk": tool.risk,
                    "groups": tool.groups,
                    "adds_labels": tool.adds_labels,
                    "results": "trusted" if tool.trusted else "untrusted",
                    "issues": tool.issues,
                    "resource_type": tool.resource_type,
                    "digest_required": tool.digest_required,
                    "definition_digest": tool.definition_digest,
                    "opaque": tool.input.opaque_labels(),
                    "unusable": tool.unusable,
                }
                for tool in listed
            ]
        )
    else:
        print_table(
            ("tool", "groups", "adds labels", "resource", "definition", "policies cannot see"), map(_row, listed)
        )


def _row(tool: Tool) -> tuple[str, ...]:
    groups, labels = ", ".join(tool.action_groups), ", ".join(tool.adds_labels)
    return tool.action, groups, labels, tool.resource_type, tool.definition_digest[:19], _unseen(tool)


def _unseen(tool: Tool) -> str:
    return "everything: every call is denied" if tool.unusable else ", ".join(tool.input.opaque_labels())
