"""The options of commands with which people log in at a provider."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from pdp.cli.options import path_of
from pdp.console.provider import Client
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_secret

FLAGS = (
    *("--issuer", "--client-id", "--client-secret-file", "--scope", "--parameter", "--issuer-tls-roots"),
    "--issuer-private-host",
)
_SECRET_BYTES = 4096
# What a provider is asked with by itself.
_OWN_PARAMETERS = frozenset(
    {
        *("client_id", "code_challenge", "code_challenge_method", "max_age", "nonce", "prompt"),
        *("redirect_uri", "response_mode", "response_type", "scope", "state"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOptions:
    """The provider of log-ins, and who asks it; None for what is not given."""

    issuer: str | None
    client_id: str | None
    client_secret_file: str | None
    scope: str
    parameter: tuple[str, ...]
    issuer_tls_roots: str | None
    issuer_private_host: tuple[str, ...]

    def client(self) -> Client:
        """Return the client as the provider knows it. Raise `UsageError` or `ConfigurationError`."""
        parameters = dict(one.partition("=")[::2] for one in self.parameter)
        for name, value in parameters.items():
            if not (name and value) or name in _OWN_PARAMETERS:
                raise click.UsageError(f"--parameter must be `name=value`, with a name that is not its own: `{name}`")
        secret = self.client_secret_file
        return Client(
            issuer=self.issuer or "",
            client_id=self.client_id or "",
            secret="" if secret is None else _secret(Path(secret)),
            scope=self.scope,
            parameters=parameters,
            tls_roots=path_of(self.issuer_tls_roots),
            private_hosts=self.issuer_private_host,
        )


PROVIDER = (
    click.option("--issuer", metavar="URL", help="The provider: its issuer, as its tokens name it."),
    click.option(
        "--client-id", metavar="ID", help="The console's id at the provider, and `jwt.console_client` of the server."
    ),
    click.option(
        "--client-secret-file",
        metavar="FILE",
        help="The console's secret there; nobody else may read the file. [a public client]",
    ),
    click.option(
        "--scope", metavar="SCOPES", default="openid", show_default=True, help="What the provider is asked for."
    ),
    click.option(
        "--parameter",
        metavar="NAME=VALUE",
        multiple=True,
        help="Ask the provider with this, too, such as `resource=…` or `audience=…`, for tokens that the server takes.",
    ),
    click.option("--issuer-tls-roots", metavar="FILE", help="Trust these root certificates there. [the system's]"),
    click.option(
        "--issuer-private-host",
        metavar="HOST",
        multiple=True,
        help="A host of its endpoints that may be at a private address. [that of the issuer alone]",
    ),
)


def _secret(path: Path) -> str:
    """Return the secret in a file. Raise `ConfigurationError` if others may read or write it, or it holds none."""
    text = read_secret(path, "anyone could choose what is presented", most=_SECRET_BYTES).strip()
    if not (text.isascii() and text.isprintable() and text):
        raise ConfigurationError(f"`{path}` holds no secret")
    return text
