"""The call token that a door attaches to a call, for the server behind it: the model never sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pdp.client import Answer, CallTokenRequest, ToolCall
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.sync.admitted import AdmittedCall
from pdp.doors import refusals
from pdp.doors.observing import NotMadeError

_LOG = logging.getLogger(__name__)

_PRESENT: ContextVar[str] = ContextVar("pdp_call_token", default="")


class NoCallTokenError(NotMadeError):
    """The server has allowed a call and gives no call token for it, without which this door makes none."""

    def __init__(self, answer: Answer, why: str) -> None:
        super().__init__(refusals.without_call_token(answer, why))
        self.answer = answer


def wanted_by(audience: str, *, certificate_thumbprint: str = "") -> CallTokenRequest | None:
    """Return the token to ask for with each call; None where there is no audience.

    Without the thumbprint of a certificate, only a process on the tool server's machine can present it.
    """
    if not audience:
        return None
    return CallTokenRequest(audience=audience, certificate_thumbprint=certificate_thumbprint)


def token_of(answer: Answer, call: ToolCall) -> str:
    """Return the call token of an allowed call; empty where it wants none.

    Raise `NoCallTokenError` when there is none: then the call must not be made.
    """
    if not call.call_tokens:
        return ""
    (wanted,) = call.call_tokens
    found = [one for one in answer.call_tokens if one.audience == wanted.audience]
    if len(found) == 1 and found[0].token:
        return found[0].token
    why = found[0].refusal if found else "the server knows nothing of call tokens"
    _LOG.warning("a call that was allowed is not made, because there is no call token for it: %s", why)
    raise NoCallTokenError(answer, why)


def call_token() -> str:
    """Return the call token of the call whose tool runs here; empty outside of one, and where its door attaches none.

    It is a secret, for the one request that the tool makes, in the header `pdp-call-token`.
    """
    return _PRESENT.get()


@contextmanager
def attached(token: str) -> Iterator[None]:
    """Have `call_token` return a token in the block, in this task or thread and what it starts."""
    former = _PRESENT.set(token)
    try:
        yield
    finally:
        _PRESENT.reset(former)


def token_of_waiting(admitted: AdmittedCall, call: ToolCall) -> str:
    """Do what `token_of_admitted` does, and wait for it."""
    try:
        return token_of(admitted.answer, call)
    except NoCallTokenError:
        admitted.failed()
        raise


async def token_of_admitted(admitted: AsyncAdmittedCall, call: ToolCall) -> str:
    """Do what `token_of` does for a call whose result the door will see, and report it as failed without a token."""
    try:
        return token_of(admitted.answer, call)
    except NoCallTokenError:
        # The server has allowed a call that will not be made.
        await admitted.failed()
        raise
