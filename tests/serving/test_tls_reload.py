"""Certificates, keys and roots change while the server runs."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from pdp.errors import ConfigurationError
from pdp.identity.authentication import CallerAuthenticator, CertificateAuthenticator, TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.limits import Limits
from pdp.serving.certificates import ServerCertificates, TLSFiles
from pdp.testing.clock import FakeClock
from pdp.testing.waiting import wait_until
from tests.machinery.credentials.authority import Authority, Identity
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call, connected

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
GATEWAY = "spiffe://example.org/gateway"
WIRE = a_call().SerializeToString()

Start = Callable[..., Running]


@pytest.fixture
def authority() -> Authority:
    """Return the authority that the server trusts at first."""
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TLSFiles:
    """Return the server's files."""
    return authority.files(tmp_path)


@pytest.fixture
def start(serve: Serve, files: TLSFiles, clock: FakeClock, tmp_path: Path) -> Start:
    """Return what starts a server that wants certificates."""
    path = tmp_path / "callers.yaml"
    path.write_text(f"gateway: {{spiffe_id: '{GATEWAY}', roles: [pep]}}\n")
    path.chmod(0o600)
    known = KnownCallers(path)
    authenticator = CallerAuthenticator(TokenAuthenticator(known), CertificateAuthenticator(known, clock))

    def started(limits: Limits = Limits()) -> Running:  # noqa: B008 - a frozen value
        return serve(address="localhost:0", tls=files, authenticator=authenticator, limits=limits)

    return started


def presented(running: Running, caller: Identity, roots: bytes, folder: Path) -> int:
    """Return the number of the certificate that the server presents on a new connection."""
    context = ssl.create_default_context(cadata=roots.decode())
    # The authority of the tests leaves out what Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    certificate, key = caller.write(folder, "presented")
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    with (
        connected(running.server.port) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        encoded = connection.getpeercert(binary_form=True)
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).serial_number


def number(pem: bytes) -> int:
    """Return the number of a certificate."""
    return x509.load_pem_x509_certificate(pem).serial_number


def code(running: Running, identity: Identity, roots: bytes) -> grpc.StatusCode:
    """Return the status of a call on a new connection."""
    with grpc.secure_channel(running.server.address, identity.credentials(roots)) as channel:
        try:
            channel.unary_unary(AUTHORIZE)(WIRE, timeout=PATIENCE)
        except grpc.RpcError as error:
            found: grpc.StatusCode = error.code()
            return found
    return grpc.StatusCode.OK


def write(files: TLSFiles, identity: Identity) -> None:
    """Replace certificate and key, one after the other."""
    files.certificate.write_bytes(identity.certificate)
    files.key.write_bytes(identity.key)


def test_a_new_pair_counts_from_the_next_connection(
    start: Start, files: TLSFiles, authority: Authority, tmp_path: Path
) -> None:  # fmt: skip
    """Nobody has to restart the server for a new certificate."""
    running, caller, renewed = start(), authority.caller(GATEWAY), authority.server()
    before = number(files.certificate.read_bytes())

    first = presented(running, caller, authority.roots, tmp_path)
    write(files, renewed)
    second = presented(running, caller, authority.roots, tmp_path)

    assert (before, number(renewed.certificate)) == (first, second)


def test_new_roots_count_from_the_next_connection(start: Start, files: TLSFiles, authority: Authority) -> None:
    """An authority that is trusted no longer opens no new connection, and a new one does."""
    running, another = start(), Authority("another")
    old, new = authority.caller(GATEWAY), another.caller(GATEWAY)
    assert files.client_roots is not None

    codes = [code(running, old, authority.roots), code(running, new, authority.roots)]
    files.client_roots.write_bytes(authority.roots + another.roots)
    codes += [code(running, old, authority.roots), code(running, new, authority.roots)]
    files.client_roots.write_bytes(another.roots)
    codes += [code(running, old, authority.roots), code(running, new, authority.roots)]

    ok, closed = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
    assert [ok, closed, ok, ok, closed, ok] == codes


HALVES: Mapping[str, tuple[Callable[[TLSFiles, Identity], object], str]] = {
    "certificate without its key": (
        lambda files, new: files.certificate.write_bytes(new.certificate),
        "does not match the certificate",
    ),
    "key without its certificate": (
        lambda files, new: files.key.write_bytes(new.key),
        "does not match the certificate",
    ),
    "half a certificate": (
        lambda files, new: files.certificate.write_bytes(new.certificate[:300]),
        "holds no certificates in PEM",
    ),
    "half a key": (lambda files, new: files.key.write_bytes(new.key[:100]), "holds no private key"),
    "empty certificate": (lambda files, _: files.certificate.write_bytes(b""), "holds no certificates in PEM"),
    "empty key": (lambda files, _: files.key.write_bytes(b""), "holds no private key"),
    "no certificate": (lambda files, _: files.certificate.unlink(), "cannot read"),
    "no key": (lambda files, _: files.key.unlink(), "cannot read"),
    "empty roots": (lambda files, _: roots_of(files).write_bytes(b""), "holds no certificates in PEM"),
    "no roots": (lambda files, _: roots_of(files).unlink(), "cannot read"),
    "roots that are a key": (lambda files, new: roots_of(files).write_bytes(new.key), "holds no certificates in PEM"),
}


def roots_of(files: TLSFiles) -> Path:
    """Return the file of the roots."""
    assert files.client_roots is not None
    return files.client_roots


@pytest.mark.parametrize("case", HALVES)
def test_a_half_written_pair_keeps_the_old_one(
    start: Start, files: TLSFiles, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:  # fmt: skip
    """What does not fit together is not taken, is told once, and is taken as soon as it is whole."""
    running, caller, renewed = start(), authority.caller(GATEWAY), authority.server()
    before, roots = number(files.certificate.read_bytes()), authority.roots
    spoil, reason = HALVES[case]

    with caplog.at_level(logging.ERROR, "pdp.server"):
        spoil(files, renewed)
        during = [presented(running, caller, roots, tmp_path), presented(running, caller, roots, tmp_path)]
    told = [record.getMessage() for record in caplog.records if "could not be read again" in record.getMessage()]
    write(files, renewed)
    roots_of(files).write_bytes(roots)
    after = presented(running, caller, roots, tmp_path)

    assert [before, before] == during
    assert 1 == len(told)
    assert reason in told[0]
    assert number(renewed.certificate) == after


@pytest.mark.parametrize("case", HALVES)
def test_a_half_written_pair_stops_the_start(files: TLSFiles, authority: Authority, case: str) -> None:
    """A server does not begin on files that do not fit together, and says which."""
    spoil, reason = HALVES[case]
    spoil(files, authority.server())

    with pytest.raises(ConfigurationError, match=reason):
        ServerCertificates(files).credentials()


def test_the_age_of_a_connection_bounds_what_was_trusted(start: Start, files: TLSFiles, authority: Authority) -> None:
    """A connection from before the roots changed ends at its age, and cannot be made again."""
    running = start(Limits(connection_age_seconds=0.2))
    credentials = authority.caller(GATEWAY).credentials(authority.roots)
    found = grpc.StatusCode.OK

    with grpc.secure_channel(running.server.address, credentials) as channel:
        call = channel.unary_unary(AUTHORIZE)
        call(WIRE, timeout=PATIENCE)
        roots_of(files).write_bytes(Authority("another").roots)
        while found is grpc.StatusCode.OK:
            try:
                call(WIRE, timeout=PATIENCE)
            except grpc.RpcError as error:
                found = error.code()

    assert grpc.StatusCode.UNAVAILABLE is found


def test_rotation_under_load_fails_no_call(
    start: Start, files: TLSFiles, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """New certificates, keys and roots again and again: no call fails, on open connections and on new ones.

    The age of connections is what brings those that are open to the new certificates.
    """
    rotations, threads = 20, 4
    running = start(Limits(connection_age_seconds=0.2))
    authorities = [authority, *(Authority(f"authority {turn}") for turn in range(rotations))]
    everybody = b"".join(each.roots for each in authorities)
    over = threading.Event()
    steps = [0] * threads
    # An authority is trusted for one turn longer than its certificates are used.
    trusted = [authority]

    def call(place: int) -> int:
        calls = 0
        lasting = grpc.secure_channel(running.server.address, authority.caller(GATEWAY).credentials(everybody))
        with lasting:
            while not over.is_set():
                lasting.unary_unary(AUTHORIZE)(WIRE, timeout=PATIENCE)
                identity = trusted[-1].caller(GATEWAY)
                with grpc.secure_channel(running.server.address, identity.credentials(everybody)) as fresh:
                    fresh.unary_unary(AUTHORIZE)(WIRE, timeout=PATIENCE)
                calls += 2
                steps[place] += 1
        return calls

    def turned(before: list[int], callers: list[Future[int]]) -> bool:
        moved = all(now >= was + 2 for now, was in zip(steps, before, strict=True))
        return moved or any(caller.done() for caller in callers)

    def rotate(callers: list[Future[int]]) -> None:
        for turn in range(1, rotations + 1):
            new = authorities[turn]
            roots_of(files).write_bytes(b"".join(each.roots for each in {authority, authorities[turn - 1], new}))
            write(files, new.server())
            trusted.append(new)
            before = list(steps)
            # Each caller makes connections of this turn before the next one begins.
            wait_until(partial(turned, before, callers))
            assert not any(caller.done() for caller in callers)

    with caplog.at_level(logging.INFO, "pdp.server"), ThreadPoolExecutor(threads) as pool:
        callers = [pool.submit(call, place) for place in range(threads)]
        try:
            rotate(callers)
        finally:
            over.set()
        calls = [caller.result() for caller in callers]

    assert rotations <= caplog.text.count("new connections use them")
    assert 4 * rotations * threads <= sum(calls)
