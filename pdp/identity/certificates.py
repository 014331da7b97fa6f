"""Read the certificates of callers."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from pdp.errors import UnauthenticatedError
from pdp.foundation.quickcaches import SmallCache
from pdp.identity.callers import SPIFFE_ID

# Certificates that live for minutes come and go; beyond this many the memory starts again.
_MOST_SEEN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerCertificate:
    """The content of a caller's certificate. `spiffe_id` is empty unless it is the only URI; times are unix seconds."""

    spiffe_id: str
    begins_at: float
    ends_at: float
    signs_others: bool


class SeenCertificates:
    """Reads certificates, and remembers the results by the whole text."""

    def __init__(self) -> None:
        self._seen: SmallCache[bytes, CallerCertificate] = SmallCache(_MOST_SEEN)

    def read(self, pem: bytes) -> CallerCertificate:
        """Return the content of a certificate. Raise `UnauthenticatedError` when it cannot be read."""
        return self._seen.get(pem) or self._seen.keep(pem, _read_certificate(pem))


def _read_certificate(pem: bytes) -> CallerCertificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension):
        message = "the certificate cannot be read"
        raise UnauthenticatedError(message, what="a certificate", reason="it cannot be read") from None
    uris: list[str] = []
    signs_others = False
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        elif isinstance(extension.value, x509.BasicConstraints):
            signs_others = extension.value.ca
    return CallerCertificate(
        spiffe_id=uris[0] if len(uris) == 1 and SPIFFE_ID.fullmatch(uris[0]) else "",
        begins_at=certificate.not_valid_before_utc.timestamp(),
        ends_at=certificate.not_valid_after_utc.timestamp(),
        signs_others=signs_others,
    )
