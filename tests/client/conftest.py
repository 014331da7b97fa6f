"""A server that answers as each test tells it to, and is known to every client here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pdp.serving.localtls import CERTIFICATE_FILE, KEY_FILE, TLS_FOLDER, write_local_certificate
from tests.machinery.servers.scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Return a server that is not listening yet."""
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@pytest.fixture(scope="session")
def local_tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the certificate of a server on loopback."""
    folder = tmp_path_factory.mktemp("data")
    write_local_certificate(folder, now=time.time())
    return folder


@pytest.fixture
def local_credentials(local_tls: Path) -> grpc.ServerCredentials:
    """Return the certificate of `local_tls` for a server, which every client here knows."""
    key, certificate = (local_tls / TLS_FOLDER / name for name in (KEY_FILE, CERTIFICATE_FILE))
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])


@pytest.fixture
def address(server: ScriptedServer, local_credentials: grpc.ServerCredentials) -> str:
    """Return where the server listens; it is known to every client here."""
    return server.start(credentials=local_credentials)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, local_tls: Path) -> None:
    monkeypatch.delenv("PDP_ADDRESS", raising=False)
    monkeypatch.setenv("PDP_DATA_DIR", str(local_tls))
