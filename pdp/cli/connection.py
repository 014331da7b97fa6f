"""The options of commands that speak to the server, and the client that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.cli.options import with_settings
from pdp.client import Client, PDPClientError
from pdp.config import Settings
from pdp.errors import ConfigurationError
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])


def with_client(role: Role) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers the options of a connection and passes an open client on as `client`.

    Without a token file the command speaks as `role`, with the token that `pdp init` wrote.
    """

    def decorate(function: C) -> Callable[..., Any]:
        @click.option(
            "--address", metavar="ADDRESS", envvar="PDP_ADDRESS", help="The server. [PDP_ADDRESS; server.address]"
        )
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
            server = address or settings.server.address
            with Client(
                server,
                token_file=token_file or _token_of(role, settings),
                tls=True if tls_roots == "system" else tls_roots or False,
            ) as client:
                try:
                    return function(*args, client=client, **given)
                except PDPClientError as error:
                    raise PDPClientError(_explained(str(error), server), error.code) from error

        return command

    return decorate


def _explained(problem: str, server: str) -> str:
    """Return the problem; in our words when no connection came about, for which gRPC has no status of its own."""
    if "failed to connect" not in problem:
        return problem
    if "handshake" in problem.lower():
        return f"unavailable: no TLS connection to `{server}`; does it use TLS, with a certificate of --tls-roots?"
    return f"unavailable: nothing answers at `{server}`; is `pdp serve` running, and is --address right?"


def _token_of(role: Role, settings: Settings) -> Path:
    path = settings.tokens_folder / f"{role.value}.token"
    if not path.exists():
        raise ConfigurationError(f"no token: `{path}` does not exist; run `pdp init`, or pass --token-file")
    return path
