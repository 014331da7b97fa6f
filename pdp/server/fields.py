"""Checks of the fields that callers write: every refusal names the field.

The core refuses attributes of its own values; `FIELDS` lists those that a message names differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.errors import InvalidRequestError
from pdp.foundation.printable import forges

T = TypeVar("T")
P = ParamSpec("P")

# For each RPC: an attribute that the core refuses, and the field of the message. All others have the same name.
FIELDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "ApproveCall": {"uses": "calls"},
        "Explain": {"call.facts_json": "facts_json"},
        "NarrowSession": {"expires_at": "expire_time"},
        "RevokeSessions": {"selector.of_tenant": "of_tenant"},
    }
)

_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_SERVER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OUTCOME_TOKEN = re.compile(r"pdpo_[A-Za-z0-9_=-]{1,2048}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The last second of the year 9999, the latest that a protobuf timestamp can hold.
_LAST_SECOND = 253402300799
_NANOS = 1_000_000_000


def in_fields(method: str, work: Callable[P, T]) -> Callable[P, T]:
    """Wrap the work of an RPC: name the message's field where the core refuses an attribute."""
    fields = FIELDS.get(method)
    if fields is None:
        return work

    @wraps(work)
    def working(*args: P.args, **more: P.kwargs) -> T:
        try:
            return work(*args, **more)
        except InvalidRequestError as error:
            raise InvalidRequestError(fields.get(error.attribute, error.attribute), error.problem) from None

    return working


def require_id(field: str, value: str) -> str:
    """Return an id: 1 to 128 characters of `A-Za-z0-9._:@/-`."""
    if not _ID.fullmatch(value):
        problem = f"must match {_ID.pattern}" if value else "is required"
        raise InvalidRequestError(field, problem)
    return value


def optional_id(field: str, value: str) -> str:
    """Return an id or an empty text."""
    return require_id(field, value) if value else value


def require_ids(field: str, values: Iterable[str], most: int) -> tuple[str, ...]:
    """Return a list of ids, at most `most`."""
    ids = tuple(values)
    if len(ids) > most:
        raise InvalidRequestError(field, f"more than {most}")
    return tuple(require_id(f"{field}[{index}]", value) for index, value in enumerate(ids))


def require_outcome_token(field: str, value: str) -> str:
    """Return the token of a report, as a decision carries it; whether it is one of ours is checked later."""
    if not _OUTCOME_TOKEN.fullmatch(value):
        raise InvalidRequestError(field, "is not the `outcome_token` of a decision" if value else "is required")
    return value


def require_server(field: str, value: str) -> str:
    """Return the name of a tool server."""
    if not _SERVER.fullmatch(value):
        raise InvalidRequestError(field, f"must match {_SERVER.pattern}" if value else "is required")
    return value


def require_digest(field: str, value: str) -> str:
    """Return a digest: `sha256:` and 64 hex digits in lower case."""
    if not _DIGEST.fullmatch(value):
        raise InvalidRequestError(field, f"must match {_DIGEST.pattern}" if value else "is required")
    return value


def optional_digest(field: str, value: str) -> str:
    """Return a digest or an empty text."""
    return require_digest(field, value) if value else value


def require_text(field: str, value: str, characters: int) -> str:
    """Return text for people: not empty, one line, no characters that hide or move letters."""
    if not value.strip():
        raise InvalidRequestError(field, "is required")
    return optional_text(field, value, characters)


def optional_text(field: str, value: str, characters: int) -> str:
    """Return text for people or an empty text."""
    return _shown(field, value, characters, "text_characters", lines=False)


def require_purpose(field: str, value: str, characters: int) -> str:
    """Return a purpose: not empty, any number of lines, no characters that hide or move letters."""
    if not value.strip():
        raise InvalidRequestError(field, "is required")
    return optional_purpose(field, value, characters)


def optional_purpose(field: str, value: str, characters: int) -> str:
    """Return a purpose or an empty text."""
    return _shown(field, value, characters, "purpose_characters", lines=True)


def _shown(field: str, value: str, characters: int, limit: str, *, lines: bool) -> str:
    if len(value) > characters:
        raise InvalidRequestError(field, f"longer than {characters} characters (limit `{limit}`)")
    if forges(value, lines=lines):
        raise InvalidRequestError(field, "holds a control character, or one that changes the direction of text")
    return value


def require_size(field: str, value: bytes, size: int, limit: str) -> bytes:
    """Return bytes, at most `size` of them; `limit` names the limit."""
    if len(value) > size:
        raise InvalidRequestError(field, f"larger than {size} bytes (limit `{limit}`)")
    return value


def seconds_of(field: str, value: Duration) -> float:
    """Return a duration in seconds; its length is checked elsewhere."""
    if value.seconds < 0 or not 0 <= value.nanos < _NANOS:
        raise InvalidRequestError(field, "must be a duration of 0 seconds or more")
    return value.seconds + value.nanos / _NANOS


def moment_of(field: str, value: Timestamp) -> float:
    """Return a timestamp in unix seconds."""
    at = value.seconds + value.nanos / _NANOS
    # As a float, the last moment of that second can be the next one.
    if not (0 <= value.nanos < _NANOS and 0 <= at < _LAST_SECOND + 1):
        raise InvalidRequestError(field, "must be a time between 1970 and 9999")
    return at


def timestamp(moment_at: float) -> Timestamp:
    """Return unix seconds as a timestamp."""
    message = Timestamp()
    write_timestamp(moment_at, message)
    return message


def write_timestamp(moment_at: float, message: Timestamp) -> None:
    """Write unix seconds into a timestamp."""
    message.seconds = seconds = int(moment_at)
    message.nanos = min(round((moment_at - seconds) * _NANOS), _NANOS - 1)
