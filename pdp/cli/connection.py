"""The options of commands that speak to the server, and the client that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.cli.options import with_settings
from pdp.client import Client
from pdp.config import Settings
from pdp.errors import ConfigurationError
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])


def with_client(role: Role) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers the options of a connection and passes an open client on as `client`.

    Without a token file the command speaks as `role`, with the token that `pdp init` wrote.
    """

    def decorate(function: C) -> Callable[..., Any]:
        @click.option("--address", metavar="HOST:PORT", envvar="PDP_ADDRESS", help="The server. [PDP_ADDRESS]")
        @click.option(
            "--token-file",
            metavar="FILE",
            envvar="PDP_TOKEN_FILE",
            help=f"Whose token to present. [PDP_TOKEN_FILE; the {role.value}'s]",
        )
        @click.option(
            "--tls-roots",
            metavar="FILE",
            envvar="PDP_TLS_ROOTS",
            help="Use TLS and trust these root certificates, or the `system`'s. [PDP_TLS_ROOTS]",
        )
        @with_settings("data_dir")
        @wraps(function)
        def command(
            *args: Any,  # noqa: ANN401 - a command's own parameters
            settings: Settings,
            address: str | None,
            token_file: str | None,
            tls_roots: str | None,
            **given: Any,  # noqa: ANN401 - the same
        ) -> Any:  # noqa: ANN401 - the same
            with Client(
                address or settings.server.address,
                token_file=token_file or _token_of(role, settings),
                tls=True if tls_roots == "system" else tls_roots or False,
            ) as client:
                return function(*args, client=client, **given)

        return command

    return decorate


def _token_of(role: Role, settings: Settings) -> Path:
    path = settings.tokens_folder / f"{role.value}.token"
    if not path.exists():
        raise ConfigurationError(f"no token: `{path}` does not exist; run `pdp init`, or pass --token-file")
    return path
