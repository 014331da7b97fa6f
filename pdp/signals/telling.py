"""Tell people, where they work, that signals are held: each receiver of messages once, until it has taken it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pdp.errors import PDPError
from pdp.foundation.ids import new_event_id, new_message_id
from pdp.messages.receivers import Receiver
from pdp.messages.sending import Post, pause_after
from pdp.messages.sorting import Message
from pdp.sessions.outbox import FIRST_IDS, OutboxEvent, Topic
from pdp.signals.store import SignalStore
from pdp.signals.words import Signal

_LOG = logging.getLogger("pdp.signals")

# More are told in the next message.
_MOST: Final = 1_000


@dataclass(slots=True)
class _Waiting:
    """A message that its receiver has not taken: it keeps its id. It is sent again at a time in unix seconds."""

    message: Message
    signal_ids: tuple[str, ...]
    failures: int = 0
    again_at: float = 0.0


class Teller:
    """Tells receivers of held signals in the tenants that they want. For one thread, except `close`.

    The store has who was told of what, so nobody is told twice but after a sudden end. `wall` returns unix seconds.
    """

    def __init__(self, receivers: Sequence[Receiver], *, store: SignalStore, wall: Callable[[], float]) -> None:
        self._receivers = tuple(one for one in receivers if Topic.SIGNAL_HELD in one.events)
        self._posts = {one.name: Post(one, link_to=lambda _: "", purposes=False) for one in self._receivers}
        self._waiting: dict[str, _Waiting] = {}
        self._store, self._wall = store, wall

    def run(self) -> None:
        """Tell what was not told. A receiver that does not take it is asked again later. Never raises."""
        for receiver in self._receivers:
            try:
                self._tell(receiver)
            except PDPError as error:
                _LOG.warning("who must be told of held signals is not known now: %s", error)
            except Exception:  # noqa: BLE001 - the thread must go on
                _LOG.exception("a held signal could not be told")

    def close(self) -> None:
        """End a running attempt."""
        for post in self._posts.values():
            post.close()

    def _tell(self, receiver: Receiver) -> None:
        waiting = self._waiting.get(receiver.name) or self._next(receiver)
        if waiting is None or waiting.again_at > self._wall():
            return
        attempt = self._posts[receiver.name].attempt(waiting.message, at=self._wall())
        if not attempt.problem:
            self._waiting.pop(receiver.name, None)
            self._store.note_told(receiver.name, waiting.signal_ids)
            return
        waiting.failures += 1
        waiting.again_at = self._wall() + max(pause_after(waiting.failures), attempt.pause_seconds)
        self._waiting[receiver.name] = waiting
        _LOG.warning("`%s` was not told of a held signal, and will be: %s", receiver.name, attempt.problem)

    def _next(self, receiver: Receiver) -> _Waiting | None:
        """Return the message about what was not told: the signals of one sender in one tenant."""
        found = self._store.untold(receiver.name, receiver.tenants, limit=_MOST)
        wanted = [(_tenant(one, receiver), one) for one in found]
        if not wanted:
            return None
        tenant, first = wanted[0]
        ids = tuple(one.id for its, one in wanted if (its, one.transmitter) == (tenant, first.transmitter))
        event = OutboxEvent(
            id=new_event_id(),
            topic=Topic.SIGNAL_HELD,
            at=first.received_at,
            tenant=tenant,
            count=len(ids),
            ids=ids[:FIRST_IDS],
            by=first.transmitter,
        )
        return _Waiting(Message(id=new_message_id(), receiver=receiver.name, event=event), ids)


def _tenant(signal: Signal, receiver: Receiver) -> str:
    """Return the first tenant of a signal of which a receiver is told."""
    return next(one.tenant for one in signal.targets if one.tenant in receiver.tenants)
