"""Make messages of events: each receiver gets what it wants, and a burst is one message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from pdp.foundation.ids import new_event_id, new_message_id
from pdp.messages.receivers import Receiver
from pdp.sessions.outbox import OutboxEvent, Topic, Untold, joined

# More events of a topic in a tenant that come together are told together.
FEW: Final = 5
# A freeze is set anew only after it was lifted, so these stay in the order of their events.
_FREEZES: Final = (Topic.FREEZE_SET, Topic.FREEZE_LIFT_CONFIRMED, Topic.FREEZE_LIFTED)
_ORDER: Final = {topic: place for place, topic in enumerate(Topic)} | dict.fromkeys(_FREEZES, len(Topic))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one receiver is told in one request. The `id` is the same in each attempt."""

    id: str
    receiver: str
    event: OutboxEvent


class Earlier:
    """Messages of one receiver that wait: what may be about a session or request of one of them goes after it.

    A message about many names only the first of them, so it counts as about all of its tenant.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        # By tenant, what they name; None when one of them is about more than it names.
        self._named: dict[str, set[str] | None] = {}
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        """Have one more wait."""
        event = message.event
        named = self._named.setdefault(event.tenant, set())
        if _names_all(event) and named is not None:
            named.update(event.ids)
        else:
            self._named[event.tenant] = None

    def hold(self, message: Message) -> bool:
        """Say whether a later message must follow one of these."""
        event = message.event
        if event.tenant not in self._named:
            return False
        named = self._named[event.tenant]
        return named is None or not _names_all(event) or not named.isdisjoint(event.ids)


def sorted_out(untold: Untold, receivers: Iterable[Receiver], *, at: float) -> list[Message]:
    """Return the messages for events that came together; `at` is the present time, unix seconds."""
    missed = (_missed(untold.missed, at),) if untold.missed else ()
    found = []
    for receiver in receivers:
        wanted = [event for event in (*untold.events, *missed) if receiver.wants(event)]
        found += [_message(receiver.name, event) for event in _bundled(wanted)]
    return found


def burst_from(first: Message, later: Iterable[Message], *, others: Earlier) -> tuple[Message, ...]:
    """Return the later messages that are told with the first, if these are more than a few: of the same burst.

    `later` are in order, and `others` wait before them and are told apart; those of `later` that are told apart, too,
    are added to these. None is told before what it must follow.
    """
    found = [first]
    for message in later:
        of_burst = _subject(message.event) == _subject(first.event)
        if of_burst and not others.hold(message):
            found.append(message)
        else:
            others.add(message)
    return tuple(found[1:]) if len(found) > FEW else ()


def told_together(messages: Sequence[Message]) -> Message:
    """Return one new message for several to the same receiver."""
    return _message(messages[0].receiver, reduce(joined, [one.event for one in messages]))


def _message(receiver: str, event: OutboxEvent) -> Message:
    # Each receiver knows only its own ids.
    return Message(id=new_message_id(), receiver=receiver, event=event)


def _bundled(events: Sequence[OutboxEvent]) -> list[OutboxEvent]:
    """Return the events with one for each burst: what one call did, or more than a few of a topic in a tenant."""
    sizes = Counter(map(_subject, events))
    groups: dict[tuple[object, ...], list[OutboxEvent]] = {}
    for event in events:
        burst = sizes[_subject(event)] > FEW
        key = _subject(event) if burst else (*_subject(event), event.by, event.at)
        groups.setdefault(key, []).append(event)
    bundled = [reduce(joined, group) for group in groups.values()]
    # INVARIANT: what happens to one session is in the order of the topics, see `Topic`.
    return sorted(bundled, key=lambda event: _ORDER[event.topic])


def _names_all(event: OutboxEvent) -> bool:
    return event.count <= len(event.ids)


def _subject(event: OutboxEvent) -> tuple[str, str, str]:
    return event.topic, event.tenant, event.was


def _missed(count: int, at: float) -> OutboxEvent:
    return OutboxEvent(id=new_event_id(), topic=Topic.MESSAGES_MISSED, at=at, count=count)
