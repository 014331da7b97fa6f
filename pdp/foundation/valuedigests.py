"""Digests of values under a secret key: equal for values that name the same, and mute without the key."""

from __future__ import annotations

import hmac
from typing import Final

from pdp.foundation.names import Name

DIGEST_BYTES: Final = 16
# A report brings at most so many, of all classes together.
MOST_DIGESTS: Final = 2048


def value_digest(key: bytes, name: Name) -> bytes:
    """Return the digest of what a value names: of its kind and its canonical form."""
    # No kind holds a line break.
    return hmac.digest(key, f"{name.kind}\n{name.text}".encode("utf-8", "surrogatepass"), "sha256")[:DIGEST_BYTES]
