"""The options of `pdp mcp` for servers at URLs; `pdp.cli.doors.proxying` serves them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.cli.doors.serving import CALLER_FLAGS, LISTEN_FLAGS, ListenOptions, listen_options
from pdp.cli.options import grouped, path_of
from pdp.doors.mcp.serversfile import ServerEntry, certificate_of, presenting_problem, read_servers

C = TypeVar("C", bound=Callable[..., Any])

# For one server, and for all of them.
ONE_SERVER_FLAGS = (
    "--upstream",
    "--upstream-tls-roots",
    "--upstream-tls-certificate",
    "--upstream-tls-key",
    "--headers-file",
)
WEB_FLAGS = (*ONE_SERVER_FLAGS, "--servers", *LISTEN_FLAGS, "--access-tokens", *CALLER_FLAGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where the servers are, and where and for whom the proxy listens; None for what is not given."""

    upstream: str | None
    upstream_tls_roots: str | None
    upstream_tls_certificate: str | None
    upstream_tls_key: str | None
    headers_file: str | None
    servers: str | None
    access_tokens: str | None
    listening: ListenOptions

    @property
    def given(self) -> bool:
        """Say whether one of them is given."""
        return any(getattr(self, name) for name in _OWN) or self.listening.given

    def entries(self, name: str | None, call_token: str, passes: Collection[str]) -> tuple[ServerEntry, ...]:
        """Return the servers: those of the file, or the one at the URL, with what is given for it elsewhere.

        Raise `UsageError` for options that do not go together, and `ConfigurationError` for a faulty file.
        """
        if self.servers is not None:
            single = (
                self.upstream,
                self.upstream_tls_roots,
                self.upstream_tls_certificate,
                self.upstream_tls_key,
                self.headers_file,
                *(name, call_token, passes),
            )
            for flag, value in zip((*ONE_SERVER_FLAGS, "--server", "--call-token", "--pass"), single, strict=True):
                if value:
                    raise click.UsageError(f"{flag} does not go with --servers: the file says it of each server")
            return read_servers(Path(self.servers))
        if not name:
            raise click.UsageError("pass --server with the server's name in the catalogue")
        if problem := presenting_problem(
            self.upstream or "",
            certificate=self.upstream_tls_certificate,
            key=self.upstream_tls_key,
            call_token=call_token,
        ):
            raise click.UsageError(problem)
        return (
            ServerEntry(
                name=name,
                upstream=self.upstream or "",
                tls_roots=path_of(self.upstream_tls_roots),
                certificate=certificate_of(path_of(self.upstream_tls_certificate), path_of(self.upstream_tls_key)),
                headers_file=path_of(self.headers_file),
                call_token=call_token,
                passes=frozenset(passes),
            ),
        )


_OWN = tuple(one.name for one in fields(WebOptions) if one.name != "listening")


def web_options(function: C) -> Callable[..., Any]:
    """Offer the options for HTTP, and pass them as `web`."""
    rows = (
        ("--upstream", "URL", "The URL of the server: https, or http on loopback."),
        ("--upstream-tls-roots", "FILE", "Trust these root certificates at the URL. [the system's]"),
        ("--upstream-tls-certificate", "FILE", "Present this certificate to the server."),
        ("--upstream-tls-key", "FILE", "The certificate's private key."),
        ("--headers-file", "FILE", "Send the server these headers: lines `Name: value`, for you alone."),
        ("--servers", "FILE", "Stand in front of each of the servers in this file, instead of the one at --upstream."),
        ("--access-tokens", "FILE", "Take access tokens, too: this file says whose they are. Needs `jwt.*`."),
    )
    listening = listen_options(
        "Where clients find the proxy, such as `127.0.0.1:8080`: at /mcp, or /NAME/mcp for each of several servers.",
        hosts="on loopback its own",
        required=False,
    )
    own = [click.option(name, metavar=metavar, help=text) for name, metavar, text in rows]
    return grouped(WebOptions, "web", (*own, listening))(function)
