"""`pdp mcp --upstream URL --listen ADDRESS`: the proxy over HTTP. Needs the extra `mcp`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.serving import path_of, run, serve
from pdp.cli.doors.web import WebOptions
from pdp.cli.options import ConnectionOptions
from pdp.client import AsyncClient
from pdp.config import Settings
from pdp.doors.feeds import SessionsFeed
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.http import PATH, HTTPDoor
from pdp.doors.mcp.upstream import Upstream
from pdp.doors.session import GivenSession
from pdp.model import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class WebProxy:
    """What `pdp mcp` serves over HTTP: the options, the server's name, what may pass, and how long a call may wait."""

    settings: Settings
    connection: ConnectionOptions
    web: WebOptions
    server: str
    passes: frozenset[str]
    wait: float

    def serve(self) -> int:
        """Serve until the process is asked to end."""
        return run(self._serve())

    async def _serve(self) -> None:
        web = self.web
        async with AsyncExitStack() as opened:
            credentials = Credentials(path_of(web.headers_file))
            upstream = await opened.enter_async_context(
                Upstream(web.upstream or "", credentials=credentials, ca_file=path_of(web.upstream_tls_roots))
            )
            listener, doorstep = opened.enter_context(web.listening.opened())
            client = await opened.enter_async_context(connect_async(Role.PEP, self.settings, self.connection))
            feed = SessionsFeed(lambda since: client.watch_sessions(since_revision=since))
            opened.push_async_callback(feed.close)
            door = HTTPDoor(
                server=self.server,
                upstream=upstream,
                session_of=lambda handle: GivenSession(client.attach(handle, wait_for_approval=self.wait), feed),
                doorstep=doorstep,
                pdp_command=_pdp_command,
                passes=self.passes,
                **self._tokens(opened, client),
            )
            opened.push_async_callback(door.close)
            click.echo(f"serving `{self.server}` at {listener.url}{PATH}", err=True)
            await serve(door, listener)

    def _tokens(self, opened: AsyncExitStack, client: AsyncClient) -> dict[str, Any]:
        if self.web.access_tokens is None:
            return {}
        # Imported here: only this needs the extra `server`, which verifies tokens.
        from pdp.cli.doors.tokens import token_sessions  # noqa: PLC0415

        file = Path(self.web.access_tokens)
        tokens, resource = token_sessions(
            opened, client, self.settings.jwt, file, server=self.server, pdp_command=_pdp_command, wait=self.wait
        )
        return {"tokens": tokens, "resource": resource}


def _pdp_command(words: str) -> str:
    return f"pdp {words}"
