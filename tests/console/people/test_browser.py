"""The console in a real browser: what a person sees, does and can reach, with scripts and without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from pdp.testing.inprocess import RunningServer
from tests.console.desk import World, console, live, requested
from tests.console.people.chromium import PATIENCE, chromium, press, problems, resize, row, until
from tests.console.people.pictures import WIDTHS, enter
from tests.console.strings import STRINGS

pytestmark = pytest.mark.people


@pytest.fixture(scope="module")
def browser(world: World) -> Iterator[Chrome]:
    """Return a browser that is logged in."""
    with chromium() as driver:
        enter(driver, world)
        yield driver


def test_a_request_comes_and_less_of_it_is_approved(browser: Chrome, world: World, server: RunningServer) -> None:
    """The page shows it without a reload; the next call inside of what was approved is allowed, and one outside not."""
    browser.get(world.place.origin)
    session_id, handle = requested(server, purpose="Find the blue one")
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.title.startswith("("))
    row(browser, session_id).click()
    until(browser, "Find the blue one")
    press(browser, "Approve less, or with grants…")
    for box in browser.find_elements(By.NAME, "tool"):
        if box.get_attribute("value") != "crm/find_customer":
            box.click()
    press(browser, "See what this approves")
    until(browser, "1 tool of the 4 that were asked for")
    press(browser, "Approve exactly this")
    until(browser, "active")

    ask = server.client("pep").authorize
    assert ask(handle, "crm", "find_customer").allowed
    assert not ask(handle, "crm", "update_customer").allowed
    assert [] == problems(browser)


def test_rows_do_not_move_under_the_pointer(browser: Chrome, world: World, server: RunningServer) -> None:
    """What comes meanwhile waits until the pointer is elsewhere, and what has gone is marked in its place."""
    first, _ = requested(server)
    browser.get(world.place.origin)
    there = row(browser, first)
    ActionChains(browser).move_to_element(there).perform()
    before = there.rect
    later, _ = requested(server)
    until(browser, "1 more")
    server.client("approver").deny_session(first, reason="no")
    WebDriverWait(browser, PATIENCE).until(
        lambda _: "gone" in str(browser.find_element(By.CSS_SELECTOR, f"[data-key={first}]").get_attribute("class"))
    )
    assert before == there.rect
    assert later not in browser.page_source
    ActionChains(browser).move_to_element(browser.find_element(By.CLASS_NAME, "brand")).perform()
    row(browser, later)

    assert first not in browser.page_source


def test_a_request_that_is_read_does_not_change(browser: Chrome, world: World, server: RunningServer) -> None:
    """The page says that it is old, and its buttons stay where they are."""
    session_id, _ = requested(server)
    browser.get(f"{world.place.origin}/sessions/{session_id}")
    before = browser.find_element(By.ID, "approve").rect
    server.client("approver").deny_session(session_id, reason="no")
    until(browser, "This has changed since the page was opened")

    assert before == browser.find_element(By.ID, "approve").rect


def test_one_stream_serves_all_tabs(browser: Chrome, world: World, server: RunningServer) -> None:
    """Another tab takes it over when it is in front, and shows what comes."""
    logins = world.entry._desk.logins
    browser.get(world.place.origin)
    WebDriverWait(browser, PATIENCE).until(lambda _: any(one.streams for one in logins._by_digest.values()))
    [login] = [one for one in logins._by_digest.values() if one.streams]
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(world.place.origin)
    session_id, _ = requested(server)
    row(browser, session_id)

    WebDriverWait(browser, PATIENCE).until(lambda _: login.streams == 1)
    browser.close()
    browser.switch_to.window(first)


def test_a_page_without_its_console_says_so(browser: Chrome, server: RunningServer) -> None:
    """What it shows may be old, and looks as ever."""
    with console(server, "overseer") as gone:
        enter(browser, gone)
        [login] = gone.entry._desk.logins._by_digest.values()
        WebDriverWait(browser, PATIENCE).until(lambda _: login.streams)

    until(browser, "The console cannot be reached")
    browser.get("about:blank")
    assert all("ERR_CONNECTION" in one or "/events" in one for one in problems(browser))


def test_no_text_of_others_runs(browser: Chrome, world: World, server: RunningServer) -> None:
    """A purpose of all strings that the server takes: no dialog opens, and the browser complains about nothing."""
    taken = "\n".join(text for text in STRINGS if text.isprintable() and len(text) < 100)
    session_id, _ = requested(server, purpose=taken[:4000])
    for path in ("/", f"/sessions/{session_id}", f"/sessions/{session_id}/less", f"/revoke?session_id={session_id}"):
        browser.get(world.place.origin + path)

        assert "alert(1)" in browser.find_element(By.TAG_NAME, "main").text
        assert 1 == len(browser.find_elements(By.TAG_NAME, "script"))
        assert [] == problems(browser)
    server.client("approver").deny_session(session_id, reason="no")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_screen(browser: Chrome, world: World, paths: dict[str, str], width: int) -> None:
    """Nobody scrolls sideways."""
    try:
        for name, path in paths.items():
            resize(browser, width, 900)
            browser.get(world.place.origin + path)

            assert width >= browser.execute_script("return document.documentElement.scrollWidth"), name
    finally:
        resize(browser, 1280, 900)


def test_the_keyboard_reaches_everything_visibly(browser: Chrome, world: World, server: RunningServer) -> None:
    """From the first key on: to the content, to each link and button, and the approval by the keyboard alone."""
    session_id, _ = requested(server)
    browser.get(f"{world.place.origin}/sessions/{session_id}")
    seen = []
    for _ in range(20):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        seen.append(focused.get_attribute("id") or focused.text)
        assert "none" != focused.value_of_css_property("outline-style")
        if seen[-1] == "approve":
            break
    assert seen[0] == "Skip to the content"
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(browser, "active")

    assert "ACTIVE" in str(server.client("approver").get_session(session_id))


def test_keys_move_the_focus_and_can_be_switched_off(browser: Chrome, world: World, server: RunningServer) -> None:
    """They press nothing, and type into fields as ever."""
    session_id, _ = requested(server)
    browser.get(f"{world.place.origin}/sessions/{session_id}")

    def after(keys: str) -> str:
        ActionChains(browser).send_keys(keys).perform()
        return str(browser.switch_to.active_element.get_attribute("id"))

    assert ["approve", "deny", "approve"] == [after(key) for key in "ada"]
    browser.find_element(By.ID, "reason").click()
    assert "reason" == after("ad")
    assert "ad" == browser.find_element(By.ID, "reason").get_attribute("value")
    browser.find_element(By.CSS_SELECTOR, "#keys input").click()
    assert after("a") not in ("approve", "deny")
    browser.refresh()
    assert after("a") not in ("approve", "deny")
    browser.find_element(By.CSS_SELECTOR, "#keys input").click()

    assert "REQUESTED" in str(server.client("approver").get_session(session_id))


def test_without_scripts_a_person_decides_as_well(world: World, server: RunningServer) -> None:
    """By links and forms alone; the list loads itself again."""
    session_id, _ = requested(server)
    _, handle = live(server)
    call = server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).access_request_id
    with chromium(scripts=False) as driver:
        enter(driver, world)
        assert 'http-equiv="refresh"' in driver.page_source
        row(driver, session_id).click()
        press(driver, "Approve all of it")
        until(driver, "active")
        driver.get(world.place.origin)
        row(driver, call).click()
        press(driver, "Approve exactly this call")
        until(driver, "approved")
        driver.get(f"{world.place.origin}/revoke?session_id={session_id}")
        driver.find_element(By.ID, "reason").send_keys("enough")
        press(driver, "Revoke 1 session")
        until(driver, "Revoked 1 session")

    assert "REVOKED" in str(server.client("approver").get_session(session_id))
    assert server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"}).allowed


def test_another_server_of_this_machine_gets_nothing(browser: Chrome, world: World, server: RunningServer) -> None:
    """Its page gets no cookie, cannot frame the console, and sends forms and fetches in vain."""
    session_id, _ = live(server)
    fields = f"<input name=session_id value={session_id}><input name=reason value=x>"
    page = (
        f"<!doctype html><title>elsewhere</title><iframe src={world.place.origin}/></iframe>"
        f"<form action={world.place.origin}/revoke method=post>{fields}</form><script>"
        f"fetch('{world.place.origin}/now', {{credentials: 'include'}})"
        ".then(() => 'read', () => 'refused').then((text) => { document.title = text; });</script>"
    )
    with elsewhere(page) as (port, cookies):
        browser.get(f"http://localhost:{port}/")
        WebDriverWait(browser, PATIENCE).until(lambda _: browser.title != "elsewhere")
        assert "refused" == browser.title
        browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
        assert "Waiting for a person" not in browser.page_source
        browser.switch_to.default_content()
        browser.execute_script("document.forms[0].submit()")
        until(browser, "Another site sent this, so nothing was done.")

        assert [None] == cookies
    assert "ACTIVE" in str(server.client("approver").get_session(session_id))
    # Of what it did the browser complains.
    problems(browser)


def test_nothing_is_left_after_a_log_out(world: World, server: RunningServer) -> None:
    """The button "back" shows no page of before."""
    requested(server, purpose="A secret purpose")
    with chromium() as driver:
        enter(driver, world)
        until(driver, "A secret purpose")
        driver.get(f"{world.place.origin}/now")
        press(driver, "Log out")
        until(driver, "This browser is not logged in here")
        for _ in range(3):
            driver.back()

            assert "A secret purpose" not in driver.page_source


@contextmanager
def elsewhere(page: str) -> Iterator[tuple[int, list[str | None]]]:
    """Serve a page, and provide the port and the cookies that came with requests for it."""
    cookies: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                cookies.append(self.headers["cookie"])
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            yield serving.server_port, cookies
        finally:
            serving.shutdown()
