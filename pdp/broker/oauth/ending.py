"""End tokens at their provider (RFC 7009), and say only what the provider proves (RFC 7662).

An answer of 200 proves nothing: servers must give it for tokens that they do not know, and many do for tokens that they
cannot end. Neither does `active: false`, unless the provider said `active: true` of the same token before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from pdp.broker.oauth.answers import is_active, refusal
from pdp.broker.oauth.asking import GOOD, ask
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.words import Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.errors import PDPError
from pdp.foundation.egress import Roots

_LOG: Final = logging.getLogger("pdp.broker")
_CANNOT = "unsupported_token_type"


def is_known(source: TokenSource, secret: Secret, token: Secret, roots: Roots) -> bool:
    """Say whether the provider says of a token that it is active, so that it can say later that it is not."""
    if not source.introspection:
        return False
    try:
        return _active(source, secret, token, roots) is True
    except (TokenRefusedError, TokensUnavailableError):
        return False


def end_token(
    source: TokenSource, secret: Secret, token: Secret, roots: Roots, *, known: bool, hint: str = "access_token"
) -> bool:
    """End a token. Say whether the provider proves that it has ended; if not, it may be good until its own end.

    `known` is what `is_known` said of it, and `hint` its kind in the words of RFC 7009. Raise `TokenRefusedError` and
    `TokensUnavailableError`, whose messages continue after a name of the provider: then try again.
    """
    if not source.revocation:
        return False
    form = {"token": token.reveal().decode(), "token_type_hint": hint}
    status, answer = ask(source.revocation, source, secret, form, roots)
    if status != GOOD:
        code = refusal(answer)
        if code == _CANNOT:
            return False
        raise TokenRefusedError(f"it answers `{code or status}`")
    return known and _active(source, secret, token, roots) is False


def end_pair(source: TokenSource, secret: Secret, pair: TokenPair, roots: Roots) -> bool:
    """End the tokens of a person. Say whether the provider proves that all of them have ended.

    Raise what `end_token` raises, and `TokenRefusedError` also when the provider still takes the refresh token, which
    has no end that would come.
    """
    # The access token last: some providers end the whole consent with it.
    tokens = {"refresh_token": pair.refresh, "access_token": pair.access}
    held = {hint: token for hint, token in tokens.items() if token is not None}
    known = {hint: is_known(source, secret, token, roots) for hint, token in held.items()}
    over = {hint: end_token(source, secret, token, roots, known=known[hint], hint=hint) for hint, token in held.items()}
    if known.get("refresh_token") and not over["refresh_token"]:
        raise TokenRefusedError("it still takes the refresh token")
    return all(over.values())


@contextmanager
def refused_ones_ended(
    source: TokenSource, secret: Secret, tokens: Mapping[str, Secret], roots: Roots
) -> Iterator[None]:
    """End tokens, by their kinds, when the block refuses them: they were granted, and nobody will have them.

    What cannot be ended at once is logged, and given up.
    """
    try:
        yield
    except PDPError:
        for hint, token in tokens.items():
            try:
                end_token(source, secret, token, roots, known=False, hint=hint)
            except (TokenRefusedError, TokensUnavailableError) as error:
                _LOG.warning("`%s` gave tokens that are refused, and cannot end them: %s", source.host, error)
                break
        raise


def _active(source: TokenSource, secret: Secret, token: Secret, roots: Roots) -> bool | None:
    status, answer = ask(source.introspection, source, secret, {"token": token.reveal().decode()}, roots)
    if status != GOOD:
        raise TokenRefusedError(f"it answers `{refusal(answer) or status}`")
    return is_active(answer)
