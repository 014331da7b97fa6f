"""The console that the tests in a real browser share, and the broker beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer
from tests.console.brokered import Site, brokered
from tests.console.desk import World, console
from tests.console.people.pictures import scenes


@pytest.fixture(scope="module")
def site(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a broker at which people connect accounts."""
    with brokered(server, tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def world(server: RunningServer, site: Site) -> Iterator[World]:
    """Return the console of a person who may open every page."""
    with console(server, "overseer", broker=site.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def paths(server: RunningServer, site: Site) -> dict[str, str]:
    """Return the path of every page, with something on each."""
    used = site.connected("overseer")
    site.connected("bob")
    site.used(used)
    return {**scenes(server), "connections": "/connections", "exposure": f"/record/exposure?connection={used}"}
