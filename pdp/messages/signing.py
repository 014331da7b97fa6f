"""Sign messages by the Standard Webhooks specification (standardwebhooks.com, version 1.0.0).

The signature is an HMAC-SHA256 over `id.timestamp.body`. While a secret is replaced, a message has a signature for each
of the two.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from pdp.errors import ConfigurationError

_PREFIX: Final = "whsec_"
_FEWEST_BYTES, _MOST_BYTES = 24, 64
_MOST_SECRETS: Final = 2


def secrets_of(name: str, text: str) -> tuple[bytes, ...]:
    """Return the one or two secrets in the text of a file, one a line, as `whsec_` and base64.

    Raise `ConfigurationError`, which quotes nothing of them.
    """
    lines = text.split()
    if not 1 <= len(lines) <= _MOST_SECRETS:
        raise ConfigurationError(f"`{name}` must hold one secret, or the new one and the old one, each on a line")
    return tuple(_secret(name, number, line) for number, line in enumerate(lines, start=1))


def signed(message_id: str, at: float, body: bytes, keys: Sequence[bytes]) -> Mapping[str, str]:
    """Return the headers of a message that is sent at a time, unix seconds: id, time, and a signature for each key."""
    timestamp = str(int(at))
    content = b".".join((message_id.encode("ascii"), timestamp.encode("ascii"), body))
    signatures = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode("ascii") for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }


def _secret(name: str, number: int, line: str) -> bytes:
    try:
        found = base64.b64decode(line.removeprefix(_PREFIX), validate=True) if line.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        found = b""
    if not _FEWEST_BYTES <= len(found) <= _MOST_BYTES:
        raise ConfigurationError(
            f"line {number} of `{name}` must be `{_PREFIX}` and base64 of {_FEWEST_BYTES} to {_MOST_BYTES} random bytes"
        )
    return found
