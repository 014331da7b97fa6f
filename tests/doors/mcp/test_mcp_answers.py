"""What the proxy itself says, as it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdp.doors.mcp import answers
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.tools import acknowledging, announcing

DECISION = {"decision_id": "dec_1"}


def request(method: str, **params: Any) -> Message:
    """Return a request."""
    return Message.read(json.dumps({"jsonrpc": "2.0", "id": "é", "method": method, "params": params}).encode())


@pytest.mark.parametrize(
    ("asked", "decision", "told"),
    [
        (
            request("tools/call"),
            None,
            '{"jsonrpc":"2.0","id":"é","result":{"content":[{"type":"text","text":"no"}],"isError":true}}',
        ),
        (
            request("tools/call", _meta={"progressToken": 1}),
            DECISION,
            (
                '{"jsonrpc":"2.0","id":"é","result":{"content":[{"type":"text","text":"no"}],"isError":true,'
                '"resultType":"complete","_meta":{"agent-pdp/decision":{"decision_id":"dec_1"}}}}'
            ),
        ),
        (request("resources/read"), None, '{"jsonrpc":"2.0","id":"é","error":{"code":-31001,"message":"no"}}'),
        (
            request("resources/read"),
            DECISION,
            (
                '{"jsonrpc":"2.0","id":"é","error":{"code":-31001,"message":"no",'
                '"data":{"agent-pdp/decision":{"decision_id":"dec_1"}}}}'
            ),
        ),
    ],
)
def test_a_refusal_is_a_result_for_a_call_alone(asked: Message, decision: dict[str, str] | None, told: str) -> None:
    """Clients show a model the text of a result, and hide that of an error."""
    assert told == answers.refusal(asked, "no", decision)


@pytest.mark.parametrize(
    ("capabilities", "shown"),
    [
        ("{}", "{}"),
        ('{"tools":{} ,"x":1.0}', '{"tools":{"listChanged":true} ,"x":1.0}'),
        ('{"tools":{"listChanged": false}}', '{"tools":{"listChanged": true}}'),
    ],
)
def test_a_greeting_says_that_the_list_can_change(capabilities: str, shown: str) -> None:
    """All else stays as it was written."""
    text = '{"jsonrpc":"2.0","id":1,"result":{"capabilities":%s}}'

    assert text % shown == announcing(Message.read((text % capabilities).encode())).text


@pytest.mark.parametrize(
    ("wanted", "told", "shown"),
    [
        (True, '{"notifications": { }}', '{"notifications": {"toolsListChanged":true }}'),
        (False, '{"notifications": { }}', '{"notifications": { }}'),
        (True, "{}", "{}"),
    ],
)
def test_a_subscription_has_the_tools_in_it(wanted: bool, told: str, shown: str) -> None:  # noqa: FBT001 - a column
    """If that was wanted, and if the server honours any."""
    text = '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":%s}'
    asked = request("subscriptions/listen", notifications={"toolsListChanged": wanted})

    assert text % shown == acknowledging(asked, Message.read((text % told).encode())).text


def test_changes_are_told_in_both_eras() -> None:
    """A subscription is named by its id."""
    assert '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}' == answers.tools_changed()
    assert answers.tools_changed("7").endswith('{"_meta":{"io.modelcontextprotocol/subscriptionId":"7"}}}')
