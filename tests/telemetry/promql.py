"""Take the metrics and labels out of a PromQL query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*")|(?P<range>\[[^\]]*\])|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>\d+(?:\.\d+)?[smhdw]?)"""
    r"""|(?P<sign>=~|!~|!=|>=|<=|==|[-+*/%^(){},=<>]))"""
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _GROUPING | {"and", "or", "unless", "offset", "bool"}
FUNCTIONS = {"sum", "max", "min", "count", "avg", "topk", "rate", "increase", "histogram_quantile", "absent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a query reads: metrics with the labels that it matches (and texts), and labels that it groups by."""

    matched: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)


def read_query(text: str) -> Query:
    """Read a query. Raise `ValueError` for what is no token, or brackets that do not match."""
    tokens = list(_tokens(text.replace("$__rate_interval", "5m")))
    query = Query()
    place = 0
    while place < len(tokens):
        kind, token = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if kind == "name" and token in _GROUPING:
            end = tokens.index(("sign", ")"), place)
            query.grouped.update(one for sort, one in tokens[place + 2 : end] if sort == "name")
            place = end
        elif kind == "name" and following in {"(", "by", "without"} and token not in _WORDS:
            query.functions.add(token)
        elif kind == "name" and token not in _WORDS:
            labels = query.matched.setdefault(token, {})
            if following == "{":
                end = tokens.index(("sign", "}"), place)
                for (sort, label), _, (_, value) in zip(
                    tokens[place + 2 : end : 4], tokens[place + 3 : end : 4], tokens[place + 4 : end : 4], strict=True
                ):
                    assert sort == "name"
                    labels.setdefault(label, []).append(value.strip('"'))
                place = end
        place += 1
    signs = [sign for kind, sign in tokens if kind == "sign"]
    if signs.count("(") != signs.count(")"):
        raise ValueError(f"brackets do not match: {text}")
    return query


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise ValueError(f"no token at {place}: {text}")
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()
