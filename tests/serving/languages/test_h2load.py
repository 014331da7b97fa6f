"""A load by another implementation of HTTP/2: 16 connections with 100 calls at a time each, and HTTP/1.1 in vain."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.limits import Limits
from pdp.serving.transports import LOOP
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.decision_pb2 import Call

CALLS, CONNECTIONS, AT_A_TIME = 6400, 16, 100
_COUNTS = re.compile(r"(\d+) (succeeded|failed|errored)")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Return a server on the loop that has room for as many calls of one caller at once.

    A client asks again as soon as it is answered, and a thread counts a call for a moment longer.
    """
    files = bundle_files(
        policies={"git": '@id("git/all") permit (principal, action, resource);'},
        tools={"git": [tool("log")]},
        overlays={"git": "risk: read_only"},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
    )
    limits = Limits(concurrent_calls=3 * CONNECTIONS * AT_A_TIME, wait_seconds=60.0)
    with running_server(files, limits=limits, transport=LOOP) as running:
        yield running


@pytest.fixture(scope="module")
def question(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the frame of a question that the policies permit."""
    opened = server.client("pep").request_session(user="alice", agent="coder", purpose="p", tools=["git/*"])
    shown = opened.session
    server.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    call = Call(session_handle=opened.session_handle, server="git", tool="log", arguments_json=b"{}")
    wire = AuthorizeRequest(call=call).SerializeToString()
    path = tmp_path_factory.mktemp("h2load") / "question"
    path.write_bytes(b"\0" + len(wire).to_bytes(4) + wire)
    return path


def load(server: RunningServer, question: Path, *options: str, calls: int = CALLS) -> dict[str, int]:
    """Make calls by h2load; return how many succeeded, failed and had an error, by HTTP."""
    if shutil.which("h2load") is None:
        pytest.fail("h2load is absent: install `nghttp2-client`")
    headers = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {server.token('pep')}")
    done = subprocess.run(
        [
            *("h2load", "-n", str(calls), "-c", str(CONNECTIONS), "-d", str(question), *options),
            *(part for header in headers for part in ("-H", header)),
            f"http://{server.address}/pdp.v1.AuthorizationService/Authorize",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("requests:"))
    return {what: int(count) for count, what in _COUNTS.findall(line)}


def test_every_call_of_a_load_is_decided(server: RunningServer, question: Path) -> None:
    """No stream has an error, and there are as many allows in the record as calls."""
    before = len(server.evidence.decision_records)
    counts = load(server, question, "-m", str(AT_A_TIME))
    decided = [record["outcome"] for record in server.evidence.decision_records[before:]]

    assert {"succeeded": CALLS, "failed": 0, "errored": 0} == counts
    assert ["allow"] * CALLS == decided


def test_a_load_of_http_1_1_is_refused(server: RunningServer, question: Path) -> None:
    """Not one is answered, and the next of HTTP/2 is."""
    refused = load(server, question, "--h1", calls=160)
    after = load(server, question, calls=160)

    assert 0 == refused["succeeded"]
    assert {"succeeded": 160, "failed": 0, "errored": 0} == after
