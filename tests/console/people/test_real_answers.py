"""What a real provider answers, right and wrong, without a browser: its pages have forms alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2
import pytest

from pdp.client import Client as PDPClient
from pdp.console.provider import Client
from tests.console.desk import SECONDS, Browser
from tests.console.people.realprovider import AUDIENCE, provider, server, set_clock, take_keys
from tests.console.provider import PLACE, SECRET, console_of_all, query

pytestmark = pytest.mark.people

# As the provider has it.
_TOKEN_SECONDS = 600
_FORM = re.compile(r'action="([^"]+)" method="post">\s*<input type="hidden" name="prompt" value="(\w+)"')


class Desk:
    """A server, a real provider that it believes, and a console for each way to be its client."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self._opened = opened
        self._program = opened.enter_context(ExitStack())
        self.issuer = self._program.enter_context(provider(PLACE.origin))
        settings, self._address, self.clock = opened.enter_context(server(folder, self.issuer, "plain"))
        token = settings.tokens_folder / "pep.token"
        self.gateway = self._opened.enter_context(
            PDPClient(self._address, token_file=token, plaintext=True, timeout=SECONDS)
        )

    def change_keys(self) -> None:
        """Have the provider begin anew, with other keys, and the server know them."""
        self._program.close()
        port = urlsplit(self.issuer).port or 0
        assert self.issuer == self._program.enter_context(provider(PLACE.origin, port))
        take_keys(self.folder, self.issuer)

    def browser(self, client_id: str = "plain", audience: str = AUDIENCE, scope: str = "openid") -> Browser:
        """Return a browser before a console of its own."""
        known = Client(
            issuer=self.issuer, client_id=client_id, secret=SECRET, scope=scope, parameters={"resource": audience}
        )
        port = self._opened.enter_context(console_of_all(self._address, known, self.clock))
        browser = Browser(PLACE, port)
        self._opened.callback(browser.http.close)
        return browser

    def requested(self) -> str:
        """Return the path of a session that waits."""
        wanted = self.gateway.request_session(user="alice", agent="coder", purpose="Tidy up", tools=["crm/*"])
        return f"/sessions/{wanted.session.session_id}"

    def back(self, leads: httpx2.Response) -> str:
        """Log in where the console leads, and let the console in; return the path that leads back."""
        with httpx2.Client(timeout=SECONDS) as http:
            answer = http.get(leads.headers["location"])
            while not answer.headers.get("location", "").startswith(PLACE.origin):
                if answer.is_redirect:
                    answer = http.get(urljoin(str(answer.url), answer.headers["location"]))
                    continue
                form = _FORM.search(answer.text)
                assert form, answer.text
                fields = {"prompt": form[2], "login": "ann@example.org", "password": "any"}
                answer = http.post(urljoin(str(answer.url), form[1]), data=fields)
        there = urlsplit(answer.headers["location"])
        return f"{there.path}?{there.query}"

    def enter(self, browser: Browser, path: str = "/") -> httpx2.Response:
        """Open a page by way of the provider."""
        return browser.open(self.back(browser.open(path)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Return a real provider, a server and consoles."""
    with ExitStack() as opened:
        yield Desk(tmp_path_factory.mktemp("real"), opened)


@pytest.fixture
def desk(running: Desk) -> Desk:
    """Return them, at the present time."""
    set_clock(running.clock)
    return running


def test_a_fresh_log_in_says_when_it_was(desk: Desk) -> None:
    """In the ID token alone: access tokens of this provider never do, and this client asks for it by `max_age`."""
    path, browser = desk.requested(), desk.browser()
    desk.enter(browser, path)
    browser.send(f"{path}/approve")
    assert "Log in again to approve this" in browser.words
    desk.enter(browser, browser.link)
    browser.send(f"{path}/approve")

    assert "Approved byann" in browser.words


def test_what_no_token_says_is_asked_for_once(desk: Desk) -> None:
    """The page names the setting that is missing, and stops."""
    path, browser = desk.requested(), desk.browser("silent")
    desk.enter(browser, path)
    browser.send(f"{path}/approve")
    desk.enter(browser, browser.link)
    browser.send(f"{path}/approve")

    assert "auth_time" in browser.words
    assert "another log-in would change nothing" in browser.words
    assert "/log-in?" not in browser.text


def test_a_log_in_ends_with_its_access_token(desk: Desk) -> None:
    """Without a refresh token, and not before."""
    browser = desk.browser()
    desk.enter(browser)
    set_clock(desk.clock, ahead=_TOKEN_SECONDS - 100)
    assert 200 == browser.open("/").status_code
    set_clock(desk.clock, ahead=_TOKEN_SECONDS + 10)

    assert browser.open("/").headers["location"].startswith(f"{desk.issuer}/auth?")


def test_an_answer_is_for_the_log_in_that_began(desk: Desk) -> None:
    """Neither with another state, nor with a code that was used before: the provider refuses that."""
    browser = desk.browser()
    used = desk.back(browser.open("/"))
    assert 200 == browser.open(used).status_code
    begun = urlsplit(desk.back(browser.open("/log-in?to=/")))
    answers = {"state": "x"}, {"code": query(used)["code"]}
    said = []
    for forged in answers:
        answer = browser.open(f"{begun.path}?{urlencode({**query(begun.geturl()), **forged})}")
        said.append((answer.status_code, browser.words))

    assert [403, 403] == [status for status, _ in said]
    assert "begin it again" in said[0][1]
    assert "invalid_grant" in said[1][1]


def test_a_token_of_another_audience_is_no_log_in(desk: Desk) -> None:
    """The server does not take it."""
    browser = desk.browser(audience="https://another.example.org")
    desk.enter(browser)

    assert "does not accept your log-in" in browser.words
    assert PLACE.cookie not in browser.cookies


def test_keys_of_the_provider_may_change(desk: Desk) -> None:
    """Console and server read them again, and log-ins go on."""
    browser = desk.browser()
    desk.enter(browser)
    desk.change_keys()
    for _ in range(20):
        # Neither reads its keys again at once, and the server answers only when it has.
        desk.clock.advance(60)
        set_clock(desk.clock)
        desk.enter(browser, "/log-in?to=/&fresh=300")
        if "Waiting for a person" in browser.words:
            break

    assert "Waiting for a person" in browser.words
