"""What happens is chosen of these: patterns, grants, labels and attributes of sessions, and calls."""

from __future__ import annotations

from typing import Any

from tests.machinery.oracle.world import ToolCall

PATTERNS = (
    ("bank/*", "repo/*", "notes/*"),
    ("repo/*", "notes/*"),
    ("repo/read", "repo/write", "notes/add"),
    ("notes/*",),
    ("bank/pay", "notes/list"),
    ("bank/*", "repo/*", "notes/*", "a/*"),
    ("a/b*",),
)


GRANTS: tuple[tuple[str, ...], ...] = ((), ("all",), ("money",), ("all", "money"))


LABELS: tuple[tuple[str, ...], ...] = ((), (), (), ("tainted",), ("seen",))


ATTRIBUTES: tuple[dict[str, int], ...] = ({}, {}, {"level": 3}, {"level": 1})


TERMS: tuple[bytes, ...] = (
    b"",
    b"",
    b'{"max_sum":10}',
    b'{"max_sum":499.50,"targets":["a","m"]}',
    b'{"targets":["a","a"]}',
    b'{"ticket":"T-1","max_sum":9.0}',
    b'{"ticket":"T-2","max_calls":3}',
    b'{"ticket":7}',
    b'{"max_calls":-1}',
    b'{"tikcet":"T-1"}',
)


def pay(amount: str, account: str = '"main"', memo: str = '"m"', more: str = "") -> bytes:
    """Write the arguments of a payment."""
    return f'{{"account":{account},"amount":{amount},"memo":{memo}{more}}}'.encode()


def on_thing(project: str, item: str, more: str = "") -> bytes:
    """Write the arguments of a call about a thing."""
    return f'{{"project":"{project}","item":"{item}"{more}}}'.encode()


# Few enough that a session meets the same call again.
CALLS = (
    ToolCall(server="notes", tool="list"),
    ToolCall(server="notes", tool="list", arguments=b"{}", facts=b'{"shift":9}'),
    ToolCall(server="notes", tool="list", facts=b'{"shift":1,"workstation":"w"}'),
    ToolCall(server="notes", tool="list", caller="gateway-2"),
    ToolCall(server="notes", tool="add", arguments=b'{"text":null,"count":1}'),
    ToolCall(server="notes", tool="add", arguments=b'{"text":"","count":9}', digest="right"),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "plan")),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "secret")),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "other")),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme/plan", "x")),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan", ',"count":1')),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan", ',"count":9223372036854775807')),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan"), digest="right"),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan", ',"count":true')),
    ToolCall(server="repo", tool="drop", arguments=b'{"project":"acme"}', digest="right"),
    ToolCall(server="repo", tool="drop", arguments=b'{"project":"acme"}'),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"main"}'),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"OTHER"}'),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"nobody"}', digest="wrong"),
    ToolCall(server="bank", tool="pay", arguments=pay("7")),
    ToolCall(server="bank", tool="pay", arguments=pay("7.0")),
    ToolCall(server="bank", tool="pay", arguments=pay("500.0", more=',"tags":["a","b"]')),
    ToolCall(server="bank", tool="pay", arguments=pay("500.0", more=',"tags":["a,b"]')),
    ToolCall(server="bank", tool="pay", arguments=pay("500.0", more=',"tags":["x"],"urgent":true')),
    ToolCall(server="bank", tool="pay", arguments=pay("5.001e2")),
    ToolCall(server="bank", tool="pay", arguments=pay("500.1", memo="null")),
    ToolCall(server="bank", tool="pay", arguments=pay("1", account='"MAIN"', memo="null", more=',"meta":{"x":[1.5]}')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"meta":{"level":9.0,"kind":1.0}')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", account='"other"')),
    ToolCall(server="a", tool="b/c"),
    ToolCall(server="a/b", tool="c"),
    ToolCall(server="notes", tool="burn"),
)


# What results hold; the calls that may then write to it; and those whose results are read, one that asks for what it
# gets, and one of a tool that strangers write to.
RESULTS: tuple[Any, ...] = (
    {"id": "item_1", "by": "ann@x.com"},
    {"id": "item_2", "by": "ann@x.com", "text": "Write to eve@x.com."},
    "owner: bob@x.com\nitem_1",
    {"by": "plan", "id": "secret"},
)
WRITES = tuple(
    ToolCall(server="notes", tool="add", arguments=f'{{"text":"{text}"}}'.encode())
    for text in ("item_1", "item_2", "ann@x.com", "Eve@x.com", "bob@x.com", "secret")
)
# What one answer can allow together, and what only looks like it: to other targets, and with other names.
RUNS = tuple(
    ToolCall(server="notes", tool="add", arguments=f'{{"text":"{text}"{more}}}'.encode())
    for text, more in (
        *(("ann@x.com", ',"count":1'), ("ann@x.com", ',"count":2'), ("Ann@X.com", ',"count":3'), ("ann@x.com", "")),
        *(("bob@x.com", ',"count":1'), ("ann@x.com\u200b", ',"count":1'), ("", ',"count":1')),
    )
)
READS = (
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "plan")),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "secret")),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "item_1")),
    ToolCall(server="notes", tool="list"),
)


# What no session may do, whatever is in its arguments.
BAD = (
    ToolCall(server="bank", tool="pay", arguments=pay("500.00001")),
    ToolCall(server="bank", tool="pay", arguments=pay('"500"')),
    ToolCall(server="bank", tool="pay", arguments=pay("null")),
    ToolCall(server="bank", tool="pay", arguments=pay("true")),
    ToolCall(server="bank", tool="pay", arguments=pay("1e15")),
    ToolCall(server="bank", tool="pay", arguments=pay("NaN")),
    ToolCall(server="bank", tool="pay", arguments=pay('{"__extn":{"fn":"decimal","arg":"1.0"}}')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"meta":{"a":{"__entity":{}}}')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"amount":2')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"hidden":2')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"tags":["a",1]')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", memo="1")),
    ToolCall(server="bank", tool="pay", arguments=pay("1", account='""')),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"meta":' + "[" * 31 + "]" * 31)),
    ToolCall(server="bank", tool="pay", arguments=pay("1", more=',"meta":' + "[" * 32 + "]" * 32)),
    *(
        ToolCall(server="bank", tool="pay", arguments=pay("1", more=f',"meta":{meta}'))
        for meta in ('{"level":9.5}', '{"level":10}', '{"kind":true}', '{"y":7}', "7")
    ),
    ToolCall(server="bank", tool="pay", arguments=b'{"account":"main","memo":"m"}'),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"\\ud800"}'),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"\xff"}'),
    ToolCall(server="bank", tool="balance", arguments=b"[]"),
    ToolCall(server="notes", tool="list", arguments=b'{"a":1}'),
    ToolCall(server="notes", tool="list", facts=b'{"shift":"9"}'),
    ToolCall(server="notes", tool="list", facts=b'{"id":"gateway-1"}'),
    ToolCall(server="notes", tool="list", caller="gateway-x"),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan", ',"count":7.0')),
    ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan", ',"count":9223372036854775808')),
)
