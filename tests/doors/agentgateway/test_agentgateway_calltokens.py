"""A call that agentgateway sends on has its call token, where the target wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.calltokens.claims import HEADER, Presenter
from pdp.doors.agentgateway.targets import audience_table
from pdp.errors import ConfigurationError
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door_of
from tests.doors.conformance import opened
from tests.doors.desk import files
from tests.machinery.calltokens import AUDIENCE, ISSUER, refusal_of, server_verifier


@pytest.fixture(scope="module")
def issuing() -> Iterator[RunningServer]:
    """Return a PDP that issues call tokens for the tools of the desk."""
    with running_server(files(overlay=f"audiences: ['{AUDIENCE}']"), call_token_issuer=ISSUER) as server:
        yield server


@pytest.fixture(scope="module", params=[True, False], ids=["sees results", "sees none"])
def address(request: pytest.FixtureRequest, issuing: RunningServer) -> Iterator[str]:
    """Return the address of the door before it, which wants a call token for the desk."""
    with door_of(issuing, audiences={"desk": AUDIENCE}, unseen_errors=request.param) as found:
        yield found


def test_the_target_gets_the_token_in_the_place_of_what_the_agent_says(issuing: RunningServer, address: str) -> None:
    """In `_meta`, for this call; the gateway learns nothing of it besides, and a header of that name is not sent on."""
    desk, handle = DeskTarget(), opened(issuing)[1]
    with Gateway(address, {"desk": desk}) as gateway:
        params = {"name": "note", "arguments": {"text": "x"}, "_meta": {HEADER: "mine", "progressToken": 7}}
        said = gateway.send(handle, "tools/call", params, headers={HEADER: "mine"})
        gateway.send(handle, "tools/call", {"name": "note", "arguments": {"text": "x"}})

    (_, first, headers), (_, second, _) = desk.got
    token = first["_meta"][HEADER]
    made = {"server": "desk", "tool": "note", "arguments": {"text": "x"}, "presenter": Presenter()}
    assert "result" in said
    assert 7 == first["_meta"]["progressToken"]
    assert {} == headers
    assert {refusal_of(server_verifier(issuing), one["_meta"][HEADER], **made) for one in (first, second)} == {None}
    assert token not in f"{gateway.contexts} {gateway.shown} {issuing.evidence.records}"


def test_without_a_token_the_call_is_not_sent_on(issuing: RunningServer, address: str) -> None:
    """The agent gets an error, and the next call works."""
    desk, handle = DeskTarget(), opened(issuing)[1]
    with Gateway(address, {"desk": desk}) as gateway:
        error = gateway.call(handle, "note", {"amount": 2**53 + 1})["error"]
        gateway.call(handle, "note", {"amount": 1})

    assert error["message"].startswith("Denied (no_call_token)")
    assert ["note"] == desk.calls


def test_a_token_that_the_target_shows_is_withheld(issuing: RunningServer, address: str) -> None:
    """In whatever result."""
    desk, handle = DeskTarget(), opened(issuing)[1]
    with Gateway(address, {"desk": desk}) as gateway:
        gateway.call(handle, "note", {"text": "x"})
        token = desk.got[0][1]["_meta"][HEADER]
        desk.answers = {"content": [{"type": "text", "text": token}]}
        said = gateway.call(handle, "note", {"text": "x"})

    assert token not in str(said)
    assert "holds a call token" in str(said)


@pytest.mark.parametrize("row", ["git", "git=", "git=a b", "other=a", "=a"])
def test_a_wrong_row_is_refused(row: str) -> None:
    """Before the door opens."""
    with pytest.raises(ConfigurationError):
        audience_table([row], {"git": "git"})
