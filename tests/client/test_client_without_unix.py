"""The client on Windows, as far as it can be proved elsewhere: without the modules and functions that only Unix has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.testing.inprocess import write_folder
from tests.machinery.servers.notes import READ, WRITE, notes_bundle
from tests.machinery.servers.server_process import Callers, ServerProcess

ASKS = """
import asyncio
import sys
from pathlib import Path

from pdp.client import AsyncClient, Client, ToolCall
from pdp.doors.core import Door, FrameworkCall

address, handle, data, read, write = sys.argv[1:]
given = {"token_file": Path(data) / "tokens" / "pep.token", "tls": Path(data) / "tls" / "ca.pem", "timeout": 30}

async def ask():
    async with AsyncClient(address, **given) as pdp:
        return await pdp.authorize(handle, "notes", write, {"name": "a"})

with Client(address, **given) as pdp:
    print(pdp.authorize(handle, "notes", read, {"name": "a"}).basis)
    print(pdp.authorize(handle, "notes", write, {"name": "a"}).basis)
    print(asyncio.run(ask()).basis)
    door = Door(pdp.attach(handle), {"get": f"notes/{read}"})
    print(door.run(FrameworkCall(name="get", arguments={"name": "a"}), lambda _: "a note"))
"""
TRUSTS = """
import sys
from pdp.client.connection import Connection
from pdp.errors import ConfigurationError

for address in sys.argv[2:]:
    try:
        print(Connection.to(address, data_dir=sys.argv[1]).credentials is not None)
    except ConfigurationError as error:
        print(error)
"""


def run(program: str, *arguments: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program without what only Unix has."""
    return subprocess.run(
        [sys.executable, "-m", "tests.client.withoutunix", program, *map(str, arguments)],
        env=os.environ | ({"HOME": str(home)} if home else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_it_asks_over_tls(tmp_path: Path) -> None:
    """Threads, tasks and the core of the adapters get the answers of a real server, which they know by its CA file."""
    write_folder(tmp_path / "policies", notes_bundle(no_writing="no-writing"))
    with ServerProcess(tmp_path) as server, Callers.of(server) as callers:
        asked = callers.pep.request_session(user="alice", agent="coder", purpose="read", tools=["notes/*"])
        callers.approver.approve_session(asked.session.session_id, request_digest=asked.session.request_digest)
        done = run(ASKS, server.address, asked.session_handle, tmp_path / "data", READ, WRITE)

    assert ("", 0) == (done.stderr, done.returncode)
    assert ["permit", "forbid", "forbid", "a note"] == done.stdout.split("\n")[:4]


def test_a_file_is_ones_own_in_the_profile_folder(local_tls: Path, tmp_path: Path) -> None:
    """The certificate of a server on loopback is not believed elsewhere, nor by a link that leads in or out."""
    link = tmp_path / "link"
    link.symlink_to(local_tls)
    within, elsewhere, outwards, inwards = (
        run(TRUSTS, folder, "127.0.0.1:50151", home=home).stdout
        for folder, home in ((local_tls, local_tls), (local_tls, tmp_path), (link, tmp_path), (link, local_tls))
    )

    assert "True\n" == within
    assert all("others may be able to write to" in told for told in (elsewhere, outwards, inwards))


def test_no_socket_is_believed(tmp_path: Path) -> None:
    """Nobody can say who may put one there."""
    done = run(TRUSTS, tmp_path, f"unix:{tmp_path}/pdp.sock", home=tmp_path)

    assert "nothing on this system says who can put a socket at" in done.stdout


@pytest.mark.parametrize("command", ["serve", "init", "mcp --server notes -- true", "check policies"])
def test_what_needs_unix_says_so(command: str) -> None:
    """In one line, with what to do, and before it has done anything."""
    program = "from pdp.cli import main; main()"
    done = run(program, *command.split())

    assert 2 == done.returncode
    assert done.stderr.startswith("error: this needs Linux or macOS")
    assert 1 == len(done.stderr.splitlines())


def test_the_embedded_form_needs_unix() -> None:
    """It is the server without its port."""
    done = run("from pdp import open_embedded")

    assert "ImportError: `pdp.open_embedded`: this needs Linux or macOS" in done.stderr


def test_helpers_for_the_tests_of_users_need_no_unix() -> None:
    """Those that need no server."""
    done = run("import pdp.testing.bundles, pdp.testing.clock, pdp.testing.decisions, pdp.calltokens; print(1)")

    assert ("", "1\n") == (done.stderr, done.stdout)
