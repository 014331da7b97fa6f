"""What the record is to say of a change comes out of the store as it went in."""

from __future__ import annotations

import pytest

from pdp.errors import StoreUnavailableError
from pdp.observer import Event, EventKind
from pdp.sessions.unrecorded import events_from, events_text

APPROVED = Event(
    kind=EventKind.SESSION_APPROVED,
    at=1000.25,
    caller_id="lead",
    session_id="ses_1",
    user="ada",
    agent="coder",
    tenant="default",
    facts={"reason": "ünusual"},
    lists={"tools": ("notes/read", "notes/write")},
    attributes={"level": 3, "teams": ["a"]},
    terms={"amount": "1.50"},
)


def test_events_come_back_as_they_were() -> None:
    """With all that their lines hold: a line is looked for byte by byte."""
    events = (APPROVED, Event(kind=EventKind.FREEZE_SET, at=2.0))

    assert events == events_from(events_text(events))


@pytest.mark.parametrize("text", ["", "[1]", '[{"kind":"unheard of"}]', '[{"kind":"freeze.set","lists":{}}]'])
def test_a_damaged_text_is_no_event(text: str) -> None:
    """The error quotes nothing of it."""
    with pytest.raises(StoreUnavailableError, match=r"^a stored event is damaged$"):
        events_from(text)
