"""The real Envoy accepts each configuration in which the doctor finds a hole: somebody may run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import call, door, opened
from tests.doors.envoy.real.world import MCP, PAGE, PROGRAM, Backend, running_envoy
from tests.machinery.envoyholes import HOLES, SOUND
from tests.machinery.pages import blocks

pytestmark = pytest.mark.doors


@pytest.mark.parametrize("name", [*HOLES, *SOUND])
def test_envoy_accepts_it(tmp_path: Path, name: str) -> None:
    """As the page shows it but for one change."""
    (page,) = blocks(PAGE, "yaml envoy")
    old, new = HOLES[name][0] if name in HOLES else SOUND[name]
    written = tmp_path / "envoy.yaml"
    written.write_text(page.replace(old, new), encoding="utf-8")

    done = subprocess.run([PROGRAM, "--mode", "validate", "-c", written], capture_output=True, text=True, check=False)

    assert f"configuration '{written}' OK\n" == done.stdout, done.stderr


def test_a_denied_call_runs_where_the_door_is_asked_for_show(server: RunningServer, tmp_path: Path) -> None:
    """Which the doctor names."""
    backend = Backend()
    changes = {**MCP, **dict([HOLES["a door that is asked for show"][0]])}
    with (
        door(server) as asker,
        running_envoy(
            tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port, changes=changes
        ) as envoy,
    ):
        headers = {"x-pdp-session": opened(server)[1], "content-type": "application/json"}
        envoy.send("POST", "/mcp", call("closed"), headers)
    backend.close()

    assert [call("closed")] == [one.body for one in backend.got]
