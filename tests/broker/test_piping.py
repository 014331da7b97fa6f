"""A server over pipes has a placeholder: what it asks its base URL for goes on with the call token of its one call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pdp.broker import piping
from pdp.broker.baseurl import BaseURL
from pdp.broker.piping import Piping, new_placeholder
from pdp.broker.proxy import ProxyFace
from pdp.calltokens.claims import HEADER
from pdp.serving.weblistener import SocketListener, serve
from tests.broker.worlds import ARGUMENTS, SECRET, World, request, token, world

_DEEP = 800


class Ends:
    """What client and server of a `Piping` get."""

    def __init__(self) -> None:
        self.server: list[Any] = []
        self.client: list[Any] = []
        self.piping = Piping("github", to_server=self._to(self.server), to_client=self._to(self.client))

    def _to(self, got: list[Any]) -> Callable[[bytes], None]:
        # What is nested too deeply is taken as it is.
        return lambda line: got.append(json.loads(line) if line.count(b"[") < _DEEP else line)

    async def says(self, **message: Any) -> None:
        """Let the client say something, and let it be passed on."""
        self.piping.from_client(json.dumps({"jsonrpc": "2.0", **message}).encode())
        for _ in range(5):
            await asyncio.sleep(0)


def call(text: str | None, arguments: Any = ARGUMENTS, id_: int = 1, name: str = "create_issue") -> dict[str, Any]:
    """Return a call of a tool with a call token."""
    meta = {"progressToken": 1} | ({HEADER: text} if text else {})
    return {"id": id_, "method": "tools/call", "params": {"name": name, "arguments": arguments, "_meta": meta}}


def run(test: Callable[[Ends], Coroutine[Any, Any, None]]) -> Ends:
    """Run a test with both ends."""

    async def running() -> Ends:
        ends = Ends()
        await test(ends)
        return ends

    return asyncio.run(running())


def test_a_server_does_not_see_the_call_token() -> None:
    """It is taken out of the call, and may be used until the answer to it."""
    text = token()

    async def test(ends: Ends) -> None:
        await ends.says(**call(text))
        assert text == ends.piping.token
        ends.piping.from_server(b'{"jsonrpc":"2.0","id":7,"result":{}}')
        assert text == ends.piping.token
        ends.piping.from_server(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        await ends.says(method="notifications/x")
        assert not ends.piping.token

    ends = run(test)

    assert {"name": "create_issue", "arguments": ARGUMENTS, "_meta": {"progressToken": 1}} == ends.server[0]["params"]
    assert [7, 1] == [one["id"] for one in ends.client]


def test_a_call_without_its_own_token_does_not_reach_the_server() -> None:
    """One of another tool, of other arguments, or none at all."""

    async def test(ends: Ends) -> None:
        await ends.says(**call(None))
        await ends.says(**call("a.b"))
        await ends.says(**call(token(), {**ARGUMENTS, "title": "u"}))
        await ends.says(**call(token(), name="read_issue"))
        await ends.says(**call(token(server="other")))
        ends.piping.from_client(b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}')
        ends.piping.from_client(b"[]")

    ends = run(test)

    assert [] == ends.server
    assert ["malformed", "tool", "arguments", "tool", "tool"] == [
        one["error"]["data"]["reason"] for one in ends.client if "data" in one["error"]
    ]
    assert [-32700, -32700] == [one["error"]["code"] for one in ends.client[-2:]]


def test_what_some_readers_take_for_a_call_does_not_reach_the_server() -> None:
    """They take `Method` for `method`, and the last of both counts."""

    async def test(ends: Ends) -> None:
        await ends.says(**call(token()))
        await ends.says(method="notifications/x", Method="tools/call", Id=2, params=call(token())["params"])
        twice = call(token(), id_=3)
        twice["params"]["Name"] = "delete_issue"
        ends.piping.from_server(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        await ends.says(**twice)

    ends = run(test)

    assert [1] == [one["id"] for one in ends.server]
    assert [-32700, -32001] == [one["error"]["code"] for one in ends.client if "error" in one]


@pytest.mark.parametrize("odd", [{}, {"id": None}, {"id": 1.5}, {"id": [1]}])
@pytest.mark.parametrize("method", ["tools/call", "resources/read"])
def test_a_request_without_an_id_that_has_a_turn_does_not_reach_the_server(odd: dict[str, Any], method: str) -> None:
    """A server that takes it all the same would use the call token of the call that is under way."""

    async def test(ends: Ends) -> None:
        await ends.says(**call(token()))
        await ends.says(method=method, params=call(token())["params"], **odd)
        await ends.says(id=7, result={})
        await ends.says(method="notifications/x")

    ends = run(test)

    assert [1, 7, None] == [one.get("id") for one in ends.server]
    assert [-32600] == [one["error"]["code"] for one in ends.client]


def test_one_request_at_a_time_is_with_the_server() -> None:
    """No other one can use the token of a call that is made; what asks nothing passes at once."""
    first, second = token(), token()

    async def test(ends: Ends) -> None:
        await ends.says(**call(first, id_=1))
        await ends.says(id=2, method="resources/read")
        await ends.says(**call(second, id_=3))
        await ends.says(method="notifications/cancelled")
        assert [1, None] == [one.get("id") for one in ends.server]
        assert first == ends.piping.token
        for id_, expected in ((1, ""), (2, second)):
            ends.piping.from_server(json.dumps({"id": id_, "result": {}}).encode())
            await ends.says(method="notifications/x")
            assert expected == ends.piping.token

    run(test)


@pytest.mark.parametrize("method", ["resources/read", "tools/call"])
def test_a_request_that_is_cancelled_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """It gets no answer, and the next one would wait for it for ever."""
    monkeypatch.setattr(piping, "_STOP_SECONDS", 0.0)
    second = token()

    async def test(ends: Ends) -> None:
        await ends.says(**{**call(token(), id_=1), "method": method})
        await ends.says(**call(second, id_=2))
        await ends.says(method="notifications/cancelled", params={"requestId": 1})
        await ends.says(method="notifications/x")
        assert second == ends.piping.token

    ends = run(test)

    assert [1, None, 2] == [one.get("id") for one in ends.server][:3]


def test_a_request_that_is_cancelled_before_its_turn_is_not_sent() -> None:
    """Its server would get it after the word that it is cancelled, and do it."""

    async def test(ends: Ends) -> None:
        await ends.says(**call(token(), id_=1))
        await ends.says(**call(token(), id_=2))
        await ends.says(method="ping", id=3)
        await ends.says(method="notifications/cancelled", params={"requestId": 2})
        ends.piping.from_server(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        await ends.says(method="notifications/x")

    ends = run(test)

    assert [1, 3] == [one["id"] for one in ends.server if isinstance(one, dict) and "id" in one]


def test_deep_nesting_stops_nothing() -> None:
    """What is nested too deeply to be read, or to be written again, ends neither direction."""
    deep = [b"[" * depth + b"]" * depth for depth in (*range(900, 1000), 20_000)]

    async def test(ends: Ends) -> None:
        for one in deep:
            ends.piping.from_client(b'{"jsonrpc":"2.0","method":"notifications/x","params":' + one + b"}")
        await ends.says(**call(token(), id_=1))
        ends.piping.from_server(b'{"jsonrpc":"2.0","id":1,"result":' + deep[-1] + b"}")
        await ends.says(id=2, method="ping")

    ends = run(test)

    assert [1, 2] == [one["id"] for one in ends.server if isinstance(one, dict) and "id" in one]


def through(
    here: World, folder: Path, headers: dict[str, str], placeholder: str, text: str, target: str = "/repos/x?q=1"
) -> Any:
    """Send a request to a base URL that leads to a broker behind a socket."""
    path = folder / "http.sock"

    async def asked() -> Any:
        with SocketListener(path) as listener:
            face = ProxyFace(here.broker)
            serving = asyncio.ensure_future(serve(face, listener))
            app = BaseURL("github", broker=path, placeholder=placeholder, token=lambda: text)
            try:
                return await asyncio.to_thread(request, app, "POST", target, headers, b'{"a":1}')
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                face.close()

    return asyncio.run(asked())


def test_what_is_not_in_ascii_is_refused_and_fails_nothing(tmp_path: Path) -> None:
    """The placeholder is looked for in each header, and the broker says of which one it cannot be handed on."""
    placeholder = new_placeholder()
    good = {"Authorization": f"Bearer {placeholder}"}
    with world() as here:
        none = through(here, tmp_path, {"User-Agent": "caf\u00e9"}, placeholder, token(presenter=None))
        beside = through(here, tmp_path, {**good, "User-Agent": "caf\u00e9"}, placeholder, token(presenter=None))
        path = through(here, tmp_path, good, placeholder, token(presenter=None), "/repos/caf\u00e9")
        blank = through(here, tmp_path, good, placeholder, token(presenter=None), "/repos/a b")

        assert [] == here.upstream.got

    assert [401, 400, 400, 400] == [none.status, beside.status, path.status, blank.status]
    assert "the header `user-agent` is not in printable ASCII" in beside.said["error"]


def test_the_placeholder_opens_the_base_url_while_a_call_is_under_way(tmp_path: Path) -> None:
    """The upstream gets the secret in its place; without either, or with a used token, nothing is sent."""
    placeholder, text = new_placeholder(), token(presenter=None)
    with world() as here:
        good = {"Authorization": f"Bearer {placeholder}", "Content-Type": "application/json"}
        done = through(here, tmp_path, good, placeholder, text)
        again = through(here, tmp_path, good, placeholder, text)
        idle = through(here, tmp_path, good, placeholder, "")
        other = through(here, tmp_path, {"Authorization": "Bearer x"}, placeholder, token(presenter=None))

        ((method, path, headers, body),) = here.upstream.got

    assert (200, b'{"done":true}') == (done.status, done.body)
    assert ("POST", "/repos/x?q=1", b'{"a":1}') == (method, path, body)
    assert f"Bearer {SECRET.decode()}" == headers["authorization"]
    assert placeholder not in repr(headers)
    assert [403, 403, 401] == [again.status, idle.status, other.status]
    assert "used" == again.said["reason"]
