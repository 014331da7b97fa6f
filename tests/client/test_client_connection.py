"""Where the client may speak, and what it says about itself."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pdp.client import Client, ToolCall
from pdp.client.connection import Connection
from pdp.errors import ConfigurationError
from tests.machinery.credentials.authority import Authority

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

CALL = ToolCall(session_handle="pdps_secret", server="files", tool="read")
TOKEN = "sesame"  # noqa: S105 - a token of the tests' own server
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.mark.parametrize("address", ["127.0.0.1:50151", "127.9.8.7:1", "localhost:65535", "[::1]:50151"])
def test_loopback_is_plain_text_where_that_is_said(address: str) -> None:
    """A server on loopback is known by its certificate; plain text needs a word."""
    assert Connection.to(address).credentials is not None
    assert Connection.to(address, plaintext=True).credentials is None


@pytest.mark.parametrize("prefix", ["unix:", "unix://"])
def test_a_socket_in_a_private_folder_is_plain_text(prefix: str, tmp_path: Path) -> None:
    """A socket is known by the folder that it is in, whether it is there already or not."""
    assert Connection.to(f"{prefix}{tmp_path}/pdp.sock").credentials is None


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5:50151",
        "0.0.0.0:50151",
        "[::]:50151",
        "[2001:db8::1]:50151",
        "pdp.example.com:50151",
        "localhost.example.com:50151",
        "127.0.0.1.example.com:50151",
        "127.0.0.1",
        "127.1:50151",
        "2130706433:50151",
        "::1:50151",
        "127.0.0.1:50151,10.0.0.5:50151",
        "ipv4:127.0.0.1:50151,10.0.0.5:50151",
        "dns:///pdp.example.com:50151",
        "dns://10.0.0.5/localhost:50151",
        "xds:///localhost:50151",
        "127.0.0.1:50151\n",
        "evil@127.0.0.1:50151",
        "UNIX:/run/pdp.sock",
        "unix-abstract:pdp",
    ],
)
def test_plain_text_to_anywhere_else_is_refused(address: str) -> None:
    """A token in clear never leaves the machine, and an address in doubt counts as elsewhere."""
    for plaintext in (False, True):
        with pytest.raises(ConfigurationError, match="plain text must not leave this machine"):
            Client(address, token=TOKEN, plaintext=plaintext)


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PDP_ADDRESS` counts when no address is given, under the same rules."""
    built_in = Connection.to(None).address
    monkeypatch.setenv("PDP_ADDRESS", "127.0.0.1:7")
    from_outside = Connection.to(None).address
    given = Connection.to("127.0.0.1:8").address

    assert (built_in, from_outside, given) == ("127.0.0.1:50151", "127.0.0.1:7", "127.0.0.1:8")

    monkeypatch.setenv("PDP_ADDRESS", "pdp.example.com:50151")
    with pytest.raises(ConfigurationError):
        Client()


@pytest.mark.parametrize("token", ["", " ", "two words", "line\nend", "t\u00f6ken"], ids=repr)
def test_a_malformed_token_is_refused(token: str) -> None:
    """A token that a header cannot hold is an error before anything is sent, and is not quoted."""
    with pytest.raises(ConfigurationError, match="visible ASCII"):
        Client(token=token)


@pytest.mark.parametrize("token", [None, b"sesame"], ids=repr)
def test_a_token_that_is_no_text_is_refused(address: str, token: Any) -> None:
    """Such as that of a function that found none: in our words, whatever is called."""
    with Client(address, token=lambda: token, plaintext=True) as client:
        with pytest.raises(ConfigurationError, match="the token is no text"):
            client.get_caller()
        assert "the token is no text" in client.authorize("pdps_x", "files", "read").error


def test_a_token_comes_from_a_function(server: ScriptedServer, address: str) -> None:
    """Each call presents the one that the function returns then; a call without a valid one is denied, and not sent."""
    tokens = iter([TOKEN, "another", "two words"])

    with Client(address, token=lambda: next(tokens)) as client:
        answers = [client.ask(CALL) for _ in range(3)]

    assert [f"Bearer {TOKEN}", "Bearer another"] == [sent["authorization"] for sent in server.metadata]
    assert [True, True, False] == [answer.allowed for answer in answers]


def test_a_token_comes_from_a_file(server: ScriptedServer, address: str, tmp_path: Path) -> None:
    """The line end of the file is not part of the token."""
    file = tmp_path / "pep.token"
    file.write_text(f"{TOKEN}\n", encoding="ascii")

    with Client(address, token_file=file) as client:
        client.ask(CALL)

    assert server.metadata[0]["authorization"] == f"Bearer {TOKEN}"


def test_a_token_file_without_a_token_is_named(tmp_path: Path) -> None:
    """The message names the file, and quotes nothing of it."""
    file = tmp_path / "other.token"
    file.write_bytes(b"\x7fELF")

    with pytest.raises(ConfigurationError, match=r"the token in `.*other\.token` is empty or holds"):
        Client(token_file=file)


def test_a_renewed_token_is_read_again(server: ScriptedServer, address: str, tmp_path: Path) -> None:
    """A token that was replaced is sent from the next call on; a file without a token leaves the one before."""
    file = tmp_path / "jwt"
    states = ["first", "second-and-longer", "", "two words", None, "third"]

    with Client(address, token_file=_written(file, "first")) as client:
        for state in states:
            _written(file, state)
            client.ask(CALL)

    sent = [metadata["authorization"] for metadata in server.metadata]
    assert sent == [f"Bearer {token}" for token in ("first", *["second-and-longer"] * 4, "third")]


def _written(file: Path, text: str | None) -> Path:
    """Replace a file, or remove it."""
    if text is None:
        file.unlink()
    else:
        new = file.with_name("new")
        new.write_text(text, encoding="ascii")
        new.replace(file)
    return file


def test_a_client_certificate_is_presented(server: ScriptedServer, tmp_path: Path) -> None:
    """A server that asks for a certificate gets the one that the client was given, and without one no call."""
    authority = Authority()
    own, caller = authority.server(), authority.caller("spiffe://example.org/gateway")
    (tmp_path / "roots.pem").write_bytes(authority.roots)
    certificate, key = caller.write(tmp_path, "caller")
    credentials = grpc.ssl_server_credentials([(own.key, own.certificate)], authority.roots, require_client_auth=True)
    address = server.start("localhost:0", credentials).replace("127.0.0.1", "localhost")

    with Client(address, tls=tmp_path / "roots.pem", tls_certificate=certificate, tls_key=key) as client:
        presented = client.ask(CALL)
    with Client(address, tls=tmp_path / "roots.pem") as client:
        anonymous = client.ask(CALL)

    assert (presented.allowed, anonymous.allowed) == (True, False)
    assert len(server.metadata) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:50151", "https://pdp.example.com:443/"])
def test_a_url_is_no_address(address: str) -> None:
    """With TLS, gRPC would only say that no name like this is known."""
    with pytest.raises(ConfigurationError, match="is a URL: leave out"):
        Client(address, tls=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tls": True, "tls_certificate": "c.pem"}, "must be set together"),
        ({"tls": True, "tls_key": "k.pem"}, "must be set together"),
        ({"tls_certificate": "c.pem", "tls_key": "k.pem"}, "`tls_certificate` needs `tls`"),
        ({"tls": True, "tls_certificate": "/absent.pem", "tls_key": "k.pem"}, r"cannot read"),
        ({"tls": True, "plaintext": True}, "cannot be combined"),
        ({"tls": __file__}, r"holds no certificate in PEM"),
        ({"tls": True, "tls_certificate": __file__, "tls_key": __file__}, r"holds no private key in PEM"),
    ],
)
def test_half_a_client_certificate_is_an_error(options: dict[str, Any], problem: str) -> None:
    """A certificate that could not be presented is an error before anything is sent."""
    with pytest.raises(ConfigurationError, match=problem):
        Client("127.0.0.1:1", **options)


def test_a_token_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ConfigurationError, match=r"cannot read `.*absent`"):
        Client(token_file=tmp_path / "absent")


def test_a_token_and_a_token_file_cannot_be_combined(tmp_path: Path) -> None:
    """Which of the two would count is not guessed."""
    with pytest.raises(ConfigurationError, match="cannot be combined"):
        Client(token=TOKEN, token_file=tmp_path)


def test_nothing_shows_the_token() -> None:
    """No text that could be logged holds the token."""
    assert TOKEN not in repr(Connection.to(None, token=TOKEN))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "management_timeout"])
def test_a_call_always_has_a_deadline(name: str, seconds: float) -> None:
    """A timeout is positive and finite."""
    options: dict[str, Any] = {name: seconds}
    with pytest.raises(ConfigurationError, match=f"`{name}`"):
        Client(**options)


@pytest.mark.parametrize(
    ("client_wide", "per_call", "sent"),
    [
        (None, ("", ""), None),
        (None, (TRACEPARENT, "a=1"), (TRACEPARENT, "a=1")),
        (lambda: TRACEPARENT, ("", ""), (TRACEPARENT, None)),
        (lambda: "of the client", (TRACEPARENT, ""), (TRACEPARENT, None)),
        (None, ("00-xyz", "a=1"), None),
        (None, (TRACEPARENT + "\nx: y", ""), None),
        (None, (TRACEPARENT, "a=1\nb"), (TRACEPARENT, None)),
    ],
)
def test_the_trace_is_passed_on(
    server: ScriptedServer, address: str, client_wide: Any, per_call: tuple[str, str], sent: tuple[str, str] | None
) -> None:
    """Well-formed trace headers travel, others are left out, and neither changes the answer."""
    with Client(address, traceparent=client_wide) as client:
        answer = client.ask(CALL, traceparent=per_call[0], tracestate=per_call[1])

    found = server.metadata[0]
    assert (found.get("traceparent"), found.get("tracestate")) == (sent or (None, None))
    assert answer.allowed


def test_a_trace_that_fails_is_a_deny(address: str) -> None:
    """Not even the caller's own hook makes `authorize` raise."""
    with Client(address, traceparent=lambda: str(1 / 0)) as client:
        answer = client.ask(CALL)

    assert (answer.allowed, answer.basis) == (False, "error")


def test_without_its_certificate_no_server_on_loopback_is_known(tmp_path: Path) -> None:
    """The message names the file, and says where it comes from and what else can be passed."""
    with pytest.raises(ConfigurationError) as caught:
        Client("127.0.0.1:1", data_dir=tmp_path)

    assert str(caught.value) == (
        f"cannot read `{tmp_path}/tls/ca.pem`: no such file or directory; the client verifies a server on loopback "
        "with this file, which `pdp init` writes into the data folder: name the folder (`data_dir=`, `--data-dir`), or "
        "a copy of the file (`tls=`, `--tls-roots`)"
    )


def test_a_certificate_that_others_could_have_put_there_is_not_believed(local_tls: Path, tmp_path: Path) -> None:
    """An agent that can write to the folder cannot name the server that its approver's token goes to."""
    shutil.copytree(local_tls, tmp_path / "data")
    (tmp_path / "data" / "tls").chmod(0o777)

    with pytest.raises(ConfigurationError, match=r"others can write to `.*/data/tls`, on the way to `.*ca\.pem`"):
        Client("127.0.0.1:1", data_dir=tmp_path / "data")


@pytest.mark.parametrize("name", ["pdp.sock", "link/pdp.sock"])
def test_a_socket_that_others_could_have_put_there_is_sent_nothing(
    server: ScriptedServer, tmp_path: Path, name: str
) -> None:
    """A folder that others may write to, also behind a link, is an error before anything is sent."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "open")
    (tmp_path / "open").chmod(0o777)
    server.start(f"unix:{tmp_path}/open/pdp.sock")

    with pytest.raises(ConfigurationError, match=r"others can write to `.*/open`, on the way to"):
        Client(f"unix:{tmp_path}/open/{name}", token=TOKEN)


@pytest.mark.parametrize("there", [True, False])
def test_a_socket_in_a_folder_where_everybody_may_put_one_is_sent_nothing(
    server: ScriptedServer, tmp_path: Path, *, there: bool
) -> None:
    """The sticky bit keeps what is there; a socket goes with its server, and another process puts its own there."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o1777)
    if there:
        server.start(f"unix:{folder}/pdp.sock")

    with pytest.raises(
        ConfigurationError, match=r"others can put a socket into `.*/open`: another process could impersonate"
    ):
        Client(f"unix:{folder}/pdp.sock", token=TOKEN)


def test_a_socket_without_a_file_is_refused() -> None:
    """An abstract name belongs to the first process that takes it, and has no mode."""
    with pytest.raises(ConfigurationError, match="has no file"):
        Client("unix:@pdp", token=TOKEN)


def test_a_unix_socket_works(server: ScriptedServer, tmp_path: Path) -> None:
    """A server on a unix socket is asked in plain text."""
    address = server.start(f"unix:{tmp_path}/pdp.sock")

    with Client(address, token=TOKEN) as client:
        answer = client.ask(CALL)

    assert answer.allowed


def test_tls_is_used_and_checked(server: ScriptedServer, tmp_path: Path) -> None:
    """With the right root certificate the call is allowed, without it denied."""
    key, certificate = _certificate()
    (tmp_path / "root.pem").write_bytes(certificate)
    address = server.start(credentials=grpc.ssl_server_credentials([(key, certificate)]))

    with Client(address, token=TOKEN, tls=tmp_path / "root.pem") as client:
        trusted = client.ask(CALL)
    with Client(address, token=TOKEN, tls=True) as client:
        untrusted = client.ask(CALL)
    with Client(address, token=TOKEN) as client:
        plain = client.ask(CALL)

    assert (trusted.allowed, untrusted.allowed, plain.allowed) == (True, False, False)
    assert len(server.metadata) == 1


def test_with_tls_any_address_will_do() -> None:
    """Beyond loopback TLS is all that is asked for."""
    assert Connection.to("pdp.example.com:443", token=TOKEN, tls=True).credentials is not None


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pdp")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text, certificate.public_bytes(serialization.Encoding.PEM)
