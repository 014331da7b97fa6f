"""The certificate of a server on loopback: private, for its names, renewed in time, and always of one authority."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from pdp.callersettings import tls_files_of
from pdp.config.settings import ServerSettings, Settings
from pdp.errors import ConfigurationError
from pdp.serving.certificates import ServerCertificates
from pdp.serving.localtls import AUTHORITY_FILE, CERTIFICATE_FILE, write_local_certificate

NOW = dt.datetime.now(dt.UTC).timestamp()
DAY = 86400.0
NAMES = ("localhost", "127.0.0.1", "::1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with a fresh certificate."""
    write_local_certificate(tmp_path, now=NOW)
    return tmp_path


@contextmanager
def serving(data: Path) -> Iterator[int]:
    """Serve TLS with the files of a data folder, which are read anew for each connection; yield the port."""
    files = tls_files_of(Settings(data_dir=str(data)))
    assert files is not None
    server = grpc.server(None)
    port = server.add_secure_port("127.0.0.1:0", ServerCertificates(files).credentials())
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def presented(port: int, roots: Path, name: str = "localhost") -> int:
    """Return the serial number of what the server presents to somebody who trusts `roots` alone."""
    context = ssl.create_default_context(cafile=str(roots))
    plain = socket.create_connection(("127.0.0.1", port), 30.0)
    with context.wrap_socket(plain, server_hostname=name) as speaking:
        found = speaking.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def test_keys_are_their_owner_s_alone(data: Path) -> None:
    """Folder and keys are private, and what foreign clients need is one file."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sorted((data / "tls").iterdir())}

    assert ["ca.key", "ca.pem", "server.key", "server.pem"] == list(modes)
    assert {0o600} == {modes["ca.key"], modes["server.key"]}
    assert 0o700 == stat.S_IMODE((data / "tls").stat().st_mode)


@pytest.mark.parametrize("name", NAMES)
def test_another_library_knows_it_by_the_one_file(data: Path, name: str) -> None:
    """Clients of another make verify each of the three names with `ca.pem` alone."""
    with serving(data) as port:
        assert presented(port, data / "tls" / AUTHORITY_FILE, name)


def test_what_is_in_force_stays(data: Path) -> None:
    """A second start, and one after two months, write nothing."""
    assert () == write_local_certificate(data, now=NOW)
    assert () == write_local_certificate(data, now=NOW + 59 * DAY)


def test_it_is_renewed_in_time_and_clients_go_on(data: Path, tmp_path: Path) -> None:
    """With a third of its life left the certificate is made anew; a running server presents it to old clients."""
    pinned = Path(shutil.copy(data / "tls" / AUTHORITY_FILE, tmp_path / "pinned.pem"))
    with serving(data) as port:
        before = presented(port, pinned)
        written = write_local_certificate(data, now=NOW + 62 * DAY)
        # What is valid from in two months on is of no use today; the server takes it up all the same.
        write_local_certificate(data, now=NOW)
        after = presented(port, pinned)

    assert (data / "tls" / CERTIFICATE_FILE,) == written
    assert before != after


def test_the_authority_is_renewed_years_before_its_end(data: Path, tmp_path: Path) -> None:
    """The new file of the authority has its name and key: whoever pinned the old one takes what it signs."""
    pinned = Path(shutil.copy(data / "tls" / AUTHORITY_FILE, tmp_path / "pinned.pem"))
    old = x509.load_pem_x509_certificate(pinned.read_bytes())

    written = write_local_certificate(data, now=NOW + 7 * 365 * DAY)
    new = x509.load_pem_x509_certificate((data / "tls" / AUTHORITY_FILE).read_bytes())
    write_local_certificate(data, now=NOW)

    assert {AUTHORITY_FILE, CERTIFICATE_FILE} == {path.name for path in written}
    assert (old.subject, old.public_key()) == (new.subject, new.public_key())
    assert old.not_valid_after_utc - new.not_valid_before_utc > dt.timedelta(days=365)
    with serving(data) as port:
        assert presented(port, pinned)


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem", "server.key", "server.pem"])
def test_what_is_lost_is_made_again(data: Path, lost: str) -> None:
    """Whatever is missing, what is there afterwards fits together."""
    (data / "tls" / lost).unlink()

    written = write_local_certificate(data, now=NOW)

    assert lost in {path.name for path in written}
    with serving(data) as port:
        assert presented(port, data / "tls" / AUTHORITY_FILE)


def test_a_key_that_is_none_is_named(data: Path) -> None:
    """A key is not thrown away: a file that holds none stops the start."""
    (data / "tls" / "ca.key").write_text("no key")

    with pytest.raises(ConfigurationError, match=r"`.*ca\.key` is not a key that `pdp init` wrote"):
        write_local_certificate(data, now=NOW)


@pytest.mark.parametrize(
    ("server", "makes"),
    [
        (ServerSettings(), True),
        (ServerSettings(address="localhost:0"), True),
        (ServerSettings(plaintext=True), False),
        (ServerSettings(address="unix:/run/pdp/pdp.sock"), False),
        (ServerSettings(tls_certificate="c.pem", tls_key="k.pem"), False),
    ],
)
def test_who_makes_a_certificate(server: ServerSettings, *, makes: bool) -> None:
    """A server on loopback does, unless it has another one, speaks plain text, or listens on a socket."""
    assert makes == Settings(server=server).makes_certificate
