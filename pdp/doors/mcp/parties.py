"""Who speaks with the proxy over HTTP: the session of the PDP of a client, and what it does at each server."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias
from weakref import WeakValueDictionary

from pdp.client import PDPClientError
from pdp.doors.mcp.conversations import Conversation
from pdp.doors.mcp.load import Load
from pdp.doors.mcp.messages import MessageId
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.session import DoorSession

# Of one session of the PDP: its sessions of MCP at one server.
MOST_CONVERSATIONS = 16
# Of one session of MCP: requests that its server may still answer, though nobody waits any more.
MOST_GIVEN_UP = 1024
# How long a session is taken for one that lives; calls are asked about each time.
_LIVELY_SECONDS = 3.0
_LOOK_SECONDS = 2.0

# Returns the conversation of a session of MCP, by its id, in a session of the PDP, whose messages are a part of a load.
ConversationOf: TypeAlias = Callable[[DoorSession, Load, str], Conversation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server as clients find it: its name, what access tokens must be for, and how conversations with it begin.

    `holders` has the party of each session of MCP, by its id.
    """

    server: str
    conversation_of: ConversationOf
    resource: ProtectedResource | None = None
    holders: WeakValueDictionary[str, Party] = field(default_factory=WeakValueDictionary)


class Visitor:
    """One session of the PDP, at all servers: `load` are its requests without an answer, and its messages."""

    def __init__(self, session: DoorSession, load: Load) -> None:
        self.session = session
        self.load = load
        self.lively_until = 0.0
        self._parties: dict[str, Party] = {}

    def at(self, place: Place) -> Party:
        """Return what the session does at one server."""
        if place.server not in self._parties:
            self._parties[place.server] = Party(self, place)
        return self._parties[place.server]


class Party:
    """One session of the PDP at one server, and its conversations."""

    def __init__(self, visitor: Visitor, place: Place) -> None:
        self.visitor = visitor
        self.session = visitor.session
        self._make = partial(place.conversation_of, visitor.session, visitor.load)
        self._holders = place.holders
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self.plain = self._make("")

    def begin(self, mcp_session: str) -> None:
        """Take up a session of MCP that the server has begun for this party, or begins again by the same id.

        INVARIANT: a session of MCP is of one party. A server that was restarted can give the id of another one anew.
        """
        before = self._holders.get(mcp_session)
        if before is not None and before is not self:
            before.end(mcp_session, now=True)
        self._holders[mcp_session] = self
        self._conversations.setdefault(mcp_session, self._make(mcp_session))
        while len(self._conversations) > MOST_CONVERSATIONS:
            self.end(next(iter(self._conversations)))

    def conversation(self, mcp_session: str) -> Conversation | None:
        """Return the conversation of a session of MCP; None for one that is not this party's, or no longer."""
        if not mcp_session:
            return self.plain
        if mcp_session in self._conversations:
            self._conversations.move_to_end(mcp_session)
        return self._conversations.get(mcp_session)

    def give_up(self, conversation: Conversation, message_id: MessageId) -> None:
        """Keep the id of a request that the server may still answer. Beyond a bound the session of MCP is over."""
        conversation.given_up.add(str(message_id))
        if len(conversation.given_up) >= MOST_GIVEN_UP:
            self.leave(conversation)

    def leave(self, conversation: Conversation) -> None:
        """Forget a session of MCP, and not the next one that has its id."""
        if self._conversations.get(conversation.mcp_session) is conversation:
            self.end(conversation.mcp_session)

    def end(self, mcp_session: str, *, now: bool = False) -> None:
        """Forget a session of MCP; when `now`, end what is open in it, too."""
        ended = self._conversations.pop(mcp_session, None)
        if self._holders.get(mcp_session) is self:
            del self._holders[mcp_session]
        if ended is not None and now:
            ended.end()

    async def lives(self) -> bool:
        """Say whether the session lives. Raise `PDPClientError` when the PDP does not say.

        What it has said is believed for a moment.
        """
        return time.monotonic() < self.visitor.lively_until or await self.seen() is not None

    async def seen(self) -> Mapping[str, str] | None:
        """Return the tools that the session can see, each with the digest of its approved definition.

        None when it is over. Raise `PDPClientError` as `lives`.
        """
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                seen = await self.plain.gate.seen()
        except TimeoutError:
            raise PDPClientError("the policy decision point does not answer in time") from None
        self.visitor.lively_until = 0.0 if seen is None else time.monotonic() + _LIVELY_SECONDS
        return seen
