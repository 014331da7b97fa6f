"""The log-in with a provider: it begins at a link, ends in a new log-in of the console, and returns to its page."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from pdp.client import PDPClientError
from pdp.console.live import by_script
from pdp.console.logins import Login, Recent, digest_of
from pdp.console.paging import AGAIN
from pdp.console.problems import Problem, problem_of
from pdp.console.provider import Flow, Provider
from pdp.console.published import LogInFailedError
from pdp.console.visits import SEE_OTHER, Desk, UnprovenError, Visit, see

# How long a person may take at the provider, and how many may be there.
FLOW_SECONDS, MOST_FLOWS = 600.0, 1024
LONGEST_AGE = 3600.0
# Where the provider leads back to.
BACK = "/log-in/back"
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_COOKIE_BYTES = 32
# A path of the console: it begins with one slash, and browsers take no part of it for a host.
_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,500}")
_PAGE = re.compile(r"/(?:sessions|approvals)/[a-z0-9_]{1,64}")
_SECONDS = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A log-in of a browser that is at the provider, and the page to which it leads.

    `browser` is a digest of the cookie of the browser that began it. `max_age` is 0.0 where any log-in will do.
    """

    flow: Flow
    browser: bytes
    back: str
    max_age: float
    ends_at: float


class ProviderEntry:
    """The log-in with a provider."""

    def __init__(self, desk: Desk, provider: Provider) -> None:
        self._desk = desk
        self._provider = provider
        self._begun: Recent[Begun] = Recent(MOST_FLOWS)
        self._cookie = desk.place.cookie + "-entry"

    @property
    def routes(self) -> Sequence[Route]:
        """Return the routes of the log-in."""
        return (
            Route("/log-in", self._begin, methods=["GET"]),
            Route(BACK, self._finish, methods=["GET"]),
            Route("/out", self._out, methods=["GET"]),
        )

    def absent(self, request: Request) -> Response:
        """Lead to the provider; for a form, answer with a page whose link does."""
        if request.method != "POST":
            if by_script(request):
                return PlainTextResponse("Nobody is logged in.\n", status_code=_UNAUTHORIZED)
            # A page that loads itself again logs nobody in: the provider may ask nothing.
            if AGAIN not in request.query_params:
                query = f"?{request.url.query}" if request.url.query else ""
                return see(_link(request.url.path + query))
        # The page that the person saw before, also of a form.
        page = _PAGE.match(request.url.path)
        link = _link(page.group() if page else "/")
        return self._desk.pages.page("absent.html", _UNAUTHORIZED, login=None, link=link, provider=self._provider.name)

    async def renew(self, login: Login) -> bool:
        """Renew the access token when it is about to end; say whether there is one."""
        async with login.renewing:
            try:
                login.credential = await self._provider.renew(login.credential)
            except LogInFailedError:
                return self._desk.clock.now().wall_at < login.credential.ends_at
        return True

    def again(self, visit: Visit, unproven: UnprovenError, back: str) -> Response:
        """Answer with a page whose link leads to a fresh log-in; where one would prove nothing, say why and stop."""
        proved = self._desk.clock.now().boot_at - visit.login.proved_at < unproven.max_age
        return self._desk.show(
            visit,
            "presence.html",
            _FORBIDDEN,
            unproven=unproven,
            back=back,
            way="stop" if proved or unproven.refused else "provider",
            link=f"{_link(back)}&{urlencode({'fresh': f'{unproven.max_age:.0f}'})}",
        )

    async def leave(self, login: Login) -> Response:  # noqa: ARG002 - the same for everybody
        """Answer with a page whose link logs out at the provider, too."""
        link = await self._provider.leaving(f"{self._desk.place.origin}/out")
        return self._desk.pages.page("out.html", login=None, link=link, provider=self._provider.name)

    async def _out(self, _: Request) -> Response:
        return self._desk.pages.page("out.html", login=None, link="", provider=self._provider.name)

    async def _begin(self, request: Request) -> Response:
        """Lead to the provider."""
        back, fresh = request.query_params.get("to", "/"), request.query_params.get("fresh", "")
        max_age = min(float(fresh), LONGEST_AGE) if _SECONDS.fullmatch(fresh) else 0.0
        # Several tabs may log in at once, so what the browser has stays.
        secret = request.cookies.get(self._cookie) or secrets.token_urlsafe(_COOKIE_BYTES)
        try:
            url, flow = await self._provider.begin(max_age=max_age)
        except LogInFailedError as error:
            return self._failed(str(error))
        begun = Begun(
            flow=flow,
            browser=digest_of(secret),
            back=back if _PATH.fullmatch(back) else "/",
            max_age=max_age,
            ends_at=self._desk.clock.now().boot_at + FLOW_SECONDS,
        )
        self._begun.keep(flow.state, begun)
        answer = RedirectResponse(url, status_code=SEE_OTHER)
        self._desk.place.set_cookie(answer, self._cookie, secret, seconds=round(FLOW_SECONDS))
        return answer

    async def _finish(self, request: Request) -> Response:
        """Take the provider's answer, and begin a log-in."""
        given = request.query_params
        # INVARIANT: a state is taken once, before anything waits, so no answer counts twice.
        begun = self._begun.take(given.get("state", ""))
        if begun is None or self._desk.clock.now().boot_at >= begun.ends_at:
            return self._failed("this log-in has ended or was used before; begin it again")
        if not hmac.compare_digest(begun.browser, digest_of(request.cookies.get(self._cookie, ""))):
            return self._failed("this log-in was begun in another browser")
        try:
            credential = await self._provider.finish(begun.flow, given)
            self._desk.person.take(credential)
            caller = await self._desk.client.get_caller()
        except LogInFailedError as error:
            return self._failed(str(error))
        except PDPClientError as error:
            return self._desk.problem(problem_of(error), str(error))
        earlier = self._desk.logins.end(request.cookies.get(self._desk.place.cookie, ""))
        secret = self._desk.logins.begin(caller, credential, earlier)
        if begun.max_age and (login := self._desk.logins.find(secret, used=True)):
            login.proved_at = login.began_at
        answer = see(begun.back)
        self._desk.place.set_cookie(answer, self._desk.place.cookie, secret)
        return answer

    def _failed(self, said: str) -> Response:
        problem = Problem(
            status=_FORBIDDEN, title="You are not logged in", advice="Begin again from the page of what waits."
        )
        return self._desk.problem(problem, said)


def _link(back: str) -> str:
    return f"/log-in?{urlencode({'to': back})}"
