"""Pages of a list: their size, and where the next one begins.

A page token holds the sort values of the previous page's last entry: URL-safe base64 of a JSON list. It is no secret
and no proof: a caller that invents a token only starts elsewhere, in a list that it may read anyway.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from typing import Any, TypeVar

from pdp.errors import InvalidRequestError

Row = TypeVar("Row")
View = TypeVar("View")
# Where a row is in its list: by time, then by id.
Position = tuple[float, str]

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000

# A token holds names that an agent chose, at most four times.
_TOKEN_CHARACTERS = 8192
# The range of numbers that a store accepts.
_NUMBERS = range(1 << 63)


def page_size_of(wanted: int) -> int:
    """Return how many entries to list; 0 means the default. Raise `InvalidRequestError` beyond the largest page."""
    if not 0 <= wanted <= LARGEST_PAGE:
        raise InvalidRequestError("page_size", f"must be between 0 and {LARGEST_PAGE}")
    return wanted or DEFAULT_PAGE


def page_token_of(*last: str | float) -> str:
    """Return a token for the page after these values, each a text, an integer from 0 on, or a float."""
    return base64.urlsafe_b64encode(json.dumps(last).encode("ascii")).decode("ascii")


def page_start_of(token: str, *kinds: type) -> Any:  # noqa: ANN401 - a tuple of these kinds, or None
    """Return the values of a page token, a tuple of these kinds; None for the first page.

    Raise `InvalidRequestError` for a token that does not come from `page_token_of` with values of these kinds.
    """
    if not token:
        return None
    values = _values(token)
    if [type(value) for value in values] != list(kinds) or not all(map(_is_sound, values)):
        raise InvalidRequestError("page_token", "is not one that this service issued")
    return tuple(values)


def rows_of(
    read: Callable[[Position | None], Sequence[Row]],
    position_of: Callable[[Row], Position],
    *,
    step: int,
    before: Position | None = None,
) -> Iterator[Row]:
    """Yield all rows after a position; `read` returns the next ones, `step` of them unless there are no more."""
    while True:
        page = read(before)
        yield from page
        if len(page) < step:
            return
        before = position_of(page[-1])


def filled_page(
    rows: Iterable[Row],
    seen: Callable[[Row], View | None],
    position_of: Callable[[Row], Position],
    *,
    size: int,
    before: Position | None,
    fits: Callable[[View], bool],
) -> tuple[tuple[View, ...], str]:
    """Return a page of what `seen` makes of rows, and the token of the next page (empty at the end).

    `rows` come after `before`. Those of which `seen` makes nothing are passed over. The first that does not fit begins
    the next page.
    """
    found: list[View] = []
    for row in rows:
        view = seen(row)
        if view is not None:
            if not fits(view):
                return tuple(found), page_token_of(*before) if before else ""
            found.append(view)
        before = position_of(row)
        if len(found) == size:
            return tuple(found), page_token_of(*before)
    return tuple(found), ""


def _values(token: str) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(token.encode("ascii"))) if len(token) <= _TOKEN_CHARACTERS else []
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) else []


def _is_sound(value: Any) -> bool:  # noqa: ANN401 - a text or a number
    """Say whether a store accepts a value: no lone surrogate, no NaN, no number out of range."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8") == value
    return isfinite(value) if isinstance(value, float) else value in _NUMBERS
