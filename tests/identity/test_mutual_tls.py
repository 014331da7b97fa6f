"""Callers known by their certificates: who gets in, and who does not, on real connections."""

from __future__ import annotations

import logging
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from pdp.identity.authentication import CallerAuthenticator, CertificateAuthenticator, TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.model import Role
from pdp.serving.transports import LOOP
from pdp.testing.clock import FakeClock
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest
from tests.machinery.credentials.authority import COMING, ENDS, PASSED, Authority, Identity
from tests.machinery.servers.running import PATIENCE, Notes, Running, Serve, a_call, connected

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
HEALTH = "/grpc.health.v1.Health/Check"

GATEWAY = "spiffe://example.org/gateway"
AUTHOR = "spiffe://example.org/author"
WIRE = a_call().SerializeToString()

Connect = Callable[[Identity | None], grpc.Channel]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return the authority that the server trusts."""
    return Authority()


@pytest.fixture
def known(callers_file: Path, tmp_path: Path) -> KnownCallers:
    """Return the callers with a token, and two with a SPIFFE id."""
    path = tmp_path / "callers.yaml"
    more = f"gateway: {{spiffe_id: '{GATEWAY}', roles: [pep]}}\nwriter: {{spiffe_id: '{AUTHOR}', roles: [author]}}\n"
    path.write_text(callers_file.read_text() + more)
    path.chmod(0o600)
    return KnownCallers(path, development=True)


@pytest.fixture
def mutual(serve: Serve, authority: Authority, known: KnownCallers, clock: FakeClock, tmp_path: Path) -> Running:
    """Return a server that wants certificates."""
    authenticator = CallerAuthenticator(TokenAuthenticator(known), CertificateAuthenticator(known, clock))
    return serve(address="localhost:0", tls=authority.files(tmp_path), authenticator=authenticator)


@pytest.fixture
def connect(mutual: Running, authority: Authority) -> Iterator[Connect]:
    """Return what opens a channel to the server with an identity."""
    channels = []

    def connect(identity: Identity | None) -> grpc.Channel:
        trusting = grpc.ssl_channel_credentials(authority.roots)
        channel = grpc.secure_channel(
            mutual.server.address, identity.credentials(authority.roots) if identity else trusting
        )
        channels.append(channel)
        return channel

    yield connect
    for channel in channels:
        channel.close()


def ask(channel: grpc.Channel, path: str = AUTHORIZE, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Call a unary RPC."""
    answer: bytes = channel.unary_unary(path)(WIRE, metadata=metadata, timeout=PATIENCE)
    return answer


def refused(channel: grpc.Channel, path: str = AUTHORIZE, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.RpcError:
    """Call a unary RPC that must be refused, and return the error."""
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, path, metadata)
    return caught.value


def test_a_spiffe_id_is_a_caller(connect: Connect, authority: Authority, notes: Notes) -> None:
    """A certificate with exactly the SPIFFE id of a caller speaks for this caller."""
    ask(connect(authority.caller(GATEWAY)))

    (decision,) = notes.decisions
    assert ("gateway", "spiffe", {Role.PEP}) == (
        decision.caller.id,
        decision.caller.kind,
        set(decision.caller.roles),
    )


def test_roles_are_those_of_the_caller(connect: Connect, authority: Authority, notes: Notes) -> None:
    """A known certificate opens what its caller's roles allow and nothing else, and the refusal is recorded."""
    error = refused(connect(authority.caller(AUTHOR)))

    assert grpc.StatusCode.PERMISSION_DENIED is error.code()
    assert "writer" == notes.refusal().caller_id


HANDSHAKES: Mapping[str, Callable[[Authority], Identity | None]] = {
    "none": lambda _: None,
    "wrong authority": lambda _: Authority().caller(GATEWAY),
    "wrong authority of the same name": lambda _: Authority("authority").caller(GATEWAY),
    "expired": lambda right: right.identity("caller", uris=[GATEWAY], within=PASSED),
    "not yet valid": lambda right: right.identity("caller", uris=[GATEWAY], within=COMING),
}


@pytest.mark.parametrize("case", HANDSHAKES)
def test_a_bad_certificate_gets_no_connection(
    connect: Connect, authority: Authority, notes: Notes, case: str
) -> None:  # fmt: skip
    """Whoever has no certificate of the authority that is valid today does not get as far as a call."""
    channel = connect(HANDSHAKES[case](authority))

    assert grpc.StatusCode.UNAVAILABLE is refused(channel).code()
    assert grpc.StatusCode.UNAVAILABLE is refused(channel, HEALTH).code()
    assert [] == notes.decisions


STRANGERS: Mapping[str, tuple[Callable[[Authority], Identity], str]] = {
    "two SPIFFE ids": (lambda a: a.caller(GATEWAY, "spiffe://example.org/other"), "more than one URI"),
    "the same id twice": (lambda a: a.caller(GATEWAY, GATEWAY), "more than one URI"),
    "another URI before": (lambda a: a.caller("https://example.org/", GATEWAY), "more than one URI"),
    "another URI after": (lambda a: a.caller(GATEWAY, "https://example.org/"), "more than one URI"),
    "another URI alone": (lambda a: a.caller("https://example.org/gateway"), "no SPIFFE id"),
    "forged common name": (lambda a: a.identity(GATEWAY), "no SPIFFE id"),
    "forged common name beside an id": (
        lambda a: a.identity(GATEWAY, uris=["spiffe://example.org/nobody"]),
        "no caller has this SPIFFE id",
    ),
    "forged host name": (lambda a: a.identity("x", dns=["example.org"]), "no SPIFFE id"),
    "unknown id": (lambda a: a.caller("spiffe://example.org/gateway2"), "no caller has this SPIFFE id"),
    "a path below": (lambda a: a.caller(f"{GATEWAY}/x"), "no caller has this SPIFFE id"),
    "another trust domain": (lambda a: a.caller("spiffe://example.com/gateway"), "no caller has this SPIFFE id"),
    "another case of the path": (lambda a: a.caller("spiffe://example.org/Gateway"), "no caller has this SPIFFE id"),
    "another case of the domain": (lambda a: a.caller("spiffe://Example.org/gateway"), "no SPIFFE id"),
    "another case of the scheme": (lambda a: a.caller("SPIFFE://example.org/gateway"), "no SPIFFE id"),
    "a slash at the end": (lambda a: a.caller(f"{GATEWAY}/"), "no SPIFFE id"),
    "a query": (lambda a: a.caller(f"{GATEWAY}?x"), "no SPIFFE id"),
    "a step back": (lambda a: a.caller("spiffe://example.org/x/../gateway"), "no SPIFFE id"),
    "an encoded letter": (lambda a: a.caller("spiffe://example.org/gatewa%79"), "no SPIFFE id"),
    "a port": (lambda a: a.caller("spiffe://example.org:1/gateway"), "no SPIFFE id"),
    "no path": (lambda a: a.caller("spiffe://example.org"), "no SPIFFE id"),
    "an authority": (lambda a: a.identity("x", uris=[GATEWAY], authority=True), "it belongs to an authority"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_a_stranger_is_refused(
    connect: Connect, authority: Authority, notes: Notes, caplog: pytest.LogCaptureFixture, case: str
) -> None:  # fmt: skip
    """A certificate that TLS accepts is no caller unless its one URI is the SPIFFE id of one; why stands in the log."""
    made, reason = STRANGERS[case]
    with caplog.at_level(logging.WARNING, "pdp.server"):
        error = refused(connect(made(authority)))

    assert grpc.StatusCode.UNAUTHENTICATED is error.code()
    assert "the certificate is not accepted" == error.details()
    assert reason in caplog.text
    assert [] == notes.decisions
    assert "UNAUTHENTICATED" == notes.refusal().facts["status"]


def test_a_certificate_that_expires_ends_its_connection(
    connect: Connect, authority: Authority, clock: FakeClock
) -> None:  # fmt: skip
    """TLS looks when the connection is opened; expiry counts for each call, and for each message of a stream."""
    # Near its end, so that what passes of time does not make the stream idle for too long: that would end it as well.
    clock.advance(ENDS.timestamp() - clock.now().wall_at - 60)
    channel = connect(authority.caller(GATEWAY))
    message = AuthorizeStreamRequest(request=a_call()).SerializeToString()

    answered = threading.Event()

    def messages() -> Iterator[bytes]:
        yield message
        assert answered.wait(PATIENCE)
        yield message

    answers = channel.stream_stream(STREAM)(messages(), timeout=PATIENCE)

    assert b"" != next(answers)
    clock.advance(120)
    answered.set()
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()
    assert grpc.StatusCode.UNAUTHENTICATED is refused(channel).code()


def test_a_caller_that_is_removed_is_refused_on_its_connection(
    connect: Connect, authority: Authority, known: KnownCallers, tmp_path: Path
) -> None:  # fmt: skip
    """A connection gives no right to a caller that is gone."""
    channel = connect(authority.caller(GATEWAY))
    ask(channel)

    path = tmp_path / "callers.yaml"
    path.write_text(path.read_text().replace(GATEWAY, "spiffe://example.org/another"))
    known.reload()

    assert grpc.StatusCode.UNAUTHENTICATED is refused(channel).code()


def test_a_token_decides_where_there_is_one(
    connect: Connect, authority: Authority, tokens: Mapping[str, str], notes: Notes
) -> None:  # fmt: skip
    """One credential decides: a token is not helped by the certificate, nor a certificate by its token."""
    gateway, stranger = connect(authority.caller(GATEWAY)), connect(authority.caller("spiffe://example.org/x"))
    right, wrong = (("authorization", f"Bearer {tokens['pep']}"),), (("authorization", "Bearer wrong"),)

    ask(stranger, metadata=right)
    error = refused(gateway, metadata=wrong)

    assert ["pep"] == [decision.caller.id for decision in notes.decisions]
    assert grpc.StatusCode.UNAUTHENTICATED is error.code()


def test_silent_strangers_hold_no_thread(connect: Connect, authority: Authority) -> None:
    """A certificate of the authority that is no caller's is refused before it has sent anything."""
    stranger, gateway = connect(authority.caller("spiffe://example.org/x")), connect(authority.caller(GATEWAY))

    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    try:
        silent = [stranger.stream_stream(AUTHORIZE)(nothing(), timeout=PATIENCE) for _ in range(16)]

        assert {grpc.StatusCode.UNAUTHENTICATED} == {call.code() for call in silent}
        assert b"" != ask(gateway)
    finally:
        over.set()


def test_probes_need_a_certificate_and_no_caller(connect: Connect, authority: Authority) -> None:
    """Health is open to whoever gets a connection."""
    stranger = connect(authority.caller("spiffe://example.org/probe"))

    assert b"" != stranger.unary_unary(HEALTH)(b"", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("version", "works"), [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)]
)
def test_old_tls_is_refused(
    mutual: Running,
    transport: str,
    authority: Authority,
    tmp_path: Path,
    version: str,
    works: bool,  # noqa: FBT001 - a table
) -> None:
    """TLS 1.2 and 1.3 alone are spoken; the client here would speak older ones, and it is the server that hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.roots.decode())
    certificate, key = authority.caller(GATEWAY).write(tmp_path, "caller")
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    # Otherwise this side is the one that refuses.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]

    found = ""
    with connected(mutual.server.port) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                found = connection.version() or ""
        except ssl.SSLError as error:
            found = error.reason or ""

    refused = "TLSV1_ALERT_PROTOCOL_VERSION" if transport == LOOP else "UNEXPECTED_EOF_WHILE_READING"
    assert (version.replace("_", ".") if works else refused) == found
