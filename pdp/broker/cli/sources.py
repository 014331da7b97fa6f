"""The options that say where a connection gets access tokens, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from pdp.broker.oauth.asking import checked_endpoint
from pdp.broker.oauth.installations import is_permission
from pdp.broker.upstream import UpstreamError
from pdp.broker.words import App, ClientAuth, Consenting, Exchange, TokenSource

C = TypeVar("C", bound=Callable[..., Any])


def _endpoint(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return checked_endpoint(value) if value else ""
    except UpstreamError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _issuer(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        # It is compared as it is, so it is not brought into another form.
        if value:
            checked_endpoint(value)
    except UpstreamError as error:
        raise click.BadParameter(str(error), param=parameter) from None
    return value


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
        help="How the secret of the client is sent, or that it is a key by which the client signs.",
    ),
    click.option(
        "--client-audience",
        default="",
        metavar="URL",
        callback=_issuer,
        help="For whom a client that signs does so: what the provider calls itself. [the token endpoint]",
    ),
    click.option("--resource", default="", metavar="URI", help="What the tokens are for, where one must say so."),
    click.option(
        "--authorization-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where people agree: then people connect, each for themselves, and the secret is the client's.",
    ),
    click.option(
        "--issuer",
        default="",
        metavar="URL",
        callback=_issuer,
        help="What the provider calls itself, where people connect.",
    ),
    click.option(
        "--revocation-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where tokens of people, and those that were handed out, are revoked (RFC 7009).",
    ),
    click.option(
        "--introspection-endpoint",
        default="",
        metavar="URL",
        callback=_endpoint,
        help="Where the provider says whether a token counts (RFC 7662): without it no revocation is proved.",
    ),
    click.option(
        "--account-endpoint", default="", metavar="URL", callback=_endpoint, help="Where it says who a person is there."
    ),
    click.option(
        "--grace-seconds",
        type=click.FloatRange(0, 3600),
        default=0.0,
        show_default=True,
        metavar="SECONDS",
        help="How long the provider takes a refresh token again after its first use.",
    ),
    click.option(
        "--exchange-audience",
        default="",
        metavar="NAME",
        help="For whom each session gets a token of its own, for which that of the connection is exchanged (RFC 8693).",
    ),
    click.option(
        "--exchange-resource",
        default="",
        metavar="URI",
        help="What that token is for, at providers that take a resource, or both.",
    ),
    click.option(
        "--app-repository",
        "app_repositories",
        multiple=True,
        metavar="NAME",
        help="A repository for which tokens of an application's installation are, as those of GitHub. Repeatable.",
    ),
    click.option(
        "--outlives-session",
        "outlives",
        is_flag=True,
        help="A token that is handed out may live longer than its session, with which it is then revoked.",
    ),
    click.option("--private-endpoint", is_flag=True, help="The endpoints may be at a private address."),
)
_TAKEN: Final = (
    "token_endpoint",
    "client_id",
    "client_auth",
    "client_audience",
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
    consenting, exchange, app = _taken_consenting(given), _taken_exchange(given), _taken_app(given)
    outlives = given.pop("outlives")
    endpoint, client_id, auth, audience, resource, private, revocation, introspection = map(given.pop, _TAKEN)
    if bool(endpoint) != bool(client_id):
        raise click.UsageError("--token-endpoint and --client-id need each other")
    if not endpoint and (resource or private or revocation or introspection or consenting or exchange or app):
        raise click.UsageError("--resource and the options of other endpoints need --token-endpoint")
    if consenting and given["owner"]:
        raise click.UsageError("--owner does not go with --authorization-endpoint: each person connects for themselves")
    if audience and ClientAuth(auth) is not ClientAuth.PRIVATE_KEY:
        raise click.UsageError("--client-audience needs --client-auth private_key_jwt: no other client signs")
    if outlives and not revocation:
        raise click.UsageError("--outlives-session needs --revocation-endpoint: else nothing ends with the session")
    if app and (ClientAuth(auth) is not ClientAuth.PRIVATE_KEY or consenting or exchange or introspection):
        raise click.UsageError("--app-repository needs --client-auth private_key_jwt, and no other endpoint of tokens")
    if app and not all(map(is_permission, given["scopes"])):
        raise click.UsageError("--scope: with --app-repository it is a permission, such as `issues:write`")
    if not endpoint:
        return None
    return TokenSource(
        endpoint=endpoint,
        client_id=client_id,
        auth=ClientAuth(auth),
        audience=audience,
        resource=resource,
        private=private,
        revocation=revocation,
        introspection=introspection,
        consenting=consenting,
        exchange=exchange,
        app=app,
        outlives=outlives,
    )


def _taken_app(given: dict[str, Any]) -> App | None:
    repositories = given.pop("app_repositories")
    return App(repositories=repositories) if repositories else None


def _taken_exchange(given: dict[str, Any]) -> Exchange | None:
    audience, resource = given.pop("exchange_audience"), given.pop("exchange_resource")
    return Exchange(audience=audience, resource=resource) if audience or resource else None


def _taken_consenting(given: dict[str, Any]) -> Consenting | None:
    authorization, issuer = given.pop("authorization_endpoint"), given.pop("issuer")
    account, grace = given.pop("account_endpoint"), given.pop("grace_seconds")
    if bool(authorization) != bool(issuer):
        raise click.UsageError("--authorization-endpoint and --issuer need each other")
    if not authorization and (grace or account):
        raise click.UsageError("what is about people needs --authorization-endpoint")
    if not authorization:
        return None
    return Consenting(issuer=issuer, authorization=authorization, account=account, grace_seconds=grace)


def source_fields(source: TokenSource | None) -> list[tuple[str, str]]:
    """Return how people are shown where access tokens come from."""
    if source is None:
        return []
    where = f"{source.endpoint}, also at a private address" if source.private else source.endpoint
    fields = [
        ("tokens from", where),
        ("client", f"{source.client_id}, by {source.auth}"),
        ("signs for", source.audience),
        ("resource", source.resource),
        ("revoked at", source.revocation),
        ("known at", source.introspection),
    ]
    if (for_ := source.exchange) is not None:
        fields += [("exchanged for", " ".join(filter(None, (for_.audience, for_.resource))))]
    if source.app is not None:
        fields += [("repositories", " ".join(source.app.repositories))]
    if source.outlives:
        fields += [("handed out", "also beyond the session")]
    if (at := source.consenting) is None:
        return fields
    grace = ("taken again for", f"{at.grace_seconds:g} seconds")
    return [*fields, ("people agree at", at.authorization), ("issuer", at.issuer), ("account from", at.account), grace]


def plain_source(source: TokenSource | None) -> dict[str, object]:
    """Return the same for JSON, always with the same names."""
    at, for_ = (source.consenting, source.exchange) if source else (None, None)
    return {
        "token_endpoint": source.endpoint if source else "",
        "client_id": source.client_id if source else "",
        "client_auth": source.auth.value if source else "",
        "client_audience": source.audience if source else "",
        "resource": source.resource if source else "",
        "private_endpoint": bool(source and source.private),
        "revocation_endpoint": source.revocation if source else "",
        "introspection_endpoint": source.introspection if source else "",
        "exchange_audience": for_.audience if for_ else "",
        "exchange_resource": for_.resource if for_ else "",
        "app_repositories": list(source.app.repositories) if source and source.app else [],
        "outlives_session": bool(source and source.outlives),
        "authorization_endpoint": at.authorization if at else "",
        "issuer": at.issuer if at else "",
        "account_endpoint": at.account if at else "",
        "grace_seconds": at.grace_seconds if at else 0.0,
    }
