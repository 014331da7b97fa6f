"""The console in this process, before a real server, and a browser without scripts that visits it."""

from __future__ import annotations

import asyncio
import html
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import httpx2

from pdp.audit.coverage import NOTHING_LACKING, Coverage, Lacking
from pdp.client import AsyncClient
from pdp.client.broker import AsyncBrokerClient
from pdp.console.assembly import local_console
from pdp.console.local import LocalEntry, local_name
from pdp.console.shell import Place
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.serving import weblistener
from pdp.serving.weblistener import LoopbackListener
from pdp.testing.bundles import SCHEMA, bundle_files, tool, with_terms
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer

SECONDS = 60.0
TOOLS = ("delete_customer", "find_customer", "send_mail", "update_customer")
CALLERS = (
    *ONE_OF_EACH_ROLE,
    # One who approves and reads the record.
    Caller(
        id="overseer",
        kind="token",
        roles=frozenset({Role.APPROVER, Role.AUDITOR}),
        authenticated_at=AT_EACH_CALL,
    ),
    # An approver whose token does not say when they logged in, and a gateway and an approver of another tenant.
    Caller(id="absent", kind="token", roles=frozenset({Role.APPROVER})),
    Caller(
        id="other",
        kind="token",
        roles=frozenset({Role.APPROVER, Role.AUDITOR}),
        tenant="acme",
        authenticated_at=AT_EACH_CALL,
    ),
)
# Each form of the console, with what it would do.
FORMS = (
    "/sessions/{session}/less",
    "/sessions/{session}/approve",
    "/sessions/{session}/deny",
    "/sessions/{session}/narrow",
    "/approvals/acc_aaaaaaaaaaaaaaaaaaaaaaaaaa/approve",
    "/approvals/acc_aaaaaaaaaaaaaaaaaaaaaaaaaa/deny",
    "/approvals/acc_aaaaaaaaaaaaaaaaaaaaaaaaaa/revoke",
    "/revoke",
    "/freeze",
    "/lift",
    "/log-out",
)
_ANY = {name: {"type": "string"} for name in ("id", "text", "to")}
_POLICIES = """
@id("crm/open") permit (principal, action, resource == Server::"crm");
@id("crm/delete") forbid (principal, action == Action::"crm/delete_customer", resource)
unless { context.session in Grant::"cleanup" };
@id("crm/mail") @step_up("Send this mail?") forbid (principal, action == Action::"crm/send_mail", resource);
"""
_FIELD = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')
_FORM = re.compile(r'<form method="post" action="([^"]+)".*?</form>', re.DOTALL)
_LINK = re.compile(r'<a href="([^"]*)"[^>]*>(.*?)</a>')
_GREEN = re.compile(r'<a class="button yes" href="([^"]+)"')


class Covered(Coverage):
    """Says that answers about the record lack what a test wants."""

    found = NOTHING_LACKING

    def lacking(self) -> Lacking:
        """Return it."""
        return self.found


def files() -> dict[str, bytes]:
    """Return a bundle with a tool of each risk, one of which asks a person, and a grant that opens one."""
    return bundle_files(
        policies={"crm": _POLICIES},
        tools={"crm": [tool(name, _ANY) for name in TOOLS]},
        overlays={
            "crm": "risk: read_only\n"
            "tools:\n  delete_customer: {risk: destructive}\n"
            "  update_customer: {risk: mutating, connection: {kind: salesforce, scopes: ['crm:write']}}\n"
            "  send_mail: {risk: mutating, log: [to], connection: {kind: mail, scopes: ['mail:send']}}\n"
        },
        directory="users: {alice: {}, bob: {}}\nuser_groups: {idp/finance: {}}\n"
        "agents: {coder: {ceiling: ['crm/*']}}\n",
        schema=with_terms("ticket?: String, max_calls?: Long", SCHEMA),
        manifest="name: crm\n",
    )


def requested(server: RunningServer, caller: str = "pep", **given: Any) -> tuple[str, str]:
    """Return id and handle of a session that waits for approval."""
    wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "Tidy up", "tools": ["crm/*"], **given}
    found = server.client(caller).request_session(**wanted)
    return found.session.session_id, found.session_handle


def live(server: RunningServer, **given: Any) -> tuple[str, str]:
    """Return id and handle of a session that a person has approved."""
    session_id, handle = requested(server, **given)
    shown = server.client("approver").get_session(session_id)
    server.client("approver").approve_session(session_id, request_digest=shown.request_digest)
    return session_id, handle


class _Loop:
    """One event loop for all consoles: gRPC's own thread still speaks to that of an earlier one when it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="console").start()

    def run(self, work: Any) -> Any:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)


LOOP = _Loop()


class Browser:
    """A browser without scripts: it keeps cookies, and sends the forms of the page that it shows."""

    def __init__(self, place: Place, port: int) -> None:
        self.place = place
        self.http = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"host": place.host}, timeout=SECONDS, follow_redirects=False
        )
        self.cookies: dict[str, str] = {}
        self.page: httpx2.Response | None = None

    @property
    def text(self) -> str:
        """Return the page as its source has it."""
        assert self.page is not None
        return self.page.text

    @property
    def words(self) -> str:
        """Return the page as a person reads it."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", "", self.text)).split())

    @property
    def facts(self) -> list[str]:
        """Return what the page's lists of facts say, each as `name value`."""
        found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.text, re.DOTALL)
        return [" ".join(html.unescape(re.sub(r"<[^>]*>", "", f"{name} {value}")).split()) for name, value in found]

    @property
    def link(self) -> str:
        """Return where the green button of the page leads."""
        found = _GREEN.search(self.text)
        assert found, self.words
        return html.unescape(found[1])

    def leads(self, text: str) -> str:
        """Return where the first link with a text leads."""
        found = _LINK.findall(self.text)
        return next(html.unescape(path) for path, shown in found if text == re.sub(r"<[^>]*>", "", shown))

    def open(self, path: str, **headers: str) -> httpx2.Response:
        """Open a page, also that of another place to which it leads."""
        return self._shown(self.fetch("GET", path, _named(headers)))

    def send(self, path: str, fields: Mapping[str, Any] | None = None, **headers: str) -> httpx2.Response:
        """Send the form of the page that leads to a path, with some fields filled in."""
        form = self.form(path)
        return self.post(path, {**form, **(fields or {})}, **headers)

    def post(self, path: str, fields: Mapping[str, Any], **headers: str) -> httpx2.Response:
        """Send fields as a page of the console would."""
        own = {"origin": self.place.origin, "sec-fetch-site": "same-origin", **_named(headers)}
        kept = {name: value for name, value in own.items() if value}
        return self._shown(self.fetch("POST", path, kept, data=dict(fields)))

    def fetch(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> httpx2.Response:
        """Send a request with the browser's cookies, and keep those of the answer. The page stays."""
        answer = self.http.request(method, path, headers={**self.cookie, **(headers or {})}, **more)
        self.http.cookies.clear()
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer

    @property
    def cookie(self) -> dict[str, str]:
        """Return the header with the browser's cookies."""
        kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)
        return {"cookie": kept} if kept else {}

    def form(self, path: str) -> dict[str, str]:
        """Return the hidden fields of the form that leads to a path."""
        for found in _FORM.finditer(self.text):
            if html.unescape(found[1]) == path:
                return {name: html.unescape(value) for name, value in _FIELD.findall(found[0])}
        raise AssertionError(f"no form leads to `{path}`: {self.words}")

    def _shown(self, answer: httpx2.Response) -> httpx2.Response:
        if 303 == answer.status_code and answer.headers["location"].startswith("/"):
            return self.open(answer.headers["location"])
        self.page = answer
        return answer


class World:
    """A console, and the server behind it."""

    def __init__(self, server: RunningServer, place: Place, listener: LoopbackListener, entry: LocalEntry) -> None:
        self.server = server
        self.place = place
        self.listener = listener
        self.entry = entry
        self.browsers: list[Browser] = []

    def browser(self) -> Browser:
        """Return a browser that nobody has used; it is closed with the console."""
        self.browsers.append(Browser(self.place, self.listener.port))
        return self.browsers[-1]

    @property
    def key(self) -> str:
        """Return the key of the link."""
        return self.entry._key

    def person(self) -> Browser:
        """Return the browser of the person, who has opened the link."""
        browser = self.browser()
        # Each link works once, and these tests want many browsers.
        self.entry._key = "k" * 43
        self.entry._until = float("inf")
        browser.open(f"/enter?key={self.key}")
        return browser


@contextmanager
def console(server: RunningServer, caller: str = "approver", *, broker: str = "") -> Iterator[World]:
    """Run the console of one person on their machine. `broker` is where the person connects accounts."""

    async def begin() -> tuple[AsyncExitStack, World]:
        opened = AsyncExitStack()
        connect = partial(AsyncClient, server.address, token=server.token(caller), plaintext=True)
        client = await opened.enter_async_context(connect())
        listener = opened.enter_context(LoopbackListener())
        place = Place(f"http://{local_name()}:{listener.port}")
        accounts = AsyncBrokerClient(broker, token=lambda: server.token(caller)) if broker else None
        if accounts is not None:
            await opened.enter_async_context(accounts)
        app, entry = local_console(client, connect, place, server.clock, broker=accounts)
        opened.push_async_callback(stop, asyncio.ensure_future(weblistener.serve(app, listener, close_streams=True)))
        return opened, World(server, place, listener, entry)

    stack, world = LOOP.run(begin())
    try:
        yield world
    finally:
        for browser in world.browsers:
            browser.http.close()
        LOOP.run(stack.aclose())


async def stop(serving: asyncio.Future[None]) -> None:
    """End what serves."""
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
