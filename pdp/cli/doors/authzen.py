"""`pdp door authzen`: answer the questions of AuthZEN over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.serving import ListenOptions, serve, until_stopped
from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.config import LogSettings, Settings
from pdp.doors.authzen.door import AuthZENDoor, CallerToken
from pdp.doors.authzen.mapping import Mapped, object_types
from pdp.doors.isolation import keep_memory_private
from pdp.model import Role

_PUBLIC_URL = re.compile(r"https://(?P<host>[a-z0-9.-]+(?::[0-9]{1,5})?)/?", re.IGNORECASE)

_SECTIONS = {
    "For those who call": (
        "--listen",
        "--listen-tls-certificate",
        "--listen-tls-key",
        "--public-url",
        "--allowed-host",
        "--allowed-origin",
    ),
    "For the meaning of questions": ("--object", "--fact"),
    "For the connection to the policy decision point": ("--own-caller", *CONNECTION_FLAGS),
}


@click.command(
    "authzen",
    cls=SectionedCommand,
    sections=_SECTIONS,
    epilog="Example:  pdp door authzen --listen 127.0.0.1:8181 --public-url https://pdp.example.org",
)
@click.option("--listen", metavar="ADDRESS", required=True, help="Where callers find it, such as `127.0.0.1:8181`.")
@click.option("--listen-tls-certificate", metavar="FILE", help="The door's certificate chain; needed beyond loopback.")
@click.option("--listen-tls-key", metavar="FILE", help="The certificate's private key.")
@click.option(
    "--public-url", metavar="URL", help="The URL by which callers know it: https, without a path. [that of --listen]"
)
@click.option(
    "--allowed-host",
    metavar="HOST",
    multiple=True,
    help="A name by which callers call it, with its port. [that of --public-url, on loopback its own]",
)
@click.option(
    "--allowed-origin", metavar="ORIGIN", multiple=True, help="Pages that may call it, such as `https://example.org`."
)
@click.option(
    "--object",
    "objects",
    metavar="TYPE=ID[,PROPERTY…]",
    multiple=True,
    help="Resources of this type are objects of the server TYPE: the action is the tool, the id is its parameter ID.",
)
@click.option(
    "--fact", "facts", metavar="NAME", multiple=True, help="Pass this property of subjects on, as a fact of the caller."
)
@click.option(
    "--own-caller", is_flag=True, help="Ask as a caller of its own. [each request's bearer token is passed on]"
)
@connection_options(Role.PEP)
@with_loader("data_dir")
def authzen(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    public_url: str | None,
    objects: tuple[str, ...],
    facts: tuple[str, ...],
    own_caller: bool,
    listen: str,
    listen_tls_certificate: str | None,
    listen_tls_key: str | None,
    allowed_host: tuple[str, ...],
    allowed_origin: tuple[str, ...],
) -> int:
    """Answer the questions of AuthZEN 1.0 over HTTP.

    A process of its own, which asks the server over gRPC. Each request brings its caller's bearer token, and the handle
    of the session that it is about in the header X-PDP-Session. `pdp/doors/AUTHZEN.md` says how questions become calls.
    """
    log_to_stderr(LogSettings(level="warning"))
    keep_memory_private()
    options = ListenOptions(
        listen=listen,
        listen_tls_certificate=listen_tls_certificate,
        listen_tls_key=listen_tls_key,
        allowed_host=allowed_host,
        allowed_origin=allowed_origin,
    )
    mapped = Mapped(objects=object_types(objects), facts=facts)
    serving = _serve(load_settings(), connection, options, mapped, public_url, own_caller=own_caller)
    return asyncio.run(until_stopped(serving))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    options: ListenOptions,
    mapped: Mapped,
    public_url: str | None,
    *,
    own_caller: bool,
) -> None:
    public = None if public_url is None else _PUBLIC_URL.fullmatch(public_url)
    if public_url is not None and public is None:
        raise click.UsageError("--public-url must be https, with a host and no path, such as `https://pdp.example.org`")
    caller = None if own_caller else CallerToken()
    async with AsyncExitStack() as opened:
        listener, doorstep = opened.enter_context(options.opened(() if public is None else (public["host"],)))
        base = listener.url if public is None else f"https://{public['host'].lower()}"
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection, caller))
        door = AuthZENDoor(client=client, base=base, doorstep=doorstep, mapped=mapped, caller=caller)
        click.echo(f"serving AuthZEN at {listener.url}, known as {base}", err=True)
        await serve(door, listener)
