"""`pdp login`: the log-in of the console for the command line."""

from __future__ import annotations

import asyncio
import webbrowser
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import click

from pdp.cli.connection import connect_async
from pdp.cli.operate.provider import FLAGS, PROVIDER, ProviderOptions
from pdp.cli.options import (
    CONNECTION_FLAGS,
    ConnectionOptions,
    SectionedCommand,
    connection_options,
    grouped,
    json_option,
    with_settings,
)
from pdp.cli.output import print_json
from pdp.clock import SystemClock, utc_text
from pdp.config.settings import Settings
from pdp.console.linkfile import write_link
from pdp.console.logins import Credential
from pdp.console.provider import Client, Provider, new_flow
from pdp.console.published import LogInFailedError
from pdp.console.terminal import BACK, WAIT_SECONDS, TerminalLogin
from pdp.errors import PDPError
from pdp.foundation.files import replacing
from pdp.model import Role
from pdp.serving.weblistener import Listener, serve
from pdp.v1.caller_pb2 import Caller

# Approvals of what destroys something take a log-in of the last five minutes.
_FRESH_SECONDS = 300.0
_SECTIONS = {
    "The provider of log-ins": (*FLAGS, "--fresh", "--port"),
    "For the connection to the policy decision point": CONNECTION_FLAGS,
}


@click.command(
    cls=SectionedCommand,
    sections=_SECTIONS,
    epilog="Example:  pdp login --issuer https://login.example.org/realms/work --client-id pdp-console",
)
@grouped(ProviderOptions, "provider", PROVIDER)
@click.option("--fresh", is_flag=True, help="Log in anew, as approving what destroys something wants it.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to be led back to. [a free one]")
@connection_options(Role.APPROVER)
@json_option
@with_settings("data_dir")
def login(
    *,
    settings: Settings,
    connection: ConnectionOptions,
    provider: ProviderOptions,
    fresh: bool,
    port: int,
    as_json: bool,
) -> None:
    """Log in at the provider, as in the console, for the commands that follow.

    Opens the browser, and keeps the tokens in files for you alone: they give the authority that you have in the
    console. The access token lives for minutes; then log in again, which
    most providers answer without asking. No refresh token is kept. At the provider, `http://127.0.0.1/back` with any
    port is a redirect URI of the client, or that with --port.
    """
    for flag, value in (("issuer", provider.issuer), ("client-id", provider.client_id)):
        if not value:
            raise click.UsageError(f"pass --{flag}")
    max_age = _FRESH_SECONDS if fresh else 0.0
    folder = Path(settings.data_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    caller, credential = asyncio.run(_logged_in(settings, connection, provider.client(), port, max_age))
    token, id_token = folder / "login.token", folder / "login.id-token"
    for path, secret in ((token, credential.access_token), (id_token, credential.id_token)):
        with replacing(path) as file:
            file.write(secret.encode("ascii"))
    until = utc_text(credential.ends_at) if credential.ends_at else ""
    if as_json:
        roles = list(caller.roles)
        files = {"token_file": str(token), "id_token_file": str(id_token)}
        print_json({"caller_id": caller.caller_id, "roles": roles, "expire_time": until, **files})
        return
    click.echo(f"logged in as {caller.caller_id} ({', '.join(caller.roles)}){f' until {until}' if until else ''}")
    click.echo(f"commands take it with  export PDP_TOKEN_FILE={token}  and approvals also --id-token-file {id_token}")


async def _logged_in(
    settings: Settings, connection: ConnectionOptions, known: Client, port: int, max_age: float
) -> tuple[Caller, Credential]:
    """Return who the person is to the server, and what the provider gave for them."""
    folder = Path(settings.data_dir)
    async with AsyncExitStack() as opened:
        listener = opened.enter_context(Listener(f"127.0.0.1:{port}"))
        provider = await opened.enter_async_context(Provider(known, f"{listener.url}{BACK}", SystemClock()))
        try:
            flow = new_flow()
            link = await provider.begin(flow, max_age=max_age)
            terminal = TerminalLogin(provider, flow)
            page = folder / f"login-{listener.port}.html"
            write_link(page, link, title="Log in", note="Then go back to the terminal.")
            opened.callback(page.unlink, missing_ok=True)
            serving = asyncio.ensure_future(serve(terminal.app, listener))
            opened.push_async_callback(_end, serving)
            click.echo(f"log in within {WAIT_SECONDS:.0f} seconds: {page.absolute().as_uri()}", err=True)
            await asyncio.to_thread(webbrowser.open, page.absolute().as_uri())
            credential = await terminal.credential()
        except LogInFailedError as error:
            raise PDPError(f"not logged in: {error}") from None
        present = connect_async(Role.APPROVER, settings, connection, lambda: credential.access_token)
        client = await opened.enter_async_context(present)
        return await client.get_caller(), credential


async def _end(serving: asyncio.Future[None]) -> None:
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
