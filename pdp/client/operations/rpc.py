"""An RPC as a value, and a call of one. What every subject's operations are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

# A report names its decision, of which there is one.
_READING = ("Get", "List", "Plan", "Review", "Explain", "ReportOutcome", "CheckCallToken")

_ENDING = (
    "RevokeSessions",
    "DenySession",
    "NarrowSession",
    "EndSession",
    "DenyCall",
    "RevokeAccess",
    "SetFreeze",
    "ListFreezes",
    "ActivateBundle",
    "ReloadBundle",
    "WithdrawCallTokenKey",
)

Reply = TypeVar("Reply", bound=Message)
Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[Reply]):
    """One RPC: its path and the type of its answer."""

    path: str
    reply: type[Reply]

    @property
    def ends_authority(self) -> bool:
        """Say whether the RPC is served at the control address too."""
        return self.path.rpartition("/")[2] in _ENDING

    def unary(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable for the RPC on a channel of either transport."""
        return channel.unary_unary(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def upload(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable for the RPC with several messages."""
        return channel.stream_unary(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def feed(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable that asks once for many messages."""
        return channel.unary_stream(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def stream(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable that opens the RPC as a stream both ways."""
        return channel.stream_stream(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Reply, Result]):
    """One management call: an RPC, its request, and the part of its reply that the caller wants.

    A request of several messages is an upload. `metadata` is sent beside the client's own.
    """

    method: Method[Reply]
    request: Message | tuple[Message, ...] = field(repr=False)
    read: Callable[[Reply], Result]
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def on(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return a callable that makes the call on a channel, any number of times."""
        if isinstance(self.request, Message):
            return partial(self.method.unary(channel), self.request)
        # A new iterator each time: gRPC reads it to its end.
        call, messages = self.method.upload(channel), self.request
        return lambda **options: call(iter(messages), **options)

    @property
    def repeatable(self) -> bool:
        """Say whether a repeated call changes nothing more: it reads, or is told by its request id."""
        reads = self.method.path.rpartition("/")[2].startswith(_READING)
        return reads or self.told_by_id or bool(getattr(self.request, "validate_only", False))

    @property
    def told_by_id(self) -> bool:
        """Say whether the server tells a repeated call by its request id, and answers it like the first."""
        return bool(getattr(self.request, "request_id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A part of a long list, and the token of the next part; empty at the end."""

    items: Sequence[Item]
    next_token: str


def new_request_id() -> str:
    """Return an id under which one change is asked for, as often as it takes."""
    return uuid4().hex


def unchanged(reply: Reply) -> Reply:
    """Return a reply whose caller wants all of it."""
    return reply


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
