"""The options of commands that call a broker as a person, and the client that they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from pdp.client.broker import AsyncBrokerClient


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Which broker, and what is shown to it; None for what is not given."""

    broker_address: str | None
    broker_tls_roots: str | None
    broker_tls_certificate: str | None
    broker_tls_key: str | None

    def client(self, **who: Any) -> AsyncBrokerClient:  # noqa: ANN401 - whose credential
        """Return a client of the broker, of the running event loop. There must be an address."""
        return AsyncBrokerClient(
            self.broker_address or "",
            tls=self.broker_tls_roots or False,
            tls_certificate=self.broker_tls_certificate,
            tls_key=self.broker_tls_key,
            **who,
        )


def broker_options(flag: str, more: str = "") -> Sequence[Callable[[Any], Any]]:
    """Return the options, for `grouped`; the address is that of a flag, of which `more` says what it is for."""
    return (
        click.option(
            flag,
            "broker_address",
            metavar="ADDRESS",
            help=f"Where the broker takes calls: `host:port`, or `unix:PATH`.{more}",
        ),
        click.option("--broker-tls-roots", metavar="FILE", help="PEM file that the broker's certificate leads to."),
        click.option("--broker-tls-certificate", metavar="FILE", help="PEM file of the certificate to show there."),
        click.option("--broker-tls-key", metavar="FILE", help="PEM file of its key."),
    )
