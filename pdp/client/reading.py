"""Read what a tool's result holds for the report: as digests, in bounded time, and without an error that quotes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from typing import Any, Final

from pdp.client.asked import Asked
from pdp.client.results import as_sent, is_message
from pdp.client.values import ResultReading
from pdp.foundation.fieldpaths import FieldPath, field_path
from pdp.foundation.names import KINDS, LONGEST, Name, links, name_of, names_of, without_gaps
from pdp.foundation.valuedigests import MOST_DIGESTS, value_digest

# Any JSON value, and at first whatever a tool returns.
Value = Any

# How much is read of one result: the rest holds nothing that policies will see.
MOST_CHARACTERS: Final = 256 * 1024
MOST_VALUES: Final = 8192
# So many elements of lists and objects are looked at.
MOST_ELEMENTS: Final = 64 * 1024
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
_SHORTEST_ACCOUNT: Final = 15
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
        parts, told = _parts_of(result), self._reading
        asked = Asked(told.arguments_json if told.trusted or told.issues else b"")
        found = (
            name
            for path in map(_path, self._reading.issues)
            for one in parts.issuing
            for name in self._issued(one, path)
        )
        issued = dict.fromkeys(name for name in islice(found, MOST_VALUES) if not asked.named(name))
        digests = self._digests(issued, MOST_DIGESTS)
        others = (name for name in self._others(parts, asked) if name not in issued)
        return HeldDigests(issued=digests, others=self._digests(dict.fromkeys(others), MOST_DIGESTS - len(digests)))

    def _digests(self, names: Iterable[Name], most: int) -> tuple[bytes, ...]:
        return tuple(value_digest(self._reading.key, name) for _, name in zip(range(most), names, strict=False))

    def _issued(self, value: Value, path: FieldPath) -> Iterator[Name]:
        for one in _ends(value, _fitted(value, path)):
            yield from self._names(one)

    def _others(self, parts: _Parts, asked: Asked) -> Iterator[Name]:
        for value in _bounded(_candidates(parts)):
            for name in self._names_of(value):
                if not (self._reading.trusted and asked.held(name)):
                    yield name

    def _names_of(self, value: Value | Name) -> Iterator[Name]:
        if isinstance(value, Name):
            yield value
        elif type(value) is int or len(value) >= _SHORTEST:
            yield from self._names(value)

    def _names(self, value: Value) -> Iterator[Name]:
        if type(value) is int:
            return names_of(str(value), ("id", *self._kinds[1:]))
        return names_of(value, self._kinds)


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
    # What is no boolean is no word of a success either.
    if sent.get("isError"):
        return _Parts((), (), ())
    structured = sent.get("structuredContent")
    texts = list(islice(_texts_of(sent.get("content") or []), MOST_VALUES))
    ends = accumulate(map(len, texts))
    parsed = [(text, _parsed(text) if end <= MOST_CHARACTERS else None) for text, end in zip(texts, ends, strict=True)]
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
        left -= _size(value)
        if left < 0:
            return
        yield value


def _size(value: Value) -> int:
    if isinstance(value, str):
        return len(value)
    return max(value.bit_length() // 3, _SHORTEST) if isinstance(value, int) else _SHORTEST


def _candidates(parts: _Parts) -> Iterator[Value]:
    """Yield all that a name can be: whole leaves first, then what is told by its shape, then the parts of texts."""
    leaves = list(islice((leaf for value in parts.structured for leaf in _leaves(value)), MOST_VALUES))
    yield from (leaf for leaf in leaves if not isinstance(leaf, str) or len(leaf) <= LONGEST)
    texts = list(_within([*(leaf for leaf in leaves if type(leaf) is str), *parts.texts]))
    for text in texts:
        yield from _tokens(text)
    found = ((text, one) for text in texts for one in _ACCOUNT.finditer(text))
    for text, one in islice(found, _MOST_ACCOUNTS):
        yield from _accounts(text, one.start(), one.end())
    for text in texts:
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
    """Yield the links and addresses in a text."""
    yield from (name for name in links(text) if name is not None)
    for token in _BETWEEN.split(text):
        bare = token.rstrip(_BEHIND)
        if "@" in bare and (name := name_of(bare, "address")):
            yield name


def _accounts(text: str, start: int, end: int) -> Iterator[Name]:
    """Yield the account that begins with four characters, and is no part of a longer one."""
    for _ in range(_GROUPS):
        group = _GROUP.match(text, end)
        if group is None:
            return
        end = group.end()
        if _GOES_ON.match(text, end) or len(without_gaps(text[start:end])) < _SHORTEST_ACCOUNT:
            continue
        name = name_of(text[start:end], None)
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


def _leaves(value: Value) -> Iterator[str | int]:
    """Yield the texts and whole numbers in a value, down to some depth."""
    pending, left = [iter((value,))], MOST_ELEMENTS
    while pending and left:
        left -= 1
        try:
            one = next(pending[-1])
        except StopIteration:
            pending.pop()
            continue
        if type(one) in (str, int):
            yield one
        elif len(pending) <= _DEEPEST and type(one) is dict:
            pending.append(iter(one.values()))
        elif len(pending) <= _DEEPEST and type(one) in (list, tuple):
            pending.append(iter(one))


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
    found: Iterator[Value] = iter((value,))
    for step in path:
        found = islice(chain.from_iterable(map(partial(_after, step), found)), MOST_ELEMENTS)
    yield from (one for one in found if type(one) in (str, int))


def _after(step: str | None, value: Value) -> Sequence[Value]:
    """Return what is one step further."""
    if step is None:
        return value if type(value) in (list, tuple) else ()
    return (value[step],) if type(value) is dict and step in value else ()
