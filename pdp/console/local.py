"""The console of one person on their own machine: a link that works once, for a minute, in a file only for them."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pdp.client import PDPClientError
from pdp.console.linkfile import write_link
from pdp.console.logins import Credential, Login
from pdp.console.problems import problem_of
from pdp.console.visits import Desk, UnprovenError, Visit, see
from pdp.v1.caller_pb2 import Caller

LINK_SECONDS = 60.0
_FORBIDDEN, _UNAUTHORIZED = 403, 401
_NAME_BYTES, _KEY_BYTES = 16, 32


def local_name() -> str:
    """Return a name that leads to this machine, and that no other page or program can guess."""
    return f"{secrets.token_hex(_NAME_BYTES)}.localhost"


class LocalEntry:
    """The log-in by a link. `whoami` asks the server who the caller of the command line is."""

    def __init__(self, desk: Desk, whoami: Callable[[], Awaitable[Caller]]) -> None:
        self._desk = desk
        self._whoami = whoami
        self._key = secrets.token_urlsafe(_KEY_BYTES)
        self._until = desk.clock.now().boot_at + LINK_SECONDS

    def write_link(self, path: Path) -> None:
        """Write a page that opens the console into a file for its owner alone. Raise `OSError`."""
        link = f"{self._desk.place.origin}/enter?key={self._key}"
        title, note = "Open the console of the policy decision point", "The link works once, within a minute."
        write_link(path, link, title=title, note=note)

    @property
    def routes(self) -> Sequence[Route]:
        """Return the route of the link."""
        return (Route("/enter", self._enter, methods=["GET"]),)

    def absent(self, request: Request) -> Response:  # noqa: ARG002 - the same for every request
        """Say how the console is opened."""
        return self._closed(_UNAUTHORIZED)

    async def renew(self, login: Login) -> bool:  # noqa: ARG002 - the client has the credential
        """Do nothing: the command line's credential is the client's."""
        return True

    def again(self, visit: Visit, unproven: UnprovenError, back: str) -> Response:
        """Say that this credential proves nothing about when the person logged in."""
        return self._desk.show(visit, "presence.html", _FORBIDDEN, unproven=unproven, back=back, way="local", link="")

    async def leave(self, login: Login) -> Response:  # noqa: ARG002 - the same for everybody
        """Say how the console is opened again."""
        return self._closed(200)

    async def _enter(self, request: Request) -> Response:
        """Begin a log-in for who has the link."""
        given, key = request.query_params.get("key", ""), self._key
        late = self._desk.clock.now().boot_at >= self._until
        if not key or late or not hmac.compare_digest(given.encode(), key.encode()):
            return self._closed(_FORBIDDEN)
        # INVARIANT: nothing waits between the comparison and this, so a link works once.
        self._key = ""
        try:
            caller = await self._whoami()
        except PDPClientError as error:
            problem = replace(problem_of(error), advice="Then run `pdp console --open` again.")
            return self._desk.problem(problem, str(error))
        secret = self._desk.logins.begin(caller, Credential())
        answer = see("/")
        self._desk.place.set_cookie(answer, self._desk.place.cookie, secret)
        return answer

    def _closed(self, status: int) -> Response:
        return self._desk.pages.page("closed.html", status, login=None)
