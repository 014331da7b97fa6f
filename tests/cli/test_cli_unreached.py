"""A command that does not reach the server says which address it tried, and where that was taken from."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import Server

NO_SERVER = "127.0.0.1:1"
COMMANDS = [
    ("session", "list"),
    ("authorize", "files", "read", "{}"),
    ("bundle", "list"),
    ("health", "--timeout", "1m"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("flags", "environ", "text", "said"),
    [
        (("--address", NO_SERVER), {}, "", "`--address`"),
        ((), {"PDP_ADDRESS": NO_SERVER}, "", "`PDP_ADDRESS`"),
        ((), {"PDP_SERVER__ADDRESS": NO_SERVER}, "", "`PDP_SERVER__ADDRESS`"),
        ((), {}, f"server:\n  address: {NO_SERVER}\n", "pdp.yaml:2: `server.address`"),
        (("--config", "other.yaml"), {}, f"server:\n  address: {NO_SERVER}\n", "other.yaml:2: `server.address`"),
    ],
)
def test_no_server(
    run: Run, words: tuple[str, ...], flags: tuple[str, ...], environ: dict[str, str], text: str, said: str
) -> None:
    """Where nothing answers, a flag, a variable or a line of the file is named, whichever counted."""
    run("init")
    if text:
        Path("other.yaml" if flags else "pdp.yaml").write_text(text, encoding="ascii")

    done = run(*words, *flags, env={"PDP_SESSION_HANDLE": "x", **environ})

    assert 2 == done.exit_code
    assert f"error: unavailable: nothing answers at `{NO_SERVER}`; " in done.stderr
    assert done.stderr.endswith(f" (address from {said})\n")
    assert 1 == done.stderr.count("\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_another_server(run: Run, server: Server, words: tuple[str, ...]) -> None:
    """The line about a certificate that the data folder does not verify names the address, too."""
    run("init")

    done = run(*words, env={"PDP_SESSION_HANDLE": "x", "PDP_ADDRESS": server.address})

    assert 2 == done.exit_code
    assert f"the certificate of `{server.address}` cannot be verified with " in done.stderr
    assert done.stderr.endswith(" (address from `PDP_ADDRESS`)\n")


def test_what_speaks_no_tls(run: Run) -> None:
    """The line about a server that answers in plain text names the address, too."""
    run("init")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{web.server_port}"
        Path("pdp.yaml").write_text(f"server: {{address: '{address}'}}\n", encoding="ascii")
        done = run("session", "list")
        web.shutdown()

    assert 2 == done.exit_code
    assert f"the server at `{address}` does not use TLS" in done.stderr
    assert done.stderr.endswith(" (address from pdp.yaml:1: `server.address`)\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_address_beyond_this_machine(run: Run, words: tuple[str, ...]) -> None:
    """The line about an address that is not even tried names it in the same way."""
    run("init")

    done = run(*words, env={"PDP_SESSION_HANDLE": "x", "PDP_ADDRESS": "pdp.example.com:50151"})

    assert done.stderr.startswith("error: address `pdp.example.com:50151` is not a loopback ")
    assert done.stderr.endswith(" (address from `PDP_ADDRESS`)\n")


def test_an_answer_of_the_server_is_left_as_it_is(ask: Run) -> None:
    """What the server itself refuses has nothing to do with its address."""
    done = ask("session", "show", "ses_unknown")

    assert 2 == done.exit_code
    assert "address from" not in done.stderr


def test_a_door_that_listens_where_the_server_does(run: Run, server: Server) -> None:
    """The line says that the port is taken, and nothing about where commands find the server."""
    run("init")

    done = run("door", "envoy", "--listen", server.address, env={"PDP_ADDRESS": server.address})

    assert 2 == done.exit_code
    assert f"error: cannot listen on `{server.address}`: is the port free?\n" == done.stderr
