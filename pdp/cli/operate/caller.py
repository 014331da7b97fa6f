"""`pdp caller`: the callers; create, replace and remove their tokens, in the file that a server reads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.cli.groups import Group
from pdp.cli.moments import duration
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table
from pdp.clock import utc_text
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError
from pdp.identity.callers import CALLER_ID, CREDENTIALS, LISTS, SEES_RESULTS, read_callers, time_at
from pdp.identity.callersfile import (
    CallersFile,
    Entry,
    digest_in,
    digest_of,
    editing,
    new_token,
    read_token,
    write_token,
)
from pdp.model import Role

C = TypeVar("C", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)
_STDOUT = Path("-")
_OF_THE_TOKEN = ("expires_at", "previous_token_sha256", "previous_expires_at")
_TAKEN = "a running server reads it within two seconds, and on SIGHUP at once"
_with_callers = with_settings("data_dir", "callers.file")


@click.group(cls=Group)
def caller() -> None:
    """List callers; create, replace and remove their tokens."""


@caller.command("list", epilog="Example:  pdp caller list")
@json_option
@_with_callers
def list_(*, settings: Settings, as_json: bool) -> None:
    """List callers with their credentials, roles and expiry."""
    entries = _existing(CallersFile(settings.callers_file), settings).entries
    read_callers(settings.callers_file, development=True)
    if as_json:
        print_json([_plain(caller_id, entry) for caller_id, entry in entries.items()])
        return
    columns = ("caller", "credential", "roles", "tenant", "bounds", "expires")
    print_table(columns, [_row(_plain(caller_id, entry)) for caller_id, entry in entries.items()])


def _lifetime(text: str) -> float:
    """Read a duration, or `never` for no end. For click's `type`."""
    return math.inf if text == "never" else duration(text)


def _token_options(function: C) -> C:
    """Offer the options for a token's source, destination and lifetime."""
    for name, kind, metavar, text in (
        ("--expires-in", _lifetime, "DURATION", "How long the token is valid, such as `720h`, or `never`."),
        ("--token-file", _FILE, "FILE", "Use the token in this file, and write none."),
        ("--to", _FILE, "FILE", "Write the token to this file instead of the `tokens` folder; `-` prints it."),
    ):
        function = click.option(name, type=kind, metavar=metavar, help=text)(function)
    return function


def _asking_options(function: C) -> C:
    """Offer the options of what bounds a gateway or service."""
    for name, text in (
        (
            "tenant",
            "A tenant for which a `pep`, `broker` or `revoker` may act; repeat the option for several. [its own]",
        ),
        ("agent", "An agent for which a gateway may ask; repeat the option for several. [all]"),
        ("user", "A user for whom a gateway may ask; repeat the option for several. [all]"),
    ):
        function = click.option(f"--for-{name}", f"{name}s", metavar="ID", multiple=True, help=text)(function)
    unseen = "The gateway sees no results: deny it calls of which only a report says what they bring."
    return click.option("--sees-no-results", is_flag=True, help=unseen)(function)


@caller.command(epilog="Example:  pdp caller add ci-gateway --role pep --expires-in 720h")
@click.argument("caller_id", metavar="ID")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="A role of the caller; repeat the option for several.",
)
@click.option("--tenant", default="default", show_default=True, help="The tenant of the caller.")
@_asking_options
@click.option("--spiffe-id", help="Identify the caller by the SPIFFE id of its certificate, without a token.")
@click.option("--jwt-subject", help="Identify the caller by the subject of a JSON Web Token.")
@click.option("--jwt-group", help="Apply the entry to a group that JSON Web Tokens name.")
@_token_options
@json_option
@_with_callers
def add(
    *,
    settings: Settings,
    caller_id: str,
    roles: tuple[str, ...],
    tenant: str,
    users: tuple[str, ...],
    agents: tuple[str, ...],
    tenants: tuple[str, ...],
    sees_no_results: bool,
    spiffe_id: str | None,
    jwt_subject: str | None,
    jwt_group: str | None,
    as_json: bool,
    **token: Any,  # noqa: ANN401 - the options of a token
) -> None:
    """Add a caller.

    Unless you name another credential, the caller gets a token of 256 random bits, in a file that only its owner can
    read (mode 0600). The file of callers holds only the token's SHA-256.
    """
    if not CALLER_ID.fullmatch(caller_id):
        raise click.UsageError(f"`{caller_id}` is not a caller id: it must match {CALLER_ID.pattern}")
    named = {"spiffe_id": spiffe_id, "jwt_subject": jwt_subject, "jwt_group": jwt_group}
    other = {name: value for name, value in named.items() if value is not None}
    lists = {"users": users, "agents": agents, "tenants": tenants}
    rest: dict[str, object] = {"roles": list(roles), **({"tenant": tenant} if tenant != "default" else {})}
    rest |= {name: list(ids) for name, ids in lists.items() if ids}
    rest |= {SEES_RESULTS: False} if sees_no_results else {}
    with editing(settings.callers_file) as file:
        if caller_id in file.entries:
            raise ConfigurationError(f"caller `{caller_id}` already exists; `pdp caller rotate` gives it a new token")
        if other:
            if any(value is not None for value in token.values()):
                raise click.UsageError("a caller with another credential has no token")
            entry, made = {**other, **rest}, None
        else:
            made = _Token(settings, caller_id, **token)
            made.require_free()
            entry = {"token_sha256": digest_of(made.text), **rest, **made.end}
        file.add(caller_id, entry)
        _write(file, made)
    _tell(f"added `{caller_id}` to `{settings.callers_file}`", caller_id, entry, made, as_json=as_json)


@caller.command(epilog="Example:  pdp caller rotate pep --keep-old 10m --to new.token")
@click.argument("caller_id", metavar="ID")
@click.option("--keep-old", type=duration, metavar="DURATION", help="Keep the old token valid for this long.")
@_token_options
@json_option
@_with_callers
def rotate(
    *,
    settings: Settings,
    caller_id: str,
    keep_old: float | None,
    as_json: bool,
    **token: Any,  # noqa: ANN401 - the options of a token
) -> None:
    """Give a caller a new token, and make the old one invalid.

    If the old token expires, pass --expires-in for the new one. With `--keep-old`, write the new token to another file
    with `--to`, and give it to the caller once the server has read the callers.
    """
    with editing(settings.callers_file) as file:
        before = _entry(file, settings, caller_id)
        if "token_sha256" not in before:
            raise ConfigurationError(f"`{caller_id}` has no token: it is identified by `{_by(before)}`")
        if "expires_at" in before and token["expires_in"] is None:
            raise click.UsageError(f"the token of `{caller_id}` expires: pass --expires-in for the new one")
        made = _Token(settings, caller_id, **token)
        kept = {name: value for name, value in before.items() if name not in _OF_THE_TOKEN}
        old = {} if keep_old is None else _kept(before, keep_old)
        entry = kept | {"token_sha256": digest_of(made.text)} | made.end | old
        file.replace(caller_id, entry)
        _write(file, made)
    _tell(f"`{caller_id}` has a new token", caller_id, entry, made, as_json=as_json)


@caller.command(epilog="Example:  pdp caller remove ci-gateway")
@click.argument("caller_id", metavar="ID")
@json_option
@_with_callers
def remove(*, settings: Settings, caller_id: str, as_json: bool) -> None:
    """Remove a caller, and its token from the data folder.

    Sessions that it opened stay live: `pdp session revoke` ends them.
    """
    with editing(settings.callers_file) as file:
        entry = _entry(file, settings, caller_id)
        file.remove(caller_id)
        file.write()
        path = _token_path(settings, caller_id)
        known = (entry.get("token_sha256"), entry.get("previous_token_sha256"))
        removed = path if path is not None and digest_in(path) in known else None
        if removed is not None:
            removed.unlink()
    if as_json:
        print_json({**_plain(caller_id, entry), "removed_file": "" if removed is None else str(removed)})
        return
    if removed is not None:
        click.echo(f"removed {removed}")
    click.echo(f"removed `{caller_id}` from `{settings.callers_file}`; {_TAKEN}")


def _write(file: CallersFile, made: _Token | None) -> None:
    """Write the token before the callers, because a server reads them a moment later."""
    if made is not None and made.file is not None:
        write_token(made.file, made.text)
    file.write()


def _tell(done: str, caller_id: str, entry: Entry, made: _Token | None, *, as_json: bool) -> None:
    """Report what was done; a token to be printed is all of stdout, except in JSON."""
    printed = made.text if made is not None and made.printed else ""
    written = "" if made is None or made.file is None else str(made.file)
    if as_json:
        print_json(
            {
                **_plain(caller_id, entry),
                "token": printed,
                "token_file": written,
                "previous_expires_at": entry.get("previous_expires_at", ""),
            }
        )
        return
    if printed:
        click.echo(printed)
    if written:
        click.echo(f"wrote {written}")
    click.echo(f"{done}; {_TAKEN}", err=bool(printed))


class _Token:
    """The token of a caller: made or given, its file or whether it is printed, and its end."""

    def __init__(
        self, settings: Settings, caller_id: str, *, token_file: Path | None, to: Path | None, expires_in: float | None
    ) -> None:
        if token_file is not None and to is not None:
            raise click.UsageError("--to cannot be combined with --token-file, which writes no token")
        self.text = new_token() if token_file is None else read_token(token_file)
        self.end = {} if expires_in in (None, math.inf) else {"expires_at": _after(expires_in)}
        self.printed = to == _STDOUT
        self.file = None if token_file is not None or self.printed else to or _token_path(settings, caller_id)
        if token_file is None and self.file is None and not self.printed:
            raise click.UsageError(f"`{caller_id}` cannot be the name of a file: name a file for the token with --to")

    def require_free(self) -> None:
        """Raise `ConfigurationError` when the token would replace another one."""
        if self.file is not None and self.file.exists():
            raise ConfigurationError(f"`{self.file}` already exists: remove it, or name another file with --to")


def _token_path(settings: Settings, caller_id: str) -> Path | None:
    """Return the path of a caller's token in the data folder.

    None for an id that cannot be the name of a file.
    """
    name = f"{caller_id}.token"
    return settings.tokens_folder / name if "/" not in name and not name.startswith(".") else None


def _existing(file: CallersFile, settings: Settings) -> CallersFile:
    if not file.entries:
        raise ConfigurationError(
            f"no callers in `{settings.callers_file}`; `pdp init` or `pdp caller add` creates some"
        )
    return file


def _entry(file: CallersFile, settings: Settings, caller_id: str) -> Entry:
    entry = _existing(file, settings).entries.get(caller_id)
    if entry is None:
        known = ", ".join(f"`{one}`" for one in file.entries)
        raise ConfigurationError(f"no caller `{caller_id}` in `{settings.callers_file}`; it has {known}")
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"`{caller_id}` in `{settings.callers_file}` must be a mapping: edit it by hand")
    return entry


def _kept(entry: Entry, seconds: float) -> dict[str, object]:
    """Return the fields that keep the old token valid, not beyond its own end."""
    end = _after(seconds)
    own = entry.get("expires_at")
    if own is not None and time_at(own) < time_at(end):
        end = str(own)
    return {"previous_token_sha256": entry["token_sha256"], "previous_expires_at": end}


def _after(seconds: float) -> str:
    return utc_text(float(int(time.time() + seconds)))[:19] + "Z"


def _by(entry: Entry) -> str:
    return next((name for name in CREDENTIALS if name in entry), "credential")


def _plain(caller_id: str, entry: Entry) -> dict[str, object]:
    name = _by(entry)
    return {
        "caller": caller_id,
        "credential": name.removesuffix("_sha256"),
        "value": "" if name == "token_sha256" else entry.get(name, ""),
        "roles": entry.get("roles", []),
        "tenant": entry.get("tenant", "default"),
        **{name: entry.get(name, []) for name in LISTS},
        SEES_RESULTS: entry.get(SEES_RESULTS, True),
        "expires_at": entry.get("expires_at", ""),
        "development": entry.get("development", False),
    }


def _row(plain: dict[str, Any]) -> tuple[str, ...]:
    credential = " ".join(filter(None, (plain["credential"].replace("_", " "), plain["value"])))
    development = " (development)" if plain["development"] else ""
    roles = ", ".join(map(str, plain["roles"]))
    bounds = [f"{name} {', '.join(plain[name])}" for name in LISTS if plain[name]]
    bounds += [] if plain[SEES_RESULTS] else ["sees no results"]
    expires = plain["expires_at"] or "never"
    return plain["caller"], credential + development, roles, plain["tenant"], "; ".join(bounds), expires
