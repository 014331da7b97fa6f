"""What a message says: what agents and users wrote is left out, or is inert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pdp.messages
from pdp.messages.forms import MOST_CHARACTERS, body_of
from pdp.messages.receivers import Form
from pdp.messages.sorting import Message
from pdp.sessions.outbox import OutboxEvent, Topic
from tests.machinery.pages import blocks

PAGE = Path(pdp.messages.__file__).with_name("README.md")
EVENT = OutboxEvent(
    id="evt_1",
    topic=Topic.SESSION_REQUESTED,
    at=1000.0,
    tenant="default",
    ids=("ses_a",),
    user="ada",
    agent="coder",
    by="gateway",
    purpose="fix the build",
    ends_at=4600.0,
)
ATTACKS = (
    "<!channel> <!here> <!everyone>",
    "<@U1> <#C1> <!subteam^S1>",
    "<https://evil.example|the console>",
    "*bold* _it_ ~gone~ `code` ```block``` > quote",
    "[the console](https://evil.example)",
    "@channel @here @all",
    "&lt;!channel&gt; &amp;",
    "first\n<!channel>\r\n# second",
    "\u202eelosnoc \u200b\u2066\x1b[31m",
    ":rotating_light:",
)


def written(event: OutboxEvent, form: Form, *, purposes: bool = False, console: str = "https://c.example") -> Any:
    """Return the body of a message as a receiver reads it."""
    message = Message(id="msg_1", receiver="x", event=event)
    link = (lambda found: f"{console}/sessions/{found}") if console else (lambda _: "")
    return json.loads(body_of(message, form, link, purposes=purposes))


def texts(value: Any, kind: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of a chat message with its kind; the text above the blocks is marked up in some chats."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, value.get("type", "mrkdwn") if name == "text" else name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, kind)
    elif isinstance(value, str):
        yield kind, value


def test_json_says_what_happened() -> None:
    """By the payload that the specification recommends."""
    assert written(EVENT, Form.JSON) == {
        "type": "session.requested",
        "timestamp": "1970-01-01T00:16:40.000000Z",
        "data": {
            "count": 1,
            "ids": ["ses_a"],
            "tenant": "default",
            "user": "ada",
            "agent": "coder",
            "by": "gateway",
            "expires_at": "1970-01-01T01:16:40.000000Z",
            "link": "https://c.example/sessions/ses_a",
        },
    }


def test_the_page_shows_a_message() -> None:
    """Each of its fields is one that such a message has."""
    (shown,) = map(json.loads, blocks(PAGE, "json message"))
    data = shown["data"]
    event = replace(
        EVENT,
        at=1772357400.0,
        ids=tuple(data["ids"]),
        ends_at=1772361000.0,
        **{name: data[name] for name in ("tenant", "user", "agent", "by")},
    )

    assert shown == written(event, Form.JSON, console="https://console.example.com")


def test_a_chat_unfurls_nothing_and_links_only_to_the_console() -> None:
    """There is nothing to press that would approve."""
    said = written(EVENT, Form.CHAT)

    assert (said["unfurl_links"], said["unfurl_media"], said["mrkdwn"]) == (False, False, False)
    assert said["text"] == "A session waits for approval https://c.example/sessions/ses_a"
    assert [text for kind, text in texts(said) if kind == "mrkdwn"] == [
        said["text"],
        "<https://c.example/sessions/ses_a>",
    ]
    assert {block["type"] for block in said["blocks"]} == {"section"}


@pytest.mark.parametrize("form", Form)
def test_without_a_console_there_is_no_link(form: Form) -> None:
    """Nor a part that would hold one."""
    assert "c.example" not in json.dumps(written(EVENT, form, console=""))
    assert "https:" not in json.dumps(written(EVENT, form, console=""))


@pytest.mark.parametrize("form", Form)
def test_what_an_agent_wrote_is_left_out_unless_it_is_wanted(form: Form) -> None:
    """The purpose is the only such text that an event has."""
    assert "fix the build" not in json.dumps(written(EVENT, form))
    assert "fix the build" in json.dumps(written(EVENT, form, purposes=True))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("field", ["user", "agent", "by", "tool", "tenant", "was", "purpose"])
def test_markup_and_mentions_come_through_as_inert_text(attack: str, field: str) -> None:
    """In blocks of plain text alone, escaped, on one line; the marked-up texts are as without it."""
    innocent = written(EVENT, Form.CHAT, purposes=True)
    said = written(replace(EVENT, **{field: attack}), Form.CHAT, purposes=True)  # type: ignore[arg-type] # a text

    def marked_up(message: Any) -> list[str]:
        return [text for kind, text in texts(message) if kind == "mrkdwn"]

    assert marked_up(said) == marked_up(innocent)
    plain = [text for kind, text in texts(said) if kind == "plain_text"]
    assert not any(set(text) & set("<>\n\r\x1b\u202e\u200b") for text in plain)
    assert all(block["text"].get("emoji", False) is False for block in said["blocks"])
    assert len(said["blocks"]) - len(innocent["blocks"]) in (0, 1)


def test_a_long_text_of_others_is_cut() -> None:
    """At 200 characters, and never within an escape."""
    said = written(replace(EVENT, purpose="<" * 1000), Form.CHAT, purposes=True)
    (purpose,) = [text for kind, text in texts(said) if "Purpose" in text]

    assert purpose.partition(": ")[2] == "&lt;" * (MOST_CHARACTERS - 1) + "…"


def test_a_freeze_of_all_tenants_says_so() -> None:
    """It names no tenant that could be looked for."""
    said = written(replace(EVENT, topic=Topic.FREEZE_SET, tenant=""), Form.CHAT, console="")

    assert said["text"] == "All tenants were frozen: every call is denied"


def test_many_are_told_with_their_number_and_the_first_ids() -> None:
    """And with a link to the first."""
    many = replace(EVENT, topic=Topic.SESSION_REVOKED, count=1000, ids=tuple(f"ses_{n}" for n in range(10)))
    said = written(many, Form.CHAT)

    assert said["text"].startswith("1,000 sessions were revoked")
    assert any(text.endswith("ses_9 and 990 more") for _, text in texts(said))
    assert written(many, Form.JSON)["data"]["count"] == 1000


@pytest.mark.parametrize("topic", Topic)
@pytest.mark.parametrize("count", [1, 2])
def test_each_topic_has_its_sentence(topic: Topic, count: int) -> None:
    """For one and for many."""
    said = written(replace(EVENT, topic=topic, count=count), Form.CHAT)["text"]

    assert ("2 " in said.partition("https")[0]) == (count == 2)
