"""Calls go on with a call token where the server behind the proxy takes none without, and the agent never sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.refusals import Reason
from pdp.calltokens.requests import Guard
from pdp.client import CallTokenRequest
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.mcp.conversation import DIRECTORY, POLICIES, approved, conversation
from tests.doors.mcp.toolserver import METHODS, TOOLS, ToolServer
from tests.doors.mcp.webworld import desk_bundle, text_of, world
from tests.machinery.calltokens import AUDIENCE, ISSUER, refusal_of, server_verifier

WANTED = CallTokenRequest(audience=AUDIENCE)


@pytest.fixture(scope="module")
def issuing() -> Iterator[RunningServer]:
    """Return a PDP that issues call tokens for the small tool server, but not for `people` and `large`."""
    files = bundle_files(
        policies=POLICIES,
        tools={"files": [*TOOLS, *METHODS]},
        overlays={
            "files": f"audiences: [{AUDIENCE}]\nrisk: read_only\ntools:\n  people: {{audiences: []}}\n"
            "  large: {audiences: [https://other.example]}\n"
        },
        directory=DIRECTORY,
        labels=("tainted",),
    )
    with running_server(files, call_token_issuer=ISSUER) as server:
        yield server


@pytest.fixture(scope="module")
def issuing_desk() -> Iterator[RunningServer]:
    """Return a PDP that issues call tokens for the server over HTTP, but not for its tool `routed`."""
    overlay = f"audiences: [{AUDIENCE}]\nrisk: read_only\ntools: {{routed: {{audiences: []}}}}"
    with running_server(desk_bundle(overlay=overlay), call_token_issuer=ISSUER) as server:
        yield server


def reported(pdp: RunningServer, session_id: str) -> list[str]:
    """Return what was reported of the calls of a session."""
    found = [one for one in pdp.evidence.records if one["kind"] == "call.reported"]
    return [one["facts"]["status"] for one in found if one["session_id"] == session_id]


# Over pipes.


async def test_a_call_over_pipes_has_its_token_in_the_message(issuing: RunningServer, era: str) -> None:
    """It is for exactly this call, once; the client cannot choose it, and all else stays as it was written."""
    async with conversation(issuing, era, call_token=WANTED) as it:
        said = await it.call("read", {"path": "/é", "n": 1.0}, _meta={HEADER: "mine", "other": 1})

    (line,) = it.server.sent("tools/call")
    params = json.loads(line)["params"]
    token = params["_meta"][HEADER]
    live, offline = server_verifier(issuing), server_verifier(issuing, live=False)
    call = {"server": "files", "tool": "read", "arguments": params["arguments"], "presenter": Presenter()}
    other = {**call, "arguments": {**params["arguments"], "n": 2}}

    assert said["result"]["isError"] is False
    assert 1 == params["_meta"]["other"]
    assert b'"arguments": {"path": "/\xc3\xa9", "n": 1.0}' in line
    assert [Reason.ARGUMENTS, None, Reason.USED] == [refusal_of(live, token, **one) for one in (other, call, call)]
    assert refusal_of(offline, token, **call) is None
    assert token not in b"".join(it.seen).decode()


async def test_a_call_without_other_words_about_it_gets_a_token_too(issuing: RunningServer) -> None:
    """Also where the client writes something else than an object there."""
    async with conversation(issuing, call_token=WANTED) as it:
        await it.call("read", {"path": "a"})
        await it.call("read", {"path": "a"}, _meta=None)

    tokens = [json.loads(line)["params"]["_meta"][HEADER] for line in it.server.sent("tools/call")]
    assert 2 == len(set(tokens))


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("people", {}, "its overlay does not name it in `audiences`"),
        ("large", {}, "its overlay does not name it in `audiences`"),
        ("read", {"path": "a", "n": 2**53 + 1}, "an integer is beyond 2^53"),
    ],
)
async def test_without_a_token_the_call_is_not_made(
    issuing: RunningServer, tool: str, arguments: dict[str, Any], why: str
) -> None:
    """It was allowed, so that it is reported as failed; the agent learns why, and the next call works."""
    opened = approved(issuing)
    async with conversation(issuing, handle=opened.session_handle, call_token=WANTED) as it:
        said = await it.call(tool, arguments)
        after = await it.call("read", {"path": "a"})

    text = text_of_denied(said)
    assert text.startswith(f"Denied (no_call_token): the call of `files/{tool}` did not run; ")
    assert why in text
    assert after["result"]["isError"] is False
    assert {"read": 1} == it.server.ran
    assert "failed" in reported(issuing, opened.session.session_id)


async def test_a_server_that_issues_none_lets_nothing_run(pdp: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """The operator of the proxy reads why."""
    async with conversation(pdp, call_token=WANTED) as it:
        said = await it.call("read", {"path": "a"})

    assert "no_call_token" in text_of_denied(said)
    assert {} == it.server.ran
    assert "it has no `call_tokens.issuer`" in caplog.text


async def test_a_token_that_the_server_shows_is_withheld(issuing: RunningServer) -> None:
    """In a result, in what the server says besides, and in what it asks."""
    server = ToolServer()

    def shows(request: dict[str, Any]) -> Iterator[bytes]:
        token = request["params"]["_meta"][HEADER]
        told = {"level": "info", "data": f"got {token}"}
        yield json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": told}).encode()
        for asks in ("ping", "sampling/createMessage"):
            yield json.dumps({"jsonrpc": "2.0", "id": asks, "method": asks, "params": told}).encode()
        yield server.answer(request, {"content": [{"type": "text", "text": f"got {token[:80]}"}]})

    server.reactions["tools/call"] = shows
    async with conversation(issuing, server=server, call_token=WANTED, passes=("sampling/createMessage",)) as it:
        said = await it.call("read", {"path": "a"})

    token = json.loads(server.sent("tools/call")[0])["params"]["_meta"][HEADER]
    assert "holds a credential" in text_of_denied(said)
    assert token[:80] not in b"".join(it.seen).decode()


def text_of_denied(said: Any) -> str:
    """Return the text of a result that says that its call failed."""
    assert said["result"]["isError"] is True
    return str(said["result"]["content"][0]["text"])


# Over HTTP.


async def test_a_real_server_takes_a_call_with_its_token_alone(issuing_desk: RunningServer, era: str) -> None:
    """With it the call runs once; the same token runs nothing more, and neither do other arguments or none."""
    async with world(
        issuing_desk,
        call_token=WANTED,
        guard=Guard(verifier=server_verifier(issuing_desk), server="desk"),
        json_answers=True,
    ) as here:
        session_id, handle = here.session()
        async with here.client(era, handle) as client:
            result = await client.call_tool("echo", {"text": "hi"})
            missing = await client.call_tool("routed", {"region": "eu"})
        answer = await here.call("echo", {"text": "ho"}, handle=handle, pdp_call_token="mine")  # noqa: S106 - none
        token = here.desk.headers[HEADER]

        assert "hi" == text_of(result)
        assert "ho" in answer.text
        assert "no_call_token" in text_of(missing)
        assert ["failed"] == [one for one in here.reported(session_id) if one != "succeeded"]
        assert {"echo": 2} == here.desk.ran
        other = {"server": "desk", "tool": "echo", "arguments": {"text": "other"}, "presenter": Presenter()}
        assert Reason.ARGUMENTS is refusal_of(server_verifier(issuing_desk), token, **other)


async def test_a_token_that_a_server_reflects_is_withheld(issuing_desk: RunningServer) -> None:
    """As it is, and in base64."""
    async with world(issuing_desk, call_token=WANTED) as here:
        _, handle = here.session()
        answers = [await here.call("reflect", {"how": how}, handle=handle) for how in ("as it is", "base64")]

        assert 2 == here.desk.ran["reflect"]
        assert all("holds a credential" in one.text for one in answers)
