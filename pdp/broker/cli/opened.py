"""What the commands share that work in the broker's folder: which one it is, the vault in it, and who works there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.oauth.people import People
from pdp.broker.oauth.severing import Severing
from pdp.broker.opening import opened_checkouts, opened_people, opened_record, opened_vault, require_made
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.vault import Vault
from pdp.clock import SystemClock
from pdp.errors import PDPError
from pdp.foundation.ownership import local_user
from pdp.observer import Event
from pdp.record.log import DecisionLog

C = TypeVar("C", bound=Callable[..., Any])

data_dir_option = click.option(
    "--data-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    envvar="PDP_BROKER_DATA_DIR",
    help="The folder of the broker. [PDP_BROKER_DATA_DIR]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")
tenant_option = click.option("--tenant", default="default", show_default=True, metavar="NAME", help="The tenant.")
compartment_option = click.option(
    "--compartment",
    default="",
    metavar="NAME",
    help="The part of the tenant that has keys of its own: the environment of sessions. Without it, that of sessions "
    "without an environment.",
)


@contextmanager
def recording(folder: Path) -> Iterator[DecisionLog]:
    """Open the record of a broker. Raise `PDPError` at the end when something could not be recorded."""
    require_made(folder)
    with opened_record(folder) as record:
        yield record
        problem = record.status().problem if record.failures else ""
    if problem:
        raise PDPError(f"it is done, but the record could not be written: {problem}")


class Opened(NamedTuple):
    """What commands work with that end something, and their user as `by`."""

    store: CheckoutStore
    vault: Vault
    people: People
    record: DecisionLog
    sweeper: Sweeper
    severing: Severing
    by: str


@contextmanager
def opened_broker(folder: Path) -> Iterator[Opened]:
    """Open all that is in the folder of a broker."""
    with (
        recording(folder) as record,
        opened_vault(folder, record.event) as vault,
        opened_people(folder, vault, record.event) as people,
        opened_checkouts(folder) as store,
    ):
        sweeper = Sweeper(store, vault, Issuer(vault), observe=record.event, wall=time.time)
        severing = Severing(vault, people, store, sweeper, record.event, SystemClock())
        yield Opened(store, vault, people, record, sweeper, severing, local_user())


def with_broker(command: C) -> Any:  # noqa: ANN401 - click's decorators change the type
    """Open the broker's folder for a command that ends something, which gets what is in it as `broker`."""

    @data_dir_option
    @wraps(command)
    def opened(*, folder: Path, **given: Any) -> Any:  # noqa: ANN401 - the command's own options and answer
        with opened_broker(folder) as broker:
            return command(broker=broker, **given)

    return opened


def with_vault(command: C) -> Any:  # noqa: ANN401 - click's decorators change the type
    """Open the vault and the record for a command, which gets it as `vault` and its user as `by`."""

    @data_dir_option
    @wraps(command)
    def opened(*, folder: Path, **given: Any) -> None:  # noqa: ANN401 - the command's own options
        with recording(folder) as record, opened_vault(folder, record.event) as vault:
            command(vault=vault, by=local_user(), **given)

    return opened


def with_reading(command: C) -> Any:  # noqa: ANN401 - click's decorators change the type
    """Open the vault for a command that changes nothing and opens no secret, so that nothing is recorded."""

    @data_dir_option
    @wraps(command)
    def opened(*, folder: Path, **given: Any) -> None:  # noqa: ANN401 - the command's own options
        with opened_vault(folder, _untold) as vault:
            command(vault=vault, **given)

    return opened


def with_standing(command: C) -> Any:  # noqa: ANN401 - click's decorators change the type
    """Open the same, and what says how connections of people are doing, as `people`."""

    @data_dir_option
    @wraps(command)
    def opened(*, folder: Path, **given: Any) -> None:  # noqa: ANN401 - the command's own options
        with opened_vault(folder, _untold) as vault, opened_people(folder, vault, _untold) as people:
            command(vault=vault, people=people, **given)

    return opened


def _untold(_: Event) -> None:
    """Record nothing."""
