"""Calls over HTTP through the proxy, made by the real client of MCP in both eras."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pdp.doors.feeds import SessionsFeed
from pdp.doors.mcp import streams
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.gate import AllowedCall, Gate
from pdp.doors.mcp.headers import repeated, repeating
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.parties import Party
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, STATED
from tests.doors.mcp.webworld import SECRET, message_of, private_file, text_of, world

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("json_answers", [True, False])
async def test_an_allowed_call_runs_once(desk_pdp: RunningServer, era: str, *, json_answers: bool) -> None:
    """A call that the session allows reaches the server once, and its result comes back."""
    async with world(desk_pdp, json_answers=json_answers) as here:
        _, handle = here.session()
        async with here.client(era, handle) as client:
            result = await client.call_tool("echo", {"text": "grüße 🙂"})

        assert "grüße 🙂" == text_of(result)
        assert 1 == here.desk.ran["echo"]


async def test_a_denied_call_does_not_run(desk_pdp: RunningServer, era: str) -> None:
    """The reason reaches the model as a result, and the next call works. To know the name of a tool is not enough."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        async with here.client(era, handle) as client:
            denied = await client.call_tool("hidden")
            allowed = await client.call_tool("echo", {"text": "next"})

        assert denied.is_error
        assert "did not run" in text_of(denied)
        assert "next" == text_of(allowed)
        assert {"echo": 1} == here.desk.ran


async def test_only_the_session_s_tools_are_listed(desk_pdp: RunningServer, era: str) -> None:
    """A tool that no call of the session can use is not in the list."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        async with here.client(era, handle) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}

        assert "hidden" not in listed
        assert {"echo", "asked"} < listed


async def test_a_filtered_list_is_private_and_short_lived(desk_pdp: RunningServer) -> None:
    """What one session sees is kept by nobody between, and by its client for a moment."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": STATED}}
        answer = await here.post(body, {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"}, handle=handle)

        result = message_of(answer)["result"]
        assert "private" == result["cacheScope"]
        assert 0 <= result["ttlMs"] <= 5000
        assert "no-store" == answer.headers["cache-control"]


async def test_a_revoked_session_calls_nothing_more(desk_pdp: RunningServer, era: str) -> None:
    """The next call after a revocation does not run."""
    async with world(desk_pdp) as here:
        session_id, handle = here.session()
        async with here.client(era, handle) as client:
            await client.call_tool("echo", {"text": "before"})
            here.revoke(session_id)
            after = await client.call_tool("echo", {"text": "after"})

        assert after.is_error
        assert ["before"] == here.desk.texts


@pytest.mark.parametrize("steps", [0, 1], ids=["one answer", "a stream"])
async def test_a_call_that_is_under_way_is_stopped_with_its_session(desk_pdp: RunningServer, steps: int) -> None:
    """Its client gets a result that says so, also where the server has begun to answer; and the server is left."""
    async with world(desk_pdp, json_answers=not steps) as here:
        session_id, handle = here.session()
        calling = asyncio.ensure_future(here.call("slow", {"steps": steps}, handle=handle))
        await here.desk.begun.wait()
        here.revoke(session_id)
        said = (await calling).text
        here.desk.go_on.set()

    assert "was stopped: its session is over. The tool may have done all of it, or a part" in said
    assert "slow to the end" not in said


async def test_a_call_stops_although_a_server_does_not_know_yet(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several machines one can tell of a revocation before another, which is asked how the session is, knows it."""
    looks, seen = list[Any](), Party.seen

    async def behind(party: Party) -> frozenset[str] | None:
        looks.append(await seen(party))
        return looks[-1] if None in looks[:-1] else looks[0]

    monkeypatch.setattr(Party, "seen", behind)
    monkeypatch.setattr(streams, "_AGAIN_SECONDS", 0.01)
    async with world(desk_pdp) as here:
        session_id, handle = here.session()
        calling = asyncio.ensure_future(here.call("slow", {"steps": 1}, handle=handle))
        await here.desk.begun.wait()
        here.revoke(session_id)
        said = (await calling).text

    assert "was stopped: its session is over" in said


async def test_a_call_whose_session_is_over_when_its_allow_arrives_is_stopped(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy can hear of a revocation before it hears of an allow from before that."""
    told, tell, ask = list[str](), SessionsFeed._tell, Gate.ask

    def noting(feed: SessionsFeed, session_ids: set[str], *, everyone: bool) -> None:
        tell(feed, session_ids, everyone=everyone)
        told.extend(session_ids or [""])

    monkeypatch.setattr(SessionsFeed, "_tell", noting)
    async with world(desk_pdp) as here:
        session_id, handle = here.session()

        async def late(gate: Gate, *request: Any) -> AllowedCall:
            allowed = await ask(gate, *request)
            here.revoke(session_id)
            await here.until(lambda: session_id in told)
            return allowed

        await here.call("echo", {"text": "first"}, handle=handle)
        await here.until(lambda: told)
        told.clear()
        monkeypatch.setattr(Gate, "ask", late)
        said = (await here.call("slow", {"steps": 1}, handle=handle)).text

    assert "was stopped: its session is over" in said


@pytest.mark.parametrize(("handle", "says"), [("", "x-pdp-session"), ("pdps_" + "u" * 43, "not active")])
async def test_without_a_valid_handle_nothing_runs(desk_pdp: RunningServer, handle: str, says: str) -> None:
    """A call without a session is a deny that says what is missing, and the server learns nothing of it."""
    async with world(desk_pdp) as here:
        answer = await here.call("echo", {"text": "no"}, handle=handle)

        assert 200 == answer.status_code
        assert says in message_of(answer)["result"]["content"][0]["text"]
        assert {} == here.desk.headers


async def test_without_a_handle_nothing_else_passes(desk_pdp: RunningServer) -> None:
    """Also a request that is not asked about needs a session: the server would answer it with the proxy's rights."""
    async with world(desk_pdp) as here:
        answer = await here.post({"jsonrpc": "2.0", "id": 7, "method": "prompts/list", "params": {}})

        assert "x-pdp-session" in message_of(answer)["error"]["message"]
        assert {} == here.desk.headers


async def test_the_server_learns_nothing_of_the_client_s_secrets(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """Handle, credentials, cookies and addresses of the client stay here; the proxy's own headers go instead."""
    credentials = Credentials(private_file(tmp_path, f"Authorization: Bearer {SECRET}\n"))
    async with world(desk_pdp, credentials=credentials) as here:
        _, handle = here.session()
        sent = {"authorization": "Bearer mine", "cookie": "a=b", "x_pdp_other": "1", "x_forwarded_for": "9.9.9.9"}
        answer = await here.call("echo", {"text": "hi"}, handle=handle, **sent)

        assert "hi" in answer.text
        assert f"Bearer {SECRET}" == here.desk.headers["authorization"]
        assert {"cookie", "x-pdp-session", "x-pdp-other", "x-forwarded-for"}.isdisjoint(here.desk.headers)
        assert handle not in str(here.desk.headers)


@pytest.mark.parametrize("how", ["as it is", "base64"])
async def test_a_reflected_secret_is_withheld(desk_pdp: RunningServer, tmp_path: Path, era: str, how: str) -> None:
    """A server that says what it was sent does not tell an agent the proxy's credential."""
    credentials = Credentials(private_file(tmp_path, f"Authorization: Bearer {SECRET}\n"))
    async with world(desk_pdp, credentials=credentials) as here:
        _, handle = here.session()
        async with here.client(era, handle) as client:
            result = await client.call_tool("reflect", {"how": how})

        assert 1 == here.desk.ran["reflect"]
        assert result.is_error
        assert "holds a credential" in text_of(result)


async def test_concurrent_calls_of_two_sessions_do_not_mix(desk_pdp: RunningServer, era: str) -> None:
    """Each of 50 calls at once is decided in its own session, and gets its own answer."""
    async with world(desk_pdp) as here:
        handles = [here.session(user)[1] for user in ("alice", "bob")]
        async with here.client(era, handles[0]) as alice, here.client(era, handles[1]) as bob:
            echoes = [client.call_tool("echo", {"text": f"{n}"}) for n in range(20) for client in (alice, bob)]
            denied = [bob.call_tool("reflect", {"how": "no"}) for _ in range(10)]
            results = await asyncio.gather(*echoes, *denied)

        assert [str(n) for n in range(20) for _ in (alice, bob)] == [text_of(one) for one in results[:40]]
        assert all(one.is_error for one in results[40:])
        assert {"echo": 40} == here.desk.ran


async def test_a_call_that_a_person_approves_meanwhile_runs(desk_pdp: RunningServer, era: str) -> None:
    """A call can wait for a person's yes to exactly this call, and runs once."""
    async with world(desk_pdp, wait=60.0) as here:
        session_id, handle = here.session()
        async with here.client(era, handle) as client:
            calling = asyncio.ensure_future(client.call_tool("asked"))
            await here.approve_a_call(session_id)
            result = await calling

        assert "asked" == text_of(result)
        assert 1 == here.desk.ran["asked"]


async def test_headers_that_repeat_arguments_say_what_the_message_says(desk_pdp: RunningServer) -> None:
    """A server can want arguments in headers too (`x-mcp-header`), and gets them as the message has them."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        async with here.client(MODERN, handle) as client:
            await client.list_tools()
            result = await client.call_tool("routed", {"region": "süd", "shard": 7})

        assert "süd 7" == text_of(result)
        assert "=?base64?c8O8ZA==?=" == here.desk.headers["mcp-param-region"]


@pytest.mark.parametrize(
    "headers", [{}, {"mcp_param_region": "south"}, {"mcp_param_region": "north", "mcp_param_shard": "1"}]
)
async def test_a_header_that_repeats_no_argument_is_refused(desk_pdp: RunningServer, headers: dict[str, str]) -> None:
    """One that is missing, says something else, or repeats what is not there: what reads headers only would err."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.call("routed", {"region": "north"}, handle=handle, **headers)

        assert (400, -32020) == (answer.status_code, message_of(answer)["error"]["code"])
        assert 0 == here.desk.ran["routed"]


def test_many_headers_that_repeat_arguments_cost_little_in_a_large_message() -> None:
    """Else one client could keep the proxy busy for all: what is beside the arguments can be as large as it likes."""
    beside = ",".join(f'"k{number}":{number}' for number in range(100_000))
    raw = (
        f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{{beside}}},"arguments":{{"a63":"x"}}}}}}'
    )
    call = Message.read(raw.encode())
    schema = {"properties": {f"a{number}": {"x-mcp-header": f"A{number}"} for number in range(64)}}
    began = time.process_time()
    call.part("params", "arguments")
    once = time.process_time() - began
    began = time.process_time()
    headers = repeated(call, repeating(schema))
    took = time.process_time() - began

    assert (64, "x") == (len(headers), headers["mcp-param-a63"])
    assert took < 10 * once


async def test_a_tool_that_has_changed_is_not_called(desk_pdp: RunningServer, era: str) -> None:
    """Over HTTP a server may have no way to say that a tool has changed: its definition is read again."""
    with patch("pdp.doors.mcp.conversations._FRESH_SECONDS", 0.0):
        async with world(desk_pdp) as here:
            _, handle = here.session()
            async with here.client(era, handle) as client:
                before = await client.call_tool("echo", {"text": "before"})
                here.server.remove_tool("echo")

                @here.server.tool()
                def echo(text: str) -> str:
                    """Send the text to everybody."""
                    here.desk.ran["other"] += 1
                    return text

                after = await client.call_tool("echo", {"text": "after"})

            assert "before" == text_of(before)
            assert "tool_changed" in text_of(after)
            assert {"echo": 1} == here.desk.ran


async def test_a_session_has_a_bounded_number_of_open_requests(desk_pdp: RunningServer) -> None:
    """One more is refused, and other sessions are served."""
    with patch("pdp.doors.mcp.load.MOST_OPEN", 3):
        async with world(desk_pdp) as here:
            _, handle = here.session()
            _, other = here.session("bob")
            waiting = asyncio.ensure_future(here.call("slow", {"steps": 0}, handle=handle))
            await here.desk.begun.wait()
            refused = await here.call("echo", {"text": "one more"}, handle=handle)
            served = await here.call("echo", {"text": "other"}, handle=other)
            here.desk.go_on.set()
            done = await waiting

            assert "Too many requests" in refused.text
            assert '"other"' in served.text
            assert "done" in done.text
