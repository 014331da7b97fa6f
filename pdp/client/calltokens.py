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
from pdp.client.sync.client import Client


def fetch_keys(client: Client) -> Callable[[], Mapping[str, PublicCallKey]]:
    """Return what fetches the published keys, for `PublishedKeys`."""
    return lambda: keys_of(client.get_call_token_keys().jwks_json)


def live_check(client: Client) -> LiveCheck:
    """Return what asks the server whether a token still counts, for a `Verifier`."""

    def check(token: str, _: CallClaims) -> None:
        answer = client.check_call_token(token)
        if not answer.valid:
            known = answer.reason in {one.value for one in Reason}
            reason = Reason(answer.reason) if known else Reason.REVOKED
            raise CallTokenRefusedError(reason, answer.message or "it no longer counts")

    return check
