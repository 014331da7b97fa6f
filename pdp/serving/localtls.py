"""The identity of a server on loopback: a certificate signed by its own authority, which clients pin."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.files import USUAL, make_file, replacing

TLS_FOLDER = "tls"
AUTHORITY_FILE = "ca.pem"
AUTHORITY_KEY_FILE = "ca.key"
CERTIFICATE_FILE = "server.pem"
KEY_FILE = "server.key"

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 90
# Clients have years to get the authority's new file; a server that was off for weeks renews when it starts.
_RENEWED_AT = 2 / 3
# A client whose clock is behind must accept a fresh certificate too.
_BACKDATED = dt.timedelta(days=1)
_NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
)
_NAME_DIGITS = 16


def write_local_certificate(folder: Path, *, now: float) -> tuple[Path, ...]:
    """Create the keys and certificates that a data folder lacks. Return what was written.

    A certificate with less than a third of its life left is replaced, with the same key: what clients have pinned stays
    valid. `now` is unix seconds. Raise `ConfigurationError` when a file cannot be written, or a key cannot be read.
    """
    tls_folder, today = folder / TLS_FOLDER, dt.datetime.fromtimestamp(now, dt.UTC)
    written: list[Path] = []
    try:
        tls_folder.mkdir(mode=0o700, exist_ok=True)
        authority_key = _key(tls_folder / AUTHORITY_KEY_FILE, written)
        server_key = _key(tls_folder / KEY_FILE, written)
        authority = _current(
            tls_folder / AUTHORITY_FILE, today, lambda: _authority(authority_key, today), authority_key, written
        )
        _current(
            tls_folder / CERTIFICATE_FILE,
            today,
            lambda: _server(server_key, authority_key, authority, today),
            server_key,
            written,
            authority,
        )
    except OSError as error:
        raise ConfigurationError(f"cannot write `{error.filename or tls_folder}`: {reason_of(error)}") from None
    return tuple(written)


def _key(path: Path, written: list[Path]) -> ec.EllipticCurvePrivateKey:
    if make_file(path, _fresh_key):
        written.append(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"`{path}` is not a key that `pdp init` wrote; remove it to get a new one")
    return key


def _fresh_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _current(
    path: Path,
    today: dt.datetime,
    make: Callable[[], x509.Certificate],
    key: ec.EllipticCurvePrivateKey,
    written: list[Path],
    authority: x509.Certificate | None = None,
) -> x509.Certificate:
    """Return the certificate of a file, replaced first when it is due."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        found.verify_directly_issued_by(authority or found)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        pass
    else:
        life = found.not_valid_after_utc - found.not_valid_before_utc
        if _public(found.public_key()) == _public(key.public_key()) and (
            found.not_valid_before_utc <= today < found.not_valid_before_utc + life * _RENEWED_AT
        ):
            return found
    made = make()
    with replacing(path, mode=USUAL) as file:
        file.write(made.public_bytes(Encoding.PEM))
    written.append(path)
    return made


def _authority(key: ec.EllipticCurvePrivateKey, today: dt.datetime) -> x509.Certificate:
    # The name is derived from the key: clients find their root by its name, and two servers need two names.
    digits = sha256(_public(key.public_key())).hexdigest()[:_NAME_DIGITS]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pdp authority {digits}")])
    return (
        _builder(key, today, _AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    authority_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    today: dt.datetime,
) -> x509.Certificate:
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(key, today, _SERVER_DAYS)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(authority.subject)
        .add_extension(signer, critical=False)
        .add_extension(_NAMES, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(key: ec.EllipticCurvePrivateKey, today: dt.datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - _BACKDATED)
        .not_valid_after(today + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        key_cert_sign=signs_others,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
