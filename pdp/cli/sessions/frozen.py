"""The output of a freeze, and the hint that what is listed is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from pdp.cli.output import time_text
from pdp.client import Client, PDPClientError
from pdp.foundation.printable import visible
from pdp.v1.freeze_pb2 import Freeze

COLUMNS = ("freeze", "tenant", "since", "by", "confirmed by", "until", "reason")


def tell_frozen(client: Client) -> None:
    """Say on stderr what stops the calls of the caller's tenant, where the server tells this caller."""
    with suppress(PDPClientError):
        for found in client.list_freezes():
            text = f"frozen: {what(found)} since {time_text(found, 'set_time')} by {found.set_by}: {found.reason}"
            click.echo(visible(text), err=True)


def row(found: Freeze) -> tuple[str, ...]:
    """Return the cells of a freeze."""
    return (
        *(found.freeze_id, what(found), time_text(found, "set_time"), found.set_by),
        *(found.confirmed_by, time_text(found, "confirm_expire_time"), found.reason),
    )


def plain(found: Freeze) -> Mapping[str, Any]:
    """Return the freeze as a JSON object."""
    return {
        "freeze_id": found.freeze_id,
        "tenant": found.tenant,
        "all_tenants": found.all_tenants,
        "reason": found.reason,
        "set_by": found.set_by,
        "set_time": time_text(found, "set_time"),
        "confirmed_by": found.confirmed_by,
        "confirm_time": time_text(found, "confirm_time"),
        "confirm_expire_time": time_text(found, "confirm_expire_time"),
    }


def what(found: Freeze) -> str:
    """Return what is frozen."""
    return "all tenants" if found.all_tenants else found.tenant
