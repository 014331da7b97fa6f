"""Which messages are made of events that come together."""

from __future__ import annotations

from pathlib import Path

from pdp.messages.receivers import Form, Receiver
from pdp.messages.sorting import FEW, Earlier, Message, sorted_out
from pdp.sessions.outbox import OutboxEvent, Topic, Untold

ALL = Receiver(name="all", form=Form.CHAT, url_file=Path("x"), tenants=frozenset({"a", "b"}))
ONE = Receiver(name="one", form=Form.CHAT, url_file=Path("x"), tenants=frozenset({"b"}))


def event(name: str, topic: Topic = Topic.SESSION_REQUESTED, *, tenant: str = "a", **more: object) -> OutboxEvent:
    """Return an event about one session."""
    return OutboxEvent(**{"id": f"evt_{name}", "topic": topic, "at": 1.0, "tenant": tenant, "ids": (name,), **more})  # type: ignore[arg-type] # fields by name


def told(*events: OutboxEvent, missed: int = 0) -> list[tuple[str, str, int]]:
    """Return receiver, topic and count of each message."""
    messages = sorted_out(Untold(events, missed), (ALL, ONE), at=1.0)
    return [(one.receiver, one.event.topic.value, one.event.count) for one in messages]


def test_each_receiver_gets_what_it_wants() -> None:
    """And a gap goes to all."""
    assert told(event("x", by="p"), event("y", by="q", tenant="b"), missed=3) == [
        ("all", "session.requested", 1),
        ("all", "session.requested", 1),
        ("all", "messages.missed", 3),
        ("one", "session.requested", 1),
        ("one", "messages.missed", 3),
    ]


def test_what_one_call_did_is_one_message() -> None:
    """Although it took several transactions; what somebody else did is another one."""
    revoked = [event(f"s{n}", Topic.SESSION_REVOKED, by="lead", count=500) for n in range(2)]

    assert told(*revoked, event("z", Topic.SESSION_REVOKED, by="admin")) == [
        ("all", "session.revoked", 1000),
        ("all", "session.revoked", 1),
    ]


def test_a_burst_is_one_message_of_each_topic_and_tenant() -> None:
    """More than a few, whoever did it."""
    burst = [event(f"s{n}", by=f"gateway-{n}", at=float(n)) for n in range(FEW + 1)]

    assert told(*burst, event("other", tenant="b")) == [
        ("all", "session.requested", FEW + 1),
        ("all", "session.requested", 1),
        ("one", "session.requested", 1),
    ]


def test_what_happens_to_a_session_is_told_in_its_order() -> None:
    """Also when others are told with it."""
    burst = [event(f"s{n}") for n in range(FEW + 1)]
    story = [event("s0", topic) for topic in (Topic.SESSION_APPROVED, Topic.SESSION_REVOKED)]

    assert [topic for _, topic, _ in told(*story[:1], *burst, *story[1:])] == [
        "session.requested",
        "session.approved",
        "session.revoked",
    ]


def test_freezes_stay_in_their_order() -> None:
    """One that was set anew is told last."""
    again = [
        event(f"f{n}", topic, at=float(n))
        for n, topic in enumerate((Topic.FREEZE_SET, Topic.FREEZE_LIFTED, Topic.FREEZE_SET))
    ]

    assert [topic for _, topic, _ in told(*again)] == ["freeze.set", "freeze.lifted", "freeze.set"]


def test_messages_about_the_same_follow_each_other() -> None:
    """One about more than it names is about all of its tenant."""
    one, same, other, foreign, many = (
        Message(id=name, receiver="x", event=found)
        for name, found in {
            "1": event("s1"),
            "2": event("s1", Topic.SESSION_APPROVED),
            "3": event("s2"),
            "4": event("s1", tenant="b"),
            "5": event("s9", count=100),
        }.items()
    )

    assert Earlier([one]).hold(same)
    assert not Earlier([one]).hold(other)
    assert not Earlier([many]).hold(foreign)
    assert Earlier([many]).hold(other)
    assert Earlier([other]).hold(many)
