"""The certificate of a door's port over HTTP, read again for each connection once its files have changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.files import state_of
from pdp.foundation.ownership import require_own

_LOG = logging.getLogger(__name__)

_State = tuple[tuple[int, ...], ...]


class PortCertificate:
    """A certificate and its key, in PEM; the last good ones stay in use while the files do not match.

    With `client_roots`, every client must present a certificate that one of these authorities has signed.

    `context` is what a port serves with. Connections that are open keep what they began with. Raise
    `ConfigurationError` when the files are invalid, or when others could change them.
    """

    def __init__(self, certificate: Path, key: Path, client_roots: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_roots = client_roots
        self._seen = self._state()
        # Why the files could not be read when they were last tried; empty once they were.
        self._problem = ""
        self._current = self.context = self._read()
        # Called for each handshake, whether or not the client names a host.
        self.context.sni_callback = self._chosen

    def _chosen(self, connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Have a connection use the files as they are now. Never raises: the handshake would fail."""
        seen = self._state()
        # What was wrong can end without a change of the files: the mode of a folder above them, or too many open files.
        if seen != self._seen or self._problem:
            self._seen = seen
            self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        try:
            self._current, self._problem = self._read(), ""
            _LOG.info("the certificate in `%s` was read again; new connections use it", self._certificate)
        except ConfigurationError as error:
            # Log this once, not for each connection.
            if str(error) != self._problem:
                self._problem = str(error)
                _LOG.error("the certificate could not be read again, so the last good one stays in use: %s", error)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = f"`{self._certificate}` and `{self._key}`"
        try:
            for path in (self._certificate, self._key):
                require_own(path, "anyone could impersonate the proxy")
            # Without a password: nobody is there to be asked for one.
            context.load_cert_chain(self._certificate, self._key, password="")
        except ssl.SSLError:
            raise ConfigurationError(f"{pair} are not a certificate and its key, in PEM") from None
        except OSError as error:
            raise ConfigurationError(f"cannot read {pair}: {reason_of(error)}") from None
        if self._client_roots is not None:
            self._require_clients(context, self._client_roots)
        return context

    def _require_clients(self, context: ssl.SSLContext, roots: Path) -> None:
        try:
            require_own(roots, "anyone could become a caller")
            context.load_verify_locations(roots)
        except OSError:
            raise ConfigurationError(f"`{roots}` holds no certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED

    def _state(self) -> _State:
        files = (self._certificate, self._key, self._client_roots)
        return tuple(state_of(path) for path in files if path is not None)
