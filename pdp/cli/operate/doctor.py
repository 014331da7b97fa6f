"""`pdp doctor`: check a deployment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click

from pdp.cli.options import json_option, with_loader
from pdp.cli.output import print_json, print_table
from pdp.cli.root import NO
from pdp.clock import SystemClock
from pdp.config.reading import describe
from pdp.config.settings import Settings
from pdp.doctor import Deployment, Finding, Level, examine
from pdp.doctor.agentgatewayholes import examine_agentgateway
from pdp.doctor.brokercheck import broker as examine_broker
from pdp.doctor.callers import unseeing
from pdp.doctor.envoyholes import examine_envoy
from pdp.errors import ConfigurationError
from pdp.model import Role

_DOORS: Final = {"agentgateway": examine_agentgateway, "envoy": examine_envoy}
# The door that never sees a result, however it is configured.
_UNSEEING: Final = "envoy"


@click.command(epilog="Example:  pdp doctor --config /etc/pdp/pdp.yaml")
@click.argument("file", required=False)
@click.option("--door", type=click.Choice(sorted(_DOORS)), help="Check FILE, which configures what asks this door.")
@click.option("--caller", metavar="ID", help="The caller as which the door of Envoy asks. [pep]")
@click.option(
    "--broker",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Check the broker with these settings too, as `pdp-broker doctor` does.",
)
@json_option
@click.option("--deny", type=click.Choice(["warnings"]), help="Exit with 1 for warnings too.")
@with_loader(*(row.name for row in describe()))
def doctor(
    *,
    load_settings: Callable[[], Settings],
    as_json: bool,
    deny: str | None,
    door: str | None,
    caller: str | None,
    broker: Path | None,
    file: str | None,
) -> None:
    """Check a deployment, and say what to fix.

    Takes the settings of `pdp serve`. Run it as the same user, before the server starts or while it runs. Changes
    nothing; sends an empty request to receivers of telemetry. Exit code 0: a server can run. 1: something must be
    fixed. 2: nothing could be checked.

    With `--door envoy FILE` or `--door agentgateway FILE` it reads a configuration of that gateway, and names each hole
    through which a request reaches a server unasked. For Envoy it also looks at the entry of the door's caller.

    With `--broker FILE` it also says how the broker beside the server is, if this user can read the broker's files.
    """
    if (door is None) is not (file is None):
        raise click.UsageError("a door and a file go together: `pdp doctor --door envoy FILE`")
    if caller is not None and door != _UNSEEING:
        raise click.UsageError(f"--caller goes with `--door {_UNSEEING}`")
    if broker is not None and door is not None:
        raise click.UsageError("--broker goes with the check of a server, not with `--door`")
    findings = tuple(
        (*_examined(load_settings), *(examine_broker(broker) if broker else ()))
        if file is None or door is None
        else (*_DOORS[door](Path(file)), *_of_caller(door, caller or Role.PEP.value, load_settings))
    )
    worst = {one.level for one in findings}
    bad = Level.PROBLEM in worst or (deny is not None and Level.WARNING in worst)
    if as_json:
        print_json({"sound": not bad, "findings": [_plain(one) for one in findings]})
    else:
        print_table(("", "check", "found", "what to do"), [_row(one) for one in findings])
    if bad:
        raise click.exceptions.Exit(NO)


def _examined(load_settings: Callable[[], Settings]) -> Iterable[Finding]:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        # Without settings there is nothing else to check.
        remedy = "fix the setting; the README lists all under Settings"
        return [
            Finding(check="settings", level=Level.PROBLEM, found=line, remedy=remedy)
            for line in str(error).splitlines()
        ]
    where = Deployment(settings=settings, environ=os.environ, clock=SystemClock(), user_id=os.geteuid())
    return [Finding(check="settings", level=Level.OK, found="every setting is valid"), *examine(where)]


def _of_caller(door: str, caller: str, load_settings: Callable[[], Settings]) -> Iterable[Finding]:
    return [unseeing(load_settings().callers_file, caller)] if door == _UNSEEING else []


def _row(one: Finding) -> tuple[str, str, str, str]:
    return one.level.value, one.check, one.found, one.remedy


def _plain(one: Finding) -> dict[str, str]:
    return {"check": one.check, "level": one.level.value, "found": one.found, "remedy": one.remedy}
