"""One proxy over HTTP before several servers: each at a path of its own, and all within the same bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from pdp.doors.mcp.clientcertificate import ClientCertificate
from pdp.doors.mcp.serversfile import ServerEntry, read_servers
from pdp.errors import ConfigurationError
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.webworld import message_of, world

pytestmark = pytest.mark.anyio

# The catalogue has no server of the second name.
PATHS = {"desk": "/desk/mcp", "depot": "/depot/mcp"}
GREETING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


async def test_a_server_is_the_one_of_its_path(desk_pdp: RunningServer) -> None:
    """A call at another path is a call of another server, whatever runs there; no other path has one."""
    async with world(desk_pdp, paths=PATHS) as here:
        _, handle = here.session()
        depot = here.at(here.url.replace("desk", "depot"))
        ran = await here.call("echo", {"text": "here"}, handle=handle)
        denied = await depot.call("echo", {"text": "there"}, handle=handle)
        missing = [
            await here.at(here.url.replace("/desk/mcp", path)).call("echo", {"text": "x"}, handle=handle)
            for path in ("/mcp", "/desk", "/desk/mcp/", "/Desk/mcp", "/d%65sk/mcp")
        ]

        assert "here" == message_of(ran)["result"]["content"][0]["text"]
        assert "the call of `depot/echo` did not run" in denied.text
        assert [404] * 5 == [one.status_code for one in missing]
        assert ["here"] == here.desk.texts


async def test_a_session_of_mcp_is_known_at_its_own_server_only(desk_pdp: RunningServer) -> None:
    """Else a client could speak to one server in a conversation with another."""
    async with world(desk_pdp, paths=PATHS) as here:
        _, handle = here.session()
        begun = await here.post(GREETING, handle=handle)
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        headers = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        known = await here.post(ping, headers, handle=handle)
        unknown = await here.at(here.url.replace("desk", "depot")).post(ping, headers, handle=handle)

        assert (200, 404) == (known.status_code, unknown.status_code)


async def test_the_open_requests_of_a_session_are_bounded_at_all_servers_together(desk_pdp: RunningServer) -> None:
    """What is open at one server counts at another."""
    with patch("pdp.doors.mcp.load.MOST_OPEN", 3):
        async with world(desk_pdp, paths=PATHS) as here:
            _, handle = here.session()
            waiting = asyncio.ensure_future(here.call("slow", {"steps": 0}, handle=handle))
            await here.desk.begun.wait()
            refused = await here.at(here.url.replace("desk", "depot")).call("echo", {"text": "x"}, handle=handle)
            here.desk.go_on.set()
            await waiting

            assert "Too many requests" in refused.text


def test_the_file_says_how_each_server_is_reached(tmp_path: Path) -> None:
    """Names of files are meant from its own folder."""
    file = tmp_path / "servers.yaml"
    file.write_text(
        """
git: {upstream: "http://127.0.0.1:8001/mcp"}
github:
  upstream: https://mcp.example.org/mcp
  upstream_tls_roots: roots.pem
  upstream_tls_certificate: proxy.pem
  upstream_tls_key: proxy.key
  call_token: https://mcp.example.org
  headers_file: github.headers
  pass: [sampling/createMessage]
""",
        "ascii",
    )

    git, github = read_servers(file)

    assert ServerEntry(name="git", upstream="http://127.0.0.1:8001/mcp") == git
    assert "/git/mcp" == git.path
    assert (tmp_path / "roots.pem", tmp_path / "github.headers") == (github.tls_roots, github.headers_file)
    assert ClientCertificate(chain=tmp_path / "proxy.pem", key=tmp_path / "proxy.key") == github.certificate
    assert "https://mcp.example.org" == github.call_token
    assert frozenset({"sampling/createMessage"}) == github.passes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: there are no servers"),
        ("git:", ":1: `git` has no `upstream`"),
        ("git: {}", ":1: `git` has no `upstream`: the URL of the server"),
        ("\na b: {upstream: 'https://a.example'}", ":2: a server's name must be 1 to 64 characters"),
        ("'..': {upstream: 'https://a.example'}", ":1: no server can be named `..`"),
        ("pdp: {upstream: 'https://a.example'}", ":1: the server name `pdp` is reserved"),
        ("git:\n  upstream: http://a.example/mcp", ":2: `upstream`: the server's URL must be `https://…`, or"),
        ("git:\n  upstream: https://[", ":2: `upstream`: not a URL"),
        ("git:\n  upstream: https://a.example:99999", ":2: `upstream`: not a URL"),
        ("git:\n  upstream: https://me:you@a.example", ":2: `upstream`: the server's URL must be"),
        (
            "git:\n  upstream: https://a.example\n  header_file: x",
            ":3: unknown key: `header_file`; did you mean `headers_file`?",
        ),
        ("git:\n  upstream: https://a.example\n  headers_file: 1", ":3: `headers_file` is not the name of a file"),
        ("git:\n  upstream: https://a.example\n  call_token: 7", ":3: `call_token` is not the name of an audience"),
        (
            "git:\n  upstream: https://a.example\n  call_token: a",
            ":3: call tokens for an `https` URL need a certificate",
        ),
        (
            "git:\n  upstream: https://a.example\n  upstream_tls_certificate: a",
            ":3: a certificate for the server and its key belong together",
        ),
        ("git:\n  upstream: https://a.example\n  pass: roots/list", ":3: `pass` is not a list of methods"),
        (
            "git:\n  upstream: https://a.example\n  pass: [root/list]",
            ":3: unknown method: `root/list`; did you mean `roots/list`?",
        ),
        ("git: {upstream: 'https://a.example'}\ngit: {upstream: 'https://b.example'}", ":2: key `git` appears twice"),
    ],
)
def test_a_mistake_in_the_file_is_named_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    """Before anything is served."""
    file = tmp_path / "servers.yaml"
    file.write_text(text, "utf-8")

    with pytest.raises(ConfigurationError) as raised:
        read_servers(file)

    assert str(raised.value).startswith(f"{file}{says}")


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """They could choose where calls are sent, with the proxy's credentials."""
    file = tmp_path / "servers.yaml"
    file.write_text("git: {upstream: 'https://a.example'}", "ascii")
    file.chmod(0o666)

    with pytest.raises(ConfigurationError, match="anyone could choose where calls are sent"):
        read_servers(file)
