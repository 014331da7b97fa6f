"""`pdp health`: what probes learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.testing.waiting import wait_until
from tests.cli.conftest import Run
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.servers.commandline import Server, start_server, stop_server, write_bundle

# On a busy machine an answer takes longer than the usual five seconds.
PATIENTLY = ("--timeout", "1m")


def test_a_server_that_serves(ask: Run, server: Server) -> None:
    """A server with bundle and store serves, and its record is kept; a probe needs no token."""
    known = {"PDP_DATA_DIR": "nowhere", "PDP_TLS_ROOTS": str(server.folder / ".pdp" / "tls" / "ca.pem")}
    whole = ask("health", *PATIENTLY, env=known)
    record = ask("health", *PATIENTLY, "--service", "pdp.record", env=known)

    assert [(0, "serving\n", "")] * 2 == [(done.exit_code, done.stdout, done.stderr) for done in (whole, record)]


def test_a_server_that_does_not_serve(run: Run, policies: Path) -> None:
    """A server whose store was taken away says that it does not serve."""
    server = start_server(policies.parent)
    Path(".pdp/sessions.sqlite").rename("elsewhere")

    found: dict[str, int] = {}

    def does_not_serve() -> bool:
        done = run("health", *PATIENTLY, env={"PDP_ADDRESS": server.address})
        found[done.stdout] = done.exit_code
        return "not serving\n" in found

    # The server trusts what it saw for a tenth of a second.
    wait_until(does_not_serve)
    stop_server(server)

    assert 1 == found["not serving\n"]


def test_no_server(run: Run) -> None:
    """Where nothing answers, that is exit code 2, in our words."""
    run("init")

    done = run("health", "--address", "127.0.0.1:1", *PATIENTLY)

    assert (
        2,
        "error: unavailable: nothing answers at `127.0.0.1:1`; is `pdp serve` running, and is the address right?",
    ) == (
        done.exit_code,
        done.stderr.partition(" (")[0],
    )


def test_an_unknown_service(ask: Run) -> None:
    """A service that the server does not know is a wrong question, not a bad state."""
    done = ask("health", *PATIENTLY, "--service", "nothing")

    assert (2, True) == (done.exit_code, "not_found" in done.stderr)


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with a certificate; beside it lies one of another."""
    folder = tmp_path_factory.mktemp("tls")
    write_bundle(folder / "policies")
    (folder / "other").mkdir()
    write_certificate(folder / "other")
    certificate, key = write_certificate(folder)
    running = start_server(folder, "--server-tls-certificate", str(certificate), "--server-tls-key", str(key))
    yield running
    stop_server(running)


@pytest.mark.parametrize(("roots", "code"), [("tls.crt", 0), ("other/tls.crt", 2)])
def test_over_tls(run: Run, with_tls: Server, roots: str, code: int) -> None:
    """With TLS the probe trusts the roots that it is given, and no other server."""
    port = with_tls.address.rpartition(":")[2]

    done = run("health", "--address", f"localhost:{port}", "--tls-roots", str(with_tls.folder / roots), *PATIENTLY)

    assert code == done.exit_code, done.output
