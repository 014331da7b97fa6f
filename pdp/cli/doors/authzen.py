"""`pdp door authzen`: answer the questions of AuthZEN over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AsyncExitStack

import click

from pdp.cli.connection import connect_async
from pdp.cli.doors.observing import observing
from pdp.cli.doors.serving import CALLER_FLAGS, LISTEN_FLAGS, ListenOptions, listen_options, run, serve
from pdp.cli.options import CONNECTION_FLAGS, ConnectionOptions, SectionedCommand, connection_options, with_loader
from pdp.config.settings import Settings
from pdp.doors.authzen.door import AuthZENDoor, CallerToken
from pdp.doors.authzen.mapping import Mapped, object_types
from pdp.model import Role

_PUBLIC_URL = re.compile(r"https://(?P<host>[a-z0-9.-]+(?::[0-9]{1,5})?)/?", re.IGNORECASE)

_SECTIONS = {
    "For those who call": (*LISTEN_FLAGS, "--public-url", *CALLER_FLAGS),
    "For the meaning of questions": ("--object", "--fact"),
    "For the connection to the policy decision point": ("--own-caller", *CONNECTION_FLAGS),
}


@click.command(
    "authzen",
    cls=SectionedCommand,
    sections=_SECTIONS,
    epilog="Example:  pdp door authzen --listen 127.0.0.1:8181 --public-url https://pdp.example.org",
)
@listen_options("Where callers find it, such as `127.0.0.1:8181`.", hosts="that of --public-url, on loopback its own")
@click.option(
    "--public-url", metavar="URL", help="The URL by which callers know it: https, without a path. [that of --listen]"
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
    listening: ListenOptions,
) -> int:
    """Answer the questions of AuthZEN 1.0 over HTTP.

    A process of its own, which asks the server over gRPC. Each request brings its caller's bearer token, and the handle
    of the session that it is about in the header X-PDP-Session. `pdp/doors/AUTHZEN.md` says how questions become calls.
    """
    mapped = Mapped(objects=object_types(objects), facts=facts)
    return run(_serve(load_settings(), connection, listening, mapped, public_url, own_caller=own_caller))


async def _serve(
    settings: Settings,
    connection: ConnectionOptions,
    listening: ListenOptions,
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
        observer = opened.enter_context(observing(settings, "authzen"))
        listener, doorstep = opened.enter_context(listening.opened(() if public is None else (public["host"],)))
        base = listener.url if public is None else f"https://{public['host'].lower()}"
        client = await opened.enter_async_context(connect_async(Role.PEP, settings, connection, caller))
        door = AuthZENDoor(client=client, base=base, doorstep=doorstep, mapped=mapped, caller=caller, observer=observer)
        click.echo(f"serving AuthZEN at {listener.url}, known as {base}", err=True)
        await serve(door, listener)
