"""A message is read strictly, its parts are found by where they are, and a change leaves all else as it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError, Message, elements

REQUEST = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":%s}}'


def called(arguments: str = "{}") -> bytes:
    """Return a call of a tool with arguments as they are written."""
    return (REQUEST % arguments).encode()


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "broken JSON": (called("{"), "not JSON"),
    "two values": (called() + called(), "not JSON"),
    "a comment": (called("{/* */}"), "not JSON"),
    "a trailing comma": (called('{"a":1,}'), "not JSON"),
    "a batch": (b"[" + called() + b"]", "not a JSON object: a batch is not a message"),
    "an empty batch": (b"[]", "not a JSON object: a batch is not a message"),
    "a text": (b'"tools/call"', "not a JSON object: a batch is not a message"),
    "null": (b"null", "not a JSON object: a batch is not a message"),
    "a byte order mark": (
        b"\xef\xbb\xbf" + called(),
        "not JSON: it begins with a byte order mark; save it without one",
    ),
    "UTF-16": (called().decode().encode("utf-16"), "not UTF-8"),
    "UTF-16 without a mark": (called().decode().encode("utf-16-le"), "not JSON"),
    "UTF-32": (called().decode().encode("utf-32"), "not UTF-8"),
    "half a character": (called('{"a":"\u00e9"}')[:-6], "not JSON"),
    "a byte that is no UTF-8": (called('{"a":"@"}').replace(b"@", b"\xff"), "not UTF-8"),
    "an overlong character": (called('{"a":"@"}').replace(b"@", b"\xc0\xaf"), "not UTF-8"),
    "a surrogate in UTF-8": (called('{"a":"@"}').replace(b"@", b"\xed\xa0\x80"), "not UTF-8"),
    "a lone surrogate": (called(r'{"a":"\ud800"}'), "a string holds a lone surrogate"),
    "a lone surrogate in a key": (called(r'{"\udc00":1}'), "a string holds a lone surrogate"),
    "surrogates in the wrong order": (called(r'{"a":"\udc00\ud800"}'), "a string holds a lone surrogate"),
    "NaN": (called('{"a":NaN}'), "NaN and Infinity are not JSON"),
    "Infinity": (called('{"a":-Infinity}'), "NaN and Infinity are not JSON"),
    "a control character": (called('{"a":"\x01"}'), "not JSON"),
    "depth 300": (called('{"a":' * 300 + "1" + "}" * 300), "deeper than 64 levels (limit `arguments_depth`)"),
    "10,000 brackets": (called("[" * 10_000), "deeper than 64 levels (limit `arguments_depth`)"),
    "10,000 closed brackets": (called("[" * 10_000 + "]" * 10_000), "deeper than 64 levels (limit `arguments_depth`)"),
    "250,001 values": (called(f'{{"a":[{"1," * 250_000}1]}}'), "more than 250000 values (limit `arguments_nodes`)"),
    "a number of 5,000 digits": (called(f'{{"a":{"9" * 5000}}}'), "a number is too long, or the nesting is too deep"),
    "an exponent beyond all": (
        called('{"a":1e9999999999999999999}'),
        "a number is too long, or the nesting is too deep",
    ),
    "`jsonrpc` twice": (called().replace(b'"id"', b'"jsonrpc":"2.0","id"'), "a key appears twice in one object"),
    "`id` twice": (called().replace(b'"method"', b'"id":2,"method"'), "a key appears twice in one object"),
    "`method` twice": (called().replace(b'"params"', b'"method":"ping","params"'), "a key appears twice in one object"),
    "`method` twice, once escaped": (
        called().replace(b'"params"', rb'"m\u0065thod":"ping","params"'),
        "a key appears twice in one object",
    ),
    "`params` twice": (called().replace(b'"params"', b'"params":{},"params"'), "a key appears twice in one object"),
    "`name` twice": (called().replace(b'"name"', b'"name":"a","name"'), "a key appears twice in one object"),
    "`arguments` twice": (called('{},"arguments":{"a":1}'), "a key appears twice in one object"),
    "a key of arguments twice": (called('{"a":1,"a":2}'), "a key appears twice in one object"),
    "a key deep inside twice": (called('{"a":[{"b":{"c":1,"c":1}}]}'), "a key appears twice in one object"),
    "a result beside a method": (
        called().replace(b'"method"', b'"result":{},"method"'),
        "a method beside a result or an error",
    ),
    "an error beside a method": (
        b'{"jsonrpc":"2.0","method":"notifications/message","error":{"code":1,"message":""}}',
        "a method beside a result or an error",
    ),
    "`Method` beside `method`": (
        called().replace(b'"method"', b'"Method":"ping","method"'),
        "a member that JSON-RPC does not have",
    ),
    "`params` twice, once with a long s": (
        called().replace(b'"params"', '"param\u017f":{},"params"'.encode()),
        "a member that JSON-RPC does not have",
    ),
    "a member of somebody's own": (
        called().replace(b'"id"', b'"extra":1,"id"'),
        "a member that JSON-RPC does not have",
    ),
    "no version": (called().replace(b'"jsonrpc":"2.0",', b""), "not JSON-RPC 2.0"),
    "another version": (called().replace(b"2.0", b"1.0"), "not JSON-RPC 2.0"),
    "a version that is a number": (called().replace(b'"2.0"', b"2.0"), "not JSON-RPC 2.0"),
    "a method that is a number": (called().replace(b'"tools/call"', b"7"), "`method` is not a name"),
    "a method that is null": (called().replace(b'"tools/call"', b"null"), "`method` is not a name"),
    "a method without a name": (called().replace(b'"tools/call"', b'""'), "`method` is not a name"),
    "an id that is null": (called().replace(b'"id":1', b'"id":null'), "`id` is neither a text nor an integer"),
    "an id that is true": (called().replace(b'"id":1', b'"id":true'), "`id` is neither a text nor an integer"),
    "an id with a fraction": (called().replace(b'"id":1', b'"id":1.0'), "`id` is neither a text nor an integer"),
    "an id with an exponent": (called().replace(b'"id":1', b'"id":1e0'), "`id` is neither a text nor an integer"),
    "an id that is a list": (called().replace(b'"id":1', b'"id":[1]'), "`id` is neither a text nor an integer"),
    "an id that no double holds": (
        called().replace(b'"id":1', b'"id":9007199254740993'),
        "`id` is an integer that a double does not hold",
    ),
    "an id that is too long": (
        called().replace(b'"id":1', b'"id":"%s"' % (b"a" * 129)),
        "`id` has more than 128 characters",
    ),
    "params that are a list": (called().replace(b'{"name":"read","arguments":{}}', b"[]"), "`params` is not an object"),
    "params that are null": (called().replace(b'{"name":"read","arguments":{}}', b"null"), "`params` is not an object"),
    "an answer without an id": (
        b'{"jsonrpc":"2.0","result":{}}',
        "neither a request, a notification nor an answer",
    ),
    "an answer of both kinds": (
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        "neither a request, a notification nor an answer",
    ),
    "an answer of no kind": (b'{"jsonrpc":"2.0","id":1}', "neither a request, a notification nor an answer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_message_is_refused(name: str) -> None:
    """Each text is refused, in words that hold nothing of it."""
    raw, why = REFUSED[name]

    with pytest.raises(InvalidMessageError) as refused:
        Message.read(raw)

    assert why == str(refused.value).partition(" (line")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        ' { "a" : [ 1 , { } ] } ',
        '{"n":[1,1.0,1.00,1E2,-0,-0.0,9007199254740993,1e400,123456789012345678901234567890]}',
        '{"nfc":"\u00e9","nfd":"e\u0301","rtl":"\u202eabc","emoji":"\U0001f600","nul":"\\u0000","pair":"\\ud83d\\ude00"}',
        '{"arguments":{"arguments":"}"},"name":"\\"name\\":","params":{"method":"ping"}}',
        '{"__entity":{"type":"User","id":"alice"}}',
        '{"":1," ":2}',
        '{"a":"\\\\","b":"\\""}',
    ],
)
def test_a_message_stays_as_it_was_written(arguments: str) -> None:
    """What is sent on, and what is asked about, are the characters that came."""
    message = Message.read(called(arguments))

    assert called(arguments) == message.raw
    assert arguments.strip() == message.part("params", "arguments")


@pytest.mark.parametrize(
    ("end", "read"),
    [(b"", True), (b"\r", True), (b" \t", True), (b"\r\r", False), (b" \r ", False)],
)
def test_a_line_may_end_with_one_carriage_return(end: bytes, read: bool) -> None:  # noqa: FBT001 - a column of a table
    """Windows ends lines with two characters; anywhere else a carriage return is refused."""
    if read:
        assert called() + end == Message.read_line(called() + end).raw
        return
    with pytest.raises(InvalidMessageError, match="a carriage return within a line"):
        Message.read_line(called() + end)


def test_a_message_between_carriage_returns_is_not_let_through() -> None:
    """Servers on Python read lines by all three ends: they would run the call within this ping."""
    line = b'{"jsonrpc":"2.0","id":2,"method":"ping","params":{"x":[\r' + called() + b"\r]}}"

    with pytest.raises(InvalidMessageError, match="a carriage return within a line"):
        Message.read_line(line)


@pytest.mark.parametrize(
    ("text", "method", "number"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}', "ping", 1),
        ('{"jsonrpc":"2.0","id":"1","method":"ping"}', "ping", "1"),
        ('{"jsonrpc":"2.0","id":-0,"method":"ping"}', "ping", 0),
        ('{"jsonrpc":"2.0","id":"","method":"ping"}', "ping", ""),
        ('{"jsonrpc":"2.0","method":"notifications/initialized"}', "notifications/initialized", None),
        ('{"result":null,"jsonrpc":"2.0","id":1}', "", 1),
        ('{"error":{"code":1,"message":""},"jsonrpc":"2.0","id":1}', "", 1),
    ],
)
def test_a_message_has_a_method_and_an_id(text: str, method: str, number: Any) -> None:
    """A request has both, a notification no id, an answer no method; `1` and `"1"` are two ids."""
    message = Message.read(text.encode())

    assert (method, number) == (message.method, message.id)


def test_a_message_at_the_limit_is_read() -> None:
    """One byte more is refused."""
    filled = called('{"a":"%s"}')
    most = filled.replace(b"%s", b"x" * (MOST_BYTES - len(filled) + 2))

    assert MOST_BYTES == len(Message.read(most).raw)
    with pytest.raises(InvalidMessageError, match=r"larger than 16777216 bytes"):
        Message.read(most + b" ")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ((), '{ "a" : {"b":[1, 2] ,"":{}}, "c":"\\"a\\":1" , "\\u0064":2}'),
        (("a",), '{"b":[1, 2] ,"":{}}'),
        (("a", "b"), "[1, 2]"),
        (("a", ""), "{}"),
        (("c",), '"\\"a\\":1"'),
        (("d",), "2"),
        (("e",), None),
        (("a", "b", "c"), None),
        (("c", "a"), None),
    ],
)
def test_a_part_is_found_by_where_it_is(names: tuple[str, ...], part: str | None) -> None:
    """Names lead from object to object; a name within a text leads nowhere."""
    text = '{ "a" : {"b":[1, 2] ,"":{}}, "c":"\\"a\\":1" , "\\u0064":2}'

    assert part == Message(text=text, value={}).part(*names)


@pytest.mark.parametrize(
    ("text", "found"),
    [("[]", []), ("[ ]", []), ('[1, "]" ,[2,[]],{"a":"["} ]', ["1", '"]"', "[2,[]]", '{"a":"["}'])],
)
def test_the_elements_of_a_list_are_found(text: str, found: list[str]) -> None:
    """Each with its own text, without the blanks around it."""
    message = Message(text=text, value={})
    place = message.place()
    assert place is not None

    assert found == [text[slice(*span)] for span in elements(text, place)]


@pytest.mark.parametrize(
    ("names", "new", "text"),
    [
        ((), {"b": "3"}, '{ "a" : {"x":1} ,"b":3 }'),
        ((), {"c": "3"}, '{"c":3, "a" : {"x":1} ,"b":[ 1 ] }'),
        ((), {"c": "3", "a": "0", "b": "{}"}, '{"c":3, "a" : 0 ,"b":{} }'),
        (("a",), {"x": '"\\"x\\":2"'}, '{ "a" : {"x":"\\"x\\":2"} ,"b":[ 1 ] }'),
        (("a",), {"y": "2"}, '{ "a" : {"y":2,"x":1} ,"b":[ 1 ] }'),
        ((), {}, '{ "a" : {"x":1} ,"b":[ 1 ] }'),
    ],
)
def test_other_members_leave_the_rest_alone(names: tuple[str, ...], new: dict[str, str], text: str) -> None:
    """What is there is replaced where it is, what is not comes first."""
    message = Message(text='{ "a" : {"x":1} ,"b":[ 1 ] }', value={}).with_members(names, new)

    assert (text, json.loads(text)) == (message.text, message.value)


@pytest.mark.parametrize(
    ("dropped", "text"),
    [("a", '{ "p" : {"b":[ 1 ],"\\u0063":{"a" : 2}} }'), ("c", '{ "p" : {"a":1.0,"b":[ 1 ]} }'), ("x", None)],
)
def test_members_are_left_out_by_their_names(dropped: str, text: str | None) -> None:
    """All others keep their values as they were written, down to the last blank."""
    whole = '{ "p" : {"a":1.0 , "b" :[ 1 ],"\\u0063":{"a" : 2}} }'
    expected = '{ "p" : {"a":1.0,"b":[ 1 ],"c":{"a" : 2}} }' if text is None else text.replace("\\u0063", "c")

    assert expected == Message(text=whole, value={}).without(("p",), dropped.__eq__).text


def test_members_of_an_empty_object() -> None:
    """No comma is left over."""
    assert '{"a":{"x":1} }' == Message(text='{"a":{} }', value={}).with_members(("a",), {"x": "1"}).text


@pytest.mark.parametrize("names", [("b",), ("a", "x"), ("c",)])
def test_members_need_an_object(names: tuple[str, ...]) -> None:
    """A list, a number or nothing at all has none."""
    with pytest.raises(InvalidMessageError, match="is not an object"):
        Message(text='{"a":{"x":1},"b":[]}', value={}).with_members(names, {"y": "1"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5).filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(max_size=3), JSON, max_size=4), indent=st.sampled_from([None, 0, 3]))
def test_every_part_of_any_object_is_found(value: dict[str, Any], indent: int | None) -> None:
    """However it is written, each member's text is that member's value."""
    text = json.dumps(value, indent=indent)
    message = Message(text=text, value=value)

    for name, inner in value.items():
        part = message.part(name)
        assert part is not None
        assert inner == json.loads(part)
        changed = message.with_members((), {name: '"new"'})
        assert {**value, name: "new"} == changed.value
        assert text.count("\n") - part.count("\n") == changed.text.count("\n")
