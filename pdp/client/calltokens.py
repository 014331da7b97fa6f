"""What a verifier of call tokens asks the server: its keys, and whether a token still counts.

    keys, live = PublishedKeys(fetch_keys(client)), live_check(client)

The client has the role `broker`, and a short `management_timeout`: a check that takes longer is a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pdp.calltokens.claims import CallClaims
from pdp.calltokens.keys import PublicCallKey, keys_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import LiveCheck
from pdp.client.errors import PDPClientError
from pdp.client.sync.client import Client
from pdp.v1 import calltoken_pb2


def fetch_keys(client: Client) -> Callable[[], Mapping[str, PublicCallKey]]:
    """Return what fetches the published keys, for `PublishedKeys`."""
    return lambda: keys_of(client.get_call_token_keys().jwks_json)


def live_check(
    client: Client, heard: Callable[[], str] = str, lives_until: Callable[[str, float], object] | None = None
) -> LiveCheck:
    """Return what asks the server whether a token still counts, for a `Verifier`.

    `heard` returns a revision that the answer must know, such as the latest one of a feed of sessions; empty for none.
    `lives_until` is told of a token that counts until when its session can live at most, in unix seconds.
    """

    def check(token: str, claims: CallClaims) -> None:
        answer = client.check_call_token(token, min_revision=heard())
        require_valid(answer)
        if lives_until is not None and answer.HasField("session_expire_time"):
            lives_until(claims.session_id, answer.session_expire_time.ToMicroseconds() / 1e6)

    return check


def session_end(client: Client) -> Callable[[str], float]:
    """Return what asks until when the session of a token can live at most, in unix seconds.

    It raises `CallTokenRefusedError` for a token that does not count, and when the server does not answer.
    """

    def end(token: str) -> float:
        try:
            answer = client.check_call_token(token)
        except PDPClientError:
            raise CallTokenRefusedError(Reason.UNAVAILABLE, "the live check does not answer") from None
        require_valid(answer)
        if not answer.HasField("session_expire_time"):
            raise CallTokenRefusedError(Reason.UNAVAILABLE, "the server does not say when sessions end: upgrade it")
        return answer.session_expire_time.ToMicroseconds() / 1e6

    return end


def require_valid(answer: calltoken_pb2.CheckCallTokenResponse) -> None:
    """Raise `CallTokenRefusedError` unless the server says that a token counts."""
    if not answer.valid:
        known = answer.reason in {one.value for one in Reason}
        reason = Reason(answer.reason) if known else Reason.REVOKED
        raise CallTokenRefusedError(reason, answer.message or "it no longer counts")
