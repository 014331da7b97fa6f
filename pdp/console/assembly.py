"""The parts of a console, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from starlette.types import ASGIApp

from pdp.client import AsyncClient
from pdp.client.broker import AsyncBrokerClient
from pdp.clock import Clock
from pdp.console.application import application
from pdp.console.assets import Assets
from pdp.console.connections import Connections
from pdp.console.entering import ProviderEntry
from pdp.console.local import LocalEntry
from pdp.console.logins import Logins, PersonToken, Recent
from pdp.console.pages import Pages
from pdp.console.provider import Provider
from pdp.console.shell import Place
from pdp.console.visits import Desk

# A log-in ends when nobody has used it for so long, and at the latest after so long.
IDLE_SECONDS, LONGEST_SECONDS = 30 * 60.0, 10 * 3600.0


# A review can have a megabyte: of so many it is known what a person saw.
_MOST_SHOWN = 64

Connect: TypeAlias = Callable[[], AsyncClient]


def local_console(
    client: AsyncClient, connect: Connect, place: Place, clock: Clock, *, broker: AsyncBrokerClient | None = None
) -> tuple[ASGIApp, LocalEntry]:
    """Return the console of one person, and their way in.

    `client` has the credential of the command line, as `broker` has; `connect` opens further connections with it.
    """
    assets = Assets()
    desk = _desk(client, connect, place, clock, PersonToken(), assets, broker)
    entry = LocalEntry(desk, client.get_caller)
    return application(desk, entry, assets), entry


def shared_console(
    client: AsyncClient,
    connect: Connect,
    place: Place,
    clock: Clock,
    person: PersonToken,
    provider: Provider,
    *,
    broker: AsyncBrokerClient | None = None,
) -> ASGIApp:
    """Return the console of everybody whom a provider knows.

    `client` and `broker` present the token of `person`, and so do the further connections that `connect` opens.
    """
    assets = Assets()
    desk = _desk(client, connect, place, clock, person, assets, broker)
    return application(desk, ProviderEntry(desk, provider), assets)


def _desk(
    client: AsyncClient,
    connect: Connect,
    place: Place,
    clock: Clock,
    person: PersonToken,
    assets: Assets,
    broker: AsyncBrokerClient | None,
) -> Desk:
    return Desk(
        client=client,
        connections=Connections(connect),
        shown=Recent(_MOST_SHOWN),
        pages=Pages(assets, clock, has_accounts=broker is not None),
        logins=Logins(clock, idle_seconds=IDLE_SECONDS, longest_seconds=LONGEST_SECONDS),
        place=place,
        clock=clock,
        person=person,
        broker=broker,
    )
