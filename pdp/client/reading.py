"""Read what a tool's result holds for the report: as digests, in bounded time, and without an error that quotes it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

from pdp.client.results import as_sent, is_message
from pdp.client.values import ResultReading
from pdp.foundation.fieldpaths import FieldPath, field_path
from pdp.foundation.names import KINDS, LONGEST, Name, folded, links, name_of, name_of_value, without_gaps
from pdp.foundation.valuedigests import MOST_DIGESTS, value_digest

# Any JSON value, and at first whatever a tool returns.
Value = Any

# How much is read of one result: the rest holds nothing that policies will see.
MOST_CHARACTERS: Final = 256 * 1024
MOST_VALUES: Final = 8192
# Of a call with longer arguments, nothing is clean: each value is looked for in them.
MOST_ASKED: Final = 16 * 1024
# Shorter values are in too many results to say anything.
_SHORTEST: Final = 3
_DEEPEST: Final = 32

# `key: value`, and the mark before the item of a list.
_PAIR: Final = re.compile(r"\s*[^:\s][^:]{0,63}:\s+(\S.*)")
_ITEM: Final = re.compile(r"\s*(?:[-*+\u2022]|\d{1,4}[.)])\s+(\S.*)")
_BETWEEN: Final = re.compile(r"[\s<>\"'`()\[\]{},;|]+")
_QUOTES: Final = "\"'` "
_BEHIND: Final = ".,:;!?"
# An account is written in groups of four, with or without gaps.
_ACCOUNT: Final = re.compile(r"\b[A-Za-z]{2}[0-9]{2}")
_GROUP: Final = re.compile(r"[ -]?[A-Za-z0-9]{1,4}")
_GROUPS: Final = 8
_MOST_ACCOUNTS: Final = 512
_GOES_ON: Final = re.compile(r"[A-Za-z0-9]|[ -][0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDigests:
    """Digests of the values that a result holds: of the fields that issue ids, and of all others."""

    issued: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()


NOTHING_HELD: Final = HeldDigests()


def read_result(reading: ResultReading | None, result: Value) -> HeldDigests:
    """Return what the result of an allowed call holds, as its answer wants it read; nothing where it cannot be read.

    A result is a JSON value, the text or bytes of one, any other text, or a result of MCP. Of a trusted tool this
    leaves out what the arguments of the call held.
    """
    if reading is None:
        return NOTHING_HELD
    try:
        return _Reader(reading).read(result)
    except Exception:  # noqa: BLE001 - fails closed: what is not reported is unseen, and an error could quote the result
        return NOTHING_HELD


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a result: values with a structure, and texts without one; `issuing` are those that can issue ids."""

    structured: tuple[Value, ...]
    texts: tuple[str, ...]
    issuing: tuple[Value, ...]


class _Reader:
    def __init__(self, reading: ResultReading) -> None:
        self._reading = reading
        # A kind that this release does not know cannot be read.
        self._kinds = (None, *(kind for kind in reading.kinds if kind in KINDS))

    def read(self, result: Value) -> HeldDigests:
        parts = _parts_of(result)
        issued = dict.fromkeys(
            name
            for path in map(_path, self._reading.issues)
            for one in parts.issuing
            for name in self._issued(one, path)
        )
        digests = self._digests(issued, MOST_DIGESTS)
        others = (name for name in self._others(parts) if name not in issued)
        return HeldDigests(issued=digests, others=self._digests(dict.fromkeys(others), MOST_DIGESTS - len(digests)))

    def _digests(self, names: Iterable[Name], most: int) -> tuple[bytes, ...]:
        return tuple(value_digest(self._reading.key, name) for _, name in zip(range(most), names, strict=False))

    def _issued(self, value: Value, path: FieldPath) -> Iterator[Name]:
        for one in _ends(value, _fitted(value, path)):
            yield from self._names(one)

    def _others(self, parts: _Parts) -> Iterator[Name]:
        if self._reading.trusted and len(self._reading.arguments_json) > MOST_ASKED:
            return
        asked = _Asked(self._reading) if self._reading.trusted else None
        for value in _bounded(_candidates(parts)):
            for name in self._names_of(value):
                if asked is None or not asked.held(name):
                    yield name

    def _names_of(self, value: Value | Name) -> Iterator[Name]:
        if isinstance(value, Name):
            yield value
        elif type(value) is int or len(value) >= _SHORTEST:
            yield from self._names(value)

    def _names(self, value: Value) -> Iterator[Name]:
        for kind in self._kinds:
            name = name_of_value(value, kind)
            if name is not None:
                yield name


class _Asked:
    """What the arguments of a call held: an agent must not make a value clean by asking for it."""

    def __init__(self, reading: ResultReading) -> None:
        arguments = json.loads(reading.arguments_json or b"{}")
        texts = [str(one) for one in _leaves(arguments, names=True)]
        # What a tool may decode on its way.
        texts += [str(one) for text in texts for inner in [_parsed(text)] for one in _leaves(inner, names=True)]
        whole = "\n".join([*texts, *map(unquote, texts), *map(html.unescape, texts)])
        self._folded = folded(whole)
        self._spelled = without_gaps(self._folded)

    def held(self, name: Name) -> bool:
        """Return whether the arguments hold a name, wherever in them, and in any case or spacing."""
        text = folded(name.text)
        if name.kind == "url":
            # With any scheme, and with or without the usual port.
            text = text.partition("://")[2].rstrip("/")
            host, slash, rest = text.partition("/")
            if f"{host}:80{slash}{rest}" in self._folded or f"{host}:443{slash}{rest}" in self._folded:
                return True
        return text in self._folded or without_gaps(text) in self._spelled


def _parts_of(result: Value) -> _Parts:
    sent = as_sent(result)
    if is_message(sent):
        return _parts_of_message(sent)
    if isinstance(sent, bytes):
        sent = sent.decode("utf-8")
    if isinstance(sent, str):
        value = _parsed(sent)
        return _Parts((), (sent,), ()) if value is None else _Parts((value,), (), (value,))
    return _Parts((sent,), (), (sent,))


def _parts_of_message(sent: dict[str, Value]) -> _Parts:
    if sent.get("isError") is True:
        return _Parts((), (), ())
    structured, texts = sent.get("structuredContent"), list(_texts_of(sent.get("content") or []))
    parsed = [(text, _parsed(text)) for text in texts]
    values = [value for _, value in parsed if value is not None]
    # INVARIANT: a text among others may be one that a stranger wrote, whatever fields it seems to have.
    issuing = values if len(texts) == 1 else []
    if structured is not None:
        values, issuing = [structured, *values], [structured]
    return _Parts(tuple(values), tuple(text for text, value in parsed if value is None), tuple(issuing))


def _texts_of(blocks: Sequence[dict[str, Value]]) -> Iterator[str]:
    """Yield the texts in the content of a result of MCP: also those of resources, and where these are."""
    for block in blocks:
        inner = block.get("resource")
        for one in (block, inner if type(inner) is dict else {}):
            yield from (one[name] for name in ("text", "uri") if type(one.get(name)) is str)


def _parsed(text: str) -> Value:
    """Return the list or object that a text holds as JSON; None for any other text, and for a very long one."""
    if len(text) > MOST_CHARACTERS or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bounded(values: Iterable[Value]) -> Iterator[Value]:
    """Yield values until they are too many, or too long together."""
    left = MOST_CHARACTERS
    for _, value in zip(range(MOST_VALUES), values, strict=False):
        left -= len(value) if isinstance(value, str) else _SHORTEST
        if left < 0:
            return
        yield value


def _candidates(parts: _Parts) -> Iterator[Value]:
    """Yield all that a name can be: whole leaves first, then what is told by its shape, then the parts of texts."""
    leaves = list(islice((leaf for value in parts.structured for leaf in _leaves(value)), MOST_VALUES))
    yield from (leaf for leaf in leaves if not isinstance(leaf, str) or len(leaf) <= LONGEST)
    texts = [*(leaf for leaf in leaves if type(leaf) is str), *parts.texts]
    for text in _within(texts):
        yield from _tokens(text)
    for text in _within(texts):
        yield from _lines(text)


def _within(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts up to so many characters together, the last one cut at the end of a line."""
    left = MOST_CHARACTERS
    for text in texts:
        if len(text) > left:
            yield text[:left].rpartition("\n")[0]
            return
        left -= len(text)
        yield text


def _tokens(text: str) -> Iterator[Value]:
    """Yield the links, addresses and accounts in a text."""
    yield from (name for name in links(text) if name is not None)
    for token in _BETWEEN.split(text):
        bare = token.rstrip(_BEHIND)
        if "@" in bare and (name := name_of(bare, "address")):
            yield name
    for found in islice(_ACCOUNT.finditer(text), _MOST_ACCOUNTS):
        yield from _accounts(text, found.start(), found.end())


def _accounts(text: str, start: int, end: int) -> Iterator[Name]:
    """Yield the account that begins with four characters, and is no part of a longer one."""
    for _ in range(_GROUPS):
        group = _GROUP.match(text, end)
        if group is None:
            return
        end = group.end()
        name = None if _GOES_ON.match(text, end) else name_of(text[start:end], None)
        if name is not None and name.kind == "iban":
            yield name


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, the items of lists, and the values behind a key."""
    for line in text.splitlines():
        yield line.strip()
        item = _ITEM.fullmatch(line)
        inner = item[1] if item else line
        if item:
            yield inner.strip()
        if pair := _PAIR.fullmatch(inner):
            yield pair[1].strip()
            yield pair[1].strip(_QUOTES)


def _leaves(value: Value, *, names: bool = False) -> Iterator[str | int]:
    """Yield the texts and whole numbers in a value, down to some depth.

    With `names`, yield also other numbers and the names of fields.
    """
    pending = [(value, 0)]
    while pending:
        one, depth = pending.pop()
        if type(one) in (str, int) or (names and type(one) is float):
            yield one
        elif depth < _DEEPEST and type(one) is dict:
            yield from (str(name) for name in one if names)
            pending += [(inner, depth + 1) for inner in reversed(one.values())]
        elif depth < _DEEPEST and type(one) in (list, tuple):
            pending += [(inner, depth + 1) for inner in reversed(one)]


def _path(text: str) -> FieldPath:
    try:
        return field_path(text)
    except ValueError:
        return ()


def _fitted(value: Value, path: FieldPath) -> FieldPath:
    """Return a path as it fits a value: servers return a list as one element, or inside `result`."""
    if type(value) is dict:
        if set(value) == {"result"} and path[:1] != ("result",):
            return ("result", *_fitted(value["result"], path))
        if path[:1] == (None,):
            return path[1:]
    return path


def _ends(value: Value, path: FieldPath) -> Iterator[Value]:
    """Yield the texts and whole numbers at the end of a path, which leads through fields and lists exactly."""
    if not path:
        if type(value) in (str, int):
            yield value
        return
    step, rest = path[0], path[1:]
    if step is None and type(value) in (list, tuple):
        for one in value:
            yield from _ends(one, rest)
    elif step is not None and type(value) is dict and step in value:
        yield from _ends(value[step], rest)
