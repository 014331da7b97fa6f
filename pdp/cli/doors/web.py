"""The options of `pdp mcp` for a server at a URL; `pdp.cli.doors.serving` serves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where the server is, and where and for whom the proxy listens; None and empty for what is not given."""

    upstream: str | None
    upstream_tls_roots: str | None
    headers_file: str | None
    listen: str | None
    listen_tls_certificate: str | None
    listen_tls_key: str | None
    access_tokens: str | None
    allowed_host: tuple[str, ...]
    allowed_origin: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Say whether one of them is given."""
        return any(getattr(self, one.name) for one in fields(self))


def web_options(function: C) -> Callable[..., Any]:
    """Offer the options for HTTP, and pass them as `web`."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
        options = {one.name: given.pop(one.name) for one in fields(WebOptions)}
        return function(*args, web=WebOptions(**options), **given)

    decorated: Callable[..., Any] = command
    for name, metavar, text, several in reversed(
        (
            ("--upstream", "URL", "The URL of the server: https, or http on loopback.", False),
            ("--upstream-tls-roots", "FILE", "Trust these root certificates at the URL. [the system's]", False),
            ("--headers-file", "FILE", "Send the server these headers: lines `Name: value`, for you alone.", False),
            ("--listen", "ADDRESS", "Where clients find the proxy, such as `127.0.0.1:8080`: at the path /mcp.", False),
            ("--listen-tls-certificate", "FILE", "The proxy's certificate chain; needed beyond loopback.", False),
            ("--listen-tls-key", "FILE", "The certificate's private key.", False),
            (
                "--access-tokens",
                "FILE",
                "Take access tokens, too: this file says whose they are. Needs `jwt.*`.",
                False,
            ),
            ("--allowed-host", "HOST", "A name by which clients call it, with its port. [on loopback its own]", True),
            ("--allowed-origin", "ORIGIN", "Pages that may call it, such as `https://example.org`.", True),
        )
    ):
        decorated = click.option(name, metavar=metavar, multiple=several, help=text)(decorated)
    return decorated
