"""Get tokens from a provider by the grants of OAuth 2.0. What comes and is not as wanted is ended there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from typing import Final

from pdp.broker.oauth.answers import (
    ACCESS_TOKEN_TYPE,
    Granted,
    exchanged,
    granted,
    refusal,
    require_scopes,
    tokens_in,
)
from pdp.broker.oauth.asking import GOOD, PATIENT_SECONDS, ask
from pdp.broker.oauth.ending import refused_ones_ended
from pdp.broker.words import NeedsPersonError, Secret, TokenRefusedError, TokenSource
from pdp.foundation.egress import Roots

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"


def ask_for_token(source: TokenSource, secret: Secret, scopes: Collection[str], roots: Roots) -> Granted:
    """Return an access token of the client itself with these scopes (RFC 6749, section 4.4).

    Raise `TokenRefusedError` or `TokensUnavailableError`. Their messages continue after a name of the provider.
    """
    form = {"grant_type": "client_credentials", **_about(source)}
    if scopes:
        form["scope"] = " ".join(scopes)
    status, answer = ask(source.endpoint, source, secret, form, roots)
    if status != GOOD:
        raise TokenRefusedError(f"it answers `{refusal(answer) or status}`")
    return _taken(source, secret, answer, roots, scopes=scopes)


def refresh(source: TokenSource, secret: Secret, token: Secret, scopes: Collection[str], roots: Roots) -> Granted:
    """Return what a refresh token is exchanged for (RFC 6749, section 6), with the same scopes.

    Raise `NeedsPersonError` when the refresh token counts no longer, or was used up for nothing; `AnswerLostError` when
    nobody knows whether it was; and otherwise what `ask_for_token` raises, when it was not.
    """
    form = {"grant_type": "refresh_token", "refresh_token": token.reveal().decode(), **_about(source)}
    status, answer = ask(source.endpoint, source, secret, form, roots, seconds=PATIENT_SECONDS)
    if status != GOOD:
        code = refusal(answer)
        kind = NeedsPersonError if code == "invalid_grant" else TokenRefusedError
        raise kind(f"it answers `{code or status}`")
    try:
        return _taken(source, secret, answer, roots, scopes=scopes, former=token)
    except TokenRefusedError as error:
        raise NeedsPersonError(str(error)) from None


def exchange_code(
    source: TokenSource, secret: Secret, code: str, verifier: str, redirect: str, roots: Roots
) -> Granted:
    """Return what a code is exchanged for (RFC 6749, section 4.1.3; RFC 7636). Raise what `ask_for_token` raises.

    Never call it twice with one code: providers then end the tokens that they gave for it first.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect,
        **_about(source),
    }
    status, answer = ask(source.endpoint, source, secret, form, roots, seconds=PATIENT_SECONDS)
    if status != GOOD:
        raise TokenRefusedError(f"it answers `{refusal(answer) or status}`")
    return _taken(source, secret, answer, roots)


def exchange(source: TokenSource, secret: Secret, subject: Secret, scopes: Collection[str], roots: Roots) -> Granted:
    """Return a token with these scopes for an access token that has more (RFC 8693). Raise what `ask_for_token` raises.

    It is for the audience and the resource of the source, and for nothing else.
    """
    known = {} if source.exchange is None else asdict(source.exchange)
    form = {
        "grant_type": _EXCHANGE,
        "subject_token": subject.reveal().decode(),
        "subject_token_type": ACCESS_TOKEN_TYPE,
        "requested_token_type": ACCESS_TOKEN_TYPE,
        "scope": " ".join(scopes),
        **{name: value for name, value in known.items() if value},
    }
    status, answer = ask(source.endpoint, source, secret, form, roots)
    if status != GOOD:
        raise TokenRefusedError(f"it answers `{refusal(answer) or status}`")
    read = partial(exchanged, subject=subject)
    return _taken(source, secret, answer, roots, read=read, scopes=scopes, former=subject)


def _taken(
    source: TokenSource,
    secret: Secret,
    answer: bytes,
    roots: Roots,
    *,
    read: Callable[[bytes], Granted] = granted,
    scopes: Collection[str] | None = None,
    former: Secret | None = None,
) -> Granted:
    """Return what an answer grants, with exactly these scopes, if any are named. Raise `TokenRefusedError`.

    `former` is the token that was sent, which the provider may give again.
    """
    tokens = {hint: one for hint, one in tokens_in(answer).items() if former is None or one.reveal() != former.reveal()}
    with refused_ones_ended(source, secret, tokens, roots):
        got = read(answer)
        if scopes is not None:
            require_scopes(got, scopes)
    return got


def _about(source: TokenSource) -> dict[str, str]:
    return {"resource": source.resource} if source.resource else {}
