"""The server's certificates, read again for each connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_own

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")

_IMPOSTOR = "anyone could impersonate the server"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """The server's private key and certificate chain, as PEM files.

    With `client_roots`, every client must present a certificate that one of these authorities has signed.
    """

    key: Path
    certificate: Path
    client_roots: Path | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What the files of a server's TLS hold."""

    key: bytes = field(repr=False)
    certificate: bytes
    client_roots: bytes | None


class ServerCertificates:
    """Certificates that are read again for each connection; the last good files stay while new ones do not match.

    Open connections are not affected; they end when they reach their maximum age.
    """

    def __init__(self, files: TLSFiles) -> None:
        self._files = files
        self._reading = threading.Lock()
        self._taken: Material | None = None
        self._refused: Material | str | None = None

    def credentials(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the credentials for a gRPC port. Raise `ConfigurationError` when the files are invalid."""
        needed = self._files.client_roots is not None
        return grpc.dynamic_ssl_server_credentials(_configuration(self.read()), self._renewed, needed)

    def read(self) -> Material:
        """Return what the files hold. Raise `ConfigurationError` when they are invalid."""
        self._taken = _checked(self._files, read_all(self._files))
        return self._taken

    def renewed(self, take: Callable[[Material], T]) -> T | None:
        """Return what `take` makes of new files, or None when they are unchanged or invalid. Never raises.

        Ask before each handshake. `take` may raise `ConfigurationError`: then the files are invalid.
        """
        with self._reading:
            found: Material | None = None
            try:
                found = read_all(self._files)
                if found in (self._taken, self._refused):
                    return None
                made = take(_checked(self._files, found))
            except ConfigurationError as error:
                # Log this once, not for each connection.
                if (found or str(error)) != self._refused:
                    self._refused = found or str(error)
                    _LOG.error("the certificates could not be read again, so the last good ones stay in use: %s", error)
                return None
            self._taken, self._refused = found, None
            _LOG.info("the certificates in `%s` were read again; new connections use them", self._files.certificate)
            return made

    def _renewed(self) -> Any:  # noqa: ANN401 - gRPC has no types
        return self.renewed(_configuration)


def read_all(files: TLSFiles) -> Material:
    """Return what the files hold, unchecked. Raise `ConfigurationError` when they cannot be read."""
    roots = None
    if files.client_roots is not None:
        roots = read_own(files.client_roots, "anyone could become a caller")
    return Material(read_own(files.key, _IMPOSTOR), read_own(files.certificate, _IMPOSTOR), roots)


def _checked(files: TLSFiles, material: Material) -> Material:
    """Return the material. Raise `ConfigurationError` unless it can be read and the key matches the certificate."""
    try:
        key = load_pem_private_key(material.key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{files.key}` holds no private key in PEM without a password") from None
    first = _certificates(files.certificate, material.certificate)[0].public_key()
    encoded = [each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in (key, first)]
    if encoded[0] != encoded[1]:
        raise ConfigurationError(f"the key in `{files.key}` does not match the certificate in `{files.certificate}`")
    if files.client_roots is not None and material.client_roots is not None:
        _certificates(files.client_roots, material.client_roots)
    return material


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError(f"`{path}` holds no certificates in PEM, or a broken one") from None


def _configuration(material: Material) -> Any:  # noqa: ANN401 - gRPC has no types
    pair = (material.key, material.certificate)
    return grpc.ssl_server_certificate_configuration([pair], material.client_roots)
