"""`pdp console`: the web application in which people approve, watch and revoke."""

from __future__ import annotations

import asyncio
import re
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pdp.cli.broker import BrokerOptions, broker_options
from pdp.cli.connection import connect_async, connector, token_of
from pdp.cli.doors.serving import address_options, run
from pdp.cli.operate.provider import FLAGS, PROVIDER, ProviderOptions
from pdp.cli.options import (
    CONNECTION_FLAGS,
    ConnectionOptions,
    SectionedCommand,
    connection_options,
    grouped,
    path_of,
    with_loader,
)
from pdp.client.broker import AsyncBrokerClient
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.console.assembly import local_console, shared_console
from pdp.console.entering import BACK
from pdp.console.local import LINK_SECONDS, LocalEntry, local_name
from pdp.console.logins import PersonToken
from pdp.console.provider import Client, Provider
from pdp.console.published import LogInFailedError
from pdp.console.shell import Place
from pdp.model import Role
from pdp.serving.weblistener import Listener, LoopbackListener, serve

_SECTIONS = {
    "On this machine": ("--open", "--port"),
    "For everybody, with a provider of log-ins": (
        *("--listen", "--listen-tls-certificate", "--listen-tls-key", "--public-url"),
        *FLAGS,
    ),
    "For connected accounts": ("--broker", "--broker-tls-roots", "--broker-tls-certificate", "--broker-tls-key"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}
_PUBLIC_URL = re.compile(r"https://[a-z0-9.-]+(?::[0-9]{1,5})?|http://localhost:[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOptions:
    """Where everybody finds the console; None for what is not given."""

    listen: str | None
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    public_url: str | None


_SHARED = (
    *address_options(
        "Where browsers, or a proxy before them, find it, such as `0.0.0.0:8443`.", what="console", required=False
    ),
    click.option("--public-url", metavar="URL", help="The URL by which people know it: https, without a path."),
)


@click.command(cls=SectionedCommand, sections=_SECTIONS, epilog="Example:  pdp console --open")
@click.option("--open", "opens", is_flag=True, help="Open the console in the browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on. [a free one]")
@grouped(SharedOptions, "shared", _SHARED)
@grouped(ProviderOptions, "provider", PROVIDER)
@grouped(BrokerOptions, "broker", broker_options("--broker"))
@connection_options(Role.APPROVER)
@with_loader("data_dir")
def console(
    *,
    load_settings: Callable[[], Settings],
    connection: ConnectionOptions,
    shared: SharedOptions,
    provider: ProviderOptions,
    broker: BrokerOptions,
    opens: bool,
    port: int,
) -> int:
    """Approve, watch and revoke in the browser, under your own name.

    Without --listen it is for you alone: it listens on this machine, under a name that nobody can guess, and the link
    is in a file that only you can read, and works once, within a minute. With --listen people log in at a provider.
    `pdp/console/README.md` says what the console does, and how providers are set up.
    """
    if shared.listen is None:
        return run(_serve_here(load_settings(), connection, broker, port, opens=opens))
    if opens or port:
        raise click.UsageError("--open and --port are for a console on this machine, and do not go with --listen")
    for flag, value in (
        ("public-url", shared.public_url),
        ("issuer", provider.issuer),
        ("client-id", provider.client_id),
    ):
        if not value:
            raise click.UsageError(f"--listen needs --{flag}")
    if connection.token_file is not None:
        raise click.UsageError("--token-file does not go with --listen: each person brings their own token")
    return run(_serve_all(load_settings(), connection, shared, broker, provider.client()))


async def _serve_all(
    settings: Settings, connection: ConnectionOptions, shared: SharedOptions, broker: BrokerOptions, known: Client
) -> None:
    url = (shared.public_url or "").rstrip("/").lower()
    if not _PUBLIC_URL.fullmatch(url):
        raise click.UsageError("--public-url must be https, with a host and no path, such as `https://pdp.example.org`")
    person, clock, place = PersonToken(), SystemClock(), Place(url)
    certificate, key = path_of(shared.listen_tls_certificate), path_of(shared.listen_tls_key)
    async with AsyncExitStack() as opened:
        listener = opened.enter_context(Listener(shared.listen or "", certificate=certificate, key=key))
        client = await opened.enter_async_context(connect_async(Role.APPROVER, settings, connection, person))
        accounts = await _broker(opened, broker, token=person)
        provider = await opened.enter_async_context(Provider(known, f"{url}{BACK}", clock))
        try:
            await provider.check()
        except LogInFailedError as error:
            # It may come later: the server, too, serves before its provider does.
            click.echo(f"nobody can log in yet: {error}", err=True)
        click.echo(f"serving the console at {listener.url}, known as {url}", err=True)
        connect = connector(Role.APPROVER, settings, connection, person)
        app = shared_console(client, connect, place, clock, person, provider, broker=accounts)
        await serve(app, listener, close_streams=True)


async def _serve_here(
    settings: Settings, connection: ConnectionOptions, broker: BrokerOptions, port: int, *, opens: bool
) -> None:
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(connect_async(Role.APPROVER, settings, connection))
        # What is wrong with the server or the token is said here, and not first in the browser.
        caller = await client.get_caller()
        listener = opened.enter_context(LoopbackListener(port))
        place = Place(f"http://{local_name()}:{listener.port}")
        accounts = await _broker(opened, broker, token_file=connection.token_file or token_of(Role.APPROVER, settings))
        connect = connector(Role.APPROVER, settings, connection)
        app, entry = local_console(client, connect, place, SystemClock(), broker=accounts)
        link = opened.enter_context(_link_file(entry, Path(settings.data_dir) / f"console-{listener.port}.html"))
        click.echo(f"the console serves `{caller.caller_id}` on port {listener.port} until Ctrl-C", err=True)
        click.echo(f"open it within {LINK_SECONDS:.0f} seconds: {link.absolute().as_uri()}", err=True)
        if opens:
            await asyncio.to_thread(webbrowser.open, link.absolute().as_uri())
        await serve(app, listener, close_streams=True)


async def _broker(opened: AsyncExitStack, options: BrokerOptions, **who: Any) -> AsyncBrokerClient | None:  # noqa: ANN401 - whose credential
    """Open a client of the broker; None without an address."""
    return await opened.enter_async_context(options.client(**who)) if options.broker_address else None


@contextmanager
def _link_file(entry: LocalEntry, path: Path) -> Iterator[Path]:
    """Write the file with the link; remove it when the link is of no more use."""
    entry.write_link(path)
    timer = asyncio.get_running_loop().call_later(LINK_SECONDS, lambda: path.unlink(missing_ok=True))
    try:
        yield path
    finally:
        timer.cancel()
        path.unlink(missing_ok=True)
