"""Say why no connection to the server was made, in our words: gRPC has one status for all reasons and its own texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NO_CONNECTION = "failed to connect"
# gRPC's text for a server whose limit `message_bytes` is the second number.
_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \(\d+ vs\. (\d+)\)")
# The order matters: those before it contain the text about authorities.
_REASONS = {
    "Hostname Verification": "the certificate of `{address}` is for other names; take one of them as the address",
    "certificate has expired": "the certificate of `{address}` has expired; renew it, or look at the clock here",
    "not yet valid": "the certificate of `{address}` is not valid yet; look at the clocks there and here",
    "CERTIFICATE_VERIFY_FAILED": (
        "what answers at `{address}` is not the server that {roots} knows; is it another one, or must `--tls-roots` "
        "(`tls=`) name another authority?"
    ),
    "WRONG_VERSION_NUMBER": (
        "what answers at `{address}` speaks no TLS, so it was sent nothing; only where the settings of the server say "
        "`server.plaintext`, pass `--plaintext` (`plaintext=True`)"
    ),
}
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way to a server: `roots` names its trusted certificates, empty in plain text."""

    address: str
    roots: str = ""
    presents: bool = False

    def explain(self, details: str) -> str:
        """Return gRPC's texts in our words; other details unchanged."""
        if too_large := _TOO_LARGE.fullmatch(details):
            return f"a message is larger than {too_large[1]} bytes (limit `message_bytes`)"
        if not details.startswith(_NO_CONNECTION):
            return details
        for found, words in _REASONS.items():
            if found in details:
                return words.format(address=self.address, roots=self.roots)
        if any(found in details for found in _CLOSED):
            return self._closed()
        return f"nothing answers at `{self.address}`; is `pdp serve` running, and is the address right?"

    def _closed(self) -> str:
        """Say why the server closes a connection, which the server itself does not say."""
        if not self.roots:
            return f"the server at `{self.address}` takes no plain text; leave out `--plaintext` (`plaintext=`)"
        if not self.presents:
            return (
                f"the server at `{self.address}` closed the connection; if it wants a certificate of the caller, pass "
                "`--tls-certificate` and `--tls-key` (`tls_certificate=`, `tls_key=`)"
            )
        return (
            f"the server at `{self.address}` closed the connection; is the certificate of `--tls-certificate` "
            "(`tls_certificate=`) in force, and signed by an authority of its `server.tls_client_roots`?"
        )
