"""Where the server listens, and that nobody else can listen in."""

from __future__ import annotations

import socket
import stat
import subprocess
from pathlib import Path

import grpc
import pytest

from pdp.app.embedded import Embedded
from pdp.errors import CannotListenError, ConfigurationError
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.policy.child.process import PolicyChild
from pdp.server.service import PDPServer
from pdp.serving.certificates import TLSFiles
from pdp.serving.listener import Listener
from pdp.testing.clock import FakeClock
from tests.machinery.servers.running import PATIENCE, Notes, Serve, a_call

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "localhost:50151", "[::1]:0"])
def test_loopback_needs_tls_or_a_word(address: str) -> None:
    """A port that only this machine reaches is plain text where that is said, because others there could take it."""
    with pytest.raises(ConfigurationError, match="needs TLS, or `plaintext`"):
        Listener(address=address)

    assert Listener(address=address, plaintext=True).tls is None


@pytest.mark.parametrize("address", ["unix:/run/pdp.sock", "unix:///run/pdp"])
def test_a_socket_needs_no_tls(address: str) -> None:
    """A Unix socket is plain text: its folder says whose it is."""
    assert Listener(address=address).tls is None


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:50151", "[::]:50151", "10.0.0.1:1", "pdp.example.org:443", "localhost.example.org:1", "[2001:db8::1]:1"],
)
def test_others_need_tls(address: str, tmp_path: Path) -> None:
    """An address that others can reach is refused without TLS, and accepted with it."""
    with pytest.raises(ConfigurationError, match="needs TLS; set"):
        Listener(address=address, plaintext=True)

    assert Listener(address=address, tls=TLSFiles(key=tmp_path, certificate=tmp_path)).address == address


@pytest.mark.parametrize(
    "address",
    ["", "50151", ":50151", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "unix:", "dns:///x:1", "::1:50151",
     "127.0.0.1:1,0.0.0.0:1", "unix-abstract:pdp", "127.0.0.1:1\n"],
)  # fmt: skip
def test_other_forms_are_refused(address: str) -> None:
    """GRPC knows more forms of addresses; what we cannot judge is refused."""
    with pytest.raises(ConfigurationError, match="is not an address"):
        Listener(address=address)


@pytest.mark.parametrize("address", ["unix:@", "unix:@pdp", "unix:@/run/pdp.sock"])
def test_abstract_sockets_are_refused(address: str) -> None:
    """A socket without a file has no owner and no mode: every user of the machine could connect."""
    with pytest.raises(ConfigurationError, match="is an abstract socket"):
        Listener(address=address)


def test_a_socket_is_private(serve: Serve, tmp_path: Path) -> None:
    """A Unix socket belongs to its owner alone and serves like a port."""
    path = tmp_path / "pdp.sock"

    running = serve(address=f"unix:{path}")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.server.address == f"unix:{path}"
    assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""


def test_a_port_in_use_is_refused(serve: Serve) -> None:
    """A second server does not share a port by accident."""
    first = serve()

    with pytest.raises(CannotListenError, match="cannot listen on"):
        serve(address=first.server.address)


def test_tls_serves_who_trusts_the_certificate(
    tmp_path: Path, embedded: Embedded, child: PolicyChild, callers_file: Path, clock: FakeClock, notes: Notes,
    tokens: dict[str, str],
) -> None:  # fmt: skip
    """With key and certificate the server speaks TLS and nothing else."""
    files = certificate(tmp_path)
    server = PDPServer(
        Listener(address="127.0.0.1:0", tls=files),
        authorizer=embedded.authorizer,
        registrar=embedded.registrar,
        outcomes=embedded.outcomes,
        call_tokens=embedded.call_tokens,
        approvals=embedded.approvals,
        freezer=embedded.freezer,
        following=embedded.following,
        reaching=embedded.reaching,
        keeper=embedded.keeper,
        evaluator=child,
        explainer=embedded.explainer,
        authenticator=TokenAuthenticator(KnownCallers(callers_file, development=True)),
        observer=notes,
        clock=clock,
        healthy=lambda: True,
    )
    trusting = grpc.ssl_channel_credentials(files.certificate.read_bytes())
    metadata = (("authorization", f"Bearer {tokens['pep']}"),)
    wire = a_call().SerializeToString()

    with server:
        address = f"localhost:{server.port}"
        with grpc.secure_channel(address, trusting) as channel:
            answer = channel.unary_unary(AUTHORIZE)(wire, metadata=metadata, timeout=PATIENCE)
        with grpc.insecure_channel(address) as plain, pytest.raises(grpc.RpcError) as caught:
            plain.unary_unary(AUTHORIZE)(wire, metadata=metadata, timeout=PATIENCE)

    assert answer != b""
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_missing_tls_files_are_named(tmp_path: Path) -> None:
    """A key that cannot be read stops the start."""
    files = TLSFiles(key=tmp_path / "key.pem", certificate=tmp_path / "certificate.pem")

    with pytest.raises(ConfigurationError, match=r"cannot read `.*key\.pem`"):
        Listener(address="127.0.0.1:0", tls=files).bind(grpc.server(None))


def test_a_server_that_ends_leaves_the_socket_of_the_next_one(serve: Serve, tmp_path: Path) -> None:
    """As when another one takes over: what ends authority is served at a socket."""
    path = tmp_path / "pdp.sock"
    first = serve(address=f"unix:{path}")
    serve(address=f"unix:{path}")

    first.server.stop()

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_server_that_ends_leaves_no_socket(serve: Serve, tmp_path: Path) -> None:
    """Its folder can be copied, and nobody waits there for a server."""
    served = serve(address=f"unix:{tmp_path / 'pdp.sock'}")

    served.server.stop()

    assert [] == [one.name for one in tmp_path.iterdir() if one.is_socket()]


def test_a_file_is_not_replaced_by_a_socket(serve: Serve, tmp_path: Path) -> None:
    """Only a socket that another server has left is."""
    path = tmp_path / "notes"
    path.write_text("keep me")

    with pytest.raises(CannotListenError):
        serve(address=f"unix:{path}")

    assert path.read_text() == "keep me"
    assert [path] == [*tmp_path.iterdir()]


def certificate(folder: Path) -> TLSFiles:
    """Return a fresh key and a certificate for localhost."""
    files = TLSFiles(key=folder / "key.pem", certificate=folder / "certificate.pem")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost -keyout {files.key} -out {files.certificate}"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True, timeout=PATIENCE)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    return files
