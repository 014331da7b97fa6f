"""The options that say where a connection gets access tokens, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from pdp.broker.oauth.asking import checked_endpoint
from pdp.broker.upstream import UpstreamError
from pdp.broker.words import ClientAuth, TokenSource

C = TypeVar("C", bound=Callable[..., Any])


def _endpoint(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return checked_endpoint(value) if value else ""
    except UpstreamError as error:
        raise click.BadParameter(str(error), param=parameter) from None


_OPTIONS: Final = (
    click.option(
        "--token-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where the broker gets access tokens, as a client whose secret is that of the connection.",
    ),
    click.option("--client-id", default="", metavar="ID", help="The client, as the token endpoint knows it."),
    click.option(
        "--client-auth",
        type=click.Choice([one.value for one in ClientAuth]),
        default=ClientAuth.BASIC.value,
        show_default=True,
        help="How the secret of the client is sent.",
    ),
    click.option("--resource", default="", metavar="URI", help="What the tokens are for, where one must say so."),
    click.option(
        "--revocation-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where tokens that were handed out are revoked (RFC 7009).",
    ),
    click.option(
        "--introspection-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where the provider says whether a token counts (RFC 7662): without it no revocation is proved.",
    ),
    click.option("--private-endpoint", is_flag=True, help="The endpoints may be at a private address."),
)
_TAKEN: Final = (
    "token_endpoint",
    "client_id",
    "client_auth",
    "resource",
    "private_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
)


def source_options(command: C) -> C:
    """Add the options to a command, which gets them by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken_source(given: dict[str, Any]) -> TokenSource | None:
    """Take the options out of those of a command. Return None for a connection whose secret is sent itself."""
    endpoint, client_id, auth, resource, private, revocation, introspection = map(given.pop, _TAKEN)
    if bool(endpoint) != bool(client_id):
        raise click.UsageError("--token-endpoint and --client-id need each other")
    if not endpoint and (resource or private or revocation or introspection):
        raise click.UsageError("--resource and the options of other endpoints need --token-endpoint")
    if not endpoint:
        return None
    return TokenSource(
        endpoint=endpoint,
        client_id=client_id,
        auth=ClientAuth(auth),
        resource=resource,
        private=private,
        revocation=revocation,
        introspection=introspection,
    )


def source_fields(source: TokenSource | None) -> list[tuple[str, str]]:
    """Return how people are shown where access tokens come from."""
    if source is None:
        return []
    where = f"{source.endpoint}, also at a private address" if source.private else source.endpoint
    return [
        ("tokens from", where),
        ("client", f"{source.client_id}, by {source.auth}"),
        ("resource", source.resource),
        ("revoked at", source.revocation),
        ("known at", source.introspection),
    ]


def plain_source(source: TokenSource | None) -> dict[str, object]:
    """Return the same for JSON, always with the same names."""
    return {
        "token_endpoint": source.endpoint if source else "",
        "client_id": source.client_id if source else "",
        "client_auth": source.auth.value if source else "",
        "resource": source.resource if source else "",
        "private_endpoint": bool(source and source.private),
        "revocation_endpoint": source.revocation if source else "",
        "introspection_endpoint": source.introspection if source else "",
    }
