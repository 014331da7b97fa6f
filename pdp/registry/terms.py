"""The terms of a requested session: those that are asked for, and those that it takes over from its parent."""

from __future__ import annotations

from collections.abc import Sequence

from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError, WrongStateError
from pdp.foundation.jsontext import parse_object
from pdp.limits import Limits
from pdp.model import NO_TERMS, Session
from pdp.policy.bundle import Bundle
from pdp.policy.terms import canonical_terms, read_terms, wider_term

_FIELD = "terms_json"


def session_terms(asked: bytes, parents: Sequence[Session], bundle: Bundle, limits: Limits) -> str:
    """Return the terms of a new session as canonical JSON.

    A child has every term of its parent, the nearest of `parents`, and can only narrow those that have an order. Raise
    `InvalidRequestError` naming the JSON path, and `WrongStateError` when the parent's own terms no longer fit.
    """
    if not parents:
        return _merged(_FIELD, asked, NO_TERMS, bundle, limits)
    return _narrower(_FIELD, asked, parents[0], "the parent session", bundle, limits)


def narrower_terms(field: str, given: bytes, session: Session, bundle: Bundle, limits: Limits) -> str:
    """Return the terms of a session with some of them narrowed, as canonical JSON. `field` names them in errors.

    Raise as `session_terms` does.
    """
    return _narrower(field, given, session, "the request", bundle, limits)


def _narrower(field: str, given: bytes, above: Session, name: str, bundle: Bundle, limits: Limits) -> str:
    try:
        terms = canonical_terms(bundle.terms, read_terms(above.terms_json))
    except InvalidArgumentsError:
        raise WrongStateError(f"the terms of {name} do not fit the schema of the bundle") from None
    text = _merged(field, given, terms, bundle, limits)
    if wider := wider_term(read_terms(text), read_terms(terms), name):
        raise InvalidRequestError(field, f"`$.{wider[0]}`: {wider[1]}")
    return text


def _merged(field: str, given: bytes, above: str, bundle: Bundle, limits: Limits) -> str:
    try:
        text = canonical_terms(bundle.terms, {**read_terms(above), **parse_object(given, limits)})
    except (InvalidJSONError, InvalidArgumentsError) as error:
        raise InvalidRequestError(field, str(error)) from None
    if len(text.encode()) > limits.terms_bytes:
        raise InvalidRequestError(field, f"larger than {limits.terms_bytes} bytes (limit `terms_bytes`)")
    return text
