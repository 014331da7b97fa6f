"""What the settings mean for who may call."""

from __future__ import annotations

import logging
from pathlib import Path

from pdp.clock import Clock
from pdp.config import Settings
from pdp.server.authentication import (
    Authenticator,
    CallerAuthenticator,
    CertificateAuthenticator,
    TokenAuthenticator,
)
from pdp.server.callers import KnownCallers
from pdp.server.certificates import TLSFiles

_LOG = logging.getLogger("pdp")


def tls_files_of(settings: Settings) -> TLSFiles | None:
    """Return the files of the server's certificate; None without TLS."""
    server = settings.server
    if not server.tls_certificate:
        return None
    return TLSFiles(
        key=Path(server.tls_key),
        certificate=Path(server.tls_certificate),
        client_roots=Path(server.tls_client_roots) if server.tls_client_roots else None,
    )


def authenticator_of(settings: Settings, callers: KnownCallers, clock: Clock) -> Authenticator:
    """Return what tells who is calling: by tokens, and with `server.tls_client_roots` by certificates."""
    certificates = CertificateAuthenticator(callers, clock) if settings.server.tls_client_roots else None
    if certificates is None and callers.current.by_spiffe_id:
        _LOG.warning("callers with a SPIFFE id cannot call: set `server.tls_client_roots`")
    return CallerAuthenticator(TokenAuthenticator(callers), certificates)
