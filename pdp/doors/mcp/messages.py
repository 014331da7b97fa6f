"""One JSON-RPC message of MCP: read strictly, and kept as it was written.

What is checked and what is sent on is the same text. A part of a message is found by its place in the text, never by
searching for a word, which can also be in a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self, TypeAlias

from pdp.calltokens.strictjson import JSON_RPC_MEMBERS
from pdp.doors.mcp.methods import STATED
from pdp.errors import InvalidJSONError
from pdp.foundation import jsontext
from pdp.limits import Limits

# Of one message in each direction. A server's answer can hold a file. A value takes up to 200 bytes of memory, however
# short it is written: so many take no more than three times a message of the largest size.
MOST_BYTES, MOST_VALUES = 16 * 1024 * 1024, 250_000
MOST_ID_CHARACTERS = 128
_LIMITS = Limits(arguments_bytes=MOST_BYTES, arguments_depth=64, arguments_nodes=MOST_VALUES, string_bytes=MOST_BYTES)

# An id as it is written: `1` and `"1"` are two ids.
MessageId: TypeAlias = int | str
# Beyond it two integers can be one double, and so one id to some readers.
_LARGEST_ID = 2**53 - 1

# Some readers look for these before `method`, and would take a request for an answer.
_ANSWERS = frozenset({"result", "error"})

# A last member of an object that is an id. Within a text its quotes would be escaped.
_LAST_ID = re.compile(rb',\s*"id"\s*:\s*(-?\d{1,16}|"[\x20\x21\x23-\x5b\x5d-\x7e]*")\s*\}\s*$')
_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class InvalidMessageError(Exception):
    """A text is no message that may be sent on. The message of the error holds nothing of it."""


class Span(NamedTuple):
    """The place of a JSON value in a text, in characters."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request, a notification or an answer: its exact text, and the value of it.

    A request has a `method` and an id, a notification no id, an answer no method.
    """

    text: str = field(repr=False)
    value: Mapping[str, Any] = field(repr=False)
    method: str = ""
    id: MessageId | None = None

    @classmethod
    def read_line(cls, line: bytes) -> Self:
        """Read one message that is a line, as `read` does.

        A carriage return ends a line for some readers, and is a blank of JSON: what is between two of them would be a
        message of its own, about which nobody was asked. So there may be one at the end only.
        """
        if b"\r" in line.removesuffix(b"\r"):
            raise InvalidMessageError("a carriage return within a line")
        return cls.read(line)

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read one message strictly. Raise `InvalidMessageError`.

        It must be UTF-8 without a byte order mark, one JSON object with the members of JSON-RPC alone, and no key may
        appear twice.
        """
        value = _object(raw, "not a JSON object: a batch is not a message")
        if value.get("jsonrpc") != "2.0":
            raise InvalidMessageError("not JSON-RPC 2.0")
        if not value.keys() <= JSON_RPC_MEMBERS:
            raise InvalidMessageError("a member that JSON-RPC does not have")
        method, number = value.get("method", ""), _id_of(value)
        if "method" in value and not (isinstance(method, str) and method):
            raise InvalidMessageError("`method` is not a name")
        if method and not value.keys().isdisjoint(_ANSWERS):
            raise InvalidMessageError("a method beside a result or an error")
        if not method and ("id" not in value or ("result" in value) == ("error" in value)):
            raise InvalidMessageError("neither a request, a notification nor an answer")
        if not isinstance(value.get("params", {}), dict):
            raise InvalidMessageError("`params` is not an object")
        return cls(text=raw.decode("utf-8"), value=value, method=method, id=number)

    @classmethod
    def request(cls, method: str, params: bytes) -> Self:
        """Return a request with these parameters, which are read as strictly. Raise `InvalidMessageError`."""
        value = _object(params, "`params` is not an object")
        text = f'{{"jsonrpc":"2.0","id":1,"method":{json.dumps(method)},"params":{params.decode("utf-8")}}}'
        return cls(text=text, value={"jsonrpc": "2.0", "id": 1, "method": method, "params": value}, method=method, id=1)

    @classmethod
    def answer(cls, result: bytes) -> Self:
        """Return an answer with this result, which is read as strictly. Raise `InvalidMessageError`."""
        value = _object(result, "the result is not an object")
        text = f'{{"jsonrpc":"2.0","id":1,"result":{result.decode("utf-8")}}}'
        return cls(text=text, value={"jsonrpc": "2.0", "id": 1, "result": value}, id=1)

    @property
    def raw(self) -> bytes:
        """Return the message as it is sent, without a line's end."""
        return self.text.encode("utf-8")

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the parameters of a request or a notification."""
        found: Mapping[str, Any] = self.value.get("params", {})
        return found

    @property
    def meta(self) -> Mapping[str, Any]:
        """Return what the parameters say about the message itself (`_meta`)."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}

    @property
    def taken_back(self) -> MessageId | None:
        """Return the id of the request that a notification takes back; None for what is no id."""
        number = self.params.get("requestId")
        return number if isinstance(number, int | str) and not isinstance(number, bool) else None

    @property
    def modern(self) -> bool:
        """Say whether a request is of the era without a handshake."""
        return any(name in self.meta for name in STATED)

    def place(self, *names: str) -> Span | None:
        """Return where the value is that these names lead to, from object to object; None if there is none."""
        # The whole text is one value, which need not be read again.
        span = Span(_after_blanks(self.text, 0), len(self.text.rstrip(" \t\r\n")))
        for name in names:
            found = members(self.text, span) if self.text[span.begin] == "{" else {}
            if name not in found:
                return None
            span = found[name]
        return span

    def part(self, *names: str) -> str | None:
        """Return the text of the value that these names lead to."""
        span = self.place(*names)
        return None if span is None else self.text[slice(*span)]

    def with_members(self, names: tuple[str, ...], new: Mapping[str, str]) -> Self:
        """Return the message with other members, given as JSON, in the object that the names lead to.

        All else stays as it was written. The object must be there.
        """
        span = self.place(*names)
        if span is None or self.text[span.begin] != "{":
            raise InvalidMessageError(f"`{'.'.join(names)}` is not an object")
        there = members(self.text, span)
        text, added = self.text, [f"{json.dumps(name)}:{value}" for name, value in new.items() if name not in there]
        for (begin, end), value in sorted(((there[name], new[name]) for name in new.keys() & there), reverse=True):
            text = text[:begin] + value + text[end:]
        if added:
            begin = span.begin + 1
            text = text[:begin] + ",".join(added) + ("," if there else "") + text[begin:]
        return replace(self, text=text, value=json.loads(text))

    def without(self, names: tuple[str, ...], dropped: Callable[[str], bool]) -> Self:
        """Return the message without some members of the object that the names lead to.

        All others stay as they were written. The object must be there.
        """
        span = self.place(*names)
        if span is None or self.text[span.begin] != "{":
            raise InvalidMessageError(f"`{'.'.join(names)}` is not an object")
        there = members(self.text, span)
        kept = ",".join(
            f"{json.dumps(name)}:{self.text[slice(*place)]}" for name, place in there.items() if not dropped(name)
        )
        text = f"{self.text[: span.begin]}{{{kept}}}{self.text[span.end :]}"
        return replace(self, text=text, value=json.loads(text))


def error_in(raw: bytes) -> str | None:
    """Return the text of the error in an answer, which may have no id, since the server has not read so far.

    None where there is none, or where the answer is not read strictly.
    """
    with suppress(InvalidMessageError):
        value = _object(raw, "not a JSON object")
        if isinstance(value.get("error"), dict):
            return Message(text=raw.decode("utf-8"), value=value).part("error")
    return None


def refused_id(begin: bytes, end: bytes = b"", *, request: bool) -> MessageId | None:
    """Return the id of a request, or of an answer, that is refused, so that the one who waits hears of it.

    None where the text does not tell. It is read as far as it can be; what it says goes to nobody. Of a text that is
    too long there are only two ends: the id is often last.
    """
    seen = _readable_members(begin.decode("utf-8", "replace"))
    last = _LAST_ID.search(end)
    if last is not None:
        seen.append(("id", json.loads(last[1])))
    numbers = [value for name, value in seen if name == "id"]
    if len(numbers) != 1 or request is not any(name == "method" for name, _ in seen):
        return None
    with suppress(InvalidMessageError, UnicodeEncodeError):
        str(numbers[0]).encode("utf-8")
        return _id_of({"id": numbers[0]})
    return None


def _readable_members(text: str) -> list[tuple[str, Any]]:
    """Return the members of an object as far as they can be read."""
    seen: list[tuple[str, Any]] = []
    with suppress(ValueError, IndexError, RecursionError):
        at = _after_blanks(text, 0)
        if text[at] != "{":
            return []
        at = _after_blanks(text, at + 1)
        while text[at] == '"':
            name, at = _DECODER.raw_decode(text, at)
            at = _after_blanks(text, at)
            if text[at] != ":":
                break
            value, at = _DECODER.raw_decode(text, _after_blanks(text, at + 1))
            seen.append((name, value))
            at = _after_comma(text, at)
    return seen


def _object(raw: bytes, otherwise: str) -> dict[str, Any]:
    """Read a JSON object strictly."""
    try:
        value = jsontext.parse(raw, _LIMITS, minting=True)
    except InvalidJSONError as error:
        raise InvalidMessageError(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidMessageError(otherwise)
    return value


def _id_of(value: Mapping[str, Any]) -> MessageId | None:
    number = value.get("id")
    # An answer without an id belongs to no request. A number with a fraction can come back in another form.
    if "id" in value and (not isinstance(number, int | str) or isinstance(number, bool)):
        raise InvalidMessageError("`id` is neither a text nor an integer")
    if isinstance(number, int) and abs(number) > _LARGEST_ID:
        raise InvalidMessageError("`id` is an integer that a double does not hold")
    if len(str(number)) > MOST_ID_CHARACTERS:
        raise InvalidMessageError(f"`id` has more than {MOST_ID_CHARACTERS} characters")
    return number


def members(text: str, span: Span) -> dict[str, Span]:
    """Return where the values of a JSON object are, by name. `text` must have been read strictly."""
    found: dict[str, Span] = {}
    at = _after_blanks(text, span.begin + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        begin, end = _value(text, _after_blanks(text, at) + 1)  # after the colon
        found[name] = Span(begin, end)
        at = _after_comma(text, end)
    return found


def elements(text: str, span: Span) -> Iterator[Span]:
    """Yield where the values of a JSON list are. `text` must have been read strictly."""
    at = _after_blanks(text, span.begin + 1)
    while text[at] != "]":
        begin, end = _value(text, at)
        yield Span(begin, end)
        at = _after_comma(text, end)


def _value(text: str, at: int) -> tuple[int, int]:
    begin = _after_blanks(text, at)
    _, end = _DECODER.raw_decode(text, begin)
    return begin, end


def _after_comma(text: str, at: int) -> int:
    at = _after_blanks(text, at)
    return _after_blanks(text, at + 1) if text[at] == "," else at


def _after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at
