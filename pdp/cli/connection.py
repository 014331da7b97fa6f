"""The options of commands that call the server, and the client that they open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

from pdp.cli.options import ConnectionOptions, address_origin, connection_options, with_settings
from pdp.client import AsyncClient, Client
from pdp.config.settings import Settings
from pdp.errors import CannotListenError, ConfigurationError, PDPError
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])


def with_client(role: Role) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers a connection's options and passes a `client`.

    Without a token file or certificate the command uses the token that `pdp init` wrote for `role`.
    """

    def decorate(function: C) -> Callable[..., Any]:
        @connection_options(role)
        @with_settings("data_dir")
        @wraps(function)
        def command(
            *args: Any,  # noqa: ANN401 - a command's own parameters
            settings: Settings,
            connection: ConnectionOptions,
            **given: Any,  # noqa: ANN401 - the same
        ) -> Any:  # noqa: ANN401 - the same
            with connect(role, settings, connection) as client:
                return function(*args, client=client, **given)

        return command

    return decorate


@contextmanager
def connect(role: Role, settings: Settings, connection: ConnectionOptions) -> Iterator[Client]:
    """Open a client."""
    with reaching(settings, connection) as address, Client(address, **_as(role, settings, connection)) as client:
        yield client


@asynccontextmanager
async def connect_async(
    role: Role, settings: Settings, connection: ConnectionOptions, token: Callable[[], str] | None = None
) -> AsyncIterator[AsyncClient]:
    """Open a client for asyncio; one that asks on behalf of callers presents the `token` of each."""
    with reaching(settings, connection):
        async with connector(role, settings, connection, token)() as client:
            yield client


def connector(
    role: Role, settings: Settings, connection: ConnectionOptions, token: Callable[[], str] | None = None
) -> Callable[[], AsyncClient]:
    """Return what opens clients for asyncio, as `connect_async` does one."""
    who = _as(role, settings, connection) if token is None else _on_behalf(settings, connection, token)
    return partial(AsyncClient, connection.address or settings.server.address, **who)


@contextmanager
def reaching(settings: Settings, connection: ConnectionOptions) -> Iterator[str]:
    """Provide the address of the server; errors that name it also name its origin."""
    address = connection.address or settings.server.address
    try:
        yield address
    except PDPError as error:
        # A door that is told to listen where the server does took that address from an option of its own.
        if f"`{address}`" in str(error) and not isinstance(error, CannotListenError):
            error.args = (f"{error} (address from {address_origin()})",)
        raise


def _as(role: Role, settings: Settings, connection: ConnectionOptions) -> dict[str, Any]:
    # The server prefers a token to a certificate, so a command with a certificate sends no token by default.
    return {
        "control_address": _control_address(settings, connection),
        "token_file": connection.token_file or (None if connection.tls_certificate else token_of(role, settings)),
        **ways(settings, connection),
    }


def _on_behalf(settings: Settings, connection: ConnectionOptions, token: Callable[[], str]) -> dict[str, Any]:
    return {
        "control_address": _control_address(settings, connection),
        "token": token,
        **ways(settings, connection),
    }


def _control_address(settings: Settings, connection: ConnectionOptions) -> str | None:
    # A server other than that of the settings has another control address.
    return connection.control_address or (None if connection.address else settings.control_address)


def ways(settings: Settings, connection: ConnectionOptions) -> dict[str, Any]:
    """Return the arguments by which the client knows the server."""
    return {
        "tls": True if connection.tls_roots == "system" else connection.tls_roots or False,
        "tls_certificate": connection.tls_certificate,
        "tls_key": connection.tls_key,
        "data_dir": settings.data_dir,
        "plaintext": connection.plaintext,
    }


def token_of(role: Role, settings: Settings) -> Path:
    """Return the file of the token that `pdp init` wrote for a role. Raise `ConfigurationError` when there is none."""
    path = settings.tokens_folder / f"{role.value}.token"
    if not path.exists():
        # Existing callers keep their tokens: `pdp init` does not replace them.
        again = f"`pdp caller rotate {role.value}` makes a new one"
        remedy = again if settings.callers_file.exists() else "run `pdp init`"
        raise ConfigurationError(f"no token: `{path}` does not exist; {remedy}, or pass --data-dir or --token-file")
    return path
