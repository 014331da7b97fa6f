"""`pdp mcp --upstream URL --listen ADDRESS`: the same proxy over HTTP, for the sessions that its clients bring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.serving import ListenOptions, path_of, serve, until_stopped
from pdp.cli.options import ConnectionOptions
from pdp.config import Settings
from pdp.doors.isolation import keep_memory_private
from pdp.doors.session import GivenSession
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where the server is, and where and for whom the proxy listens; None and empty for what is not given."""

    upstream: str | None
    upstream_tls_roots: str | None
    headers_file: str | None
    listen: str | None
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    allowed_host: tuple[str, ...]
    allowed_origin: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Say whether one of them is given."""
        return any(getattr(self, one.name) for one in fields(self))


def web_options(function: C) -> Callable[..., Any]:
    """Offer the options for HTTP, and pass them as `web`."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
        options = {one.name: given.pop(one.name) for one in fields(WebOptions)}
        return function(*args, web=WebOptions(**options), **given)

    decorated: Callable[..., Any] = command
    for name, metavar, text, several in reversed(
        (
            ("--upstream", "URL", "The URL of the server: https, or http on loopback.", False),
            ("--upstream-tls-roots", "FILE", "Trust these root certificates at the URL. [the system's]", False),
            ("--headers-file", "FILE", "Send the server these headers: lines `Name: value`, for you alone.", False),
            ("--listen", "ADDRESS", "Where clients find the proxy, such as `127.0.0.1:8080`: at the path /mcp.", False),
            ("--listen-tls-certificate", "FILE", "The proxy's certificate chain; needed beyond loopback.", False),
            ("--listen-tls-key", "FILE", "The certificate's private key.", False),
            ("--allowed-host", "HOST", "A name by which clients call it, with its port. [on loopback its own]", True),
            ("--allowed-origin", "ORIGIN", "Pages that may call it, such as `https://example.org`.", True),
        )
    ):
        decorated = click.option(name, metavar=metavar, multiple=several, help=text)(decorated)
    return decorated


def serve_web(
    settings: Settings,
    connection: ConnectionOptions,
    web: WebOptions,
    *,
    server: str,
    passes: frozenset[str],
    wait: float,
) -> int:
    """Serve until the process is asked to end."""
    keep_memory_private()
    return asyncio.run(until_stopped(_serve(settings, connection, web, server, passes, wait)))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    web: WebOptions,
    server: str,
    passes: frozenset[str],
    wait: float,
) -> None:
    # Imported here: only this needs the extra.
    from pdp.doors.mcp.credentials import Credentials  # noqa: PLC0415
    from pdp.doors.mcp.http import PATH, HTTPDoor  # noqa: PLC0415
    from pdp.doors.mcp.upstream import Upstream  # noqa: PLC0415

    async with AsyncExitStack() as opened:
        upstream = await opened.enter_async_context(
            Upstream(
                web.upstream or "",
                credentials=Credentials(path_of(web.headers_file)),
                ca_file=path_of(web.upstream_tls_roots),
            )
        )
        listening = ListenOptions(
            listen=web.listen or "",
            listen_tls_certificate=web.listen_tls_certificate,
            listen_tls_key=web.listen_tls_key,
            allowed_host=web.allowed_host,
            allowed_origin=web.allowed_origin,
        )
        listener, doorstep = opened.enter_context(listening.opened())
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection))
        door = HTTPDoor(
            server=server,
            upstream=upstream,
            session_of=lambda handle: GivenSession(client.attach(handle, wait_for_approval=wait)),
            doorstep=doorstep,
            pdp_command="pdp {}".format,
            passes=passes,
        )
        opened.push_async_callback(door.close)
        click.echo(f"serving `{server}` at {listener.url}{PATH}", err=True)
        await serve(door, listener)
