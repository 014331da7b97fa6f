"""TLS of the loop by Python's `ssl`: contexts that follow the files, and what a handshake has proved."""

from __future__ import annotations

import math
import ssl
import time
from typing import Any

from pdp.errors import ConfigurationError
from pdp.identity.authentication import Peer
from pdp.serving.certificates import Material, ServerCertificates, TLSFiles, read_all
from pdp.serving.http2.tlssocket import TLSSocket

# Those of gRPC's own server, for TLS 1.2; TLS 1.3 has its own.
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_SPIFFE = "spiffe://"


class TLSContexts:
    """The context for new connections, made anew when the files have changed.

    Raise `ConfigurationError` when the files are invalid at first; later ones are logged, and the last good ones stay.
    """

    def __init__(self, files: TLSFiles) -> None:
        self._files = files
        self._certificates = ServerCertificates(files)
        self._context = self._context_of(self._certificates.read())

    def current(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now. Never raises."""
        self._context = self._certificates.renewed(self._context_of) or self._context
        return self._context

    def _context_of(self, material: Material) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["h2"])
        try:
            # `ssl` takes a key from a file only: it must be the one that was checked, before and after.
            context.load_cert_chain(self._files.certificate, self._files.key)
            if material.client_roots is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cadata=material.client_roots.decode("ascii", "ignore"))
        except (ssl.SSLError, OSError, ValueError):
            raise ConfigurationError(f"`{self._files.certificate}` cannot be used for TLS") from None
        if read_all(self._files) != material:
            raise ConfigurationError(f"`{self._files.certificate}` is being changed")
        return context


def proved(sock: TLSSocket) -> tuple[Peer, float]:
    """Return what a handshake has proved, in the form of a gRPC context, and for how many seconds it holds."""
    encoded = sock.getpeercert(binary_form=True)
    found = sock.getpeercert()
    if not encoded or not found:
        return {}, math.inf
    peer = {"x509_pem_cert": [ssl.DER_cert_to_PEM_cert(encoded).encode("ascii")]}
    names: Any = found.get("subjectAltName", ())
    uris = [str(value) for kind, value in names if kind == "URI"]
    if len(uris) == 1 and uris[0].startswith(_SPIFFE):
        peer["peer_spiffe_id"] = [uris[0].encode()]
    return peer, ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()
