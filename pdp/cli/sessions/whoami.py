"""`pdp whoami`: what the server knows of the caller."""

from __future__ import annotations

from typing import Any

import click

from pdp.cli.connection import with_client
from pdp.cli.options import json_option
from pdp.cli.output import print_fields, print_json, time_text
from pdp.client import Client
from pdp.model import Role
from pdp.v1.caller_pb2 import Caller


@click.command(epilog="Example:  pdp whoami --token-file ~/.pdp/token")
@json_option
@with_client(Role.APPROVER)
def whoami(*, client: Client, as_json: bool) -> None:
    """Show who the server takes you for: id, roles, tenants, and how you proved it.

    Shows no secret. `proved` is when a person last proved their identity, which destructive tools need lately.
    """
    caller = client.get_caller()
    if as_json:
        print_json(_plain(caller))
        return
    proved = "with each call (for development)" if caller.always_present else time_text(caller, "authenticate_time")
    print_fields(
        [
            ("caller", caller.caller_id),
            ("roles", ", ".join(caller.roles)),
            ("tenants", ", ".join(caller.tenants)),
            ("users", ", ".join(caller.users)),
            ("agents", ", ".join(caller.agents)),
            ("user groups", ", ".join(caller.user_groups)),
            ("results", "not seen" if caller.sees_no_results else ""),
            ("credential", caller.credential),
            ("proved", proved),
        ]
    )


def _plain(caller: Caller) -> dict[str, Any]:
    return {
        "caller_id": caller.caller_id,
        "roles": list(caller.roles),
        "tenants": list(caller.tenants),
        "users": list(caller.users),
        "agents": list(caller.agents),
        "user_groups": list(caller.user_groups),
        "sees_no_results": caller.sees_no_results,
        "credential": caller.credential,
        "authenticate_time": time_text(caller, "authenticate_time"),
        "always_present": caller.always_present,
    }
