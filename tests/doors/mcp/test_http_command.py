"""`pdp mcp --upstream URL --listen ADDRESS`, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.testing.inprocess import RunningServer
from tests.doors.commands import PDP
from tests.doors.mcp.conversation import PATIENCE
from tests.doors.mcp.webworld import ORIGIN, SECRET, World, behind, private_file, text_of, world
from tests.machinery.credentials.issuer import ISSUER, SUBJECT, Issuer

pytestmark = pytest.mark.anyio

HTTP = ("--server", "desk", "--upstream", "http://127.0.0.1:1/mcp", "--listen", "127.0.0.1:0")

TOGETHER = "--upstream (or --servers) and --listen belong together"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "pass the command of a server after `--`, or --upstream (or --servers) and --listen"),
        (HTTP[:4], TOGETHER),
        ((*HTTP[:2], *HTTP[4:]), TOGETHER),
        (("--server", "desk", "--headers-file", "x"), TOGETHER),
        (("--servers", "x"), TOGETHER),
        ((*HTTP[:2], *HTTP[4:], "--servers", "x"), "--server does not go with --servers: the file says it of each"),
        ((*HTTP[2:], "--servers", "x"), "--upstream does not go with --servers: the file says it of each server"),
        ((*HTTP[4:], "--servers", "x", "--pass", "roots/list"), "--pass does not go with --servers"),
        ((*HTTP[4:], "--servers", "no-such-file"), "cannot read `no-such-file`: no such file or directory"),
        (HTTP[2:], "pass --server with the server's name in the catalogue"),
        ((*HTTP, "--", "server"), "pass the command of a server, or the URL of one with --listen, but not both"),
        ((*HTTP, "--request", "x"), "--request does not go with --listen: each request brings its own session"),
        ((*HTTP, "--user", "x"), "--user does not go with --listen: each request brings its own session"),
        ((*HTTP, "--session-handle-file", "x"), "--session-handle-file does not go with --listen"),
        ((*HTTP, "--embedded"), "--embedded does not go with --listen"),
        ((*HTTP, "--run-as", "x"), "--run-as does not go with --listen: it runs no server"),
        ((*HTTP, "--call-token", "a b"), "the audience of call tokens is 1 to 256 printable characters"),
        (("--server", "desk", "--call-token", "a b", "--", "server"), "the audience of call tokens is 1 to 256"),
        ((*HTTP[4:], "--servers", "x", "--call-token", "a"), "--call-token does not go with --servers"),
        ((*HTTP, "--upstream-tls-key", "x"), "a certificate for the server and its key belong together"),
        (
            (*HTTP, "--upstream-tls-certificate", "x", "--upstream-tls-key", "x"),
            "a certificate for the server needs an `https` URL",
        ),
        (
            (*HTTP, "--upstream", "https://a.example/mcp", "--call-token", "a"),
            "call tokens for an `https` URL need a certificate for the server",
        ),
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
async def command(
    here: World, folder: Path, *words: str, servers: Sequence[str] = ()
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the command before a server with the tools of the desk, and provide it with the first line that it says.

    With names of `servers`, it stands before each of them, and each is the same one.
    """
    token = folder / "token"
    token.write_text(here.pdp.token("pep"), encoding="ascii")
    async with behind(here.desk, here.server.streamable_http_app()) as url:
        (folder / "servers.yaml").write_text("".join(f"{name}: {{upstream: '{url}'}}\n" for name in servers), "ascii")
        before = ("--servers", "servers.yaml") if servers else ("--server", "desk", "--upstream", url)
        process = await asyncio.create_subprocess_exec(
            *(*PDP, "mcp", *before, "--listen", "127.0.0.1:0"),
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
    """Before several servers, one session of a person and a task is for all; it ends with the command.

    A token is for one of the servers, and each leads clients to its own metadata.
    """
    issuer, now = Issuer(), int(time.time())
    (tmp_path / "jwks.json").write_bytes(issuer.jwks("ES256"))
    identities = tmp_path / "identities.yaml"
    identities.write_text(
        f"users: {{{SUBJECT}: alice}}\nagents: {{coder-client: coder}}\nsession: {{tools: [desk/*]}}\n",
        encoding="ascii",
    )
    settings = tmp_path / "door.yaml"
    settings.write_text(
        f"jwt: {{issuer: '{ISSUER}', audience: '{ORIGIN}', keys_file: {tmp_path / 'jwks.json'}}}\n", encoding="ascii"
    )
    tokens = {
        name: issuer.token(aud=f"{ORIGIN}/{name}/mcp", client_id="coder-client", iat=now, exp=now + 600)
        for name in ("desk", "depot")
    }
    words = ("--config", str(settings), "--access-tokens", str(identities))
    async with world(desk_pdp) as here, command(here, tmp_path, *words, servers=list(tokens)) as (process, said):
        places = {"desk": (url := said.split()[-1]), "depot": url.replace("desk", "depot")}
        calls = [(place, token) for place in places for token in tokens]
        answers = {
            (place, token): await here.at(places[place]).call(
                "echo", {"text": "x"}, handle="", authorization=f"Bearer {tokens[token]}"
            )
            for place, token in calls
        }
        asked = list(desk_pdp.client("approver").list_sessions(user="alice", state="requested"))
        process.send_signal(signal.SIGTERM)
        code = await process.wait()
        left = list(desk_pdp.client("approver").list_sessions(user="alice", state="requested"))

    for place, token in calls:
        assert (200 if place == token else 401) == answers[place, token].status_code
    metadata = f'resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource/depot/mcp"'
    assert metadata in answers["depot", "desk"].headers["www-authenticate"]
    assert ["Work with the tools of desk, depot"] == [one.purpose for one in asked]
    assert all(f"pdp session approve {asked[0].session_id}" in answers[name, name].text for name in tokens)
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
