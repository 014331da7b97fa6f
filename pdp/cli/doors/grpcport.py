"""The options of a door that a gateway asks over gRPC: where it listens, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from pdp.cli.doors.serving import LISTEN_FLAGS, address_options
from pdp.cli.options import grouped, path_of
from pdp.errors import ConfigurationError

C = TypeVar("C", bound=Callable[..., Any])

PORT_FLAGS: Final = (*LISTEN_FLAGS, "--listen-tls-clients")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOptions:
    """Where a gateway asks, and the files of TLS; None for what is not given."""

    listen: str
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    listen_tls_clients: str | None

    def credentials(self) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the credentials of the port; None without TLS. Raise `ConfigurationError`."""
        given = (self.listen_tls_key, self.listen_tls_certificate, self.listen_tls_clients)
        key, certificate, clients = map(path_of, given)
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
    clients = f"The authorities that sign the certificates of {gateway}."
    options = (
        *address_options(f"Where {gateway} asks, such as `127.0.0.1:9191`."),
        click.option("--listen-tls-clients", metavar="FILE", help=clients),
    )
    return grouped(PortOptions, "port", options)
