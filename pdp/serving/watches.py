"""Watches that hold no thread: what they send goes out when the client takes it."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from pdp.errors import PDPError
from pdp.model import Caller
from pdp.serving.transport import Outgoing


class Watch:
    """A call with many answers that are sent without waiting. One thread at a time may use it.

    `admits` says whether the caller may still make the call; `refuse` ends it with an error. `leave` is called once,
    when it is over.
    """

    def __init__(
        self,
        caller: Caller,
        outgoing: Outgoing,
        *,
        admits: Callable[[], bool],
        refuse: Callable[[PDPError], None],
        leave: Callable[[], None],
    ) -> None:
        self.caller = caller
        self._outgoing = outgoing
        self._admits = admits
        self._refuse = refuse
        self._leave = leave
        self._left = False

    @property
    def over(self) -> bool:
        """Say whether nothing more can be sent: the client has gone, or the call was refused."""
        return self._outgoing.over

    @property
    def idle(self) -> bool:
        """Say whether the client has taken all that was sent, so that the next message can be."""
        return self._outgoing.idle

    def send(self, message: Message) -> None:
        """Send a message, if the caller may still have it; otherwise the call ends. The watch must be idle."""
        if self._admits():
            self._outgoing.send(message.SerializeToString())

    def end(self, error: PDPError) -> None:
        """End the call with an error, which a client that does not read never gets."""
        if self.idle and not self.over:
            self._refuse(error)
        elif not self.over:
            self._outgoing.cancel()

    def close(self) -> None:
        """Count the call no longer. Harmless when repeated."""
        if not self._left:
            self._left = True
            self._leave()
