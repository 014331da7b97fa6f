"""Messages of MCP: refused in one line, or taken as they are, with the very parts that another reader of JSON finds."""

from __future__ import annotations

import io
import json
import re
from typing import Any, NamedTuple

from pdp.doors.mcp.messages import InvalidMessageError, Message, elements, refused_id
from pdp.doors.mcp.questions import RefusedError, question
from pdp.doors.mcp.tools import announcing, page, shown
from pdp.testing.bundles import tool

WORDS = (
    *('"jsonrpc":"2.0"', '"id":', '"method":', '"params":{', '"name":', '"arguments":{', '"_meta":{', '"result":{'),
    *('"tools/call"', '"tools/list"', '"error":{', '"tools":[', '"capabilities":{', '"ttlMs":', "\\u006d", "\r", "NaN"),
    *('"Method":', '"Name":', "1e400", "-0", "\\ud800", "\\u0000", "9007199254740993", '\\"', "\\\\", "[[[["),
)
SEEDS = tuple(
    text.encode()
    for text in (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{"path":"/a","n":1.0}}}',
        ' {"method":"tools/call","params":{"arguments":{"arguments":{"}":"\\""}},"name":"r"}, "id":2,"jsonrpc":"2.0"}',
        '{"jsonrpc":"2.0","id":2,"method":"ping","params":{"x":[\r{"jsonrpc":"2.0","id":7,"method":"tools/call"}\r]}}',
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}\r',
        '{"result":{"tools":[{"name":"read"},{"name":["x"]},7],"ttlMs":9,"nextCursor":"a"},"jsonrpc":"2.0","id":1}',
        '{"result":{"capabilities":{"tools":{"listChanged":false}}},"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"\\u00e9"}}',
        '{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
        '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a","Uri":"file:///b"}}',
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool("read")], "resultType": "complete"}}),
    )
)


class Part(NamedTuple):
    """A value as it is written, and its members or elements."""

    text: str
    members: dict[str, Part]
    elements: list[Part]


def run(data: bytes) -> None:
    """Read some bytes as one line."""
    if b"\n" in data:
        return  # never in a line
    try:
        message = Message.read_line(data)
    except InvalidMessageError as error:
        assert str(error).isprintable()
        for request in (False, True):
            assert isinstance(refused_id(data, request=request), str | int | None)
        return
    assert data == message.raw
    text = data.decode("utf-8")
    # However a server ends its lines, this is one, and only one member has the name of one.
    assert [text.rstrip("\r")] == [line.rstrip("\n") for line in io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")]
    whole = _Reader(text).whole()
    assert len(whole.members) == len({name.casefold() for name in whole.members})
    _compare(message, whole, ())
    number = refused_id(data, request=bool(message.method))
    assert (type(message.id), message.id) == (type(number), number)
    if message.method:
        _asked(message, whole)
    else:
        _answered(message, whole)


def _compare(message: Message, part: Part, names: tuple[str, ...]) -> None:
    """Hold every part of a message against that of the other reader, down to the third level."""
    assert part.text == message.part(*names)
    place = message.place(*names)
    assert place is not None
    if part.text[0] == "[":
        assert [one.text for one in part.elements] == [
            message.text[slice(*span)] for span in elements(message.text, place)
        ]
    for name, inner in part.members.items() if len(names) < 3 else ():
        _compare(message, inner, (*names, name))
        changed = message.with_members(names, {name: '"new"', "added": "[1]"} if name != "added" else {})
        after = _Reader(changed.text).whole()
        for step in names:
            after = after.members[step]
        rest = {key: one.text for key, one in after.members.items() if key not in (name, "added")}
        assert rest == {key: one.text for key, one in part.members.items() if key not in (name, "added")}
        assert name == "added" or '"new"' == after.members[name].text
        left = _Reader(message.without(names, name.__eq__).text).whole()
        for step in names:
            left = left.members[step]
        assert {key: one.text for key, one in left.members.items()} == {
            key: one.text for key, one in part.members.items() if key != name
        }
    assert part.members or message.part(*names, "x") is None


def _asked(message: Message, whole: Part) -> None:
    """What the PDP is asked about is what the server would read."""
    try:
        name, arguments = question(message)
    except RefusedError as refused:
        assert json.loads(refused.answer)["id"] == message.id
        return
    written = whole.members.get("params", Part("{}", {}, []))
    assert (name, arguments) == question(Message.request(message.method, written.text.encode()))
    params = written.members
    assert len(params) == len({key.casefold() for key in params})
    if message.method == "tools/call":
        assert name == json.loads(params["name"].text)
        assert arguments.decode() == (params["arguments"].text if "arguments" in params else "{}")
    elif name in ("resources/read", "prompts/get", "completion/complete"):
        sent = {key: one.text for key, one in _Reader(arguments.decode()).whole().members.items()}
        assert sent == {key: one.text for key, one in params.items() if key in sent}
        assert {"_meta", "inputResponses", "requestState"} >= params.keys() - sent.keys()


def _answered(message: Message, whole: Part) -> None:
    """What is shown of an answer is written as the server wrote it."""
    try:
        page(message)
        listed = shown(message, {"read"}, modern=False)
    except InvalidMessageError:
        listed = message
    else:
        kept = _Reader(listed.text).whole().members["result"].members["tools"].elements
        entries = whole.members["result"].members["tools"].elements
        wanted = [one for one in entries if one.members.get("name", one).text in _READ]
        assert [one.text for one in wanted if json.loads(one.members["name"].text) == "read"] == [
            one.text for one in kept
        ]
        modern = json.loads(shown(message, {"read"}, modern=True).text)["result"]
        assert 0 <= modern["ttlMs"] <= 5000
        assert modern["cacheScope"] == "private"
    try:
        greeting = announcing(message)
    except InvalidMessageError:
        return
    if greeting is not message:
        assert json.loads(greeting.text)["result"]["capabilities"]["tools"]["listChanged"] is True


class _AllReads:
    """Texts that are `read` however they are written."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and text[:1] == '"' and json.loads(text) == "read"


_READ = _AllReads()


class _Reader:
    """RFC 8259, by its grammar: independent of Python's own reader but for texts, which it reads one by one."""

    _STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
    _NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
    _BLANKS = re.compile(r"[ \t\r\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Part:
        """Return the value that is all of the text. Fail when there is none."""
        self._skip()
        part = self._value()
        self._skip()
        assert self._at == len(self._text)
        return part

    def _value(self) -> Part:
        begin = self._at
        members: dict[str, Part] = {}
        inner: list[Part] = []
        if self._text[begin] == "{":
            for _ in self._items("}"):
                name = json.loads(self._token(self._STRING))
                self._skip()
                self._expect(":")
                self._skip()
                assert name not in members
                members[name] = self._value()
        elif self._text[begin] == "[":
            inner = [self._value() for _ in self._items("]")]
        elif self._text[begin] == '"':
            self._token(self._STRING)
        elif word := next((one for one in ("true", "false", "null") if self._text.startswith(one, begin)), ""):
            self._at += len(word)
        else:
            self._token(self._NUMBER)
        return Part(self._text[begin : self._at], members, inner)

    def _items(self, end: str) -> Any:
        self._at += 1
        self._skip()
        first = True
        while self._text[self._at] != end:
            if not first:
                self._expect(",")
                self._skip()
            first = False
            yield
            self._skip()
        self._at += 1

    def _token(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return found.group()

    def _expect(self, sign: str) -> None:
        assert self._text[self._at] == sign
        self._at += 1

    def _skip(self) -> None:
        self._token(self._BLANKS)
