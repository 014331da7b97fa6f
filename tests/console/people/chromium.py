"""A real browser: Chromium without a window, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.common import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# What a page may take to show what has happened.
PATIENCE = 60.0
NO_SCRIPTS = {"profile.managed_default_content_settings.javascript": 2}


def program(name: str) -> str:
    """Return the path of a program of the system."""
    found = shutil.which(name)
    assert found is not None, f"`{name}` is absent: install the packages `chromium` and `chromium-driver`"
    return found


@contextmanager
def chromium(*, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True) -> Iterator[Chrome]:
    """Open a browser with nothing in it."""
    options = ChromeOptions()
    options.binary_location = program("chromium")
    for one in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "no-proxy-server", "no-first-run"):
        options.add_argument(f"--{one}")
    # What it says on its console, such as that a page broke its own policy.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", NO_SCRIPTS)
    driver = Chrome(options=options, service=ChromeService(program("chromedriver")))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        resize(driver, width, height)
        driver.implicitly_wait(PATIENCE)
        driver.set_page_load_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, width: int, height: int) -> None:
    """Give the page a size: a window has a least one, which is wider than a telephone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def problems(driver: Chrome) -> list[str]:
    """Return what the browser complained about since it was asked last."""
    # That a link was not found says its answer, and a test looks at that.
    return [
        one["message"]
        for one in driver.get_log("browser")
        if "the server responded with a status" not in one["message"]
    ]


def until(driver: Chrome, said: str) -> None:
    """Wait until the page says something."""
    # While a page is left, its elements are gone.
    waiting = WebDriverWait(driver, PATIENCE, ignored_exceptions=(WebDriverException,))
    waiting.until(lambda _: said in driver.find_element(By.TAG_NAME, "body").text)


def row(driver: Chrome, key: str) -> WebElement:
    """Return the row of something that waits, as soon as it is there."""
    return driver.find_element(By.CSS_SELECTOR, f"[data-key={key}] a")


def press(driver: Chrome, text: str) -> None:
    """Press a button or follow a link by its text."""
    driver.find_element(By.XPATH, f"//*[self::button or self::a][normalize-space()={text!r}]").click()
