"""What the tests of the command line share: an empty folder, a runner, a policy folder and a real server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root
from tests.machinery.servers.commandline import Server, start_server, stop_server, write_bundle

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PDP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run() -> Run:
    """Run a command in this process."""

    def invoke(*words: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(root, words, input=stdin, env=env, prog_name="pdp")

    return invoke


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Return a policy folder that loads."""
    return write_bundle(tmp_path / "policies")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for the tests that only need one."""
    folder = tmp_path_factory.mktemp("server")
    write_bundle(folder / "policies")
    running = start_server(folder)
    yield running
    stop_server(running)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """Start a server for one test alone."""
    write_bundle(tmp_path / "policies")
    running = start_server(tmp_path)
    yield running
    if running.process.poll() is None:
        stop_server(running)


@pytest.fixture
def ask(run: Run, server: Server) -> Run:
    """Run a command that speaks to the server, with the tokens that its first start wrote."""

    def invoke(*words: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
        known = {"PDP_ADDRESS": server.address, "PDP_DATA_DIR": str(server.folder / ".pdp")}
        return run(*words, stdin=stdin, env=known | (env or {}))

    return invoke
