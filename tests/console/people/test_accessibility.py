"""An automated check of accessibility: axe, over every template in each state that it has, and over every real page."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from starlette.responses import HTMLResponse

from pdp.console.pages import Pages
from tests.console.desk import World
from tests.console.filled import states
from tests.console.people.chromium import chromium, resize
from tests.console.people.pictures import enter
from tests.console.people.served import served

pytestmark = pytest.mark.people

_AXE = Path(__file__).parents[3] / ".venv-people/programs/node_modules/axe-core/axe.min.js"
# Off in axe unless they are named: the size of targets, which is new in WCAG 2.2, and names that differ from labels.
_NAMED = "'target-size': {enabled: true}, 'label-content-name-mismatch': {enabled: true}"
_RULES = (
    "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22a', 'wcag22aa', 'best-practice'],"
    f" rules: {{{_NAMED}}}}}"
)
_SCHEMES = ("light", "dark")
_WIDTHS = (360, 1280)
# A screen of 1,280 pixels at 400 %, and the spacing of text that a reader may choose (WCAG 1.4.10 and 1.4.12).
_ZOOMED = 320
_SPACED = (
    "document.styleSheets[0].insertRule('* { line-height: 1.5 !important; letter-spacing: .12em !important;"
    " word-spacing: .16em !important }'); return document.documentElement.scrollWidth"
)
# What a person can use; and which of it has the focus, if that shows within the window but for a rounded pixel.
_USABLE = (
    "const usable = [...document.querySelectorAll('a[href], button, input, select, textarea, summary')]"
    ".filter((one) => one.checkVisibility());"
)
_NUMBER = f"{_USABLE} return usable.length"
_FOCUSED = (
    f"{_USABLE} const one = document.activeElement, box = one.getBoundingClientRect();"
    "const within = box.top > -1 && box.bottom < innerHeight + 1 && box.left > -1 && box.right < innerWidth + 1;"
    "return within && getComputedStyle(one).outlineStyle !== 'none' ? usable.indexOf(one) : -2"
)
_BROKEN = (
    "<!doctype html><html lang=en><title>Broken</title><body style='background: #fff'><main><h1>Broken</h1><img src=x>"
    "<p style='color: #bbb'>Pale</p><button style='width: 9px; height: 9px; padding: 0; border: 0'>a</button>"
    "<button style='width: 9px; height: 9px; padding: 0; border: 0'>b</button><input></main>"
)
_PALE_IN_THE_DARK = (
    "<!doctype html><html lang=en><title>Pale</title><style>body { background: white }"
    "@media (prefers-color-scheme: dark) and (max-width: 400px) { p { color: silver } }</style>"
    "<main><h1>Pale</h1><p>Pale</p></main>"
)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Return where each of them is shown."""
    with served(states()) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Return a browser with nothing in it."""
    with chromium() as driver:
        yield driver


def bring(driver: Chrome) -> None:
    """Bring the check into a page."""
    # By the debugger, since the page's own policy lets no script of others in.
    driver.execute_cdp_cmd("Runtime.evaluate", {"expression": _AXE.read_text(encoding="utf-8")})


def violations(driver: Chrome) -> dict[str, str]:
    """Return the rules that the page breaks as it looks now, each with the first element that does."""
    run = {"expression": f"axe.run({_RULES})", "awaitPromise": True, "returnByValue": True}
    result = driver.execute_cdp_cmd("Runtime.evaluate", run)["result"]["value"]
    return {one["id"]: one["nodes"][0]["html"] for one in result["violations"]}


def checked(driver: Chrome, addresses: dict[str, str]) -> list[tuple[str, int, str, str, str]]:
    """Return what every page breaks, in both colour schemes, and on a telephone and a screen."""
    found = []
    for name, address in addresses.items():
        driver.get(address)
        bring(driver)
        for scheme, width in product(_SCHEMES, _WIDTHS):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            resize(driver, width, 900)
            found += [(scheme, width, name, *broken) for broken in violations(driver).items()]
    return found


def test_the_check_sees_what_is_broken(browser: Chrome) -> None:
    """A page without what it needs breaks these rules, so a page that breaks none was looked at."""
    browser.get(f"data:text/html,{_BROKEN.replace('#', '%23')}")
    bring(browser)

    assert {"image-alt", "color-contrast", "target-size", "label"} <= violations(browser).keys()


def test_each_scheme_is_looked_at_in_each_width(browser: Chrome) -> None:
    """What is broken only in the dark on a telephone is found there, and nowhere else."""
    found = checked(browser, {"pale": f"data:text/html,{_PALE_IN_THE_DARK}"})

    assert [("dark", 360, "pale", "color-contrast", "<p>Pale</p>")] == found


def test_no_template_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that no state here is of would be looked at by nobody."""
    used, page = set[str](), Pages.page

    def noted(made: Pages, name: str, status: int = 200, **given: Any) -> HTMLResponse:
        used.add(name)
        return page(made, name, status, **given)

    monkeypatch.setattr(Pages, "page", noted)
    states()

    templates = files("pdp.console").joinpath("templates").iterdir()
    # Others are parts of these.
    assert {
        file.name for file in templates if file.read_text(encoding="utf-8").startswith('{% extends "base.html" %}')
    } == used


def test_every_state_of_a_page_is_accessible(browser: Chrome, addresses: dict[str, str]) -> None:
    """By the rules of WCAG 2.2 AA, as far as they can be computed: what is rare, such as a refusal, as well."""
    assert [] == checked(browser, addresses)


def test_no_page_is_wider_than_a_screen_at_400_percent(browser: Chrome) -> None:
    """Not even with words of others that never end, and with more space between letters."""
    wide = {}
    with served(states("w" * 300)) as addresses:
        resize(browser, _ZOOMED, 900)
        for name, address in addresses.items():
            browser.get(address)
            wide[name] = browser.execute_script(_SPACED)

    assert {} == {name: width for name, width in wide.items() if width > _ZOOMED}


def test_the_keyboard_reaches_everything_in_order_and_visibly(browser: Chrome, addresses: dict[str, str]) -> None:
    """On every page each link, button and field has the focus once, in the order of the page, within the window."""
    resize(browser, _WIDTHS[0], 900)
    for name, address in addresses.items():
        browser.get(address)
        usable = browser.execute_script(_NUMBER)
        reached = []
        for _ in range(usable):
            ActionChains(browser).send_keys(Keys.TAB).perform()
            reached.append(browser.execute_script(_FOCUSED))

        assert usable, name
        assert [*range(usable)] == reached, name


def test_every_page_is_accessible(browser: Chrome, world: World, paths: dict[str, str]) -> None:
    """The pages of a real server and broker, with their scripts at work."""
    enter(browser, world)

    assert [] == checked(browser, {name: world.place.origin + path for name, path in paths.items()})
