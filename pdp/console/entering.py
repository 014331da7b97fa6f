"""The log-in with a provider: it begins at a link, ends in a new log-in of the console, and returns to its page."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
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

# How long a person may take at the provider.
FLOW_SECONDS = 600.0
# Of so many answers it is known that they were used; the provider takes the code of an answer once, too.
_MOST_USED = 1024
LONGEST_AGE = 3600.0
# Where the provider leads back to.
BACK = "/log-in/back"
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_COOKIE_BYTES, _KEY_BYTES, _STATE_BYTES = 32, 32, 16
# A path of the console: it begins with one slash, and browsers take no part of it for a host.
_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,500}")
_PAGE = re.compile(r"/(?:sessions|approvals)/[a-z0-9_]{1,64}")
_SECONDS = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A log-in of a browser that is at the provider, and the page to which it leads.

    `max_age` is 0.0 where any log-in will do. `ends_at` is on the boot clock.
    """

    back: str
    max_age: float
    ends_at: float


class Flows:
    """The log-ins that have begun. Each is in its `state`, signed for its browser, so nobody's takes another's place.

    `browser` is the secret in the cookie of the browser that began it.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._used: Recent[Begun] = Recent(_MOST_USED)

    def begin(self, begun: Begun, browser: str) -> Flow:
        """Return what the answer to a log-in must fit."""
        back = urlsafe_b64encode(begun.back.encode("ascii")).decode("ascii")
        body = f"{secrets.token_urlsafe(_STATE_BYTES)}.{begun.max_age:.0f}.{int(begun.ends_at)}.{back}"
        return self._flow(f"{body}.{self._signature('state', body, browser)}")

    def take(self, state: str, browser: str, now_at: float) -> tuple[Begun, Flow] | None:
        """Return the log-in of a state, once; None when it is over, was taken, or is another browser's."""
        body, _, signature = state.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature("state", body, browser).encode()):
            return None
        _, max_age, ends_at, back = body.split(".")
        if now_at >= float(ends_at) or self._used.get(signature):
            return None
        begun = Begun(back=urlsafe_b64decode(back).decode("ascii"), max_age=float(max_age), ends_at=float(ends_at))
        self._used.keep(signature, begun)
        return begun, self._flow(state)

    def _flow(self, state: str) -> Flow:
        nonce, verifier = (self._signature(use, state, "") for use in ("nonce", "verifier"))
        return Flow(state=state, nonce=nonce, verifier=verifier)

    def _signature(self, use: str, text: str, browser: str) -> str:
        return hmac.digest(self._key, digest_of(browser) + f"{use} {text}".encode(), "sha256").hex()


class ProviderEntry:
    """The log-in with a provider."""

    def __init__(self, desk: Desk, provider: Provider) -> None:
        self._desk = desk
        self._provider = provider
        self._flows = Flows()
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
        begun = Begun(
            back=back if _PATH.fullmatch(back) else "/",
            max_age=max_age,
            ends_at=self._desk.clock.now().boot_at + FLOW_SECONDS,
        )
        try:
            url = await self._provider.begin(self._flows.begin(begun, secret), max_age=max_age)
        except LogInFailedError as error:
            return self._failed(str(error))
        answer = RedirectResponse(url, status_code=SEE_OTHER)
        self._desk.place.set_cookie(answer, self._cookie, secret, seconds=round(FLOW_SECONDS))
        return answer

    async def _finish(self, request: Request) -> Response:
        """Take the provider's answer, and begin a log-in."""
        given = request.query_params
        browser, now_at = request.cookies.get(self._cookie, ""), self._desk.clock.now().boot_at
        # INVARIANT: a state is taken once, before anything waits, so no answer counts twice.
        taken = self._flows.take(given.get("state", ""), browser, now_at)
        if taken is None:
            return self._failed("this log-in has ended, was used before, or began in another browser; begin it again")
        begun, flow = taken
        try:
            credential = await self._provider.finish(flow, given)
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
