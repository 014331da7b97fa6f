"""Arguments and options that select records: whose they are, of which calls, and a window of time in UTC."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from pdp.audit.values import Window, argument_of
from pdp.cli.moments import moment
from pdp.errors import InvalidRequestError
from pdp.model import Basis

C = TypeVar("C", bound=Callable[..., Any])

# As fields of `Filter`.
_WHO = {
    "session": "session_id",
    "user": "user",
    "agent": "agent",
    "pep": "caller_id",
    "tool": "tool",
    "server": "server",
    "resource": "resource",
    "basis": "basis",
}
_BASES = frozenset(basis.value for basis in Basis)


def window_options(function: C) -> Callable[..., Any]:
    """Offer a window of time, and pass it as `window`."""

    @click.option(
        "--since", type=moment, metavar="TIME", help="Only from this time on: a time in UTC, or `2h` for two hours ago."
    )
    @click.option("--until", type=moment, metavar="TIME", help="Only before this time.")
    @wraps(function)
    def command(*args: Any, since: float | None, until: float | None, **given: Any) -> Any:  # noqa: ANN401 - a command's own parameters
        if since is not None and until is not None and since >= until:
            raise click.UsageError("--since must be before --until")
        return function(*args, window=Window(since_at=since, until_at=until), **given)

    return command


def argument_option(function: C) -> C:
    """Offer arguments that calls must have, and pass them as `arguments`."""
    return click.option(
        "--argument",
        "arguments",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_arguments,
        help="Only calls with this recorded argument.",
    )(function)


def _arguments(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(argument_of("--argument", value) for value in values)
    except InvalidRequestError:
        raise click.BadParameter("must be written NAME=VALUE") from None


def who(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read arguments such as `agent:coder` as fields of a filter. For click's `callback`."""
    found: dict[str, str] = {}
    for value in values:
        kind, _colon, name = value.partition(":")
        if kind not in _WHO or not name:
            raise click.BadParameter(f"`{value}` must be written KIND:ID, where KIND is one of {', '.join(_WHO)}")
        if kind == "tool" and "/" not in name:
            raise click.BadParameter(f"`{value}` must be written tool:SERVER/TOOL")
        if kind == "basis" and name not in _BASES:
            raise click.BadParameter(f"`{name}` is not a basis; use one of {', '.join(sorted(_BASES))}")
        if found.setdefault(_WHO[kind], name) != name:
            raise click.BadParameter(f"`{kind}` is given twice, and no record matches both")
    return found
