"""Any bytes do no harm: the corpora and the inputs of old crashes through every target, and a little fuzzing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.bench.frames import PREFACE, settings_frame
from pdp.decision.cache import Key
from pdp.model import Call, Caller
from pdp.serving.http2.stream import Stream
from pdp.serving.transports import LOOP
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import running_server
from tests.machinery.servers.http2frames import data, headers, message
from tests.proofs.fuzz.table import CORPUS, CRASHES, TARGETS, corpus, target
from tests.proofs.fuzz.targets import http2, key

MOST_BYTES = 256 * 1024
SECONDS = 2
LONG_SECONDS = 3600
PATIENCE = 30.0

# The server refuses weak keys; the library that reads them warns of them besides.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


def crashes() -> Iterator[tuple[str, Path]]:
    """Yield every input that once failed, with its target; each is named after what was wrong."""
    for path in sorted(CRASHES.glob("*/*")):
        yield path.parent.name, path


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_does_no_harm(name: str) -> None:
    """Every seed and every input of the corpus is answered or refused, as the target says."""
    one = target(name)

    for given in (b"", *one.seeds, *(path.read_bytes() for path in corpus(name))):
        one.run(given)


@pytest.mark.parametrize(("name", "path"), [pytest.param(*row, id=f"{row[0]}: {row[1].name}") for row in crashes()])
def test_what_once_failed_does_no_harm(name: str, path: Path) -> None:
    """What fuzzing has found, once each."""
    target(name).run(path.read_bytes())


def test_every_folder_belongs_to_a_target() -> None:
    """A target that is renamed takes its corpus along, and every target has one, of a bounded size."""
    kept = {folder.name: sum(path.stat().st_size for path in folder.glob("*")) for folder in CORPUS.iterdir()}

    assert set(TARGETS) == set(kept)
    assert {folder.name for folder in CRASHES.iterdir()} <= set(TARGETS)
    assert sum(kept.values()) <= MOST_BYTES


def test_a_key_that_joins_its_parts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle of the target for keys sees what it is there to see: two calls with one key."""
    one = [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 0, 0]
    other = [0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0]
    calls = bytes(one) + bytes(other) + b"ab"
    key.run(calls)

    def joined(version: str, _: object, call: Call, caller: Caller, __: object) -> Key:
        return ("call", version + caller.id + call.server + call.tool)

    monkeypatch.setattr(key, "call_key", joined)

    with pytest.raises(AssertionError):
        key.run(calls)


# Of the calls of each client, those to the two methods that the target has. That of nobody is refused by its headers,
# so that grpcio sends no message of it.
MESSAGES = {
    "go-grpc": 13,
    "h2load": 10,
    "java-grpc-netty": 13,
    "node-grpc-js": 13,
    "python-grpcio": 12,
    "python-grpcio-asyncio": 12,
}


def test_what_clients_of_other_languages_sent_is_taken() -> None:
    """All messages of the connections that were recorded are handed out."""
    taken = {
        path.name: sum(map(len, http2.messages_of(seed).values()))
        for path, seed in zip(http2.RECORDED, http2.SEEDS[-len(http2.RECORDED) :], strict=True)
    }

    assert MESSAGES == taken


def test_a_message_that_was_not_sent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle of the target for connections sees a call that is handed out before all of it has come."""
    begun = bytes(2) + settings_frame({}) + headers(1) + data(1, message(b"question"), ended=False)
    http2.run(begun)
    monkeypatch.setattr(Stream, "ready", property(lambda stream: bool(stream.messages)))

    with pytest.raises(AssertionError):
        http2.run(begun)


def test_the_loop_lives_through_all_that_is_kept() -> None:
    """A real server answers a call after each peer of the corpus has come and gone."""
    files = bundle_files(
        policies={"a": '@id("a/all") permit (principal, action, resource);'},
        tools={"a": [tool("b")]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['a/*']}}}",
    )
    inputs = [*http2.SEEDS, *(path.read_bytes() for path in corpus("http2"))]
    with running_server(files, transport=LOOP) as server:
        host, _, port = server.address.rpartition(":")
        for sent in inputs:
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as peer:
                peer.sendall(PREFACE + sent[2:])
        answer = server.client("pep").attach("pdps_" + "A" * 43).authorize("a", "b", {})

    assert "session_not_found" == answer.basis


def _fuzz(*arguments: str) -> list[dict[str, object]]:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true" and sys.version_info[:2] == (3, 11) and platform.machine() == "x86_64":
            pytest.fail("atheris is absent; it is in the extra `fuzz`")
        pytest.skip("atheris is absent: pip install 'agent-pdp[fuzz]'")
    command = [sys.executable, "-m", "tests.proofs.fuzz", *arguments]
    done = subprocess.run(command, cwd=CORPUS.parent.parent.parent, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_few_seconds_find_nothing() -> None:
    """All targets in one process, from their seeds."""
    (outcome,) = _fuzz("all", "--seconds", str(SECONDS))

    assert "" == outcome["crash"]
    assert outcome["executions"]


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_an_hour_finds_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each target for its share of an hour, from its corpus."""
    (outcome,) = _fuzz(name, "--seconds", str(LONG_SECONDS // len(TARGETS)))

    with capsys.disabled():
        print(outcome)  # noqa: T201 - the figures of a long proof
    assert "" == outcome["crash"]
