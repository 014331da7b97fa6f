"""Redact fields of a tool's result. What cannot be redacted with certainty is withheld."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self

from pdp.client.blanking import REDACTED, UnredactableError, blanked
from pdp.client.results import OF_A_RESULT, as_sent, is_message, like
from pdp.foundation.fieldpaths import FieldPath, last_name

# Any JSON value, and at first whatever a tool returns.
Value = Any

# A redacted value that is shorter stands for too much to be searched for elsewhere.
_SHORTEST = 4
# A name within a redacted value that is probably that of a field: blanking `street` elsewhere would say nothing.
_FIELD_NAME = re.compile(r"[A-Za-z_-]*")


def redacted(result: Value, paths: Sequence[FieldPath]) -> Value:
    """Return a copy of a result without the fields at some paths, and without their values wherever else they are.

    A result is a JSON value, the text or bytes of one, or a result of MCP, as it is sent or as an object of the SDK; it
    stays what it was. Raise `UnredactableError` for anything else, and for a result that has another shape than the
    paths.
    """
    try:
        sent = as_sent(result)
        if is_message(sent):
            message = _Redaction(paths, lenient=True).message(sent)
            return message if sent is result else like(result, message)
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
        return {name: shown[name] for name in OF_A_RESULT if name in result}

    def all(self, values: list[Value]) -> list[Value]:
        for value in values:
            for path in self._paths:
                ends = _ends(value, self._fitted(value, path), last_name(path))
                if not ends:
                    _require_no(last_name(path), value)
                for end in ends:
                    self._texts.update(_texts_of(end))
        return self._blanked([self._without(value, self._paths) for value in values])

    def _blanked(self, values: list[Value]) -> list[Value]:
        hidden = {text.strip().casefold() for text in self._texts if len(text.strip()) >= _SHORTEST} - {REDACTED}
        leaves = dict.fromkeys(leaf for value in values for leaf in _leaves(value) if leaf != REDACTED)
        shown = blanked(leaves, hidden) if hidden else {}
        return [_shown(value, shown, hidden) for value in values]

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


def _ends(value: Value, path: FieldPath, name: str | None) -> list[Value]:
    """Return what is at the end of a path. A list where a name is expected, and the like, may hide the field.

    `name` is the last one of the whole path. Where it leads somewhere in one element, it must not be elsewhere in
    another; where it leads nowhere in all of them, the caller checks all.
    """
    if value is None:
        return []
    if not path:
        return [value]
    step, rest = path[0], path[1:]
    if step is None and type(value) is list:
        found = [_ends(one, rest, name) for one in value]
        if any(found):
            _require_no(name, *(one for one, ends in zip(value, found, strict=True) if not ends))
        return [end for ends in found for end in ends]
    if step is not None and type(value) is dict:
        _require_no(name, {key: one for key, one in value.items() if key != step and key.casefold() == step.casefold()})
        return _ends(value.get(step), rest, name)
    raise UnredactableError("it does not have the shape that the rule expects")


def _require_no(name: str | None, *values: Value) -> None:
    if any(_mentions(value, name) for value in values):
        raise UnredactableError(f"it holds `{name}` in another field than the rule names")


def _replaced(value: Value, path: FieldPath) -> Value:
    if value is None or value == REDACTED:
        return value
    if not path:
        return REDACTED
    step, rest = path[0], path[1:]
    if step is None:
        return [_replaced(one, rest) for one in value]
    return {name: _replaced(one, rest) if name == step else one for name, one in value.items()}


def _shown(value: Value, texts: Mapping[str, str], hidden: Collection[str]) -> Value:
    """Return a value with what to show instead of some texts, and without the numbers that are hidden."""
    if type(value) is dict:
        if any(name in texts for name in value):
            raise UnredactableError("a field name in it is a redacted value")
        return {name: _shown(one, texts, hidden) for name, one in value.items()}
    if type(value) is list:
        return [_shown(one, texts, hidden) for one in value]
    if type(value) is str:
        return texts.get(value, value)
    return REDACTED if any(text in hidden for text in _number_texts(value)) else value


def _text_of(block: dict[str, Value]) -> str:
    if block["type"] == "text" and type(block.get("text")) is str:
        return str(block["text"])
    raise UnredactableError(f"a part of it is `{str(block['type'])[:32]!a}`, not text")


def _parsed(text: str | bytes) -> Value:
    try:
        return _plain(json.loads(text, parse_constant=_refuse, parse_float=_WrittenFloat))
    except ValueError:
        raise UnredactableError("it is not JSON") from None


class _WrittenFloat(float):
    """A number as it was written: a `float` keeps about 16 of its digits, and a text may repeat them all."""

    written: str

    def __new__(cls, written: str) -> Self:
        number = super().__new__(cls, written)
        number.written = written
        return number


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
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) in (float, _WrittenFloat) and math.isfinite(value):
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
    """Yield the texts in a redacted value, its numbers as texts, and the names that are hardly those of fields."""
    if type(value) is dict:
        yield from (name for name in value if not _FIELD_NAME.fullmatch(name))
        for one in value.values():
            yield from _texts_of(one)
    elif type(value) is list:
        for one in value:
            yield from _texts_of(one)
    elif type(value) is str:
        yield value
    else:
        yield from _number_texts(value)


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


def _number_texts(value: Value) -> Iterator[str]:
    """Yield how a number may be written, in small letters; nothing for another value."""
    if type(value) is _WrittenFloat:
        yield value.written.casefold()
    if type(value) in (int, float, _WrittenFloat):
        yield json.dumps(int(value) if value == int(value) else value)
