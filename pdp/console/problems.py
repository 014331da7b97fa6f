"""Errors as pages: what went wrong in plain words, and what the person can do."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.client import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PDPClientError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    WrongStateError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a page says about an error."""

    status: int
    title: str
    advice: str


_OTHER = Problem(
    status=502,
    title="The server could not answer",
    advice="Try again. If it happens again, tell the people who run the server: its log says why.",
)
_PROBLEMS: dict[type[PDPClientError], Problem] = {
    InvalidRequestError: Problem(
        status=400, title="The server does not take this", advice="Go back, and correct what the message names."
    ),
    UnauthenticatedError: Problem(
        status=403,
        title="The server does not accept your log-in",
        advice="Log out and log in again. If that does not help, the server does not know you: ask its admin.",
    ),
    PermissionDeniedError: Problem(
        status=403, title="You may not do this", advice="Ask somebody who may, or the admin of the server for the role."
    ),
    NotFoundError: Problem(
        status=404,
        title="There is nothing here for you",
        advice="The link may be wrong or old, or it is about a tenant that you may not see.",
    ),
    WrongStateError: Problem(
        status=409, title="This has been answered or has ended", advice="Look at it again to see what became of it."
    ),
    ConflictError: Problem(
        status=409, title="Another person changed this first", advice="Look at it again, and decide anew."
    ),
    OverloadedError: Problem(
        status=503, title="The server is busy", advice="Nothing was done. Try again in a few seconds."
    ),
    UnavailableError: Problem(
        status=503,
        title="The server cannot be reached",
        advice="It is not certain that anything was done. Try again; what you see then is how it is.",
    ),
}


def problem_of(error: PDPClientError) -> Problem:
    """Return what a page says about an error of the server."""
    return next((_PROBLEMS[kind] for kind in type(error).__mro__ if kind in _PROBLEMS), _OTHER)
