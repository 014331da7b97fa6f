"""Call tokens and their keys: each RPC as a value."""

from __future__ import annotations

from pdp.client.operations.rpc import Method, Operation, Reply, new_request_id, unchanged
from pdp.v1 import calltoken_pb2


def get_call_token_keys() -> Operation[calltoken_pb2.GetCallTokenKeysResponse, calltoken_pb2.GetCallTokenKeysResponse]:
    """Show the public keys of call tokens."""
    return Operation(
        method=_method("GetCallTokenKeys", calltoken_pb2.GetCallTokenKeysResponse),
        request=calltoken_pb2.GetCallTokenKeysRequest(),
        read=unchanged,
    )


def check_call_token(
    token: str, min_revision: str
) -> Operation[calltoken_pb2.CheckCallTokenResponse, calltoken_pb2.CheckCallTokenResponse]:
    """Ask whether a call token still counts."""
    return Operation(
        method=_method("CheckCallToken", calltoken_pb2.CheckCallTokenResponse),
        request=calltoken_pb2.CheckCallTokenRequest(token=token, min_revision=min_revision),
        read=unchanged,
    )


def withdraw_call_token_key(key_id: str, *, reason: str) -> Operation[calltoken_pb2.WithdrawCallTokenKeyResponse, bool]:
    """Withdraw a key of call tokens."""
    return Operation(
        method=_method("WithdrawCallTokenKey", calltoken_pb2.WithdrawCallTokenKeyResponse),
        request=calltoken_pb2.WithdrawCallTokenKeyRequest(key_id=key_id, reason=reason, request_id=new_request_id()),
        read=lambda reply: reply.known,
    )


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.CallTokenService/{name}", reply=reply)
