"""`pdp mcp --listen ADDRESS`: the proxy over HTTP, before one server or several. Needs the extra `mcp`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.observing import observing
from pdp.cli.doors.serving import run, serve
from pdp.cli.doors.web import WebOptions
from pdp.cli.options import ConnectionOptions
from pdp.client import AsyncClient
from pdp.config.settings import Settings
from pdp.doors import refusals
from pdp.doors.calltokens import wanted_by
from pdp.doors.feeds import SessionsFeed
from pdp.doors.mcp.admission import TokenSource
from pdp.doors.mcp.http import HTTPDoor
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.mcp.serversfile import ServerEntry
from pdp.doors.mcp.site import PATH, ServerBehind
from pdp.doors.mcp.upstream import Upstream
from pdp.doors.session import GivenSession
from pdp.model import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class WebProxy:
    """What `pdp mcp` serves over HTTP: the servers, for whom, and how long a call may wait."""

    settings: Settings
    connection: ConnectionOptions
    web: WebOptions
    servers: Sequence[ServerEntry]
    wait: float

    def serve(self) -> int:
        """Serve until the process is asked to end."""
        return run(self._serve())

    async def _serve(self) -> None:
        async with AsyncExitStack() as opened:
            observer = opened.enter_context(observing(self.settings, "mcp"))
            servers = [await self._behind(entry, opened) for entry in self.servers]
            listener, doorstep = opened.enter_context(self.web.listening.opened())
            client = await opened.enter_async_context(connect_async(Role.PEP, self.settings, self.connection))
            feed = SessionsFeed(lambda since: client.watch_sessions(since_revision=since))
            opened.push_async_callback(feed.close)
            door = HTTPDoor(
                servers,
                session_of=lambda handle: GivenSession(client.attach(handle, wait_for_approval=self.wait), feed),
                doorstep=doorstep,
                pdp_command=refusals.PDP,
                tokens=self._tokens(opened, client),
                observer=observer,
            )
            opened.push_async_callback(door.close)
            for server in servers:
                click.echo(f"serving `{server.name}` at {listener.url}{server.path}", err=True)
            await serve(door, listener)

    async def _behind(self, entry: ServerEntry, opened: AsyncExitStack) -> ServerBehind:
        path = entry.path if self.web.servers is not None else PATH
        resource = self._resource(path)
        thumbprint = entry.certificate.thumbprint if entry.certificate is not None else ""
        return ServerBehind(
            name=entry.name,
            path=path,
            upstream=await opened.enter_async_context(Upstream.of(entry)),
            passes=entry.passes,
            call_token=wanted_by(entry.call_token, certificate_thumbprint=thumbprint),
            resource=resource,
        )

    def _resource(self, path: str) -> ProtectedResource | None:
        """Return the server at a path as OAuth sees it: of several, each is one by itself."""
        jwt = self.settings.jwt
        if self.web.access_tokens is None or not jwt.issuer:
            return None
        url = jwt.audience if self.web.servers is None else jwt.audience.rstrip("/") + path
        return ProtectedResource(url=url, issuer=jwt.issuer)

    def _tokens(self, opened: AsyncExitStack, client: AsyncClient) -> TokenSource | None:
        if self.web.access_tokens is None:
            return None
        # Imported here: only this needs the extra `server`, which verifies tokens.
        from pdp.cli.doors.tokens import token_sessions  # noqa: PLC0415

        return token_sessions(
            opened,
            client,
            self.settings,
            Path(self.web.access_tokens),
            servers=[entry.name for entry in self.servers],
            pdp_command=refusals.PDP,
            wait=self.wait,
        )
