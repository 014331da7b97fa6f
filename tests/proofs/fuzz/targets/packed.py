"""Packed bundles: what is read is, byte for byte, what is written; all else is refused."""

from __future__ import annotations

from pdp.bundles.delivery import Signature
from pdp.bundles.packing import pack, unpack
from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS

WORDS = ("ustar\x0000", "0000644\x00", "signature.json", "bundle.yaml", "tools/a.json", "00000000001\x00")
_FILES = {"bundle.yaml": b"name: test\n", "a.cedar": b'@id("a/a") permit (principal, action, resource);'}
SEEDS = (
    pack(_FILES, None),
    pack(_FILES, Signature(key_id="a", number=1, value=bytes(64))),
    pack({"tools/a.json": b"{}"}, None),
    b"",
    bytes(1024),
)


def run(data: bytes) -> None:
    """Unpack some bytes."""
    try:
        delivery = unpack(data, DEFAULT_LIMITS)
    except BundleError as error:
        assert error.problems
        return
    assert data == pack(delivery.files, delivery.signature)
