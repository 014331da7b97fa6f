"""What makes each call of a load its own, as in life: an id in its message, and a trace."""

from __future__ import annotations

from typing import Final

# The number of a call, in hexadecimal digits.
DIGITS: Final = 16
# The first half of each trace's id; the second half is the call's number.
_TRACE: Final = b"pdpbench".hex().encode()
_BYTES_FIELD: Final = 2


def digits_of(number: int) -> bytes:
    """Return the digits of a number from 1 on."""
    return b"%016x" % number


def before_id(field: int) -> bytes:
    """Return what is between a message and the digits after it, which then are its text field of that number."""
    return bytes([field << 3 | _BYTES_FIELD, DIGITS])


def traceparent(digits: bytes) -> bytes:
    """Return the header of a call's trace, of the same length for each."""
    return b"00-%b%b-%b-01" % (_TRACE, digits, digits)
