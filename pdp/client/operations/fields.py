"""How the fields of requests are written, for operations of every subject."""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from pdp.client.errors import InvalidRequestError

_VISIBLE = re.compile(r"[\x21-\x7e]+")


def strings(field: str, values: Sequence[str]) -> list[str]:
    """Return the texts of a list. Raise `InvalidRequestError` for one text."""
    # One string is a sequence of its characters: `tools="*"` or `"git/log"` would silently change its meaning.
    if isinstance(values, str):
        raise InvalidRequestError(f"`{field}` must be a list of texts, not one text: `{values}`")
    return list(values)


def duration_of(seconds: float) -> Duration:
    """Return seconds as the API writes them."""
    whole, nanos = seconds_and_nanos(seconds)
    return Duration(seconds=whole, nanos=nanos)


def seconds_and_nanos(value: float) -> tuple[int, int]:
    """Return whole seconds, and the rest in nanoseconds."""
    return divmod(round(value * 1_000_000_000), 1_000_000_000)


def presence(id_token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with the ID token of a log-in, none for an empty one. Raise `InvalidRequestError`."""
    if not id_token:
        return ()
    if not _VISIBLE.fullmatch(id_token):
        raise InvalidRequestError("`id_token` holds characters other than visible ASCII")
    return (("pdp-id-token", id_token),)
