"""Pages of a list: how long they are, and where the next one begins."""

from __future__ import annotations

from pdp.errors import InvalidRequestError

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000


def page_size_of(wanted: int) -> int:
    """Return how many to list; 0 means the default. Raise `InvalidRequestError` beyond the largest page."""
    if not 0 <= wanted <= LARGEST_PAGE:
        raise InvalidRequestError("page_size", f"must be between 0 and {LARGEST_PAGE}")
    return wanted or DEFAULT_PAGE


def page_token_of(last: tuple[float, str]) -> str:
    """Return where the next page begins: after this `requested_at` and id."""
    return f"{last[0]!r}/{last[1]}"


def page_start_of(token: str) -> tuple[float, str] | None:
    """Return what a page token says; None for the first page. Raise `InvalidRequestError` for another text."""
    if not token:
        return None
    at, _, session_id = token.partition("/")
    try:
        return float(at), session_id
    except ValueError:
        raise InvalidRequestError("page_token", "is not one that this service gave") from None
