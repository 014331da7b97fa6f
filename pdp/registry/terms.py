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
    above = _terms_above(parents, bundle)
    try:
        given = parse_object(asked, limits)
        text = canonical_terms(bundle.terms, {**read_terms(above), **given})
    except (InvalidJSONError, InvalidArgumentsError) as error:
        raise InvalidRequestError(_FIELD, str(error)) from None
    if len(text.encode()) > limits.terms_bytes:
        raise InvalidRequestError(_FIELD, f"larger than {limits.terms_bytes} bytes (limit `terms_bytes`)")
    if parents and (wider := wider_term(read_terms(text), read_terms(above))):
        name, rule = wider
        raise InvalidRequestError(_FIELD, f"`$.{name}`: {rule}")
    return text


def _terms_above(parents: Sequence[Session], bundle: Bundle) -> str:
    if not parents:
        return NO_TERMS
    try:
        return canonical_terms(bundle.terms, read_terms(parents[0].terms_json))
    except InvalidArgumentsError:
        raise WrongStateError("the terms of the parent session do not fit the schema of the bundle") from None
