"""One request of a person who is logged in, and what answers it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from pdp.client import AsyncClient, InvalidRequestError, PermissionDeniedError
from pdp.client.broker import AsyncBrokerClient
from pdp.client.fencing import Fence, fence_text
from pdp.clock import Clock
from pdp.console.connections import Connections
from pdp.console.forms import Form
from pdp.console.logins import Login, Logins, PersonToken, Recent
from pdp.console.pages import Pages
from pdp.console.problems import Problem
from pdp.console.shell import Place
from pdp.v1.session_pb2 import ReviewSessionResponse

SEE_OTHER = 303
# In the address of a page: which change it follows. Only who has made that finds anything by it.
_FENCE: Final = "done"
_NAME_BYTES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request of a person: `form` is empty unless a form was sent."""

    request: Request
    login: Login
    form: Form

    def given(self, names: Iterable[str]) -> dict[str, str]:
        """Return what the address gives by some names, without blanks around it; empty for what it does not."""
        return {name: self.request.query_params.get(name, "").strip() for name in names}


class UnprovenError(Exception):
    """An approval wants a log-in that is at most `max_age` seconds old, and nothing shows one.

    `refused` is why the server does not take what the provider says about it; empty when it takes that.
    """

    def __init__(self, max_age: float, refused: str = "") -> None:
        super().__init__(refused)
        self.max_age = max_age
        self.refused = refused


Answer: TypeAlias = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What answers have in common. `client` asks the server as the person that `person` has taken.

    `shown` holds what was shown last of requests, by person and digest, to say what has changed since. `broker` asks
    the broker at which people connect accounts, as the same person; None without one.
    """

    client: AsyncClient
    connections: Connections
    shown: Recent[ReviewSessionResponse]
    pages: Pages
    logins: Logins
    place: Place
    clock: Clock
    person: PersonToken
    broker: AsyncBrokerClient | None = None

    async def proven(self, visit: Visit, approve: Callable[[str], Awaitable[object]]) -> None:
        """Approve; where the access token does not show the log-in that is wanted, once more with what may show it.

        `approve` takes an ID token. A server that knows no console refuses every one, so it gets one only if it must.
        Raise `UnprovenError` when nothing shows such a log-in.
        """
        try:
            await approve("")
        except PermissionDeniedError as error:
            if not error.max_age:
                raise
            await self._proven(visit, approve, error.max_age)

    async def _proven(self, visit: Visit, approve: Callable[[str], Awaitable[object]], max_age: float) -> None:
        proof = visit.login.credential.proof(self.clock.now().wall_at)
        if not proof:
            raise UnprovenError(max_age)
        try:
            await approve(proof)
        except PermissionDeniedError as error:
            if not error.max_age:
                raise
            raise UnprovenError(max_age) from None
        except InvalidRequestError as error:
            # All else was taken before.
            raise UnprovenError(max_age, str(error)) from None

    def show(self, visit: Visit, template: str, status: int = 200, **given: object) -> Response:
        """Return a page for a person; after a change it says what that has waited for."""
        waited = visit.login.fences.get(visit.request.query_params.get(_FENCE, ""))
        return self.pages.page(template, status, login=visit.login, waited=waited, **given)

    def done(self, visit: Visit, path: str, fence: Fence) -> Response:
        """Return the answer that leads to a page after a change, which says what the change has waited for."""
        text = fence_text(fence)
        if not text:
            return see(path)
        name = secrets.token_urlsafe(_NAME_BYTES)
        visit.login.fences.keep(name, text)
        return see(f"{path}?{urlencode({_FENCE: name})}")

    def problem(self, problem: Problem, detail: str = "", login: Login | None = None) -> Response:
        """Return the page of a problem; `login` is None for who has none."""
        return self.pages.page("problem.html", problem.status, login=login, problem=problem, detail=detail)


class Entry(Protocol):
    """A way to log in."""

    @property
    def routes(self) -> Sequence[Route]:
        """Return the routes that need no log-in."""
        ...

    def absent(self, request: Request) -> Response:
        """Return the answer to a request without a log-in. It is never one that leads off-site for a form."""
        ...

    async def renew(self, login: Login) -> bool:
        """Have the credential of a log-in good for a moment longer; say whether it is."""
        ...

    def again(self, visit: Visit, unproven: UnprovenError, back: str) -> Response:
        """Return the answer when an approval wants another log-in; `back` is the page to return to."""
        ...

    async def leave(self, login: Login) -> Response:
        """Return the answer to a log-out. The log-in has ended."""
        ...


def see(path: str) -> Response:
    """Return the answer that leads to a page of the console."""
    return RedirectResponse(path, status_code=SEE_OTHER)
