"""Every page of the console, filled with a text in each place that others can write to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from pdp.broker.v1.connection_pb2 import (
    CONNECTION_STATE_CONNECTED,
    BeginConnectionResponse,
    Connectable,
    EndConnectionResponse,
    EndOutcome,
    PersonalConnection,
)
from pdp.broker.v1.exposure_pb2 import GetExposureResponse
from pdp.client.reviewing import reach_changed
from pdp.console.assets import Assets
from pdp.console.drafts import EVERYTHING, Draft
from pdp.console.entries import entry_of
from pdp.console.exposure import FIELDS as EXPOSURE_FIELDS
from pdp.console.logins import Credential, Login, Logins
from pdp.console.now import SELECTORS
from pdp.console.pages import Pages
from pdp.console.paging import Part, part_of
from pdp.console.problems import Problem
from pdp.console.proofs import PastPolicies, SegmentCheck
from pdp.console.record import PLAN_FIELDS
from pdp.console.search import FIELDS
from pdp.console.visits import UnprovenError
from pdp.console.waiting import WaitingRow
from pdp.testing.clock import FakeClock
from pdp.v1.access_pb2 import ACCESS_STATE_OPEN, ArgumentChange, CompareCallResponse, GetAccessRequestResponse
from pdp.v1.audit_pb2 import Approval, AuditRecord, PlannedRevocation, Touch, VerifySegmentResponse
from pdp.v1.caller_pb2 import Caller
from pdp.v1.freeze_pb2 import Freeze
from pdp.v1.policy_pb2 import Bundle
from pdp.v1.reach_pb2 import GetReachResponse
from pdp.v1.session_pb2 import ReviewSessionResponse, RevokeSessionsResponse

_PAGES = Pages(Assets(), FakeClock(), has_accounts=True)


def states(word: str = "word") -> dict[str, str]:
    """Return each template in each of its states, with a word in each place that others can fill."""
    who, unknown = login(word), UnprovenError(300.0)
    begun: BeginConnectionResponse = filled(BeginConnectionResponse(), "/")
    ended = [EndConnectionResponse(outcome=name, expire_time={"seconds": 600}) for name in EndOutcome.keys()[1:]]

    def page(name: str, **given: Any) -> str:
        return bytes(_PAGES.page(name, **given).body).decode()

    return {
        **pages(word),
        "log in": page("absent.html", login=None, link="/", provider="Example"),
        "closed": page("closed.html", login=None),
        "logged out": page("out.html", login=None, link="/", provider="Example"),
        "logged out there too": page("out.html", login=None, link="", provider="Example"),
        "revoked": page("revoked.html", login=who, revoked=["ses_a", "ses_b"], fence=""),
        "revoked nothing": page("revoked.html", login=who, revoked=[], fence=""),
        "agree": page("agree.html", login=who, kind=word, begun=begun),
        **{f"agree again, {one.outcome}": page("agree.html", login=who, kind=word, begun=_again(one)) for one in ended},
        "finish": page("finish.html", login=who, ticket="t"),
        **{f"disconnected, {one.outcome}": page("disconnected.html", login=who, ended=one) for one in ended},
        "presence, here": page("presence.html", login=who, unproven=unknown, way="local", back="/", link=""),
        "presence, again": page("presence.html", login=who, unproven=unknown, way="again", back="/", link="/"),
        "presence, never": page("presence.html", login=who, unproven=unknown, way="stop", back="/", link="/"),
    }


def _again(ended: EndConnectionResponse) -> BeginConnectionResponse:
    """Return where a person agrees again, after what they had connected was disconnected."""
    return BeginConnectionResponse(authorization_url="/", expire_time={"seconds": 600}, former_outcome=ended.outcome)


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
    earlier: dict[str, CompareCallResponse] = {"alone": filled(CompareCallResponse(), text)}
    for word, number in ArgumentChange.items():
        earlier[word] = one = filled(CompareCallResponse(), text)
        one.not_compared, one.arguments[0].change = "", number
    freeze: Freeze = filled(Freeze(), text)
    reach: GetReachResponse = filled(GetReachResponse(), text)
    reach.tools[0].session_ids[:] = ["ses_a"]
    sought = dict.fromkeys(("session_id", "user", "agent", "former", "show"), text)
    asked = {"wanted": sought, "days": text, "shown": {"": "all", text: text}, "changed": reach_changed}
    bundles = [filled(Bundle(), text)]
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
        "revocable": "",
        "wanted": wanted,
    }
    account: PersonalConnection = filled(PersonalConnection(), text)
    account.state, account.connection_id = CONNECTION_STATE_CONNECTED, "con_a"
    return {
        "accounts": page(
            "accounts.html", mine=[account], others=[account], connectable=[(filled(Connectable(), text), True)]
        ),
        "no accounts": page("accounts.html", mine=[], others=[], connectable=[]),
        "waiting": page(
            "waiting.html",
            part=part_of([row], "/", wanted, ""),
            number=1,
            tenants=True,
            more=[(wanted, 1)],
            chosen=wanted,
            **{**lists, "every": False},
        ),
        "waiting, empty": page(
            "waiting.html", part=part_of([], "/", {}, ""), number=0, tenants=False, more=[], chosen={}, **lists
        ),
        "waiting, of one": page(
            "waiting.html", part=part_of([], "/", wanted, ""), number=0, tenants=False, more=[], chosen=wanted, **lists
        ),
        "request": page("request.html", review=review, asked=session, draft=draft, choice="x", changed=(text,)),
        "request as it is": page("request.html", review=review, asked=session, draft=EVERYTHING, choice="", changed=()),
        "less": page("less.html", review=review, problem=text, chosen=chosen),
        "session": page(
            "session.html",
            session=session,
            review=review,
            calls=[call.access_request],
            called=[filled(Touch(), text)],
            said_by_server=text,
        ),
        **{
            f"call, {change}": page(
                "call.html",
                review=call,
                call=call.access_request,
                approved=session,
                arguments=[(text, text)],
                earlier=one,
                compared={text: one.arguments[0]} if one.arguments else {},
                changed=text,
            )
            for change, one in earlier.items()
        },
        "now": page(
            "now.html",
            part=part_of([session], "/now", wanted, ""),
            asking=Counter(ses_a=1),
            number=1,
            chosen=wanted,
            **lists,
        ),
        "now, empty": page(
            "now.html", part=part_of([], "/now", wanted, ""), asking=Counter(), number=0, chosen=wanted, **lists
        ),
        **{f"revoke {name}": page("revoke.html", hit=hit, selected={name: text}, problem=text) for name in SELECTORS},
        "nothing to revoke": page("revoke.html", hit=RevokeSessionsResponse(), selected={"user": text}, problem=""),
        "freeze": page("freeze.html", freezes=[freeze], tenants=[(text, 1)], every=2, problem=text),
        "reach": page("reach.html", found=reach, asked_now=False, problem="", next="page=x", bundles=bundles, **asked),
        "reach, nothing": page(
            "reach.html", found=GetReachResponse(), asked_now=True, problem="", next="", bundles=(), **asked
        ),
        "reach, wrong": page("reach.html", found=None, asked_now=True, problem=text, next="", bundles=(), **asked),
        "presence": page("presence.html", unproven=UnprovenError(300.0, text), way="stop", back="/", link="/"),
        "problem": page("problem.html", problem=problem, detail=text),
        **record_pages(page, text),
    }


def record_pages(page: Callable[..., str], text: str) -> dict[str, str]:
    """Return the pages of the record, with a text in each of their places."""
    record = dict.fromkeys(("outcome", "basis", "detail", "tool", "server", "user", "agent", "session_id", "id"), text)
    past = [PastPolicies(version=text, policy_ids=(text,), bundle=one) for one in (filled(Bundle(), text), None)]
    changed, whole = filled(VerifySegmentResponse(), text), VerifySegmentResponse(record_count=1)
    segments = [SegmentCheck(segment=text, found=one, problem=text) for one in (changed, whole, None)]
    proven = {"past": past, "bundles_left_out": 1, "segments": segments, "segments_left_out": 1}
    values = {
        "kind": "decision",
        "policies": [text],
        "bundle_version": text,
        "arguments": {"key": text},
        "facts": {"purpose": text, "a": [text]},
    }
    values["time"] = "2026-01-05T10:00:00Z"
    found = AuditRecord(record_json=json.dumps({**record, **values}).encode())
    other = AuditRecord(record_json=json.dumps({**record, **values, "kind": text, "caller_id": text}).encode())
    entries, listed = (
        [entry_of(found), entry_of(other)],
        {"further": "/record?after=x", "export": "/record/export", "plan": "/record/plan"},
    )
    searched, planned = dict.fromkeys(FIELDS, text), dict.fromkeys(PLAN_FIELDS, text)
    return {
        **exposure_pages(page, text),
        "record": page(
            "record.html", given=searched, problem=text, lacking=text, bases=[], most=1, entries=entries, **listed
        ),
        "timeline": page(
            "timeline.html",
            session_id=text,
            lacking=text,
            approvals=[filled(Approval(), text)] * 2,
            entries=entries,
            **listed,
            **proven,
        ),
        "decision": page("decision.html", decision_id=text, lacking=text, entries=entries, **proven),
        "plan": page(
            "plan.html",
            given=planned,
            chosen=planned,
            problem=text,
            lacking=text,
            number=1,
            every=True,
            part=Part(
                items=[filled(PlannedRevocation(), text)], before="", after="/record/plan?page=1", again="/record/plan"
            ),
        ),
    }


def exposure_pages(page: Callable[..., str], text: str) -> dict[str, str]:
    """Return the page of who used a secret: with uses, with none, and before anything was asked."""
    exposed: GetExposureResponse = filled(GetExposureResponse(), text)
    exposed.finding_count = exposed.uses.count = exposed.by[0].others.count = 2
    # Each thing by which uses differ is shown in its own way.
    for what in ("sessions", "users"):
        exposed.by.add().CopyFrom(exposed.by[0])
        exposed.by[-1].what = what
    # One that calls no tool.
    exposed.calls.add(action=text, mode=text, presenter=text, upstream=text)
    given, since = dict.fromkeys(EXPOSURE_FIELDS, text), {"since": "2026-01-05T10:00:00Z"}
    asked = {"given": given, "since": since}
    return {
        "exposure": page("exposure.html", found=exposed, problem=text, earlier="page=x", **asked),
        "exposure, unused": page("exposure.html", found=GetExposureResponse(), problem="", earlier="", **asked),
        "exposure, nothing": page("exposure.html", found=None, problem="", earlier="", **asked),
    }
