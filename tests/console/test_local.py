"""The console on one machine: who has the link opens it once, and nobody else has anything."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from pdp.console.local import LINK_SECONDS
from pdp.testing.inprocess import RunningServer
from tests.console.desk import World, console


def test_the_link_works_once(server: RunningServer) -> None:
    """A second use, from the same or another browser, opens nothing."""
    with console(server) as world:
        link, browser = f"/enter?key={world.key}", world.browser()
        assert 401 == browser.open("/").status_code
        assert 200 == browser.open(link).status_code

        assert 403 == world.browser().open(link).status_code
        assert 403 == world.browser().open("/enter?key=").status_code
        assert 200 == browser.open("/").status_code


def test_the_link_works_for_a_minute(server: RunningServer) -> None:
    """Then the command must be run again."""
    with console(server) as world:
        server.clock.advance(LINK_SECONDS)

        late = world.browser().open(f"/enter?key={world.key}")

        assert 403 == late.status_code
        assert "pdp console --open" in late.text


def test_a_wrong_key_opens_nothing(server: RunningServer) -> None:
    """And does not use the link up."""
    with console(server) as world:
        assert 403 == world.browser().open("/enter?key=wrong").status_code
        assert 200 == world.browser().open(f"/enter?key={world.key}").status_code


def test_the_link_is_for_its_owner(server: RunningServer, tmp_path: Path) -> None:
    """The file has the link and nobody else can read it; the name in it cannot be guessed."""
    with console(server) as world:
        path = tmp_path / "link.html"
        world.entry.write_link(path)

        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert f"{world.place.origin}/enter?key={world.key}" in path.read_text()
        assert len(world.place.host.split(".")[0]) == 32


def test_the_cookie_is_for_this_name_alone(server: RunningServer) -> None:
    """No script reads it, no other site has it sent, and no other name of this machine gets it."""
    with console(server) as world:
        answer = world.browser().fetch("GET", f"/enter?key={world.key}")

        [cookie] = answer.headers.get_list("set-cookie")
        attributes = {one.strip().lower() for one in cookie.split(";")[1:]}
        assert {"httponly", "path=/", "samesite=lax"} == attributes


def test_the_port_is_taken_on_both_addresses(world: World) -> None:
    """A browser may try `::1` first: another process must not be able to wait for the link there."""
    families = {one.family for one in world.listener.sockets}

    assert {socket.AF_INET, socket.AF_INET6} == families
    assert 1 == len({one.getsockname()[1] for one in world.listener.sockets})
