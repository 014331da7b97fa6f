# Generated from pdp/client/aio/calltokens.py by `make client`; never edited.

"""Check call tokens, and withdraw the keys that sign them."""

from __future__ import annotations

from pdp.client import operations
from pdp.client.sync.calls import Calls
from pdp.v1 import calltoken_pb2


class CallTokenCalls:
    """The calls of a client about call tokens."""

    _calls: Calls

    def get_call_token_keys(self) -> calltoken_pb2.GetCallTokenKeysResponse:
        """Return the public keys of call tokens, also as a JSON Web Key Set, and their issuer."""
        return self._calls.manage(operations.get_call_token_keys())

    def check_call_token(self, token: str, *, min_revision: str = "") -> calltoken_pb2.CheckCallTokenResponse:
        """Return whether a call token still counts, and why not. For callers with the role `broker`.

        `min_revision` is that of a `ToolCall`.
        """
        return self._calls.manage(operations.check_call_token(token, min_revision))

    def withdraw_call_token_key(self, key_id: str, *, reason: str) -> bool:
        """Withdraw a key: no call token that it has signed counts from now on. Return whether there was such a key."""
        return self._calls.manage(operations.withdraw_call_token_key(key_id, reason=reason))
