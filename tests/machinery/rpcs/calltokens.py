"""RPCs about call tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from pdp.calltokens.claims import encoded
from pdp.v1.calltoken_pb2 import (
    CheckCallTokenRequest,
    CheckCallTokenResponse,
    GetCallTokenKeysRequest,
    GetCallTokenKeysResponse,
    WithdrawCallTokenKeyRequest,
    WithdrawCallTokenKeyResponse,
)
from tests.machinery.rpcs.asking import BIDI
from tests.machinery.rpcs.row import ANY, READERS, RECORD, Row, Wrapped
from tests.machinery.rpcs.states import ANYHOW

_KEY: Final = "k" * 43
# Of what has the form of a token, and is signed by nobody.
_HEADER: Final = json.dumps({"alg": "Ed25519", "typ": "pdp-call+jwt", "kid": _KEY})
_TOKEN: Final = f"{encoded(_HEADER.encode())}.e30.AA"
_NO = CheckCallTokenResponse(reason="unknown_key", message="signed by a key that is not published")
_KEYS = GetCallTokenKeysResponse(issuer="https://pdp.example")

CALL_TOKENS: Mapping[str, Row] = {
    "GetCallTokenKeys": Row(
        ask=lambda _: GetCallTokenKeysRequest(),
        roles=dict.fromkeys(READERS, ANY),
        states=ANYHOW,
        wrapped=Wrapped(lambda client: client.get_call_token_keys(), GetCallTokenKeysRequest(), _KEYS, _KEYS),
        without_store="OK",
        without_bundle="OK",
    ),
    "CheckCallToken": Row(
        ask=lambda _: CheckCallTokenRequest(token=_TOKEN),
        roles={"broker": ANY},
        states=ANYHOW,
        wrong=(
            (CheckCallTokenRequest(), "token"),
            (CheckCallTokenRequest(token=_TOKEN, min_revision="x"), "min_revision"),
        ),
        wrapped=Wrapped(lambda client: client.check_call_token(_TOKEN), CheckCallTokenRequest(token=_TOKEN), _NO, _NO),
        without_store="OK",
        without_bundle="OK",
    ),
    "WithdrawCallTokenKey": Row(
        ask=lambda _: WithdrawCallTokenKeyRequest(key_id=_KEY, reason="it leaked"),
        roles={"admin": ANY},
        states=ANYHOW,
        wrong=(
            (WithdrawCallTokenKeyRequest(reason="it leaked"), "key_id"),
            (WithdrawCallTokenKeyRequest(key_id="short", reason="it leaked"), "key_id"),
            (WithdrawCallTokenKeyRequest(key_id=_KEY), "reason"),
            (WithdrawCallTokenKeyRequest(key_id=_KEY, reason=BIDI), "reason"),
            (WithdrawCallTokenKeyRequest(key_id=_KEY, reason="it leaked", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.withdraw_call_token_key(_KEY, reason="it leaked"),
            WithdrawCallTokenKeyRequest(key_id=_KEY, reason="it leaked"),
            WithdrawCallTokenKeyResponse(known=True),
            True,  # noqa: FBT003 - the result
        ),
        seen_again={"reason": {RECORD}},
        without_bundle="OK",
    ),
}
