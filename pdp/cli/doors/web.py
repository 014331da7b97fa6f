"""The options of `pdp mcp` for servers at URLs; `pdp.cli.doors.proxying` serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import click

from pdp.cli.doors.serving import CALLER_FLAGS, LISTEN_FLAGS, ListenOptions, listen_options

C = TypeVar("C", bound=Callable[..., Any])

WEB_FLAGS = (
    "--upstream",
    "--upstream-tls-roots",
    "--headers-file",
    *LISTEN_FLAGS,
    "--access-tokens",
    *CALLER_FLAGS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where the server is, and where and for whom the proxy listens; None for what is not given."""

    upstream: str | None
    upstream_tls_roots: str | None
    headers_file: str | None
    access_tokens: str | None
    listening: ListenOptions

    @property
    def given(self) -> bool:
        """Say whether one of them is given."""
        return any(getattr(self, name) for name in _OWN) or self.listening.given


_OWN = tuple(one.name for one in fields(WebOptions) if one.name != "listening")


def web_options(function: C) -> Callable[..., Any]:
    """Offer the options for HTTP, and pass them as `web`."""

    @wraps(function)
    def command(*args: Any, listening: ListenOptions, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
        own = {name: given.pop(name) for name in _OWN}
        return function(*args, web=WebOptions(listening=listening, **own), **given)

    decorated: Callable[..., Any] = listen_options(
        "Where clients find the proxy, such as `127.0.0.1:8080`: at the path /mcp.",
        hosts="on loopback its own",
        required=False,
    )(command)
    for name, metavar, text in reversed(
        (
            ("--upstream", "URL", "The URL of the server: https, or http on loopback."),
            ("--upstream-tls-roots", "FILE", "Trust these root certificates at the URL. [the system's]"),
            ("--headers-file", "FILE", "Send the server these headers: lines `Name: value`, for you alone."),
            ("--access-tokens", "FILE", "Take access tokens, too: this file says whose they are. Needs `jwt.*`."),
        )
    ):
        decorated = click.option(name, metavar=metavar, help=text)(decorated)
    return decorated
