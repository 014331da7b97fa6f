"""What the real Envoy shows of headers is not always what it sends on: what is ambiguous reaches no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import call, door, opened
from tests.doors.envoy.real.world import MCP, Backend, running_envoy
from tests.machinery.envoyholes import HOLES

pytestmark = pytest.mark.doors

TEXT = {"encode_raw_headers: true": "encode_raw_headers: false"}
# What is sent in headers `Mcp-Param-Text`, the argument that Envoy shows there as text, and whether the call is sent on
# when Envoy shows text, and when it shows bytes.
REPEATED: dict[str, tuple[list[bytes], str, bool, bool]] = {
    "text": ([b"b c"], "b c", True, True),
    "base64": ([b"=?base64?YiEsYw==?="], "b!,c", True, True),
    "a byte that is not UTF-8": ([b"b\xffc"], "b!c", False, False),
    "one that is read as a character": ([b"b\xffc"], "b\ufffdc", False, False),
    "an exclamation mark": ([b"b!c"], "b!c", False, True),
    "two headers": ([b"b", b"c"], "b,c", False, False),
    "two headers, and a space": ([b"b", b" c"], "b, c", False, False),
    "two headers, the same": ([b"b", b"b"], "b", False, False),
    "a comma": ([b"b,c"], "b,c", False, True),
}


@pytest.mark.parametrize("exact", [False, True])
def test_a_header_that_envoy_shows_as_another_is_not_sent_on(
    server: RunningServer,
    tmp_path: Path,
    exact: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Bytes that are not UTF-8, and two headers of one name, look as if they repeated an argument."""
    backend = Backend()
    reached = {}
    with (
        door(server) as asker,
        running_envoy(
            tmp_path,
            door=int(asker.address.rpartition(":")[2]),
            backend=backend.port,
            changes=MCP if exact else {**MCP, **TEXT},
        ) as envoy,
    ):
        fields = [("x-pdp-session", opened(server)[1].encode()), ("content-type", b"application/json")]
        for name, (values, shown, *_) in REPEATED.items():
            body = call("note", {"text": shown})
            envoy.send_frames(b"/mcp", [*fields, *(("mcp-param-text", value) for value in values)], body)
            reached[name] = body in [one.body for one in backend.got]
            backend.got.clear()
    backend.close()

    assert {name: sent_on[exact] for name, (_, _, *sent_on) in REPEATED.items()} == reached


def test_an_agent_cannot_name_the_server(server: RunningServer, tmp_path: Path) -> None:
    """Not even where a cluster takes it from a header, which the doctor finds: what was allowed went to any server."""
    backend, other = Backend(), Backend()
    old, new = HOLES["a server from a header"][0]
    changes = {**MCP, old.replace("9000", str(backend.port)): new}
    with (
        door(server) as asker,
        running_envoy(
            tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port, changes=changes
        ) as envoy,
    ):
        headers = {"x-pdp-session": opened(server)[1], "content-type": "application/json"}
        said = envoy.send(
            "POST", "/mcp", call("note"), {**headers, "x-envoy-original-dst-host": f"127.0.0.1:{other.port}"}
        )
    backend.close()
    other.close()

    assert 503 == said.status
    assert [] == other.got
