"""Redact fields of a tool's result. What cannot be redacted with certainty is withheld."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

from pdp.foundation.fieldpaths import FieldPath, last_name

# Any JSON value, and at first whatever a tool returns.
Value = Any

REDACTED: Final = "[redacted]"

# A redacted value that is shorter stands for too much to be searched for elsewhere.
_SHORTEST = 4
# The values to search for, times the characters to search: beyond this a result takes too long.
_MOST_WORK = 300_000_000
_MOST_FOUND = 200
# What is kept of an MCP result: `_meta`, and whatever else a text has beside it, could repeat what is redacted.
_OF_A_RESULT = ("content", "structuredContent", "isError")


class UnredactableError(Exception):
    """A result in which a field may be elsewhere than its path says: withhold it. The message says why."""


def redacted(result: Value, paths: Sequence[FieldPath]) -> Value:
    """Return a copy of a result without the fields at some paths, and without their values wherever else they are.

    A result is a JSON value, the text or bytes of one, or a result of MCP. Raise `UnredactableError` for anything else,
    and for a result that has another shape than the paths.
    """
    try:
        if type(result) is dict and _is_message(result):
            return _Redaction(paths, lenient=True).message(result)
        if isinstance(result, str | bytes):
            value = _Redaction(paths, lenient=False).all([_parsed(result)])[0]
            text = json.dumps(value, ensure_ascii=False)
            return text if isinstance(result, str) else text.encode("utf-8")
        return _Redaction(paths, lenient=False).all([_plain(result)])[0]
    except (RecursionError, ValueError):
        # ValueError: a number with more digits than the interpreter converts, or a text that is no UTF-8.
        raise UnredactableError("it is not a JSON value that can be written") from None


class _Redaction:
    """One result: its values are redacted together, since a value in one of them may be a field of another.

    With `lenient`, a path that begins with `[]` also fits one element, and any path fits what is inside `result`: MCP
    servers return lists in both forms.
    """

    def __init__(self, paths: Sequence[FieldPath], *, lenient: bool) -> None:
        self._paths = paths
        self._lenient = lenient
        self._texts: set[str] = set()

    def message(self, result: dict[str, Value]) -> dict[str, Value]:
        blocks = result.get("content") or []
        whole = [_text_of(block) for block in blocks]
        structured = result.get("structuredContent")
        *values, structured = self.all([*map(_parsed, whole), _plain(structured)])
        texts = [{"type": "text", "text": json.dumps(value, ensure_ascii=False)} for value in values]
        shown = {"content": texts, "structuredContent": structured, "isError": result.get("isError") is True}
        return {name: shown[name] for name in _OF_A_RESULT if name in result}

    def all(self, values: list[Value]) -> list[Value]:
        for value in values:
            for path in self._paths:
                reached = self._at(value, path)
                if reached == 0 and _mentions(value, last_name(path)):
                    raise UnredactableError(f"it holds `{last_name(path)}` in another field than the rule names")
        return _Blanking(self._texts).all([self._without(value, self._paths) for value in values])

    def _at(self, value: Value, path: FieldPath) -> int:
        """Check that a value has the shape of a path; return at how many places the path ends."""
        ends = list(_ends(value, self._fitted(value, path)))
        for end in ends:
            self._texts.update(_texts_of(end))
        return len(ends)

    def _without(self, value: Value, paths: Sequence[FieldPath]) -> Value:
        for path in paths:
            value = _replaced(value, self._fitted(value, path))
        return value

    def _fitted(self, value: Value, path: FieldPath) -> FieldPath:
        if self._lenient and type(value) is dict:
            if set(value) == {"result"} and path[0] != "result":
                inner = value["result"]
                return ("result", *(path[1:] if path[0] is None and type(inner) is dict else path))
            if path[0] is None:
                return path[1:]
        return path


def _ends(value: Value, path: FieldPath) -> Iterator[Value]:
    """Yield what is at the end of a path. A list where a name is expected, and the like, may hide the field."""
    if value is None:
        return
    if not path:
        yield value
        return
    step, rest = path[0], path[1:]
    if step is None and type(value) is list:
        for one in value:
            yield from _ends(one, rest)
    elif step is not None and type(value) is dict:
        if step in value:
            yield from _ends(value[step], rest)
    else:
        raise UnredactableError("it does not have the shape that the rule expects")


def _replaced(value: Value, path: FieldPath) -> Value:
    if value is None or value == REDACTED:
        return value
    if not path:
        return REDACTED
    step, rest = path[0], path[1:]
    if step is None:
        return [_replaced(one, rest) for one in value]
    return {name: _replaced(one, rest) if name == step else one for name, one in value.items()}


class _Blanking:
    """Blanks texts wherever they are: a value that is redacted in one field may be repeated in another."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = {text.casefold() for text in texts if len(text) >= _SHORTEST} - {REDACTED}
        self._found: list[str] = []
        self._pattern: re.Pattern[str] | None = None

    def all(self, values: list[Value]) -> list[Value]:
        if not self._texts:
            return values
        leaves = [leaf for value in values for leaf in _leaves(value) if leaf.casefold() not in self._texts]
        whole = "\n".join(leaves).casefold()
        if len(whole) * len(self._texts) > _MOST_WORK:
            raise UnredactableError("it is too large to be searched for redacted values")
        self._found = sorted((text for text in self._texts if text in whole), key=len, reverse=True)
        if len(self._found) > _MOST_FOUND:
            raise UnredactableError("it repeats too many redacted values")
        if self._found:
            self._pattern = re.compile("|".join(map(re.escape, self._found)), re.IGNORECASE)
        return [self._blanked(value) for value in values]

    def _blanked(self, value: Value) -> Value:
        if type(value) is dict:
            if any(self._hides(name) for name in value):
                raise UnredactableError("a field name in it is a redacted value")
            return {name: self._blanked(one) for name, one in value.items()}
        if type(value) is list:
            return [self._blanked(one) for one in value]
        if type(value) is str:
            return self._text(value)
        return REDACTED if _number_text(value).casefold() in self._texts else value

    def _text(self, text: str) -> str:
        if text == REDACTED:
            return text
        if text.casefold() in self._texts:
            return REDACTED
        if self._pattern is None:
            return text
        blanked = self._pattern.sub(REDACTED, text)
        if self._hides(blanked.replace(REDACTED, "\n")):
            # Letters that are the same only in another sense of "without case".
            raise UnredactableError("it repeats a redacted value")
        return blanked

    def _hides(self, text: str) -> bool:
        folded = text.casefold()
        return folded in self._texts or any(one in folded for one in self._found)


def _is_message(result: dict[str, Value]) -> bool:
    if not result.keys() <= {*_OF_A_RESULT, "_meta"}:
        return False
    content = result.get("content")
    blocks = type(content) is list and all(type(one) is dict and type(one.get("type")) is str for one in content)
    return blocks or (content is None and type(result.get("structuredContent")) is dict)


def _text_of(block: dict[str, Value]) -> str:
    if block["type"] == "text" and type(block.get("text")) is str:
        return str(block["text"])
    raise UnredactableError(f"a part of it is `{str(block['type'])[:32]!a}`, not text")


def _parsed(text: str | bytes) -> Value:
    try:
        return _plain(json.loads(text, parse_constant=_refuse))
    except ValueError:
        raise UnredactableError("it is not JSON") from None


def _refuse(_: str) -> NoReturn:
    raise ValueError("not a number of JSON")


def _plain(value: Value) -> Value:
    """Return a copy of a JSON value; tuples become lists. Anything else could hold a field that nobody sees."""
    if type(value) is dict:
        if not all(type(name) is str for name in value):
            raise UnredactableError("it is not a JSON value")
        return {name: _plain(one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return [_plain(one) for one in value]
    if value is None or type(value) in (str, bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    raise UnredactableError("it is not a JSON value")


def _mentions(value: Value, name: str | None) -> bool:
    """Return whether a value has a field of a name anywhere, or a text with such a field in JSON."""
    if name is None:
        return False
    quoted = json.dumps(name).casefold()
    if type(value) is dict:
        return any(
            (key.casefold() == name.casefold() and one is not None) or _mentions(one, name)
            for key, one in value.items()
        )
    if type(value) is list:
        return any(_mentions(one, name) for one in value)
    return type(value) is str and quoted in value.replace("\\", "").casefold()


def _texts_of(value: Value) -> Iterator[str]:
    """Yield the texts in a redacted value, and its numbers as texts."""
    if type(value) is dict:
        for one in value.values():
            yield from _texts_of(one)
    elif type(value) is list:
        for one in value:
            yield from _texts_of(one)
    elif type(value) is str:
        yield value
    else:
        yield _number_text(value)


def _leaves(value: Value) -> Iterator[str]:
    """Yield every text in a value, names of fields too."""
    if type(value) is dict:
        yield from value
        for one in value.values():
            yield from _leaves(one)
    elif type(value) is list:
        for one in value:
            yield from _leaves(one)
    elif type(value) is str:
        yield value


def _number_text(value: Value) -> str:
    if type(value) is float and value.is_integer():
        value = int(value)
    return json.dumps(value) if type(value) in (int, float) else ""
