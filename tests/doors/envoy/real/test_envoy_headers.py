"""What the real Envoy shows of headers is not always what it sends on: what is ambiguous reaches no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import call, door, opened
from tests.doors.envoy.real.world import Backend, running_envoy

pytestmark = pytest.mark.doors

# What is sent in headers `Mcp-Param-Text`, the argument that Envoy shows there, and whether the call is sent on.
REPEATED: dict[str, tuple[list[bytes], str, bool]] = {
    "text": ([b"b c"], "b c", True),
    "base64": ([b"=?base64?YiEsYw==?="], "b!,c", True),
    "a byte that is not UTF-8": ([b"b\xffc"], "b!c", False),
    "an exclamation mark": ([b"b!c"], "b!c", False),
    "two headers": ([b"b", b"c"], "b,c", False),
    "two headers, and a space": ([b"b", b" c"], "b, c", False),
    "a comma": ([b"b,c"], "b,c", False),
}


def test_a_header_that_envoy_shows_as_another_is_not_sent_on(server: RunningServer, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and two headers of one name, look as if they repeated an argument."""
    backend = Backend()
    reached = {}
    with (
        door(server) as asker,
        running_envoy(tmp_path, door=int(asker.address.rpartition(":")[2]), backend=backend.port) as envoy,
    ):
        fields = [("x-pdp-session", opened(server)[1].encode()), ("content-type", b"application/json")]
        for name, (values, shown, _) in REPEATED.items():
            body = call("note", {"text": shown})
            envoy.send_frames(b"/mcp", [*fields, *(("mcp-param-text", value) for value in values)], body)
            reached[name] = body in [one.body for one in backend.got]
            backend.got.clear()
    backend.close()

    assert {name: is_sent_on for name, (_, _, is_sent_on) in REPEATED.items()} == reached
