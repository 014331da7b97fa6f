"""What a person decides in the console is what the server then holds, and never more than they saw."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from pdp.client import fencing
from pdp.client.fencing import Fence
from pdp.testing.inprocess import RunningServer
from tests.console.desk import Browser, World, console, live, requested


def state(server: RunningServer, session_id: str) -> Any:
    """Return a session as the server has it."""
    return server.client("approver").get_session(session_id)


def choose(person: Browser, session_id: str, **fields: Any) -> None:
    """Choose what to approve of a request."""
    path = f"/sessions/{session_id}/less"
    person.open(path)
    person.send(path, {"tool": re.findall(r'name="tool" value="([^"]+)"', person.text), **fields})


def test_a_request_shows_who_why_and_what(person: Browser, server: RunningServer) -> None:
    """Who asks, for whom, why in their own words, the dangerous tools first, what policies refuse, and how long."""
    session_id, _ = requested(server, purpose="Remove old\ncustomers", terms={"max_calls": 20}, duration=600)
    person.open("/")
    assert "coder for alice" in person.words
    person.open(f"/sessions/{session_id}")

    shown = person.words
    for expected in (
        "coder wants to work for alice",
        "10 min from the approval",
        "4 tools: 1 destructive, 2 that change something, 1 that only read",
        "Why, in the words of coder. Nobody has checked them. Remove old customers",
        "crm/delete_customer policies refuse every call by crm/delete · more with the grant cleanup",
        "crm/find_customer policies allow every call",
        "crm/update_customer policies allow every call by crm/open · uses salesforce: crm:write",
        "salesforce of alice, or else of the tenant: crm:write",
        "max_calls: 20",
    ):
        assert expected in shown
    assert shown.index("crm/delete_customer") < shown.index("crm/send_mail") < shown.index("crm/find_customer")


def test_a_request_shows_what_is_unusual(person: Browser, server: RunningServer) -> None:
    """In words, with what they rest on."""
    for _ in range(2):
        refused, _ = requested(server, purpose="Something else")
        server.client("approver").deny_session(refused, reason="no")
    session_id, _ = requested(server, purpose="Something else")
    person.open(f"/sessions/{session_id}")

    assert "What is unusual" in person.words
    assert re.search(r"looked at \d+ sessions?, \d+ (?:d|h)", person.words)


def test_approving_approves_what_was_shown(person: Browser, server: RunningServer) -> None:
    """The session is live, and the console says so."""
    session_id, handle = requested(server)
    person.open(f"/sessions/{session_id}")
    person.send(f"/sessions/{session_id}/approve")

    assert "active coder for alice" in person.words
    assert server.client("pep").authorize(handle, "crm", "find_customer").allowed


def test_less_is_seen_again_before_it_is_approved(person: Browser, server: RunningServer) -> None:
    """Fewer tools, a shorter time and smaller terms: the page shows the result with its own digest, and then counts."""
    session_id, handle = requested(server, terms={"max_calls": 20})
    choose(person, session_id, tool=["crm/find_customer"], minutes="10", **{"term.max_calls": "5"})
    assert "REQUESTED" in str(state(server, session_id))
    for expected in ("1 tool of the 4 that were asked for", "10 min instead of 1 h", "smaller terms"):
        assert expected in person.words
    assert "crm/delete_customer" not in person.words
    person.send(f"/sessions/{session_id}/approve")

    session = state(server, session_id)
    assert (["find_customer"], 600, b'{"max_calls":5}') == (
        [one.tool for one in session.tools],
        session.duration.seconds,
        session.terms_json,
    )
    assert server.client("pep").authorize(handle, "crm", "find_customer").allowed
    assert not server.client("pep").authorize(handle, "crm", "update_customer").allowed


def test_a_choice_that_is_forgotten_never_becomes_all_of_it(person: Browser, server: RunningServer) -> None:
    """A page of a choice that is no longer known asks for it again, and its button approves nothing."""
    session_id, _ = requested(server)
    answer = person.open(f"/sessions/{session_id}?choice=unheard-of")
    assert 400 == answer.status_code
    assert "choose again" in person.words
    assert "Approve all of it" not in person.words
    person.open(f"/sessions/{session_id}")
    person.send(f"/sessions/{session_id}/approve", {"choice": "unheard-of"})

    assert "choose again" in person.words
    assert "REQUESTED" in str(state(server, session_id))


def test_a_grant_opens_what_policies_hold_back(person: Browser, server: RunningServer) -> None:
    """It is named on the page before it is given."""
    session_id, handle = requested(server)
    choose(person, session_id, grant="cleanup")
    assert "with the grants cleanup" in person.words
    person.send(f"/sessions/{session_id}/approve")

    assert ["cleanup"] == list(state(server, session_id).grants)
    assert server.client("pep").authorize(handle, "crm", "delete_customer").allowed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tool": []}, "keep at least one tool"),
        ({"minutes": "soon"}, "must be a number"),
        ({"minutes": "-1"}, "must live for some time"),
        ({"minutes": "nan"}, "must live for some time"),
        ({"term.max_calls": "50"}, "max_calls"),
        ({"grant": "unheard-of"}, "unheard-of"),
    ],
)
def test_what_cannot_be_chosen_is_said(person: Browser, server: RunningServer, fields: Any, said: str) -> None:
    """The form comes back with what is wrong, and nothing is approved."""
    session_id, _ = requested(server, terms={"max_calls": 20})
    choose(person, session_id, **fields)

    assert person.page is not None
    assert 400 == person.page.status_code
    assert said in person.words
    assert "REQUESTED" in str(state(server, session_id))


def test_a_no_has_a_reason(person: Browser, server: RunningServer) -> None:
    """It is in the record, and on the page."""
    session_id, _ = requested(server)
    person.open(f"/sessions/{session_id}")
    person.send(f"/sessions/{session_id}/deny", {"reason": "not this week"})

    assert "denied coder for alice" in person.words
    assert "not this week" == state(server, session_id).reason


def test_what_changed_meanwhile_is_said_and_not_approved(person: Browser, server: RunningServer) -> None:
    """A tool that came, or one whose definition changed, between the page and the button."""
    session_id, _ = requested(server)
    person.open(f"/sessions/{session_id}")
    before = person.form(f"/sessions/{session_id}/approve")
    person.send(f"/sessions/{session_id}/approve", {"digest": "sha256:" + "0" * 64})

    assert "This is no longer what you saw, so nothing was approved" in person.words
    assert "REQUESTED" in str(state(server, session_id))
    # What the page shows now can be approved.
    assert before["digest"] == person.form(f"/sessions/{session_id}/approve")["digest"]
    person.send(f"/sessions/{session_id}/approve")
    assert "ACTIVE" in str(state(server, session_id))


def test_a_request_that_somebody_else_answered_says_so(person: Browser, server: RunningServer) -> None:
    """The second of two approvers sees what the first one did."""
    session_id, _ = requested(server)
    person.open(f"/sessions/{session_id}")
    server.client("approver").deny_session(session_id, reason="too broad")
    person.send(f"/sessions/{session_id}/approve")

    assert person.page is not None
    assert 409 == person.page.status_code
    assert "denied coder for alice" in person.words
    assert "too broad" in person.words


def test_without_presence_nothing_destructive_is_approved(server: RunningServer) -> None:
    """The page says that this credential proves nothing about when the person logged in, and what helps."""
    session_id, _ = requested(server)
    with console(server, "absent") as world:
        person = world.person()
        person.open(f"/sessions/{session_id}")
        person.send(f"/sessions/{session_id}/approve")

        assert person.page is not None
        assert 403 == person.page.status_code
        assert "during the last 5 min" in person.words
    assert "REQUESTED" in str(state(server, session_id))


def asked(server: RunningServer, **arguments: str) -> tuple[str, str]:
    """Return the handle of a session and the id of a call in it that waits."""
    _, handle = live(server)
    answer = server.client("pep").authorize(handle, "crm", "send_mail", arguments)
    return handle, answer.access_request_id


def test_a_call_shows_its_exact_arguments(person: Browser, server: RunningServer) -> None:
    """As they will be executed: each blank, and each character that draws nothing."""
    _, request_id = asked(server, to="ann@example.com", text="two  blanks\u2800<b>&amp;")
    person.open("/")
    assert "coder for alice crm/send_mail Send this mail?" in person.words
    person.open(f"/approvals/{request_id}")

    assert '"two  blanks\\u2800<b>&amp;"' in html.unescape(person.text)
    assert "<b>" not in person.text
    assert '"ann@example.com"' in person.words
    assert "Uses mail of alice, or else of the tenant: mail:send." in person.words
    assert "Send this mail? asked by the policy crm/mail" in person.words


def test_a_call_is_compared_with_the_last_one_like_it(person: Browser, server: RunningServer) -> None:
    """By what the record holds of the last one that was allowed; without one the page says why it compares nothing."""
    _, handle = live(server, user="bob")

    def ask(**arguments: str) -> str:
        request_id = server.client("pep").authorize(handle, "crm", "send_mail", arguments).access_request_id
        person.open(f"/approvals/{request_id}")
        return request_id

    request_id = ask(to="ann@example.com")
    assert "Not compared with an earlier call: no call of this tool was allowed to this agent for this" in person.words
    person.send(f"/approvals/{request_id}/approve")
    assert server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed

    ask(to="ann@example.com")
    assert "Exactly the same arguments as the last call of this tool that was allowed to coder for bob" in person.words
    ask(to="eve@example.com", text="Hello")
    assert '"eve@example.com" changed: it was "ann@example.com"' in person.words
    assert '"Hello" not compared' in person.words
    assert "in this session" in person.words


def test_an_approved_call_goes_ahead_once(person: Browser, server: RunningServer) -> None:
    """Exactly this call, and no other."""
    handle, request_id = asked(server, to="ann@example.com")
    person.open(f"/approvals/{request_id}")
    person.send(f"/approvals/{request_id}/approve")

    assert "approved coder for alice" in person.words
    ask = server.client("pep").authorize
    assert not ask(handle, "crm", "send_mail", {"to": "bob@example.com"}).allowed
    assert ask(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed
    assert not ask(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed


def test_an_approval_is_taken_back(person: Browser, server: RunningServer) -> None:
    """For a reason, and while the call was not made: then it is denied again."""
    handle, request_id = asked(server, to="ann@example.com")
    person.open(f"/approvals/{request_id}")
    person.send(f"/approvals/{request_id}/approve")
    person.send(f"/approvals/{request_id}/revoke", {"reason": ""})
    assert "say why" in person.words
    person.send(f"/approvals/{request_id}/revoke", {"reason": "wrong person"})

    assert "revoked coder for alice" in person.words
    assert not server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed


def test_a_session_shows_what_it_asks(person: Browser, server: RunningServer) -> None:
    """In the list of live sessions, and on its page with a link to each call."""
    _, request_id = asked(server, to="ann@example.com")
    person.open("/now")
    assert "1 call waiting" in person.words
    session_id = server.client("approver").get_access_request(request_id).access_request.session_id
    person.open(f"/sessions/{session_id}")

    assert f'href="/approvals/{request_id}"' in person.text


def test_a_denied_call_stays_denied(person: Browser, server: RunningServer) -> None:
    """With the reason that the person gave."""
    handle, request_id = asked(server, to="ann@example.com")
    person.open(f"/approvals/{request_id}")
    person.send(f"/approvals/{request_id}/deny", {"reason": "wrong person"})

    assert "denied coder for alice" in person.words
    assert "wrong person" in person.words
    assert not server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed


def test_a_call_that_is_not_as_shown_is_not_approved(person: Browser, server: RunningServer) -> None:
    """The page says so, and shows it as it is."""
    handle, request_id = asked(server, to="ann@example.com")
    person.open(f"/approvals/{request_id}")
    person.send(f"/approvals/{request_id}/approve", {"digest": "sha256:" + "0" * 64})

    assert "Nothing was done" in person.words
    assert not server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed


def test_a_live_session_is_narrowed(person: Browser, server: RunningServer) -> None:
    """It keeps the chosen tools, and ends earlier."""
    session_id, handle = live(server)
    person.open(f"/sessions/{session_id}")
    person.send(f"/sessions/{session_id}/narrow", {"tool": ["crm/find_customer"], "minutes": "5"})

    session = state(server, session_id)
    assert ["find_customer"] == [one.tool for one in session.tools]
    assert 300 == session.expire_time.seconds - server.clock.now().wall_at
    assert not server.client("pep").authorize(handle, "crm", "update_customer").allowed


@pytest.mark.parametrize("selector", ["session_id", "user", "agent", "tenant"])
def test_a_revocation_is_seen_before_it_is_made(person: Browser, server: RunningServer, selector: str) -> None:
    """The preview says how many and which; nothing happens without a reason."""
    session_id, handle = live(server, user="bob")
    value = {"session_id": session_id, "user": "bob", "agent": "coder", "tenant": "default"}[selector]
    person.open(f"/revoke?{selector}={value}")
    assert session_id in person.text
    person.send("/revoke", {"reason": ""})
    assert "say why" in person.words
    assert server.client("pep").authorize(handle, "crm", "find_customer").allowed
    person.send("/revoke", {"reason": "acts strangely"})

    assert session_id in person.text
    assert ("acts strangely", 5 + 1) == (state(server, session_id).reason, state(server, session_id).state)
    assert not server.client("pep").authorize(handle, "crm", "find_customer").allowed


def test_what_is_loaded_again_revokes_nothing_more(world: World, server: RunningServer) -> None:
    """The page after a revocation is one of its own: what has begun meanwhile lives on. It is no other person's."""
    person, other = world.person(), world.person()
    session_id, _ = live(server, user="bob")
    person.open("/revoke?user=bob")
    own = {"origin": world.place.origin, "sec-fetch-site": "same-origin"}
    answer = person.fetch("POST", "/revoke", own, data={**person.form("/revoke"), "user": "bob", "reason": "strange"})
    page = answer.headers["location"]
    later, _ = live(server, user="bob")
    for _ in range(2):
        person.open(page)
        assert session_id in person.text
        assert later not in person.text
    other.open(page)

    assert 303 == answer.status_code
    assert session_id not in other.text
    assert "ACTIVE" in str(server.client("approver").get_session(later))


def test_a_revocation_says_what_it_has_waited_for(
    person: Browser, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where servers answer from memory of their own."""
    session_id, _ = live(server)
    monkeypatch.setattr(fencing, "fence_of", lambda _: Fence(by="confirmed", seconds=0.0123))
    person.open(f"/revoke?session_id={session_id}")
    person.send("/revoke", {"reason": "acts strangely"})

    assert "each of their calls is denied: every server confirmed it after 0.012 s." in person.words


LESS = {"tool": ["crm/find_customer"], "minutes": "5"}


@pytest.mark.parametrize("change", ["approve", "narrow"])
def test_the_page_after_a_change_says_what_that_has_waited_for(
    world: World, server: RunningServer, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Also when it is loaded again; the next page says nothing of it, nor that of another log-in."""
    said = "This holds everywhere: every server confirmed it after 0.012 s."
    session_id, _ = {"approve": requested, "narrow": live}[change](server)
    monkeypatch.setattr(fencing, "fence_of", lambda _: Fence(by="confirmed", seconds=0.0123))
    person, other = world.person(), world.person()
    person.open(f"/sessions/{session_id}")
    person.send(f"/sessions/{session_id}/{change}", {"narrow": LESS}.get(change))
    assert person.page is not None
    path = str(person.page.url.raw_path, "ascii")
    after = [said in person.words, said in (person.open(path), person.words)[1]]
    person.open(f"/sessions/{session_id}")
    other.open(path)

    assert [True, True] == after
    assert said not in person.words + other.words


def test_live_sessions_are_found_by_user_and_agent(person: Browser, server: RunningServer) -> None:
    """What the address names is shown, and can be revoked at once."""
    mine, _ = live(server, user="alice")
    other, _ = live(server, user="bob")
    person.open("/now?user=bob")

    assert other in person.text
    assert mine not in person.text
    assert "/revoke?user=bob" in person.text
    person.open("/now?user=nobody")
    assert "No live session is of user nobody" in person.words


@pytest.mark.parametrize(("path", "said"), [("/sessions/", "uses"), ("/reach?session_id=", "as")])
def test_what_a_live_session_uses_is_said(person: Browser, server: RunningServer, path: str, said: str) -> None:
    """Of each tool the connection and its scopes."""
    session_id, _ = live(server)
    person.open(f"{path}{session_id}")

    assert f"{said} mail: mail:send" in person.words
    assert f"{said} salesforce: crm:write" in person.words


def test_reach_is_of_a_session_a_user_or_an_agent(person: Browser, server: RunningServer) -> None:
    """What their active sessions can call, and apart from that what a session could that is asked for now."""
    session_id, _ = live(server, user="bob", tools=["crm/find_customer"])
    for path in (f"/reach?session_id={session_id}", "/reach?user=bob"):
        person.open(path)
        assert "find_customer Server crm Policies policies allow every call by crm/open" in person.words
    person.open(f"/reach?session_id={session_id}")
    assert "update_customer" not in person.words
    person.open("/reach?user=bob&agent=coder&asked_now=1")
    assert "policies refuse every call by crm/delete More with a grant cleanup Last allowed" in person.words
    former = f"former={server.client('auditor').get_bundle().bundle.version}"
    person.open(f"/reach?session_id={session_id}&{former}&show=unused")
    assert "find_customer" in person.words
    assert "Under the other bundle the same" in person.words
    person.open(f"/reach?session_id={session_id}&{former}&show=changed")
    assert "No tool of those that were looked at is judged differently by the other bundle." in person.words
    person.open("/reach?user=bob&show=changed")
    assert "choose the bundle to compare with" in person.words
    person.open(f"/reach?user=bob&former=sha256:{'0' * 64}")
    assert "This cannot be answered" in person.words
    person.open("/reach?user=bob&days=367")
    assert "the days must be a whole number from 1 to 366, not `367`" in person.words
    person.open("/reach?asked_now=1&agent=coder")

    assert person.page is not None
    assert 400 == person.page.status_code
    assert "This cannot be answered" in person.words


def test_another_tenant_is_not_there(server: RunningServer) -> None:
    """Its ids lead to the same page as ids of nothing, and its sessions are in no list."""
    waits, _ = requested(server)
    runs, _ = live(server)
    _, call = asked(server, to="ann@example.com")
    with console(server, "other") as world:
        person = world.person()
        for path in ("/", "/now"):
            person.open(path)
            assert not re.search("ses_|acc_", person.text)
        for path in (f"/sessions/{waits}", f"/sessions/{runs}", f"/approvals/{call}", f"/sessions/{waits}/less"):
            assert 404 == person.open(path).status_code
            assert "Tidy up" not in person.text
        person.open("/")
        token = person.form("/log-out")
        for path in (
            *(f"/sessions/{waits}/{deed}" for deed in ("approve", "deny", "less")),
            f"/sessions/{runs}/narrow",
            *(f"/approvals/{call}/{deed}" for deed in ("approve", "deny", "revoke")),
        ):
            assert 404 == person.post(path, {**token, "digest": "sha256:" + "0" * 64, "reason": "x"}).status_code
        for selected, said in (({"session_id": runs}, "no such session"), ({"agent": "coder"}, "nothing was revoked")):
            person.post("/revoke", {**token, **selected, "reason": "x"})
            assert said in person.words
        for path in ("/revoke", "/freeze"):
            assert 403 == person.post(path, {**token, "tenant": "default", "reason": "x"}).status_code
    assert ["REQUESTED", "ACTIVE"] == [str(state(server, one)).split("STATE_")[1].split()[0] for one in (waits, runs)]
    assert () == server.client("approver").list_freezes()


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/%00",
        "/sessions/%ff",
        "/sessions/%F0%9F%92%A9",
        "/sessions/" + "x" * 5000,
        "/sessions/ses_x/less",
        "/sessions/ses_x?choice=%00",
        "/approvals/%E2%80%AE",
        "/now?user=%00&page=99999999999999999999",
        "/now?page=-1&tenant=%ff",
        "/revoke?user=%00",
        "/revoke?user=a&agent=b",
        "/enter?key=%ff",
        "/reach?user=%00&page=%ff",
        "/?x=%",
    ],
)
def test_no_address_breaks_a_page(person: Browser, path: str) -> None:
    """Whatever is in it: the answer is a page that says what is wrong, or the page."""
    answer = person.open(path)

    assert answer.status_code in (200, 400, 403, 404)
    assert "</html>" in answer.text


@pytest.mark.parametrize("number", ["0", "-1", "9" * 5000, "1e9", "\u0663", "\x00", "99999999"])
def test_no_number_breaks_a_form(person: Browser, server: RunningServer, number: str) -> None:
    """Neither of calls nor of minutes; nothing is changed by it that was not asked for."""
    session_id, _ = live(server)
    path = f"/sessions/{session_id}"
    person.open(path)
    answer = person.send(f"{path}/narrow", {"tool": ["crm/find_customer"], "minutes": number})
    assert 400 == answer.status_code
    assert len(state(server, session_id).tools) == 4
    _, request_id = asked(server, to="ann@example.com")
    person.open(f"/approvals/{request_id}")
    person.send(f"/approvals/{request_id}/approve", {"calls": number})

    approved = server.client("approver").get_access_request(request_id).access_request
    assert approved.approved_calls <= 1


def test_a_caller_without_the_role_sees_why(server: RunningServer) -> None:
    """The console adds no authority to the token: it shows what the server says."""
    with console(server, "author") as world:
        person = world.person()

        assert person.page is not None
        assert 403 == person.page.status_code
        assert "You may not do this" in person.words
