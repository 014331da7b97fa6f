"""Contain a secret that leaked: have its broker replace it, and say what a person must do and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.broker.v1 import secret_pb2 as messages
from pdp.cli.audit.leaked import Leaked
from pdp.cli.audit.source import Reach
from pdp.cli.broker import BrokerOptions
from pdp.cli.connection import token_of
from pdp.cli.output import moment_text
from pdp.client import PDPClientError
from pdp.model import Role
from pdp.record.secretuses import SecretTrail

_WORDS: Final = {
    messages.REPLACEMENT_REPLACED: "replaced",
    messages.REPLACEMENT_DISCONNECTED: "disconnected",
    messages.REPLACEMENT_EXPIRES: "disconnected, which its provider does not confirm",
    messages.REPLACEMENT_FAILED: "no longer used, and its provider was not reached",
    messages.REPLACEMENT_FORMER: "replaced before",
    messages.REPLACEMENT_BY_HAND: "not replaced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contained:
    """What a broker did about a secret, in a word; what it ended; what is good still; and what a person must do.

    `problem` says why the broker did nothing.
    """

    secret: str = ""
    ended: int = 0
    left: tuple[str, ...] = ()
    to_do: tuple[str, ...] = ()
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Say whether nothing is left that a person must do or wait for."""
        return not (self.problem or self.left or self.to_do)

    @property
    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "secret": self.secret,
            "credentials_ended": self.ended,
            "credentials_left": list(self.left),
            "to_do": list(self.to_do),
            "problem": self.problem,
        }

    @property
    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        if self.secret:
            yield f"the secret is {self.secret}; credentials ended: {self.ended}"
        if self.problem:
            yield f"the broker did nothing: {self.problem}"
        yield from (f"still good: {one}" for one in self.left)
        yield from (f"to do: {one}" for one in self.to_do)


def contained(leaked: Leaked, broker: BrokerOptions, reach: Reach) -> Contained:
    """Have the broker do what it can, as the approver, and return what was done. Never raises for a broker's no."""
    if broker.broker_address is None:
        return Contained(to_do=_by_operator(leaked.connection))
    token_file = reach.connection.token_file or token_of(Role.APPROVER, reach.settings)
    try:
        done = asyncio.run(_replaced(leaked, broker, token_file))
    except PDPClientError as error:
        return Contained(problem=str(error), to_do=_by_operator(leaked.connection))
    return Contained(
        secret=_WORDS[done.replacement],
        ended=done.ended_count,
        left=tuple(_left(one) for one in done.left),
        to_do=tuple(_to_do(leaked, done)),
    )


async def _replaced(leaked: Leaked, broker: BrokerOptions, token_file: str | Path) -> messages.ReplaceSecretResponse:
    async with broker.client(token_file=token_file) as client:
        return await client.replace_secret(leaked.connection, version=leaked.version)


def lost_lines(trail: SecretTrail) -> Iterator[str]:
    """Yield for people what nobody can take back."""
    yield f"cannot be taken back: {trail.requests} requests that were sent with it"
    yield f"cannot be taken back: {trail.answers} answers, of which {trail.answer_bytes} bytes were handed on"
    yield f"cannot be taken back: what was done with {trail.credentials} credentials that were handed out"


def lost_object(trail: SecretTrail) -> dict[str, int]:
    """Return the same for JSON."""
    return {
        "requests": trail.requests,
        "answers": trail.answers,
        "answer_bytes": trail.answer_bytes,
        "credentials": trail.credentials,
    }


def _by_operator(connection: str) -> tuple[str, ...]:
    return (
        f"end what was handed out: `pdp-broker checkout revoke --connection {connection}`",
        f"replace the secret: `pdp-broker secret rotate {connection}`, for a database with `--generate`",
        f"or, for an account of a person: `pdp-broker connection disconnect {connection}`",
    )


def _to_do(leaked: Leaked, done: messages.ReplaceSecretResponse) -> Iterator[str]:
    name = leaked.connection
    if done.replacement == messages.REPLACEMENT_BY_HAND:
        yield f"end it where it was issued, get another one there, and store that: `pdp-broker secret rotate {name}`"
    elif done.replacement == messages.REPLACEMENT_FORMER:
        yield f"see that version {leaked.version} was ended where it was issued; version {done.version} is in its place"
    elif done.replacement == messages.REPLACEMENT_FAILED:
        yield f"have its provider told: `pdp-broker connection disconnect {name}`"
    elif done.replacement == messages.REPLACEMENT_EXPIRES:
        until = _until(done)
        end = f"may be good until {until}" if until else "has no known end"
        yield f"end it at its provider: its access token {end}"


def _left(one: messages.CredentialLeft) -> str:
    until = f" until {_until(one)}" if one.HasField("expire_time") else ""
    return f"`{one.checkout_id}` of `{one.session_id}`{until}{f': {one.problem}' if one.problem else ''}"


def _until(one: messages.CredentialLeft | messages.ReplaceSecretResponse) -> str:
    return moment_text(one.expire_time.ToMicroseconds() / 1e6) if one.HasField("expire_time") else ""
