"""`pdp mcp --upstream URL --listen ADDRESS`, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import PATIENCE
from tests.doors.mcp.webworld import SECRET, behind, private_file, text_of, world

pytestmark = pytest.mark.anyio

HTTP = ("--server", "desk", "--upstream", "http://127.0.0.1:1/mcp", "--listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "pass the command of a server after `--`, or --upstream and --listen"),
        (("--server", "desk", "--upstream", "http://127.0.0.1:1/"), "--upstream and --listen belong together"),
        (("--server", "desk", "--listen", "127.0.0.1:0"), "--upstream and --listen belong together"),
        (("--server", "desk", "--headers-file", "x"), "--upstream and --listen belong together"),
        (HTTP[2:], "pass --server with the server's name in the catalogue"),
        ((*HTTP, "--", "server"), "pass the command of a server, or --upstream and --listen, but not both"),
        ((*HTTP, "--request", "x"), "--request does not go with --listen: each request brings its own session"),
        ((*HTTP, "--user", "x"), "--user does not go with --listen: each request brings its own session"),
        ((*HTTP, "--session-handle-file", "x"), "--session-handle-file does not go with --listen"),
        ((*HTTP, "--embedded"), "--embedded does not go with --listen"),
        ((*HTTP, "--run-as", "x"), "--run-as does not go with --listen: it runs no server"),
        ((*HTTP, "--upstream", "http://example.org/mcp"), "must be `https://…`, or `http://…` on loopback"),
        ((*HTTP, "--upstream", "https://me:you@example.org/mcp"), "must be `https://…`, or `http://…` on loopback"),
        ((*HTTP, "--listen", "nowhere"), "not an address such as `127.0.0.1:8080`"),
        ((*HTTP, "--listen", "0.0.0.0:0"), "others can reach `0.0.0.0:0`: it needs a certificate and its key"),
        ((*HTTP, "--listen-tls-key", "x"), "a certificate needs its key, and a key its certificate"),
    ],
)
def test_what_does_not_go_together_is_refused(words: tuple[str, ...], says: str) -> None:
    """Each mistake is one line that names the option."""
    # The memory of the tests stays readable.
    with patch("pdp.cli.doors.proxying.keep_memory_private"):
        done = CliRunner().invoke(root, ["mcp", *words])

    assert 2 == done.exit_code
    assert says in done.stderr


def test_access_tokens_need_an_issuer(tmp_path: Path) -> None:
    """Without one no token could be believed."""
    token = private_file(tmp_path, "pdpt_x")
    way = ("--address", "127.0.0.1:1", "--token-file", str(token), "--plaintext")
    with patch("pdp.cli.doors.proxying.keep_memory_private"):
        done = CliRunner().invoke(root, ["mcp", *HTTP, *way, "--access-tokens", str(token)])

    assert 2 == done.exit_code
    assert "--access-tokens needs the settings `jwt.issuer`" in done.stderr


async def test_the_command_serves_until_it_is_stopped(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """It says where it listens, sends its own headers, and ends with 0; nothing secret is in what it prints."""
    token = tmp_path / "token"
    token.write_text(desk_pdp.token("pep"), encoding="ascii")
    headers = private_file(tmp_path, f"Authorization: Bearer {SECRET}")
    async with world(desk_pdp) as here, behind(here.desk, here.server.streamable_http_app()) as url:
        session_id, handle = here.session()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pdp.cli", "mcp", "--server", "desk", "--upstream", url, "--listen", "127.0.0.1:0"),
            *("--headers-file", str(headers)),
            *("--address", desk_pdp.address, "--token-file", str(token), "--plaintext"),
            env={name: value for name, value in os.environ.items() if not name.startswith("PDP_")},
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            said = (await process.stderr.readline()).decode()
        there = here.at(said.split()[-1])
        async with there.client("2026-07-28", handle) as client:
            result = await client.call_tool("echo", {"text": "hello"})
        here.revoke(session_id)
        after = await there.call("echo", {"text": "after"}, handle=handle)
        process.send_signal(signal.SIGTERM)
        rest = (await process.stderr.read()).decode()

        assert said.startswith("serving `desk` at http://127.0.0.1:")
        assert "hello" == text_of(result)
        assert '"isError":true' in after.text
        assert f"Bearer {SECRET}" == here.desk.headers["authorization"]
        assert 0 == await process.wait()
        assert handle not in said + rest
        assert SECRET not in said + rest
