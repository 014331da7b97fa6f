"""The options of a door that a gateway asks over gRPC: where it listens, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar

import click

from pdp.cli.options import path_of
from pdp.errors import ConfigurationError

C = TypeVar("C", bound=Callable[..., Any])

PORT_FLAGS: Final = ("--listen", "--listen-tls-certificate", "--listen-tls-key", "--listen-tls-clients")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOptions:
    """Where a gateway asks, and the files of TLS; None for what is not given."""

    listen: str
    certificate: str | None
    key: str | None
    clients: str | None

    def credentials(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the credentials of the port; None without TLS. Raise `ConfigurationError`."""
        key, certificate, clients = (path_of(one) for one in (self.key, self.certificate, self.clients))
        if key is certificate is clients is None:
            return None
        if key is None or certificate is None or clients is None:
            raise ConfigurationError(
                "TLS needs three files: --listen-tls-certificate, --listen-tls-key and --listen-tls-clients"
            )
        # Imported here: only this needs the extra.
        from pdp.serving.certificates import ServerCertificates, TLSFiles  # noqa: PLC0415

        return ServerCertificates(TLSFiles(key=key, certificate=certificate, client_roots=clients)).credentials()


def port_options(gateway: str) -> Callable[[C], Callable[..., Any]]:
    """Offer the options of the port on which this gateway asks, and pass them as `port`."""

    def decorate(function: C) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
            port = PortOptions(
                listen=given.pop("listen"),
                certificate=given.pop("listen_tls_certificate"),
                key=given.pop("listen_tls_key"),
                clients=given.pop("listen_tls_clients"),
            )
            return function(*args, port=port, **given)

        decorated: Callable[..., Any] = command
        texts = (
            f"Where {gateway} asks, such as `127.0.0.1:9191`.",
            "The door's certificate chain; needed beyond loopback.",
            "The certificate's private key.",
            f"The authorities that sign the certificates of {gateway}.",
        )
        for flag, text in reversed(tuple(zip(PORT_FLAGS, texts, strict=True))):
            metavar = "ADDRESS" if flag == "--listen" else "FILE"
            decorated = click.option(flag, metavar=metavar, required=flag == "--listen", help=text)(decorated)
        return decorated

    return decorate
