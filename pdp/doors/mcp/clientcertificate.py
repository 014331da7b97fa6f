"""The certificate that the proxy presents to a server, and to which call tokens for it are bound."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from pdp.calltokens.claims import Presenter
from pdp.errors import ConfigurationError

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """What the proxy presents to a server: the files of a certificate chain and of its private key, in PEM."""

    chain: Path
    key: Path

    @property
    def thumbprint(self) -> str:
        """Return the `x5t#S256` of the certificate. Raise `ConfigurationError` when the file holds none."""
        try:
            text = self.chain.read_text(encoding="ascii")
            first = f"{_BEGIN}{text.split(_BEGIN, 1)[1].split(_END, 1)[0]}{_END}\n"
            return Presenter.of_certificate(ssl.PEM_cert_to_DER_cert(first)).certificate
        except (OSError, ValueError, IndexError):
            raise ConfigurationError(f"`{self.chain}` holds no certificate") from None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have a context present the certificate. Raise `ConfigurationError` when the files do not fit."""
        try:
            # Whatever a key with a password asks for, nobody is there to answer.
            context.load_cert_chain(self.chain, self.key, password="")
        except OSError:
            raise ConfigurationError(f"`{self.key}` is not the key of the certificate in `{self.chain}`") from None
