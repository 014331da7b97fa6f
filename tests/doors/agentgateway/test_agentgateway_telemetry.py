"""What the door of agentgateway tells its observer of calls, and of messages that it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.observer import Refusal
from pdp.testing.inprocess import RunningServer
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door_of
from tests.doors.noting import CARRIED, Noted


@pytest.fixture(scope="module")
def watched(server: RunningServer) -> Iterator[tuple[str, Noted]]:
    """Return the address of the door, and its observer."""
    noted = Noted()
    with door_of(server, observer=noted) as address:
        yield address, noted


@pytest.fixture
def noted(watched: tuple[str, Noted]) -> Noted:
    """Return the observer, which has been told nothing yet."""
    return watched[1].anew()


@pytest.fixture
def asking(watched: tuple[str, Noted], desk: DeskTarget) -> Iterator[Gateway]:
    """Return a gateway before the desk."""
    with Gateway(watched[0], {"desk": desk}) as gateway:
        yield gateway


@pytest.mark.parametrize(("carried", "parent", "linked"), CARRIED)
def test_a_call_is_between_the_agent_and_the_decision(
    asking: Gateway,
    noted: Noted,
    server: RunningServer,
    handle: str,
    carried: tuple[str, str, str],
    parent: str,
    linked: str,
) -> None:
    """Below the span that the message names, or else the gateway's own, or else that of a header which it shows."""
    inside, gateways, header = carried
    params = {"name": "note", "arguments": {}, "_meta": {"traceparent": inside}}
    trace = {"traceparent": gateways} if gateways else {}
    told = asking.send(handle, "tools/call", params, headers={"traceparent": header}, trace=trace)

    assert "result" in told
    noted.require_between(parent, linked, server)


def test_each_outcome_is_told(asking: Gateway, noted: Noted, desk: DeskTarget, handle: str) -> None:
    """Of a call that was sent on when its result is there; no argument, result or handle is."""
    number = {"amount": 734_211}
    for name in ("note", "closed", "pay"):
        asking.call(handle, name, number)
    asking.send(handle, "tools/call", {"name": "note", "arguments": [734_211]})
    asking.call("", "note", number)
    desk.answers = {"content": [{"type": "text", "text": "734211"}], "isError": True}
    asking.call(handle, "note", number)
    asking.call(handle, "people", number)
    desk.answers = {"resultType": "unheard of"}
    asking.call(handle, "note", number)

    assert noted.shown == [
        ("tools/call note", "allow", ""),
        ("tools/call", "deny", ""),
        ("tools/call", "waiting", ""),
        ("tools/call", "refused", ""),
        ("tools/call", "deny", ""),
        ("tools/call note", "allow", "tool_error"),
        ("tools/call people", "withheld", "result_withheld"),
        ("tools/call note", "withheld", "result_withheld"),
    ]
    assert [] == noted.reasons
    assert ("desk", "alice") == tuple(noted.spans[0].attributes[name] for name in ("pdp.server", "enduser.id"))
    assert noted.calls[0].upstream_seconds
    noted.require_nothing_of(handle, "734211")


def test_a_call_whose_result_is_never_shown_is_over_in_the_end(server: RunningServer, handle: str) -> None:
    """The gateway asks about no error; when the door stops waiting for it, the call has brought no result."""
    noted, desk = Noted(), DeskTarget()
    desk.error = "broken"
    with door_of(server, observer=noted) as address, Gateway(address, {"desk": desk}) as gateway:
        gateway.call(handle, "note")
        assert [] == noted.calls

    assert [("tools/call note", "allow", "no_result")] == noted.shown


def test_a_call_whose_result_the_gateway_cannot_name_is_over_at_once(server: RunningServer, handle: str) -> None:
    """Without the expression by which it names the request again."""
    noted = Noted()
    with door_of(server, observer=noted) as address, Gateway(address, {"desk": DeskTarget()}, expressions={}) as it:
        it.call(handle, "note")

        assert [("tools/call note", "allow", "")] == noted.shown


def test_messages_that_are_no_calls_are_counted_by_why_they_are_refused(
    watched: tuple[str, Noted], asking: Gateway, noted: Noted, handle: str
) -> None:
    """Each once."""
    asking.send(handle, "tasks/list")
    asking.send("", "tools/list")
    asking.send(handle, "tools/call")
    with Gateway(watched[0], {"elsewhere": DeskTarget()}) as other:
        other.call(handle, "note")

    assert [Refusal.METHOD, Refusal.SESSION, Refusal.MALFORMED, Refusal.PLACE] == noted.reasons
    assert [] == noted.calls
