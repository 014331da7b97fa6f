"""`pdp mcp --upstream URL --listen ADDRESS`, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import PATIENCE
from tests.doors.mcp.webworld import RESOURCE, SECRET, World, behind, private_file, text_of, world
from tests.machinery.credentials.issuer import ISSUER, SUBJECT, Issuer

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
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        done = CliRunner().invoke(root, ["mcp", *words])

    assert 2 == done.exit_code
    assert says in done.stderr


def test_access_tokens_need_an_issuer(tmp_path: Path) -> None:
    """Without one no token could be believed."""
    token = private_file(tmp_path, "pdpt_x")
    way = ("--address", "127.0.0.1:1", "--token-file", str(token), "--plaintext")
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        done = CliRunner().invoke(root, ["mcp", *HTTP, *way, "--access-tokens", str(token)])

    assert 2 == done.exit_code
    assert "--access-tokens needs the settings `jwt.issuer`" in done.stderr


@asynccontextmanager
async def command(here: World, folder: Path, *words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the command before a server with the tools of the desk, and provide it with the first line that it says."""
    token = folder / "token"
    token.write_text(here.pdp.token("pep"), encoding="ascii")
    async with behind(here.desk, here.server.streamable_http_app()) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pdp.cli", "mcp", "--server", "desk", "--upstream", url, "--listen", "127.0.0.1:0"),
            *("--address", here.pdp.address, "--token-file", str(token), "--plaintext", *words),
            env={name: value for name, value in os.environ.items() if not name.startswith("PDP_")},
            cwd=folder,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(PATIENCE):
                said = (await process.stderr.readline()).decode()
            yield process, said
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_the_command_takes_access_tokens(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """With an issuer in its settings and a file of identities, a token opens a session, which ends with the command."""
    issuer, now = Issuer(), int(time.time())
    (tmp_path / "jwks.json").write_bytes(issuer.jwks("ES256"))
    identities = tmp_path / "identities.yaml"
    identities.write_text(f"users: {{{SUBJECT}: alice}}\nagents: {{coder-client: coder}}\n", encoding="ascii")
    settings = tmp_path / "door.yaml"
    settings.write_text(
        f"jwt: {{issuer: '{ISSUER}', audience: '{RESOURCE}', keys_file: {tmp_path / 'jwks.json'}}}\n", encoding="ascii"
    )
    token = issuer.token(aud=RESOURCE, client_id="coder-client", iat=now, exp=now + 600)
    words = ("--config", str(settings), "--access-tokens", str(identities))
    async with world(desk_pdp) as here, command(here, tmp_path, *words) as (process, said):
        there = here.at(said.split()[-1])
        without = await there.call("echo", {"text": "x"}, handle="")
        waiting = await there.call("echo", {"text": "x"}, handle="", authorization=f"Bearer {token}")
        asked = list(desk_pdp.client("approver").list_sessions(user="alice", state="requested"))
        process.send_signal(signal.SIGTERM)
        code = await process.wait()
        left = list(desk_pdp.client("approver").list_sessions(user="alice", state="requested"))

    assert 401 == without.status_code
    assert ["Work with the tools of desk"] == [one.purpose for one in asked]
    assert f"pdp session approve {asked[0].session_id}" in waiting.text
    assert (0, []) == (code, left)


async def test_the_command_serves_until_it_is_stopped(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """It says where it listens, sends its own headers, and ends with 0; nothing secret is in what it prints."""
    headers = private_file(tmp_path, f"Authorization: Bearer {SECRET}")
    words = ("--headers-file", str(headers))
    async with world(desk_pdp) as here, command(here, tmp_path, *words) as (process, said):
        assert process.stderr is not None
        session_id, handle = here.session()
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
