"""The log-in with a provider: who comes back from it is who began it, and what they chose is still there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pdp.console.entering import FLOW_SECONDS
from tests.console.desk import FORMS
from tests.console.provider import CLIENT, PLACE, TOKEN_SECONDS, Entered, Wishes, entered, query
from tests.machinery.credentials.issuer import AUDIENCE


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entered]:
    """Return a server, a provider and a console."""
    with entered(tmp_path_factory.mktemp("entered")) as world:
        yield world


@pytest.fixture
def world(running: Entered) -> Entered:
    """Return them, with a provider that behaves."""
    # Keys are not read again for an unknown one at once.
    running.provider.clock.advance(60)
    running.provider.wishes = Wishes()
    running.provider.published = ["ES256"]
    return running


def test_a_link_leads_through_the_log_in_to_its_page(world: Entered) -> None:
    """By code, with PKCE, state and nonce, for the server's audience, and then to what was asked for."""
    session_id, browser = world.requested(), world.browser()
    world.open(browser, f"/sessions/{session_id}")

    asked = world.provider.asked
    assert "coder wants to work for alice" in browser.words
    assert "ann" in browser.words
    assert ("code", "S256", AUDIENCE, CLIENT) == tuple(
        asked[name] for name in ("response_type", "code_challenge_method", "resource", "client_id")
    )
    assert f"{PLACE.origin}/log-in/back" == asked["redirect_uri"]
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43


def test_cookies_are_for_this_host_over_tls(world: Entered) -> None:
    """Neither scripts nor other hosts get them, and they are sent over TLS alone; that of the log-in is always new."""
    browser = world.browser()
    browser.cookies[PLACE.cookie] = "chosen-by-a-thief"
    begun = browser.fetch("GET", "/log-in?to=/")
    ended = browser.fetch("GET", world.at_provider(begun))

    lines = [*begun.headers.get_list("set-cookie"), *ended.headers.get_list("set-cookie")]
    assert 2 == len(lines)
    for line in lines:
        assert line.startswith("__Host-pdp-console")
        assert {"httponly", "path=/", "samesite=lax", "secure"} <= {one.strip().lower() for one in line.split(";")}
    assert "chosen-by-a-thief" != browser.cookies[PLACE.cookie]


@pytest.mark.parametrize("in_access_token", [True, False])
def test_what_was_chosen_survives_a_fresh_log_in(world: Entered, *, in_access_token: bool) -> None:
    """An approval of what destroys wants one; the choice is there after it, and is approved when it is confirmed."""
    world.provider.wishes.in_access_token = in_access_token
    session_id, browser = world.requested(terms={"max_calls": 20}), world.browser()
    world.open(browser, f"/sessions/{session_id}/less")
    browser.send(f"/sessions/{session_id}/less", {"tool": ["crm/delete_customer"], "minutes": "10"})
    browser.send(f"/sessions/{session_id}/approve")
    assert browser.page is not None
    assert (403, "REQUESTED") == (browser.page.status_code, str(world.state(session_id)).split("STATE_")[1].split()[0])
    before = browser.cookies[PLACE.cookie]
    world.open(browser, browser.link)

    assert ("300", "login") == (world.provider.asked["max_age"], world.provider.asked["prompt"])
    assert before != browser.cookies[PLACE.cookie]
    assert "1 tool of the 4 that were asked for" in browser.words
    browser.send(f"/sessions/{session_id}/approve")
    session = world.state(session_id)
    assert (["delete_customer"], 600, "ann") == (
        [one.tool for one in session.tools],
        session.duration.seconds,
        session.approved_by,
    )


def test_a_log_in_that_proves_nothing_is_asked_for_once(world: Entered) -> None:
    """The page then names what the provider must be set to send, and stops."""
    world.provider.wishes = Wishes(in_access_token=False, in_id_token=False)
    session_id, browser = world.requested(), world.browser()
    world.open(browser, f"/sessions/{session_id}")
    browser.send(f"/sessions/{session_id}/approve")
    world.open(browser, browser.link)
    browser.send(f"/sessions/{session_id}/approve")

    assert "auth_time" in browser.words
    assert "another log-in would change nothing" in browser.words
    assert "/log-in?" not in browser.text


def test_what_the_server_does_not_take_is_said(world: Entered) -> None:
    """An ID token that it refuses, for example because it knows no console: the page says why, and stops."""
    world.provider.wishes = Wishes(in_access_token=False, id_claims={"token_use": "access"})
    session_id, browser = world.requested(), world.browser()
    world.open(browser, f"/sessions/{session_id}")
    browser.send(f"/sessions/{session_id}/approve")

    assert "the ID token is not accepted" in browser.words
    assert "/log-in?" not in browser.text
    assert "REQUESTED" in str(world.state(session_id))


def test_who_approves_for_themselves_brings_their_groups(world: Entered) -> None:
    """Those of the bundle: the page shows them before, and the session has them. Nobody gives theirs to another."""
    for subject, expected in (("ann@example.org", []), ("alice@example.org", ["idp/finance"])):
        world.provider.wishes = Wishes(subject=subject, age=0.0, groups=["finance", "strangers"])
        session_id, browser = world.requested(), world.browser()
        world.open(browser, f"/sessions/{session_id}")
        assert expected == re.findall("idp/[a-z]+", browser.words)
        browser.send(f"/sessions/{session_id}/approve")

        session = world.state(session_id)
        assert (expected, subject.partition("@")[0]) == (list(session.user_groups), session.approved_by)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"id_claims": {"nonce": "x"}}, "invalid_claim"),
        ({"id_claims": {"aud": "another"}}, "invalid_claim"),
        ({"id_claims": {"aud": [CLIENT, "another"], "azp": "another"}}, "invalid_claim"),
        ({"id_claims": {"iss": "https://evil.example"}}, "invalid_claim"),
        ({"id_claims": {"exp": 1}}, "expired_token"),
        ({"id_claims": {"at_hash": "x"}}, "invalid_claim"),
        ({"algorithm": "RS256"}, "signature that cannot be verified"),
        ({"without": ("id_token",)}, "no ID token"),
        ({"access_token": "opaque"}, "is opaque"),
        ({"back": {"iss": "https://evil.example"}}, "from another provider"),
        ({"back": {"iss": ""}}, "from another provider"),
        ({"back": {"state": "x"}}, "begin it again"),
        ({"back": {"code": "x"}}, "invalid_grant"),
        ({"back": {"code": "", "error": "access_denied"}}, "access_denied"),
        ({"subject": "stranger@example.org"}, "does not accept your log-in"),
        ({"groups": {"finance": True}}, "does not accept your log-in"),
    ],
)
def test_a_wrong_answer_is_no_log_in(world: Entered, wishes: dict[str, Any], said: str) -> None:
    """Whatever does not fit: the page says what, and the browser is not logged in."""
    world.provider.wishes = Wishes(**wishes)
    browser = world.browser()
    world.open(browser, "/")

    assert browser.page is not None
    assert 403 == browser.page.status_code
    assert said in browser.words
    assert PLACE.cookie not in browser.cookies


def test_an_answer_counts_once_and_in_its_browser(world: Entered) -> None:
    """Neither a second time, nor in another browser, nor too late."""
    browser, other = world.browser(), world.browser()
    back = world.at_provider(browser.open("/log-in?to=/"))
    assert 403 == other.open(back).status_code
    back = world.at_provider(browser.open("/log-in?to=/"))
    assert 200 == browser.open(back).status_code
    assert 403 == browser.open(back).status_code
    # And the provider was not asked about it once more.
    assert "was used before" in browser.words
    late = world.at_provider(browser.open("/log-in?to=/"))
    world.provider.clock.advance(FLOW_SECONDS)

    assert 403 == browser.open(late).status_code


def test_nobody_can_end_a_log_in_that_has_begun(world: Entered) -> None:
    """However many others begin meanwhile, which takes no log-in: who is at the provider comes back, to their page."""
    browser, other = world.browser(), world.browser()
    begun = browser.fetch("GET", "/log-in?to=/now")
    for _ in range(1100):
        assert 303 == other.fetch("GET", "/log-in?to=/").status_code
    ended = browser.fetch("GET", world.at_provider(begun))

    assert (303, "/now") == (ended.status_code, ended.headers["location"])


def test_a_state_is_taken_only_as_it_was_made(world: Entered) -> None:
    """With another page, time or log-in in it, or of another browser, it begins nothing, and is not used up by that."""
    browser, other = world.browser(), world.browser()
    back = world.at_provider(browser.fetch("GET", "/log-in?to=/now"))
    state, later = query(back)["state"], "9" * 9
    parts = state.split(".")
    others = [".".join([*parts[:at], later, *parts[at + 1 :]]) for at in range(len(parts))]
    other.fetch("GET", "/log-in?to=/")
    for wrong in (*others, "", ".", "....", "\udcff"):
        forged = back.replace(quote(state, safe=""), quote(wrong, errors="surrogateescape"))
        assert 403 == browser.fetch("GET", forged).status_code
    assert 403 == other.fetch("GET", back).status_code

    assert "/now" == browser.fetch("GET", back).headers["location"]


def test_a_fresh_log_in_ends_the_one_before(world: Entered) -> None:
    """A cookie that somebody took before it opens nothing after it."""
    browser, thief = world.browser(), world.browser()
    world.open(browser, "/")
    thief.cookies.update(browser.cookies)
    assert 200 == thief.open("/").status_code
    world.open(browser, "/log-in?to=/&fresh=300")

    assert 200 == browser.open("/").status_code
    assert 303 == thief.open("/").status_code


def test_new_keys_of_the_provider_are_read(world: Entered) -> None:
    """Its keys change, and log-ins go on."""
    world.provider.published, world.provider.wishes.algorithm = ["PS256"], "PS256"
    browser = world.browser()
    world.open(browser, "/")

    assert "Waiting for a person" in browser.words


def test_an_access_token_is_renewed_before_it_ends(world: Entered) -> None:
    """Nobody logs in again for it, as long as they do something now and then."""
    browser = world.browser()
    world.open(browser, "/")
    for _ in range(3):
        world.provider.clock.advance(TOKEN_SECONDS / 3 - 1)
        assert 200 == browser.open("/").status_code
    world.provider.clock.advance(2)

    assert 200 == browser.open("/").status_code


@pytest.mark.parametrize("path", FORMS)
def test_a_form_never_leads_to_another_site(world: Entered, path: str) -> None:
    """Without a log-in it is answered with a page, whose link leads to the provider and back to where it was sent."""
    browser = world.browser()
    answer = browser.post(path.format(session="ses_aaaaaaaaaaaaaaaaaaaaaaaaaa"), {"reason": "x"})

    assert 401 == answer.status_code
    assert "location" not in answer.headers
    back = query(browser.link)["to"]
    assert back == "/" or path.startswith((back[:10], "/sessions/{session}"))


def test_a_log_in_ends_with_its_tokens(world: Entered) -> None:
    """When the provider renews no more, the next page leads there."""
    browser = world.browser()
    world.open(browser, "/")
    world.provider.wishes.refuses_refresh = True
    for _ in range(3):
        world.provider.clock.advance(TOKEN_SECONDS / 3)
        answer = browser.open("/")

    assert 303 == answer.status_code


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/%0d%0aSet-Cookie: x=1\r\n",
        "",
        "x",
        "/" + "x" * 1000,
    ],
)
def test_a_log_in_leads_to_the_console_alone(world: Entered, to: str) -> None:
    """Whatever a link says about where to go after it."""
    browser = world.browser()
    answer = browser.fetch("GET", world.at_provider(browser.open(f"/log-in?to={quote(to)}")))

    assert "/" == answer.headers["location"]


def test_a_log_out_leads_on_to_the_providers(world: Entered) -> None:
    """By a link, and back; the log-in of the console has ended before."""
    browser = world.browser()
    world.open(browser, "/")
    browser.send("/log-out")

    there = browser.link
    assert f"{world.provider.url}/end" == there.partition("?")[0]
    assert {"client_id": CLIENT, "post_logout_redirect_uri": f"{PLACE.origin}/out"} == query(there)
    assert 200 == browser.open("/out").status_code
    assert 303 == browser.open("/").status_code


def test_each_person_acts_as_themselves(world: Entered) -> None:
    """Two people use one console at once, and the server knows who did what."""
    first, second = world.browser(), world.browser()
    world.open(first, "/")
    world.provider.wishes.subject = "bob@example.org"
    world.open(second, "/")
    done = {}
    for browser in (first, second, first):
        session_id = world.requested()
        browser.open(f"/sessions/{session_id}")
        browser.send(f"/sessions/{session_id}/deny", {"reason": "no"})
        done[session_id] = world.state(session_id).ended_by

    assert ["ann", "bob", "ann"] == list(done.values())
