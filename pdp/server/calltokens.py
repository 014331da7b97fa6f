"""Answers `CallTokenService`, and writes call tokens into decisions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pdp.calltokens.claims import AUDIENCE, THUMBPRINT, Presenter
from pdp.calltokens.keys import PublicCallKey, key_set
from pdp.calltokens.refusals import CallTokenRefusedError
from pdp.errors import InvalidRequestError
from pdp.limits import Limits
from pdp.registry.calltokens import CallTokens, IssuedToken, TokenRequest
from pdp.server.fields import require_text, timestamp
from pdp.server.repeats import Repeats
from pdp.server.revisions import optional_revision
from pdp.serving.origin import Origin
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import calltoken_pb2 as calltokens
from pdp.v1 import decision_pb2 as decisions

# One for the tool server, and one for what that asks in its turn.
_MOST_OF_CALL = 2


class CallTokenHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def __init__(self, tokens: CallTokens, limits: Limits) -> None:
        self._tokens = tokens
        self._repeats = Repeats(tokens.written)
        self._limits = limits

    def get_call_token_keys(
        self, _: calltokens.GetCallTokenKeysRequest, __: Origin
    ) -> calltokens.GetCallTokenKeysResponse:
        """Show the public keys."""
        keys = self._tokens.published()
        return calltokens.GetCallTokenKeysResponse(
            issuer=self._tokens.issuer,
            keys=[
                calltokens.CallTokenKey(
                    key_id=key.id,
                    public_key=key.content,
                    publish_time=timestamp(key.published_at),
                    expire_time=timestamp(key.ends_at),
                )
                for key in keys
            ],
            jwks_json=key_set({key.id: PublicCallKey(content=key.content) for key in keys}),
        )

    def check_call_token(
        self, request: calltokens.CheckCallTokenRequest, origin: Origin
    ) -> calltokens.CheckCallTokenResponse:
        """Say whether a token still counts. That it does not is an answer, and no error."""
        if not request.token:
            raise InvalidRequestError("token", "is required")
        try:
            least = optional_revision("min_revision", request.min_revision)
            session_ends_at = self._tokens.check(request.token, origin.caller, least)
        except CallTokenRefusedError as error:
            return calltokens.CheckCallTokenResponse(reason=error.reason, message=str(error))
        return calltokens.CheckCallTokenResponse(valid=True, session_expire_time=timestamp(session_ends_at))

    def withdraw_call_token_key(
        self, request: calltokens.WithdrawCallTokenKeyRequest, origin: Origin
    ) -> calltokens.WithdrawCallTokenKeyResponse:
        """Withdraw a key."""
        withdraw = partial(
            self._tokens.withdraw,
            _thumbprint("key_id", request.key_id),
            reason=require_text("reason", request.reason, self._limits.text_characters),
            caller=origin.caller,
        )
        # What is remembered is the withdrawal of a key that was there.
        known = self._repeats.once(request, origin, lambda write: withdraw(write=write), bool)
        return calltokens.WithdrawCallTokenKeyResponse(known=known)


def token_requests(request: calls.AuthorizeRequest, prefix: str = "") -> tuple[TokenRequest, ...]:
    """Return the call tokens that a PEP asks for with a call."""
    if not request.call_tokens:
        return ()
    if len(request.call_tokens) > _MOST_OF_CALL:
        raise InvalidRequestError(f"{prefix}call_tokens", f"more than {_MOST_OF_CALL}")
    return tuple(_wanted(f"{prefix}call_tokens[{index}].", one) for index, one in enumerate(request.call_tokens))


def write_tokens(tokens: Iterable[IssuedToken], message: decisions.Decision) -> None:
    """Write the tokens of a decision."""
    for one in tokens:
        written = message.call_tokens.add(audience=one.audience, token=one.token, refusal=one.refusal)
        if one.token:
            written.expire_time.CopyFrom(timestamp(one.ends_at))


def _wanted(prefix: str, request: calltokens.CallTokenRequest) -> TokenRequest:
    if not AUDIENCE.fullmatch(request.audience):
        problem = f"must match {AUDIENCE.pattern}" if request.audience else "is required"
        raise InvalidRequestError(f"{prefix}audience", problem)
    kind = request.WhichOneof("presenter")
    if kind is None:
        return TokenRequest(audience=request.audience)
    thumbprint = _thumbprint(f"{prefix}{kind}", getattr(request, kind))
    by_certificate = kind == "certificate_thumbprint"
    presenter = Presenter(certificate=thumbprint) if by_certificate else Presenter(key=thumbprint)
    return TokenRequest(audience=request.audience, presenter=presenter)


def _thumbprint(field: str, value: str) -> str:
    if not THUMBPRINT.fullmatch(value):
        raise InvalidRequestError(field, "must be a SHA-256 in base64url, 43 characters" if value else "is required")
    return value
