"""The parts of a console, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from starlette.types import ASGIApp

from pdp.client import AsyncClient
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


def local_console(client: AsyncClient, connect: Connect, place: Place, clock: Clock) -> tuple[ASGIApp, LocalEntry]:
    """Return the console of one person, and their way in.

    `client` has the credential of the command line; `connect` opens further connections with it.
    """
    assets = Assets()
    desk = _desk(client, connect, place, clock, PersonToken(), assets)
    entry = LocalEntry(desk, client.get_caller)
    return application(desk, entry, assets), entry


def shared_console(
    client: AsyncClient, connect: Connect, place: Place, clock: Clock, person: PersonToken, provider: Provider
) -> ASGIApp:
    """Return the console of everybody whom a provider knows.

    `client` presents the token of `person`, and so do the further connections that `connect` opens.
    """
    assets = Assets()
    desk = _desk(client, connect, place, clock, person, assets)
    return application(desk, ProviderEntry(desk, provider), assets)


def _desk(
    client: AsyncClient, connect: Connect, place: Place, clock: Clock, person: PersonToken, assets: Assets
) -> Desk:
    return Desk(
        client=client,
        connections=Connections(connect),
        shown=Recent(_MOST_SHOWN),
        pages=Pages(assets, clock),
        logins=Logins(clock, idle_seconds=IDLE_SECONDS, longest_seconds=LONGEST_SECONDS),
        place=place,
        clock=clock,
        person=person,
    )
