"""An authority of the tests' own: it signs any certificate that a test wants, right or wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pdp.serving.certificates import TLSFiles

# Before the tests' clocks begin, and after the day on which they run.
BEGINS = dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
ENDS = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=1)

# TLS itself looks at the real time.
PASSED = (BEGINS, BEGINS + dt.timedelta(days=1))
COMING = (ENDS, ENDS + dt.timedelta(days=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def credentials(self, roots: bytes) -> grpc.ChannelCredentials:
        """Return what a channel presents this identity with, to a server that one of the roots has signed."""
        return grpc.ssl_channel_credentials(roots, self.key, self.certificate)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both; return the files of the certificate and of the key."""
        files = folder / f"{name}.pem", folder / f"{name}.key.pem"
        files[0].write_bytes(self.certificate)
        files[1].write_bytes(self.key)
        return files


class Authority:
    """Signs certificates with a fresh key. `roots` is what trusts them."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._certificate = self._sign(self._name, self._key, (BEGINS, ENDS), (), authority=True)
        self.roots = self._certificate.public_bytes(Encoding.PEM)

    def server(self) -> Identity:
        """Return the identity of a server on this machine."""
        return self.identity("localhost", dns=("localhost",))

    def caller(self, *uris: str) -> Identity:
        """Return the identity of a caller with these URIs."""
        return self.identity("caller", uris=uris)

    def identity(
        self,
        common_name: str,
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        within: tuple[dt.datetime, dt.datetime] = (BEGINS, ENDS),
        authority: bool = False,
    ) -> Identity:
        """Return a fresh identity that this authority has signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        certificate = self._sign(_named(common_name), key, within, names, authority=authority)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(certificate=certificate.public_bytes(Encoding.PEM), key=private)

    def files(self, folder: Path) -> TLSFiles:
        """Write the files of a server that asks callers for certificates of this authority."""
        certificate, key = self.server().write(folder, "server")
        roots = folder / "roots.pem"
        roots.write_bytes(self.roots)
        return TLSFiles(key=key, certificate=certificate, client_roots=roots)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        within: tuple[dt.datetime, dt.datetime],
        names: Sequence[x509.GeneralName],
        *,
        authority: bool,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(within[0])
            .not_valid_after(within[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not authority:
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
