"""Pages of a list: how long they are, and where the next one begins.

A page token holds the values by which the list is sorted, of the last entry of the page before: URL-safe base64 of a
JSON list. It is no secret and no proof: whoever makes one up begins where it says, in a list that is theirs to see.
"""

from __future__ import annotations

import base64
import json
from math import isfinite
from typing import Any

from pdp.errors import InvalidRequestError

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000

# Names that an agent chose stand in a token, at most four times.
_TOKEN_CHARACTERS = 8192
# What a store takes for a number.
_NUMBERS = range(1 << 63)


def page_size_of(wanted: int) -> int:
    """Return how many to list; 0 means the default. Raise `InvalidRequestError` beyond the largest page."""
    if not 0 <= wanted <= LARGEST_PAGE:
        raise InvalidRequestError("page_size", f"must be between 0 and {LARGEST_PAGE}")
    return wanted or DEFAULT_PAGE


def page_token_of(*last: str | float) -> str:
    """Return where the next page begins: after these values, each a text, an integer from 0 on, or a float."""
    return base64.urlsafe_b64encode(json.dumps(last).encode("ascii")).decode("ascii")


def page_start_of(token: str, *kinds: type) -> Any:  # noqa: ANN401 - a tuple of these kinds, or None
    """Return what a page token says: a tuple of values of these kinds; None for the first page.

    Raise `InvalidRequestError` for a token that does not come from `page_token_of` with values of these kinds.
    """
    if not token:
        return None
    values = _values(token)
    if [type(value) for value in values] != list(kinds) or not all(map(_is_sound, values)):
        raise InvalidRequestError("page_token", "is not one that this service gave")
    return tuple(values)


def _values(token: str) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(token.encode("ascii"))) if len(token) <= _TOKEN_CHARACTERS else []
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) else []


def _is_sound(value: Any) -> bool:  # noqa: ANN401 - a text or a number
    """Say whether a store takes a value: no lone surrogate, no number that is none or is too large."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8") == value
    return isfinite(value) if isinstance(value, float) else value in _NUMBERS
