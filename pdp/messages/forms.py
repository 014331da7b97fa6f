"""Write a message: as signed JSON of our own, or as the JSON of Slack and compatible chats.

What others wrote (ids of users, agents and callers, tools, purposes) is never part of marked-up text. In a chat it is
in blocks of plain text alone, with `&`, `<` and `>` escaped and its length bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from pdp.clock import utc_text
from pdp.foundation.printable import visible
from pdp.messages.receivers import Form
from pdp.messages.sorting import Message
from pdp.sessions.outbox import OutboxEvent, Topic

# The most that is shown of one text that others wrote.
MOST_CHARACTERS: Final = 200

# Returns where a person finds a session or an access request, by its id; empty without a console.
LinkTo = Callable[[str], str]

# What happened to one, and to many: words of our own, so they may be in any text.
_SENTENCES: Final[Mapping[Topic, tuple[str, str]]] = MappingProxyType(
    {
        Topic.SESSION_REQUESTED: ("A session waits for approval", "{} sessions wait for approval"),
        Topic.SESSION_APPROVED: ("A session was approved", "{} sessions were approved"),
        Topic.SESSION_DENIED: ("A session was denied", "{} sessions were denied"),
        Topic.SESSION_REVOKED: ("A session was revoked", "{} sessions were revoked"),
        Topic.SESSION_EXPIRED: ("A session expired", "{} sessions expired"),
        Topic.ACCESS_REQUESTED: ("A call waits for approval", "{} calls wait for approval"),
        Topic.ACCESS_APPROVED: ("A call was approved", "{} calls were approved"),
        Topic.ACCESS_DENIED: ("A call was denied", "{} calls were denied"),
        Topic.ACCESS_REVOKED: ("The approval of a call was revoked", "The approvals of {} calls were revoked"),
        Topic.ACCESS_EXPIRED: ("The request for a call expired", "The requests for {} calls expired"),
        Topic.FREEZE_SET: ("A tenant was frozen: its calls are denied", "{} tenants were frozen"),
        Topic.FREEZE_LIFT_CONFIRMED: ("A freeze waits for the second who lifts it", "{} freezes wait for the second"),
        Topic.FREEZE_LIFTED: ("A freeze was lifted", "{} freezes were lifted"),
        Topic.SIGNAL_HELD: ("A signal is held until a person answers", "{} signals are held until a person answers"),
        Topic.MESSAGES_MISSED: (
            "An event could not be kept: look at the sessions yourself",
            "{} events could not be kept: look at the sessions yourself",
        ),
        Topic.MESSAGES_TEST: ("This is a test: nothing has happened", "{} tests: nothing has happened"),
    }
)
# The fields that a chat shows, with their titles.
_TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tenant": "Tenant",
        "user": "User",
        "agent": "Agent",
        "tool": "Tool",
        "by": "By",
        "was": "Was",
        "purpose": "Purpose, as the agent wrote it",
    }
)
_NAMED: Final = ("tenant", "user", "agent", "by", "was", "session_id", "tool", "purpose")


def body_of(message: Message, form: Form, link_to: LinkTo, *, purposes: bool) -> bytes:
    """Return the body of a message. With `purposes` it holds what the agent wrote about its session."""
    event = message.event if purposes else replace(message.event, purpose="")
    written = _chat if form is Form.CHAT else _json
    return json.dumps(written(event, _link(event, link_to)), ensure_ascii=False).encode("utf-8")


def _json(event: OutboxEvent, link: str) -> dict[str, Any]:
    fields = {name: _cut(getattr(event, name)) for name in _NAMED}
    data: dict[str, Any] = {"count": event.count, "ids": list(event.ids)}
    data |= {name: value for name, value in fields.items() if value}
    data |= {"expires_at": utc_text(event.ends_at)} if event.ends_at else {}
    data |= {"link": link} if link else {}
    return {"type": event.topic.value, "timestamp": utc_text(event.at), "data": data}


def _chat(event: OutboxEvent, link: str) -> dict[str, Any]:
    said = _sentence(event)
    blocks: list[dict[str, Any]] = [{"type": "section", "text": _plain(said)}]
    fields = {title: _cut(getattr(event, name)) for name, title in _TITLES.items()}
    shown = [f"{title}: {_escaped(text)}" for title, text in fields.items() if text]
    if event.ends_at:
        shown.append(f"Until: {utc_text(event.ends_at)}")
    blocks += [{"type": "section", "text": _plain(one)} for one in shown]
    ids = ", ".join(event.ids)
    if ids:
        more = event.count - len(event.ids)
        blocks.append({"type": "section", "text": _plain(ids + (f" and {more} more" if more > 0 else ""))})
    if link:
        # The one text with markup: an address of ours, and an id of ours.
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"<{_escaped(link)}>", "verbatim": True}})
    return {
        "text": f"{said} {_escaped(link)}".rstrip(),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": blocks,
    }


def _sentence(event: OutboxEvent) -> str:
    if event.topic is Topic.FREEZE_SET and not event.tenant:
        return "All tenants were frozen: every call is denied"
    one, many = _SENTENCES[event.topic]
    return one if event.count == 1 else many.format(f"{event.count:,}")


def _link(event: OutboxEvent, link_to: LinkTo) -> str:
    """Return where to look: at the one, or at the first of many."""
    return link_to(event.ids[0]) if event.ids else ""


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _cut(text: str) -> str:
    """Return a text of others as one line that hides nothing, with its end left out if it is long."""
    seen = visible(text)
    return seen if len(seen) <= MOST_CHARACTERS else seen[: MOST_CHARACTERS - 1] + "…"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
