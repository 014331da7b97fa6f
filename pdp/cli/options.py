"""Options that several commands share: the settings as flags, the connection, the session handle."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pdp.config.reading import SettingRow, describe, load, origin, section_titles
from pdp.config.settings import Settings
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])

HANDLE_VARIABLE = "PDP_SESSION_HANDLE"
# For the help of commands that list their options by subject: those for the connection to the server.
CONNECTION_FLAGS = (
    "--address",
    "--control-address",
    "--token-file",
    "--tls-roots",
    "--tls-certificate",
    "--tls-key",
    "--plaintext",
    "--config",
    "--data-dir",
)

_SETTING = "setting_"

_HANDLE = re.compile(r"[\x21-\x7e]+")


class SettingsCommand(click.Command):
    """A command that takes every setting: its help lists them by section, with the subject of each section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options that are not settings, and then the settings, by section."""
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                section, inside, _ = (parameter.name or "").removeprefix(_SETTING).partition("__")
                sections.setdefault(section if inside else "", []).append(record)
        titles = section_titles()
        for section, records in sections.items():
            with formatter.section(titles.get(section, "Options").removesuffix(".")):
                formatter.write_dl(records)


class SectionedCommand(click.Command):
    """A command whose help lists its options by what they are for: `sections` names the options under each title."""

    def __init__(self, *args: Any, sections: Mapping[str, Collection[str]], **more: Any) -> None:  # noqa: ANN401 - click's own parameters
        super().__init__(*args, **more)
        self._sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options section by section, and first those of none."""
        titles = {name: title for title, names in self._sections.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *self._sections)}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections[next((titles[one] for one in parameter.opts if one in titles), "Options")].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def with_settings(*names: str) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers settings as flags and passes all as `settings`.

    The file and the environment apply to all settings, offered or not.
    """

    def decorate(function: C) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, load_settings: Callable[[], Settings], **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
            return function(*args, settings=load_settings(), **given)

        return with_loader(*names)(command)

    return decorate


def with_loader(*names: str) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator like `with_settings` for a command that reports wrong settings.

    It passes on, as `load_settings`, a function that returns them or raises `ConfigurationError`.
    """
    rows = [row for row in describe() if row.name in names]

    def decorate(function: C) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, config: str | None, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
            texts = {row.name: given.pop(_parameter(row)) for row in rows}
            flags = {name: text for name, text in texts.items() if text is not None}
            return function(*args, load_settings=partial(load, environ=os.environ, flags=flags, file=config), **given)

        decorated: Callable[..., Any] = command
        for row in reversed(rows):
            decorated = _setting_option(row)(decorated)
        return click.option("--config", metavar="FILE", help="Read settings from this file.")(decorated)

    return decorate


def grouped(group: type, name: str, options: Sequence[Callable[[Any], Any]]) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers options, and passes them together as `name`.

    `group` is a dataclass with a field for each of their parameters.
    """

    def decorate(function: C) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
            own = {one.name: given.pop(one.name) for one in fields(group)}
            return function(*args, **{name: group(**own)}, **given)

        decorated: Callable[..., Any] = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """A command's options for the connection to the server; None for those that are not given."""

    address: str | None
    control_address: str | None
    token_file: str | None
    tls_roots: str | None
    tls_certificate: str | None
    tls_key: str | None
    plaintext: bool


def connection_options(role: Role) -> Callable[[C], Callable[..., Any]]:
    """Make a decorator that offers a connection's options and passes `connection`.

    `connection.connect` takes them.
    """
    rows = (
        ("--address", "PDP_ADDRESS", "ADDRESS", "The address of the server. [PDP_ADDRESS; server.address]"),
        (
            "--control-address",
            "PDP_CONTROL_ADDRESS",
            "ADDRESS",
            "The address to try first to end authority. [PDP_CONTROL_ADDRESS; server.control_address]",
        ),
        (
            "--token-file",
            "PDP_TOKEN_FILE",
            "FILE",
            f"The file of the token to send. [PDP_TOKEN_FILE; the {role.value}'s]",
        ),
        (
            "--tls-roots",
            "PDP_TLS_ROOTS",
            "FILE",
            "Trust these root certificates, or the `system`'s. [PDP_TLS_ROOTS; on loopback its own]",
        ),
        (
            "--tls-certificate",
            "PDP_TLS_CERTIFICATE",
            "FILE",
            "The client certificate; no token is sent unless one is named. [PDP_TLS_CERTIFICATE]",
        ),
        ("--tls-key", "PDP_TLS_KEY", "FILE", "The certificate's private key. [PDP_TLS_KEY]"),
    )
    options = [
        click.option(name, metavar=metavar, envvar=variable, help=text) for name, variable, metavar, text in rows
    ]
    return grouped(ConnectionOptions, "connection", (_plaintext_option, *options))


def flags_of(connection: ConnectionOptions, settings: Settings) -> tuple[str, ...]:
    """Return the flags by which another command of this program reaches the same server, from any folder."""
    given = {field.name: getattr(connection, field.name) for field in fields(ConnectionOptions)}
    address = given.pop("address") or settings.server.address
    flags = ["--data-dir", str(Path(settings.data_dir).absolute()), "--address", address]
    if given.pop("plaintext"):
        flags.append("--plaintext")
    for name, value in given.items():
        if value is not None:
            # A path of this process's folder means nothing in another.
            known = name == "control_address" or (name == "tls_roots" and value == "system")
            flags += [f"--{name.replace('_', '-')}", value if known else str(Path(value).absolute())]
    return tuple(flags)


def address_origin() -> str:
    """Return the origin of the server's address: a flag, a variable or a file's line."""
    context = click.get_current_context()
    if context.params.get("address"):
        by_variable = context.get_parameter_source("address") is ParameterSource.ENVIRONMENT
        return "`PDP_ADDRESS`" if by_variable else "`--address`"
    flag = context.params.get(f"{_SETTING}server__address")
    flags = {"server.address": flag} if flag else {}
    return origin("server.address", environ=os.environ, flags=flags, file=context.params.get("config"))


def read_handle(file: str | None) -> str:
    """Return the secret handle of a session, from a file or from the environment.

    There is no flag for the handle itself: every user of the machine can read flags.
    """
    if file is not None:
        handle = Path(file).read_bytes().decode("ascii", "replace").strip()
    else:
        handle = os.environ.get(HANDLE_VARIABLE, "").strip()
        if not handle:
            raise click.UsageError(f"pass --session-handle-file or {HANDLE_VARIABLE}")
    if not _HANDLE.fullmatch(handle):
        raise click.UsageError(
            f"{f'the file `{file}`' if file is not None else HANDLE_VARIABLE} holds no session handle"
        )
    return handle


def read_id_token(file: str | None) -> str:
    """Return the ID token in a file; empty without a file. There is no flag for the token itself, as for a handle."""
    return Path(file).read_bytes().decode("ascii", "replace").strip() if file is not None else ""


id_token_option = click.option(
    "--id-token-file",
    metavar="FILE",
    help="The file of your log-in's ID token, if your access token does not say when you logged in.",
)
handle_option = click.option(
    "--session-handle-file",
    metavar="FILE",
    help=f"The file of the session's secret handle. [{HANDLE_VARIABLE} holds the handle itself]",
)
_plaintext_option = click.option(
    "--plaintext",
    is_flag=True,
    envvar="PDP_PLAINTEXT",
    help="Use no TLS, on loopback: any user of the machine can impersonate the server. [PDP_PLAINTEXT]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def path_of(text: str | None) -> Path | None:
    """Return the path that an option names."""
    return None if text is None else Path(text)


def _parameter(row: SettingRow) -> str:
    return _SETTING + row.name.replace(".", "__")


def _setting_option(row: SettingRow) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = f"{row.help[:1].upper()}{row.help[1:]}. [{row.environment}; {row.default or 'empty'}]"
    if row.default in ("true", "false"):
        # The flag alone means yes; like every other setting it can also take a value.
        return click.option(
            row.flag, _parameter(row), is_flag=False, flag_value="true", metavar="[true|false]", help=text
        )
    return click.option(row.flag, _parameter(row), metavar="VALUE", help=text)
