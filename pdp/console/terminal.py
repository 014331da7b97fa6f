"""A log-in at the provider for the command line: the browser is led back to a port of this machine (RFC 8252)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pdp.console.logins import Credential
from pdp.console.provider import Flow, Provider
from pdp.console.published import LogInFailedError

# For a person at the provider, with a second factor.
WAIT_SECONDS = 300.0
BACK = "/back"
_BAD_REQUEST = 400


class TerminalLogin:
    """One log-in of who runs a command. `provider` leads back to `BACK` of where `app` is served, with its answer."""

    def __init__(self, provider: Provider, flow: Flow) -> None:
        self._provider = provider
        self._flow = flow
        self._answer: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()

    @property
    def app(self) -> ASGIApp:
        """Return what the browser is led back to."""
        return Starlette(routes=[Route(BACK, self._back, methods=["GET"])])

    async def credential(self) -> Credential:
        """Wait for the person, and return what the provider gives for them. Raise `LogInFailedError`."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await self._answer
        except TimeoutError:
            raise LogInFailedError(f"nobody logged in within {WAIT_SECONDS:.0f} seconds") from None
        return await self._provider.finish(self._flow, answer)

    async def _back(self, request: Request) -> Response:
        given = request.query_params
        # INVARIANT: what has another state is none of this log-in, and does not end it.
        if self._answer.done() or given.get("state", "") != self._flow.state:
            return PlainTextResponse("This is not the answer to a log-in that was begun here.\n", _BAD_REQUEST)
        self._answer.set_result(given)
        if "code" in given:
            return PlainTextResponse("Go back to the terminal: it says who you are. This page can be closed.\n")
        return PlainTextResponse("The provider refuses this log-in. The terminal says why.\n", _BAD_REQUEST)
