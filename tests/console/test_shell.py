"""What holds for every request: the host, the headers of each answer, and whose page sent a form."""

from __future__ import annotations

import pytest

from pdp.console.assets import Assets
from pdp.testing.inprocess import RunningServer
from tests.console.desk import FORMS, Browser, World, live, requested

_FOREIGN = "https://evil.example"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/now", 200),
        ("/revoke?user=alice", 200),
        ("/revoke", 400),
        ("/record", 403),
        ("/nothing", 404),
        ("/sessions/ses_aaaaaaaaaaaaaaaaaaaaaaaaaa", 404),
        ("/approvals/acc_aaaaaaaaaaaaaaaaaaaaaaaaaa", 404),
        ("/assets/console.css", 404),
        (Assets().path("console.css"), 200),
    ],
)
def test_every_answer_has_the_headers(person: Browser, path: str, status: int) -> None:
    """No page may be framed, take scripts or styles from elsewhere or in its text, or be kept by the browser."""
    answer = person.open(path)

    assert status == answer.status_code
    policy = answer.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} <= set(
        policy.split("; ")
    )
    assert "unsafe" not in policy
    assert ("DENY", "nosniff", "same-origin") == tuple(
        answer.headers[name] for name in ("x-frame-options", "x-content-type-options", "referrer-policy")
    )
    kept = "public, max-age=31536000, immutable" if path.startswith("/assets/") and 200 == status else "no-store"
    assert kept == answer.headers["cache-control"]


def test_a_page_has_no_script_and_no_style_of_its_own(person: Browser, server: RunningServer) -> None:
    """The policy forbids them, so a page that has one is broken."""
    session_id, _ = requested(server)
    for path in ("/", "/now", f"/sessions/{session_id}", f"/sessions/{session_id}/less", "/nothing"):
        person.open(path)

        assert 1 == person.text.count("<script ")
        assert f'<script src="{Assets().path("console.js")}" defer></script>' in person.text
        assert " style=" not in person.text
        assert "<style" not in person.text


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "evil.example", "", "{host}.evil.example"])
def test_another_host_gets_nothing(world: World, person: Browser, host: str) -> None:
    """Whatever name leads here, and even with the cookie: only the one in the link is answered."""
    named = host.format(port=world.listener.port, host=world.place.host)

    answer = person.open("/", host=named)

    # Without a host the request is none of HTTP/1.1.
    assert answer.status_code in (421, 400)
    assert "Waiting" not in answer.text


@pytest.mark.parametrize("path", FORMS)
def test_no_form_is_taken_from_elsewhere(server: RunningServer, person: Browser, path: str) -> None:
    """Neither one from another site, though it had the token, nor one without the token of the log-in."""
    session_id, _ = requested(server)
    person.open("/")
    fields = {"reason": "x", "user": "alice", **person.form("/log-out")}
    where = path.format(session=session_id)

    answers = [
        person.post(where, fields, origin=_FOREIGN, sec_fetch_site="cross-site"),
        person.post(where, {**fields, "form_token": "x"}),
        person.post(where, {name: value for name, value in fields.items() if name != "form_token"}),
    ]

    assert [403] * 3 == [answer.status_code for answer in answers]
    assert 200 == person.open("/").status_code
    assert "REQUESTED" in str(server.client("approver").get_session(session_id))


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (_FOREIGN, "cross-site"),
        ("null", "cross-site"),
        (_FOREIGN, ""),
        ("null", ""),
        ("", "cross-site"),
        ("", "same-site"),
        ("own", "same-site"),
        ("", "none"),
        ("", ""),
    ],
)
def test_a_form_says_where_it_is_from(world: World, person: Browser, origin: str, site: str) -> None:
    """A browser says so in one of two headers, and what it says must be the console."""
    person.open("/")
    fields = {"reason": "x", "user": "alice", **person.form("/log-out")}
    own = world.place.origin if "own" == origin else origin

    assert 403 == person.post("/revoke", fields, origin=own, sec_fetch_site=site).status_code


def test_the_token_of_another_log_in_is_not_taken(world: World, server: RunningServer, person: Browser) -> None:
    """A form from before a log-in, or of another browser, does nothing."""
    session_id, _ = requested(server)
    other = world.person()
    other.open("/")

    answer = person.post(f"/sessions/{session_id}/deny", other.form("/log-out"))

    assert 403 == answer.status_code
    assert "opened before the last log-in" in answer.text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{}", "application/json"),
        # What a page of another site can have a browser send without asking first.
        (b"form_token=TOKEN&user=alice&reason=x", "text/plain"),
        (b"form_token=TOKEN&user=alice&reason=x", "multipart/form-data; boundary=x"),
        (b"form_token=%ff", "application/x-www-form-urlencoded"),
        (b"a=" + b"x" * 300_000, "application/x-www-form-urlencoded"),
        (b"a=&" * 5000, "application/x-www-form-urlencoded"),
    ],
)
def test_what_is_no_form_is_refused(world: World, person: Browser, content: bytes, kind: str) -> None:
    """A body of another kind, too large or malformed is an error in words."""
    sent = {"origin": world.place.origin, "sec-fetch-site": "same-origin", "content-type": kind}
    person.open("/")
    token = person.form("/log-out")["form_token"].encode()

    answer = person.fetch("POST", "/revoke", sent, content=content.replace(b"TOKEN", token))

    assert 403 == answer.status_code
    assert "Nothing was done" in answer.text


def test_the_stream_is_not_for_other_pages(person: Browser) -> None:
    """What another site's script opens is refused, though reading it would be refused too."""
    answer = person.open("/events", origin=_FOREIGN, sec_fetch_site="cross-site")

    assert 403 == answer.status_code


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(person: Browser, method: str) -> None:
    """The console reads and takes forms, and nothing else."""
    assert 405 == person.fetch(method, "/").status_code


def test_a_chosen_cookie_becomes_no_log_in(world: World, server: RunningServer) -> None:
    """A log-in has a new secret, whatever cookie the browser had before (session fixation)."""
    session_id, _ = live(server)
    victim, thief = world.browser(), world.browser()
    for browser in (victim, thief):
        browser.cookies[world.place.cookie] = "chosen-by-a-thief"
    world.entry._key, world.entry._until = "f" * 43, float("inf")
    victim.open(f"/enter?key={world.key}")

    assert 401 == thief.open(f"/sessions/{session_id}").status_code


def test_after_a_log_out_the_cookie_opens_nothing(person: Browser, world: World) -> None:
    """The log-in is gone on the server, and the browser is told to forget its pages."""
    person.open("/")
    kept = person.cookies[world.place.cookie]
    person.send("/log-out")

    assert person.page is not None
    assert '"cache"' == person.page.headers["clear-site-data"]
    person.cookies[world.place.cookie] = kept
    assert 401 == person.open("/").status_code
