"""Why no connection came about: each way in which TLS fails is said in one line, with what to do."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pdp.client import AsyncClient, Client, PDPClientError, UnavailableError
from pdp.client.connection import Connection
from pdp.client.health import is_serving
from tests.machinery.credentials.authority import COMING, PASSED, Authority, Identity

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

PATIENCE = 30.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return the authority that clients trust."""
    return Authority()


@pytest.fixture
def roots(authority: Authority, tmp_path: Path) -> Path:
    """Return its file."""
    file = tmp_path / "roots.pem"
    file.write_bytes(authority.roots)
    return file


def started(server: ScriptedServer, own: Identity, callers: bytes | None = None) -> str:
    """Serve with a certificate; return the address by its name. `callers` is who signs those of callers."""
    pair = [(own.key, own.certificate)]
    credentials = grpc.ssl_server_credentials(pair, callers, require_client_auth=callers is not None)
    return server.start(credentials=credentials).replace("127.0.0.1", "localhost")


def said(address: str, **options: Any) -> str:
    """Return what a management call says that got no connection."""
    with Client(address, management_timeout=PATIENCE, **options) as client, pytest.raises(UnavailableError) as caught:
        client.get_bundle()
    return str(caught.value)


@pytest.mark.parametrize("tls", [True, False])
def test_what_takes_connections_and_says_nothing(*, tls: bool) -> None:
    """A question and a management call name the address, and that it was in vain to wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout=0.1, management_timeout=0.1, tls=tls, plaintext=not tls) as client:
            answer = client.authorize("pdps_x", "files", "read")
            with pytest.raises(UnavailableError) as caught:
                client.get_bundle()

    expected = f"deadline_exceeded: `{address}` has not answered in time"
    assert (expected, expected) == (answer.error, str(caught.value))


def test_plain_text_to_tls(server: ScriptedServer, authority: Authority) -> None:
    """A client that was told to speak plain text, and a server with TLS."""
    address = started(server, authority.server())

    expected = (
        f"unavailable: the server at `{address}` does not accept plain text; leave out `--plaintext` (`plaintext=`)"
    )
    assert expected == said(address, plaintext=True)


def test_tls_to_plain_text(server: ScriptedServer, roots: Path) -> None:
    """A client that speaks TLS, and whatever answers in plain text."""
    address = server.start()

    assert said(address, tls=roots) == (
        f"unavailable: the server at `{address}` does not use TLS, so it was sent nothing; only if the settings of the "
        "server say `server.plaintext`, pass `--plaintext` (`plaintext=True`)"
    )
    assert [] == server.metadata


def test_a_certificate_of_the_caller_is_wanted(server: ScriptedServer, authority: Authority, roots: Path) -> None:
    """A server that knows callers by certificates, and a client without one."""
    address = started(server, authority.server(), authority.roots)

    assert said(address, tls=roots) == (
        f"unavailable: the server at `{address}` closed the connection; if it requires a client certificate, pass "
        "`--tls-certificate` and `--tls-key` (`tls_certificate=`, `tls_key=`)"
    )


def test_the_certificate_of_the_caller_is_refused(
    server: ScriptedServer, authority: Authority, roots: Path, tmp_path: Path
) -> None:
    """A server that knows callers by certificates, and one of another authority."""
    address = started(server, authority.server(), authority.roots)
    certificate, key = Authority("other").caller("spiffe://example.org/gateway").write(tmp_path, "caller")

    assert said(address, tls=roots, tls_certificate=certificate, tls_key=key) == (
        f"unavailable: the server at `{address}` closed the connection; is the certificate of `--tls-certificate` "
        "(`tls_certificate=`) valid now, and signed by an authority of its `server.tls_client_roots`?"
    )


def test_another_name(server: ScriptedServer, authority: Authority, roots: Path) -> None:
    """A certificate that does not name the address."""
    address = started(server, authority.server()).replace("localhost", "127.0.0.1")

    assert said(address, tls=roots) == (
        f"unavailable: the certificate of `{address}` is for other names; use one of them as the address"
    )


def test_an_unknown_authority(server: ScriptedServer, authority: Authority, local_tls: Path) -> None:
    """A certificate of an untrusted authority: the message names the file of the trusted ones."""
    address = started(server, authority.server())

    assert said(address) == (
        f"unavailable: the certificate of `{address}` cannot be verified with `{local_tls}/tls/ca.pem`; is it another "
        "server, or must `--tls-roots` (`tls=`) name another authority?"
    )
    assert "cannot be verified with the root certificates of the system" in said(address, tls=True)


def test_an_expired_certificate(server: ScriptedServer, authority: Authority, roots: Path) -> None:
    """A certificate whose time is over."""
    address = started(server, authority.identity("localhost", dns=("localhost",), within=PASSED))

    assert said(address, tls=roots) == (
        f"unavailable: the certificate of `{address}` has expired; renew it, or check the clock here"
    )


def test_a_certificate_whose_time_has_not_come(server: ScriptedServer, authority: Authority, roots: Path) -> None:
    """A certificate that begins later: one of the clocks is wrong."""
    address = started(server, authority.identity("localhost", dns=("localhost",), within=COMING))

    assert said(address, tls=roots) == (
        f"unavailable: the certificate of `{address}` is not valid yet; check the clocks there and here"
    )


def test_nothing_there() -> None:
    """Nobody listens."""
    assert said("127.0.0.1:1") == (
        "unavailable: nothing answers at `127.0.0.1:1`; is `pdp serve` running, and is the address right?"
    )


def test_a_message_that_is_too_large(server: ScriptedServer, authority: Authority, roots: Path) -> None:
    """What gRPC says at the server by itself names the setting."""
    address = started(server, authority.server())
    server.scripts["GetBundle"] = lambda _, context: context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (300000 vs. 262144)"
    )

    with Client(address, tls=roots) as client, pytest.raises(PDPClientError) as caught:
        client.get_bundle()

    assert str(caught.value) == "resource_exhausted: a message is larger than 262144 bytes (limit `message_bytes`)"


def test_a_question_about_a_call_says_it_too(server: ScriptedServer, authority: Authority) -> None:
    """In every way of asking, the deny has the same line."""
    address = started(server, authority.server())
    with Client(address, timeout=PATIENCE) as client, client.stream() as stream:
        answers = [client.authorize("pdps_x", "files", "read"), stream.authorize("pdps_x", "files", "read")]
    with pytest.raises(PDPClientError) as probed:
        is_serving(Connection.to(address), timeout=PATIENCE)

    lines = [*(answer.error for answer in answers), str(probed.value)]
    assert [True] * 3 == ["cannot be verified with" in line for line in lines]
    assert [False, False] == [answer.allowed for answer in answers]


async def _asked(address: str) -> tuple[str, str]:
    async with AsyncClient(address, timeout=PATIENCE) as client:
        answer = await client.authorize("pdps_x", "files", "read")
        async with client.stream() as stream:
            return answer.error, (await stream.authorize("pdps_x", "files", "read")).error


def test_for_asyncio_as_well(server: ScriptedServer, authority: Authority) -> None:
    """The client for asyncio says the same."""
    lines = asyncio.run(_asked(started(server, authority.server())))

    assert [True, True] == ["cannot be verified with" in line for line in lines]
