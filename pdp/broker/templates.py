"""Build a request to an upstream from the arguments of a call, each encoded for its place.

A template fixes method, path, names and headers. An argument fills one part of the path, a value of the query or a
value of the body; it cannot end its place, so it changes neither host, path, headers nor the form of the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from pdp.broker.upstream import ForeignTargetError, required_target
from pdp.foundation.jsontext import all_texts

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_.-]{1,128})\}")
_MOST_BODY_BYTES: Final = 1024 * 1024
_UNESCAPED_TIMES: Final = 3

JSON: TypeAlias = Any
_ABSENT: Final = object()


class TemplateError(ValueError):
    """A text or value is no template; the message is for whoever configures it."""


class UnfitArgumentsError(Exception):
    """The arguments of a call do not fit its template; nothing was sent. The message names arguments, not values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """A request as it goes to an upstream, without the secret. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How the request of one tool is built.

    In `path`, `query` and `body` a text such as `{owner}` stands for the argument of that name. In the path an argument
    is one part or within one. In the query, and as a whole value of the body, an argument that the call does not have
    is left out. `headers` are fixed. Raise `TemplateError` for what cannot be one.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: JSON = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise TemplateError(f"`{self.method}` is no method; write one of {', '.join(sorted(METHODS))}")
        try:
            required_target(_PLACEHOLDER.sub("x", self.path))
        except ForeignTargetError as error:
            raise TemplateError(f"`{self.path}` is no path: {error}") from None
        if "?" in self.path:
            raise TemplateError(f"`{self.path}`: write what is behind `?` as `query`")
        names = (*self.query, *_keys(self.body))
        values = [_PLACEHOLDER.sub("", text) for text in (*self.query.values(), *all_texts(self.body))]
        if wrong := next((text for text in (*names, *values) if "{" in text or "}" in text), ""):
            raise TemplateError(f"`{wrong}` has a brace that is not around the name of an argument in a value")

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the arguments that it takes."""
        texts = (self.path, *self.query.values(), *all_texts(self.body))
        return frozenset(name for text in texts for name in _PLACEHOLDER.findall(text))

    def filled(self, arguments: Mapping[str, JSON]) -> UpstreamRequest:
        """Return the request for some arguments. Raise `UnfitArgumentsError`."""
        if unknown := sorted(arguments.keys() - self.names):
            # What was allowed with it would be done without it.
            raise UnfitArgumentsError(f"argument `{unknown[0]}` has no place in the template")
        path = _PLACEHOLDER.sub(lambda match: _part(match[1], arguments), self.path)
        query = "&".join(_query(self.query, arguments))
        try:
            target = required_target(f"{path}?{query}" if query else path)
        except ForeignTargetError as error:
            raise UnfitArgumentsError(f"the arguments make no path: {error}") from None
        value = _ABSENT if self.body is None else _value(self.body, arguments)
        if value is _ABSENT:
            return UpstreamRequest(method=self.method, target=target, headers=self.headers)
        body = json.dumps(value, allow_nan=False).encode()
        if len(body) > _MOST_BODY_BYTES:
            raise UnfitArgumentsError(f"the arguments make a body of more than {_MOST_BODY_BYTES} bytes")
        headers = {"content-type": "application/json", **self.headers}
        return UpstreamRequest(method=self.method, target=target, headers=headers, body=body)


def _part(name: str, arguments: Mapping[str, JSON]) -> str:
    """Encode an argument as a part of the path. It must not be one that a server takes for several."""
    text = plain = _scalar(name, arguments.get(name, _ABSENT), "the path")
    for _ in range(_UNESCAPED_TIMES):
        if not plain.isprintable() or any(letter in plain for letter in "/\\"):
            raise UnfitArgumentsError(
                f"argument `{name}` holds a slash or a control character, so it is no part of a path"
            )
        plain = unquote(plain)
    if not text or set(text) == {"."}:
        raise UnfitArgumentsError(f"argument `{name}` is empty, or dots alone, so it is no part of a path")
    return quote(text, safe="")


def _query(query: Mapping[str, str], arguments: Mapping[str, JSON]) -> Iterator[str]:
    for name, text in query.items():
        alone = _PLACEHOLDER.fullmatch(text)
        if alone is None:
            values = [_filled(text, arguments, "the query")]
        else:
            value = arguments.get(alone[1], _ABSENT)
            listed = value if isinstance(value, list) else [] if value in (None, _ABSENT) else [value]
            values = [_scalar(alone[1], one, "the query") for one in listed]
        yield from (f"{quote(name, safe='')}={quote(value, safe='')}" for value in values)


def _value(template: JSON, arguments: Mapping[str, JSON]) -> JSON:
    """Return a value of the body: of a text that is one argument its value, which keeps its type."""
    if isinstance(template, dict):
        filled = {key: _value(one, arguments) for key, one in template.items()}
        return {key: one for key, one in filled.items() if one is not _ABSENT}
    if isinstance(template, list):
        return [one for item in template if (one := _value(item, arguments)) is not _ABSENT]
    if not isinstance(template, str):
        return template
    alone = _PLACEHOLDER.fullmatch(template)
    return arguments.get(alone[1], _ABSENT) if alone else _filled(template, arguments, "a text of the body")


def _filled(text: str, arguments: Mapping[str, JSON], place: str) -> str:
    return _PLACEHOLDER.sub(lambda match: _scalar(match[1], arguments.get(match[1], _ABSENT), place), text)


def _scalar(name: str, value: object, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    problem = "is missing" if value is _ABSENT else "is no text, number or truth value"
    raise UnfitArgumentsError(f"argument `{name}` {problem}, and stands in {place}")


def _keys(value: JSON) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(one)
