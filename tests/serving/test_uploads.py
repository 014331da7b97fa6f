"""What is larger than one message: it comes in several, and is bounded in bytes and in time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from pdp.client.uploads import PIECE_BYTES, bundle_upload, evaluation_upload
from pdp.limits import Limits
from pdp.serving import uploads
from pdp.serving.transports import LOOP
from pdp.testing.waiting import wait_until
from pdp.v1.policy_pb2 import BundleFile, CheckBundleRequest, CheckBundleResponse, EvaluateRequest, EvaluateResponse
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
CHECK = "/pdp.v1.PolicyService/CheckBundle"
EVALUATE = "/pdp.v1.PolicyService/Evaluate"
Code = grpc.StatusCode


def upload(running: Running, path: str, messages: Iterable[Message | bytes], caller: str = "author") -> bytes:
    """Send messages and return the one answer."""
    sent = (one if isinstance(one, bytes) else one.SerializeToString() for one in messages)
    answer: bytes = running.channel.stream_unary(path)(sent, metadata=running.credentials(caller), timeout=PATIENCE)
    return answer


def refused(running: Running, path: str, messages: Iterable[Message | bytes]) -> tuple[grpc.StatusCode, str]:
    """Send messages that must be refused, and return how."""
    with pytest.raises(grpc.RpcError) as caught:
        upload(running, path, messages)
    return caught.value.code(), caught.value.details()


class Unfinished:
    """An upload whose messages a test sends one by one."""

    def __init__(self, running: Running, caller: str = "author") -> None:
        self._more, self._left = threading.Semaphore(0), list[bytes]()
        call = running.channel.stream_unary(CHECK)
        self.call: Any = call.future(self._messages(), metadata=running.credentials(caller), timeout=PATIENCE)

    def _messages(self) -> Iterator[bytes]:
        yield b""
        self._more.acquire(timeout=PATIENCE)

    def end(self) -> None:
        """Say that this was all."""
        self._more.release()


@pytest.fixture
def unfinished() -> Iterator[Any]:
    """Return what begins an upload; it ends with the test."""
    begun = list[Unfinished]()

    def begin(running: Running, caller: str = "author") -> Unfinished:
        begun.append(Unfinished(running, caller))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def test_a_bundle_in_many_messages_is_the_same(running: Running, project_root: Path) -> None:
    """Files are put together in the order in which their pieces come, however they are cut."""
    folder = project_root / "policies"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["git.cedar"] += b"\n// " + b"x" * 3 * PIECE_BYTES
    bytewise = [
        CheckBundleRequest(files=[BundleFile(path=path, content=content[start : start + 5000])])
        for path, content in files.items()
        for start in range(0, len(content) or 1, 5000)
    ]

    found = [CheckBundleResponse.FromString(upload(running, CHECK, cut)) for cut in (bundle_upload(files), bytewise)]

    assert len(bundle_upload(files)) > 3
    assert [list(one.problems) for one in found] == [[], []]
    assert found[0].version == found[1].version != ""


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([["a", "b"], ["a"]], "files[2].path"),
        ([["a"], ["b", "a"]], "files[2].path"),
        ([["a"], ["a", "a"]], "files[2].path"),
        ([["a", "a"]], "files[1].path"),
    ],
)
def test_a_file_goes_on_in_the_next_message_alone(running: Running, messages: list[list[str]], field: str) -> None:
    """A path that comes again elsewhere is refused, by its place in the whole."""
    sent = [CheckBundleRequest(files=[BundleFile(path=path) for path in paths]) for paths in messages]

    assert refused(running, CHECK, sent) == (Code.INVALID_ARGUMENT, f"`{field}`: appears twice")


def test_an_evaluation_in_many_messages_is_the_same(running: Running) -> None:
    """Texts and lists go on, and a flag counts wherever it is set."""
    uid = {"type": "User", "id": "ümit"}
    asked = {"principal": uid, "action": {"type": "Action", "id": "a"}, "resource": uid, "context": {}}
    entities = [{"uid": {"type": "User", "id": f"é{number}"}, "attrs": {}, "parents": []} for number in range(1000)]
    whole = EvaluateRequest(
        policies="// " + "ü" * PIECE_BYTES + '\npermit (principal == User::"ümit", action, resource);',
        entities_json=json.dumps(entities, ensure_ascii=False),
        requests_json=[json.dumps(asked, ensure_ascii=False)] * 500,
    )
    cut = evaluation_upload(whole)

    answer = EvaluateResponse.FromString(upload(running, EVALUATE, cut))
    flagged = refused(running, EVALUATE, [EvaluateRequest(policies="x"), EvaluateRequest(running_bundle=True)])

    assert max(one.ByteSize() for one in cut) <= PIECE_BYTES + 1024 < min(whole.ByteSize(), 256 * 1024)
    assert answer == EvaluateResponse.FromString(upload(running, EVALUATE, [whole]))
    assert len(answer.evaluations) == 500
    assert flagged == (Code.INVALID_ARGUMENT, "`policies`: must be empty with `running_bundle`")


@pytest.mark.parametrize(
    "messages",
    [
        [CheckBundleRequest(files=[BundleFile(path="a", content=b"x" * 900)])] * 20,
        [b""] * 20,
        [CheckBundleRequest(files=[BundleFile()] * 200)],
    ],
    ids=["bytes", "messages", "entries"],
)
def test_an_upload_is_bounded(serve: Serve, messages: list[Message | bytes]) -> None:
    """Neither bytes nor empty messages nor empty entries take more memory than the limit that the refusal names."""
    running = serve(limits=Limits(message_bytes=1000, bundle_bytes=4000))

    assert refused(running, CHECK, messages) == (
        Code.RESOURCE_EXHAUSTED,
        "the messages together are larger than 8000 bytes (limit `bundle_bytes`)",
    )
    assert running.notes.refusal().facts["status"] == "RESOURCE_EXHAUSTED"


def test_no_message_of_it_is_larger_than_another(serve: Serve, transport: str) -> None:
    """No message beyond the one bound is read, first or later, compressed or not; the loop reads no compressed one."""
    running = serve(limits=Limits(message_bytes=1000))
    call = running.channel.stream_unary(CHECK)
    sent = [[b"\xff" * 1001], [b"", b"\xff" * 1001]]
    codes = set()
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        for messages in sent:
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(messages), metadata=running.credentials("author"), timeout=PATIENCE, compression=compression)
            codes.add(caught.value.code())

    assert codes == {Code.RESOURCE_EXHAUSTED} | ({Code.UNIMPLEMENTED} if transport == LOOP else set())


def test_an_upload_that_does_not_go_on_ends(serve: Serve, unfinished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread comes back, and its sender is told."""
    monkeypatch.setattr(uploads, "MOST_SECONDS", 0.5)
    running = serve()
    late = unfinished(running)

    assert (late.call.code(), late.call.details()) == (
        Code.DEADLINE_EXCEEDED,
        "the messages did not arrive within 0.5 s",
    )
    monkeypatch.setattr(uploads, "MOST_SECONDS", PATIENCE)
    assert upload(running, CHECK, [b""]) != b""


def test_another_author_is_served_beside_it(running: Running, unfinished: Any) -> None:
    """However many uploads of one author do not go on, another one's does."""
    begun = [unfinished(running) for _ in range(8)]
    wait_until(lambda: running.open_calls == 8)

    answer = upload(running, CHECK, [b""], "admin")

    assert answer != b""
    assert not any(one.call.done() for one in begun)


def test_uploads_that_are_taken_back_do_no_harm(running: Running, unfinished: Any) -> None:
    """One that is over before its thread asks for the next message is over once, and the server goes on."""
    first, second = unfinished(running), unfinished(running)
    wait_until(lambda: running.open_calls == 2)
    wait_until(lambda: len(running.server._boundary._begun) == 0)
    second.call.cancel()
    wait_until(lambda: running.open_calls == 1)
    first.end()

    assert first.call.code() is Code.OK
    assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""
    assert upload(running, CHECK, [b""]) != b""
    wait_until(lambda: running.open_calls == 0)
