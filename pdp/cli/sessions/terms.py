"""The terms of a session on the command line: how they are written, and errors that name their options."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from pdp.errors import InvalidRequestError
from pdp.foundation.jsontext import is_json


def terms_text(whole: str, single: Sequence[str]) -> str:
    """Return the JSON object of the terms, from `--terms` or from each `--term NAME=VALUE`.

    A value that is JSON stays as it is written, with all digits; any other is a text.
    """
    if not single:
        return whole
    if whole:
        raise click.UsageError("pass either --terms or --term")
    members = []
    for one in single:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise click.UsageError(f"`--term` must be written `name=value`: `{one}`")
        members.append(f"{json.dumps(name)}:{value if is_json(value) else json.dumps(value)}")
    return "{" + ",".join(members) + "}"


@contextmanager
def terms_named(whole: str, single: Sequence[str] = (), *, field: str = "terms_json") -> Iterator[None]:
    """Name the option in an error about the terms: `field` is their name in the request, which no user has written.

    Where a text is wanted and a value was read as JSON, the error says how the text is written.
    """
    try:
        yield
    except InvalidRequestError as error:
        said, named = str(error), f"`{field}`: "
        if named not in said:
            raise
        option = "`--terms`: " if whole else "`--term`: "
        raise click.ClickException(said.replace(named, option, 1) + _as_text(said, single)) from None


def _as_text(said: str, single: Sequence[str]) -> str:
    for name, _, value in (one.partition("=") for one in single):
        if f"`$.{name}`: must be a string" in said:
            written = shlex.quote(f"{name}={json.dumps(value, ensure_ascii=False)}")
            return f"; `{value}` is read as JSON; a text is written --term {written}"
    return ""
