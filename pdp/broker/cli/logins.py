"""The options that say of which database a connection makes logins, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from pdp.broker.checkouts.servers import is_server
from pdp.broker.words import Connection, LoginSource, Mode

C = TypeVar("C", bound=Callable[..., Any])

# A name that PostgreSQL would cut off is another name.
_MOST_NAME_BYTES: Final = 63
_LONGEST_SECONDS: Final = 24 * 3600


def _identifier(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if len(value.encode()) > _MOST_NAME_BYTES or not value.isprintable():
        raise click.BadParameter(
            f"`{value}` is longer than {_MOST_NAME_BYTES} bytes, or not in one line", param=parameter
        )
    return value


_OPTIONS: Final = (
    click.option(
        "--database", default="", metavar="NAME", callback=_identifier, help="The database of PostgreSQL to log in to."
    ),
    click.option(
        "--role",
        default="",
        metavar="NAME",
        callback=_identifier,
        help="The broker's own role there, which makes logins; its password is the secret of the connection.",
    ),
    click.option(
        "--login-seconds",
        type=click.IntRange(1, _LONGEST_SECONDS),
        default=LoginSource(database="", role="").seconds,
        show_default=True,
        metavar="N",
        help="The longest that a login lives.",
    ),
    click.option(
        "--login-sessions",
        type=click.IntRange(1, 1000),
        default=LoginSource(database="", role="").sessions,
        show_default=True,
        metavar="N",
        help="How many sessions of the database a login has at most.",
    ),
    click.option(
        "--login-roots",
        default="",
        metavar="FILE",
        help="The authorities of the server's certificate. [those of the system]",
    ),
)


def login_options(command: C) -> C:
    """Add the options to a command, which gets them by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken_logins(given: dict[str, Any]) -> LoginSource | None:
    """Take the options out of those of a command. Return None for a connection that makes no logins."""
    database, role, seconds, sessions, roots = (
        given.pop(name) for name in ("database", "role", "login_seconds", "login_sessions", "login_roots")
    )
    if not is_server(given["upstream"]):
        if database or role or roots:
            raise click.UsageError("--database, --role and --login-roots need --upstream postgresql://HOST")
        return None
    if not database or not role:
        raise click.UsageError("--upstream postgresql://HOST needs --database and --role")
    return LoginSource(database=database, role=role, seconds=seconds, sessions=sessions, tls_roots=roots)


def require_modes(one: Connection) -> None:
    """Raise `click.UsageError` unless a connection can be used in all of its modes."""
    if one.logins and one.modes != (Mode.CHECKOUT,):
        raise click.UsageError("--mode: logins can only be handed out: `checkout`")
    if one.logins and not one.scopes:
        raise click.UsageError("--scope: name the group roles whose rights logins may have")
    if Mode.CHECKOUT in one.modes and not (one.logins or one.source):
        raise click.UsageError("--mode checkout: a secret that lasts is never handed out; see --token-endpoint")


def login_fields(logins: LoginSource | None) -> list[tuple[str, str]]:
    """Return how people are shown of which database logins are made."""
    if logins is None:
        return []
    return [
        ("logins to", f"{logins.database}, made by {logins.role}"),
        ("at most", f"{logins.seconds} s, {logins.sessions} sessions"),
        ("authorities", logins.tls_roots or "those of the system"),
    ]


def plain_logins(logins: LoginSource | None) -> Mapping[str, object]:
    """Return the same for JSON, always with the same names."""
    return {
        "database": logins.database if logins else "",
        "role": logins.role if logins else "",
        "login_seconds": logins.seconds if logins else 0,
        "login_sessions": logins.sessions if logins else 0,
        "login_roots": logins.tls_roots if logins else "",
    }
