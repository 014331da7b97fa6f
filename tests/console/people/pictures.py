"""Pictures of every page, on narrow and wide screens, light and dark; called with the folder to write them to."""

from __future__ import annotations

import sys
from pathlib import Path

from selenium.webdriver import Chrome

from pdp.testing.inprocess import RunningServer, running_server
from tests.console.desk import CALLERS, World, console, files, live, requested
from tests.console.filled import states
from tests.console.people.chromium import chromium, resize
from tests.console.people.served import served

WIDTHS = (360, 1280, 2560)
_HEIGHT, _MOST = 900, 4000
# Of all states those that the server of these pictures does not show: it has no provider, and nobody acts meanwhile.
_RARE = (
    *("log in", "closed", "logged out", "presence", "presence, here", "presence, again", "presence, never"),
    *("request", "freeze", "less", "revoked", "revoke user", "waiting, empty"),
)
_PURPOSE = (
    "Customers that closed their account before 2024 are still in the list.\n"
    "Find them, ask each by mail whether they agree, and remove those who do."
)


def scenes(server: RunningServer) -> dict[str, str]:
    """Return the path of every page, by its name, with something on each."""
    waiting, _ = requested(server, purpose=_PURPOSE, terms={"max_calls": 200, "ticket": "OPS-1482"}, duration=5400)
    for user, purpose in (("bob", "Answer the mails of this morning"), ("alice", "Look up who bought the blue one")):
        requested(server, user=user, purpose=purpose, tools=["crm/find_customer", "crm/update_customer"])
    running, handle = live(server, purpose="Update the addresses of customers who moved", terms={"max_calls": 50})
    for user in ("alice", "bob", "bob"):
        live(server, user=user, purpose="Look up orders of the last week", tools=["crm/find_customer"])
    mail = {"to": "ann@example.com", "text": "Dear Ann,\n\nwe would like to remove your account.  Do you agree?"}
    asked = server.client("pep").authorize(handle, "crm", "send_mail", mail)
    call = asked.access_request_id
    ended, _ = live(server, purpose="Count customers")
    server.client("approver").revoke_sessions(session_id=ended, reason="acts strangely")
    return {
        "waiting": "/",
        "request": f"/sessions/{waiting}",
        "less": f"/sessions/{waiting}/less",
        "call": f"/approvals/{call}",
        "now": "/now",
        "nobody": "/now?user=nobody",
        "session": f"/sessions/{running}",
        "revoke": "/revoke?user=bob",
        "freeze": "/freeze",
        "reach": "/reach?user=bob",
        "record": "/record",
        "timeline": f"/record/sessions/{running}",
        "decision": f"/record/decisions/{asked.decision_id}",
        "plan": "/record/plan?user=bob",
        "revoked": f"/sessions/{ended}",
        "problem": "/nothing",
    }


def enter(driver: Chrome, world: World) -> None:
    """Open the link."""
    world.entry._key, world.entry._until = "p" * 43, float("inf")
    driver.get(f"{world.place.origin}/enter?key={world.entry._key}")


def whole_height(driver: Chrome) -> int:
    """Return the height of the page."""
    return min(_MOST, max(_HEIGHT, int(driver.execute_script("return document.documentElement.scrollHeight"))))


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rare = states("coder")
    with (
        running_server(files(), callers=CALLERS) as server,
        console(server, "overseer") as world,
        served({name: rare[name] for name in _RARE}) as addresses,
    ):
        paths = scenes(server)
        pages = {name: world.place.origin + path for name, path in paths.items()}
        pages |= {f"rare-{name.replace(', ', '-').replace(' ', '-')}": there for name, there in addresses.items()}
        for dark in (False, True):
            with chromium(dark=dark) as driver:
                enter(driver, world)
                for name, address in pages.items():
                    for width in WIDTHS:
                        resize(driver, width, _HEIGHT)
                        driver.get(address)
                        resize(driver, width, whole_height(driver))
                        driver.save_screenshot(str(folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
