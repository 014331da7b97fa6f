"""Say why no connection to the server was made, in our words: gRPC has one status for all reasons and its own texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NO_CONNECTION = "failed to connect"
# gRPC's text for a server whose limit `message_bytes` is the second number.
_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \(\d+ vs\. (\d+)\)")
# The reason of the server's own refusal.
TOO_LARGE = "MESSAGE_TOO_LARGE"
# The order matters: those before it contain the text about authorities.
_REASONS = {
    "Hostname Verification": "the certificate of `{address}` is for other names; use one of them as the address",
    "certificate has expired": "the certificate of `{address}` has expired; renew it, or check the clock here",
    "not yet valid": "the certificate of `{address}` is not valid yet; check the clocks there and here",
    "CERTIFICATE_VERIFY_FAILED": (
        "the certificate of `{address}` cannot be verified with {roots}; is it another server, or must `--tls-roots` "
        "(`tls=`) name another authority?"
    ),
    "WRONG_VERSION_NUMBER": (
        "the server at `{address}` does not use TLS, so it was sent nothing; only if the settings of the server say "
        "`server.plaintext`, pass `--plaintext` (`plaintext=True`)"
    ),
}
# gRPC's text for a deadline of the client that has passed.
_LATE = "Deadline Exceeded"
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe")


def is_too_large(details: str) -> bool:
    """Say whether a text is gRPC's for a message that a server does not read."""
    return _TOO_LARGE.fullmatch(details) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known of a connection: `roots` names the trusted certificates, empty in plain text.

    `command` is what should serve there.
    """

    address: str
    command: str = "pdp serve"
    roots: str = ""
    presents_certificate: bool = False

    def explain(self, details: str) -> str:
        """Return gRPC's texts in our words; other details unchanged."""
        if too_large := _TOO_LARGE.fullmatch(details):
            return f"a message is larger than {too_large[1]} bytes (limit `message_bytes`)"
        if details == _LATE:
            return f"`{self.address}` has not answered in time"
        if not details.startswith(_NO_CONNECTION):
            return details
        for found, words in _REASONS.items():
            if found in details:
                return words.format(address=self.address, roots=self.roots)
        if any(found in details for found in _CLOSED):
            return self._closed()
        return f"nothing answers at `{self.address}`; is `{self.command}` running, and is the address right?"

    def _closed(self) -> str:
        """Say why the server closes a connection, which the server itself does not say."""
        if not self.roots:
            return f"the server at `{self.address}` does not accept plain text; leave out `--plaintext` (`plaintext=`)"
        if not self.presents_certificate:
            return (
                f"the server at `{self.address}` closed the connection; if it requires a client certificate, pass "
                "`--tls-certificate` and `--tls-key` (`tls_certificate=`, `tls_key=`)"
            )
        return (
            f"the server at `{self.address}` closed the connection; is the certificate of `--tls-certificate` "
            "(`tls_certificate=`) valid now, and signed by an authority of its `server.tls_client_roots`?"
        )
