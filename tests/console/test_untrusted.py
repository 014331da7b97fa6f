"""What others wrote is only ever text: no string of theirs adds an element or an attribute, or hides what it is."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from google.protobuf.message import Message

from pdp.audit.values import Found, Mark
from pdp.console.assets import Assets
from pdp.console.drafts import EVERYTHING, Draft
from pdp.console.entries import entry_of
from pdp.console.logins import Credential, Login, Logins
from pdp.console.now import SELECTORS
from pdp.console.pages import Pages, quoted, said
from pdp.console.problems import Problem
from pdp.console.record import PLAN_FIELDS
from pdp.console.search import FIELDS
from pdp.console.visits import UnprovenError
from pdp.console.waiting import WaitingRow
from pdp.testing.clock import FakeClock
from pdp.v1.access_pb2 import ACCESS_STATE_OPEN, GetAccessRequestResponse
from pdp.v1.audit_pb2 import Approval, PlannedRevocation
from pdp.v1.caller_pb2 import Caller
from pdp.v1.freeze_pb2 import Freeze
from pdp.v1.policy_pb2 import Bundle
from pdp.v1.reach_pb2 import GetReachResponse
from pdp.v1.session_pb2 import ReviewSessionResponse, RevokeSessionsResponse, Session
from tests.console.strings import STRINGS

# A person sees each of these as an escape.
_UNSEEN = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\u2028\u2029\x00\x1b\x7f\u2800"


_PAGES = Pages(Assets(), FakeClock())


class _Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and those values that decide what a browser does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = [f"{name}={value}" if name in ("class", "action", "src", "rel") else name for name, value in attrs]
        assert all(not name.startswith("on") and name != "style" for name, _ in attrs)
        for name, value in attrs:
            # A value of others that leads somewhere is a part of a path or a query of the console.
            assert name not in ("href", "action", "src") or (value or "").startswith(("/", "#"))
            assert name not in ("href", "action", "src") or not (value or "").startswith(("//", "/\\"))
        self.found.append((tag, *kept))


def elements(page: str) -> list[tuple[str, ...]]:
    """Return the elements of a page."""
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


def filled(message: Message, text: str, depth: int = 4) -> Any:
    """Return a message with a text in every field that can hold one, and an element in every list."""
    for field in message.DESCRIPTOR.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("google."):
            getattr(message, field.name).seconds = 600
        elif inner is not None and depth:
            one = getattr(message, field.name)
            filled(one.add() if field.is_repeated else one, text, depth - 1)
        elif field.type == field.TYPE_STRING:
            getattr(message, field.name).append(text) if field.is_repeated else setattr(message, field.name, text)
    return message


def login(text: str) -> Login:
    """Return a log-in of a caller whose id is a text."""
    logins = Logins(FakeClock(), idle_seconds=60, longest_seconds=60)
    found = logins.find(logins.begin(Caller(caller_id=text, roles=[text]), Credential()), used=True)
    assert found
    found.form_token = "token"  # noqa: S105 - the same on both pages that are compared
    return found


def json_of(text: str) -> bytes:
    """Return an object whose names and values are a text."""
    return json.dumps({text: text, f"max_{text}": text}, ensure_ascii=False).encode("utf-8", "replace")


def pages(text: str) -> dict[str, str]:
    """Return every page that shows what others wrote, with a text in each of its places."""
    who = login(text)
    review: ReviewSessionResponse = filled(ReviewSessionResponse(), text)
    session = review.session
    session.terms_json = session.user_attributes_json = json_of(text)
    # Ids are the server's own, and parts of paths.
    session.session_id = session.parent_session_id = "ses_a"
    hit: RevokeSessionsResponse = filled(RevokeSessionsResponse(), text)
    hit.session_count = 2
    hit.sessions[0].session_id = "ses_a"
    call: GetAccessRequestResponse = filled(GetAccessRequestResponse(), text)
    call.access_request.state = ACCESS_STATE_OPEN
    call.access_request.session_id = call.access_request.access_request_id = "acc_a"
    call.most_calls = 5
    freeze: Freeze = filled(Freeze(), text)
    reach: GetReachResponse = filled(GetReachResponse(), text)
    reach.tools[0].session_ids[:] = ["ses_a"]
    sought = dict.fromkeys(("session_id", "user", "agent"), text)
    row = WaitingRow(
        key="ses_a",
        path="/sessions/ses_a",
        kind="session",
        agent=text,
        user=text,
        tool=text,
        text=text,
        tenant=text,
        request_time=session.request_time,
        expire_time=session.expire_time,
    )
    draft = Draft(tools=(text,), duration=5.0, terms=b"{}", grants=(text,))
    chosen = {"tool": [text], "grant": [text], "minutes": [text], f"term.{text}": [text]}
    problem = Problem(status=404, title="There is nothing", advice="Look elsewhere.")

    def page(name: str, **given: Any) -> str:
        return bytes(_PAGES.page(name, login=who, **given).body).decode()

    wanted = dict.fromkeys(("user", "agent", "tenant"), text)
    lists: dict[str, Any] = {
        "freezes": [freeze],
        "every": True,
        "older": "",
        "newer": "",
        "revocable": "",
        "wanted": wanted,
    }
    return {
        "waiting": page("waiting.html", rows=[row], number=1, more=0, tenants=True, freezes=[freeze]),
        "request": page("request.html", review=review, asked=session, draft=draft, choice="x", changed=(text,)),
        "request as it is": page("request.html", review=review, asked=session, draft=EVERYTHING, choice="", changed=()),
        "less": page("less.html", review=review, problem=text, chosen=chosen),
        "session": page(
            "session.html", session=session, review=review, calls=[call.access_request], said_by_server=text
        ),
        "call": page(
            "call.html",
            review=call,
            call=call.access_request,
            approved=session,
            arguments=[(text, text)],
            changed=text,
        ),
        "now": page("now.html", sessions=[session], asking=Counter(ses_a=1), number=1, chosen=wanted, **lists),
        "now, empty": page("now.html", sessions=[], asking=Counter(), number=0, chosen=wanted, **lists),
        **{f"revoke {name}": page("revoke.html", hit=hit, selected={name: text}, problem=text) for name in SELECTORS},
        "nothing to revoke": page("revoke.html", hit=RevokeSessionsResponse(), selected={"user": text}, problem=""),
        "freeze": page("freeze.html", freezes=[freeze], tenants=[(text, 1)], every=2, problem=text),
        "reach": page("reach.html", found=reach, wanted=sought, days=text, asked_now=False, problem="", next="page=x"),
        "reach, wrong": page("reach.html", found=None, wanted=sought, days=text, asked_now=True, problem=text, next=""),
        "presence": page("presence.html", unproven=UnprovenError(300.0, text), way="stop", back="/", link="/"),
        "problem": page("problem.html", problem=problem, detail=text),
        **record_pages(page, text),
    }


def record_pages(page: Callable[..., str], text: str) -> dict[str, str]:
    """Return the pages of the record, with a text in each of their places."""
    record = dict.fromkeys(("outcome", "basis", "detail", "tool", "server", "user", "agent", "session_id", "id"), text)
    bundle = filled(Bundle(), text)
    values = {
        "kind": "decision",
        "policies": [text],
        "bundle_version": text,
        "arguments": {"key": text},
        "facts": {"purpose": text, "a": [text]},
    }
    found = Found(mark=Mark(at=1, segment="a", place=0), line=json.dumps({**record, **values}).encode())
    other = Found(mark=found.mark, line=json.dumps({**record, **values, "kind": text, "caller_id": text}).encode())
    entries, listed = (
        [entry_of(found), entry_of(other)],
        {"further": "/record?after=x", "export": "/record/export", "plan": "/record/plan"},
    )
    searched, planned = dict.fromkeys(FIELDS, text), dict.fromkeys(PLAN_FIELDS, text)
    return {
        "record": page("record.html", given=searched, problem=text, bases=[], most=1, entries=entries, **listed),
        "timeline": page(
            "timeline.html", session_id=text, approvals=[filled(Approval(), text)] * 2, entries=entries, **listed
        ),
        "decision": page("decision.html", decision_id=text, entries=entries, bundle=bundle),
        "decision of a lost bundle": page("decision.html", decision_id=text, entries=entries, bundle=None),
        "plan": page(
            "plan.html",
            given=planned,
            chosen=planned,
            problem=text,
            number=1,
            every=True,
            sessions=[filled(PlannedRevocation(), text)],
            further="/record/plan?page=1",
        ),
    }


HARMLESS = {name: elements(page) for name, page in pages("word").items()}


@pytest.mark.parametrize("text", STRINGS, ids=itertools.count())
def test_no_string_becomes_anything_but_text(text: str) -> None:
    """In every field of every page, the elements and their attributes are those of a harmless word."""
    found = {name: elements(page) for name, page in pages(text).items()}

    assert HARMLESS == found


def test_there_are_enough_strings() -> None:
    """Each once."""
    assert len(set(STRINGS)) == len(STRINGS) >= 60


@pytest.mark.parametrize("character", _UNSEEN)
def test_what_draws_nothing_is_shown(character: str) -> None:
    """A character that hides or moves others is an escape, in a line and in a block, and only a line break is kept."""
    for shown in (said(f"a{character}b"), quoted(f"a{character}b")):
        assert character not in shown
        assert "\\" in shown
    assert "a\nb" in quoted("a\r\nb")


def test_the_text_of_others_is_isolated() -> None:
    """Words that are read from right to left do not turn what is beside them."""
    assert "<bdi>\u05d0</bdi>" == said("\u05d0")
    assert quoted("\u05d0").startswith('<bdi class="quoted" dir="auto">')


def test_every_page_shows_the_text() -> None:
    """What this file fills in is what the pages show: a text is on each of them."""
    for name, page in pages("Aardvark").items():
        assert "Aardvark" in page, name
    assert "Aardvark" == filled(Session(), "Aardvark").purpose
