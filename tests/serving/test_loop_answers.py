"""What the loop's own thread answers: remembered decisions, whatever the threads of the lanes wait for."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest

from pdp.bench import frames
from pdp.bench.frames import FrameReader
from pdp.foundation.ids import handle_digest
from pdp.model import Caller, CallRequest, Decision
from pdp.policy import inparts
from pdp.server.decisionmessages import DecisionMessages
from pdp.server.service import CALL_THREADS
from pdp.serving import turns
from pdp.serving.begun import ASKED
from pdp.serving.http2 import loop
from pdp.serving.http2.stream import PREFIX_BYTES
from pdp.serving.transports import GRPC, LOOP
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.values import Used
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import RunningServer, running_server
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeResponse
from pdp.v1.decision_pb2 import CACHE_RESULT_HIT, OUTCOME_ALLOW, OUTCOME_DENY, Call
from tests.machinery.servers.http2frames import data, headers, message
from tests.machinery.servers.running import PATIENCE, connected

pytest.importorskip("ngh2", reason="`ngh2` is not installed: run `make`")

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
FILES = bundle_files(
    policies={
        "mail": '@id("mail/all") permit (principal, action in [Action::"mail/read", Action::"mail/mark"], resource);'
        '@id("mail/pay") permit (principal, action == Action::"mail/pay", resource);'
        '@id("mail/not") forbid (principal, action == Action::"mail/pay", resource) when { context.input has none };'
    },
    tools={"mail": [tool("read"), tool("mark"), tool("pay", {"none": {"type": "string"}})]},
    overlays={"mail": "tools: {mark: {adds_labels: [marked]}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {marked: {meaning: was marked}}",
)
# Where sessions can have budgets, which count all calls or those that change something.
BUDGETED = {
    **FILES,
    "tools/mail.yaml": b"risk: mutating\ntools: {read: {risk: read_only}}\n",
    "schema.cedarschema": with_terms("max_calls?: Long, max_calls_of_mutating?: Long").encode(),
}


@dataclass(slots=True)
class Asking:
    """A server on the loop, a channel to it, and the tools about which threads of its lanes were asked."""

    server: RunningServer
    path: Path
    store: SQLiteSessionStore
    channel: grpc.Channel
    asked: list[str] = field(default_factory=list)

    def session(self, **terms: int) -> str:
        """Open an approved session; return its handle."""
        pep, approver = self.server.client("pep"), self.server.client("approver")
        opened = pep.request_session(user="alice", agent="coder", purpose="p", tools=["mail/*"], terms=terms or None)
        approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        return opened.session_handle

    @property
    def credentials(self) -> tuple[tuple[str, str]]:
        """Return the metadata of the gateway."""
        return (("authorization", f"Bearer {self.server.token('pep')}"),)

    def ask(self, handle: str, name: str) -> Any:
        """Ask about a call, as a future."""
        wire = a_call(handle, name)
        return self.channel.unary_unary(AUTHORIZE).future(wire, metadata=self.credentials, timeout=PATIENCE)


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    """Yield a server on the loop."""
    with serving(tmp_path / "s.db", monkeypatch) as found:
        yield found


@contextmanager
def serving(
    path: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, bytes] = FILES, transport: str = LOOP
) -> Iterator[Asking]:
    """Serve with a store on the disk, whose memory is trusted for long, and waited for as long.

    A turn of the loop never takes so long that the rest of its calls get threads, however slow the machine.
    """
    monkeypatch.setattr(turns, "_LONGEST_SECONDS", PATIENCE)
    with ExitStack() as opened:
        unhurried = SQLiteSessionStore(path, busy_seconds=PATIENCE, trust_seconds=3600.0)
        store = opened.enter_context(closing(unhurried))
        server = opened.enter_context(running_server(files, transport=transport, store=store))
        channel = opened.enter_context(grpc.insecure_channel(server.address))
        found = Asking(server, path, store, channel)
        authorize = server.embedded.authorizer.authorize

        def noted(request: CallRequest, caller: Caller, **more: Any) -> Decision:
            found.asked.append(request.call.tool)
            return authorize(request, caller, **more)

        monkeypatch.setattr(server.embedded.authorizer, "authorize", noted)
        yield found


def a_call(handle: str, name: str) -> bytes:
    """Return the message that asks about a call."""
    call = Call(session_handle=handle, server="mail", tool=name, arguments_json=b"{}")
    return AuthorizeRequest(call=call).SerializeToString()


def decision(call: Any) -> Any:
    """Return the decision that a call is answered with."""
    return AuthorizeResponse.FromString(call.result()).decision


def test_a_locked_store_holds_up_no_remembered_decision(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of the lane wait for it, and no call that is remembered needs one of them."""
    settle, settling = asking.store.settle, list[None]()

    def noted(*given: Any, **more: Any) -> Any:
        settling.append(None)
        return settle(*given, **more)

    monkeypatch.setattr(asking.store, "settle", noted)
    waiting, remembered = [asking.session() for _ in range(CALL_THREADS)], asking.session()
    expected = decision(asking.ask(remembered, "read"))
    asking.asked.clear()
    with closing(apsw.Connection(str(asking.path))) as other:
        other.set_busy_timeout(30_000)  # the server writes now and then too
        other.execute("BEGIN IMMEDIATE")
        held = [asking.ask(handle, "mark") for handle in waiting]
        # From here on they have read what they need, and only wait.
        wait_until(lambda: len(settling) == len(held))
        answers = [decision(asking.ask(remembered, "read")) for _ in range(50)]
        done = [call.done() for call in held]
        other.execute("ROLLBACK")

    assert {len(expected.outcome_token)} == {len(one.outcome_token) for one in answers}
    assert {(OUTCOME_ALLOW, CACHE_RESULT_HIT)} == {(one.outcome, one.cache_result) for one in answers}
    assert [False] * CALL_THREADS == done
    assert {OUTCOME_ALLOW} == {decision(call).outcome for call in held}
    assert ["mark"] * CALL_THREADS == asking.asked


def test_many_policies_hold_up_no_remembered_decision(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the parts of a slice, the thread that asks about it keeps nothing that an answer of the loop needs."""
    paused, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        paused.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(inparts, "AT_A_TIME", 1)
    monkeypatch.setattr(inparts, "give_way", pause)
    handle = asking.session()
    decision(asking.ask(handle, "read"))
    asking.asked.clear()
    slow = asking.ask(handle, "pay")
    assert paused.wait(PATIENCE)
    answers = [decision(asking.ask(handle, "read")) for _ in range(20)]
    done = slow.done()
    go_on.set()

    assert {(OUTCOME_ALLOW, CACHE_RESULT_HIT)} == {(one.outcome, one.cache_result) for one in answers}
    assert (False, OUTCOME_ALLOW, ["pay"]) == (done, decision(slow).outcome, asking.asked)


def test_a_record_that_holds_up_the_loop_is_noticed(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no call is taken, and a worker no longer says that it lives."""
    go_on = threading.Event()
    record = asking.server.embedded.authorizer.record

    def held(*decided: Any) -> Any:
        assert go_on.wait(PATIENCE)
        return record(*decided)

    handle = asking.session()
    decision(asking.ask(handle, "read"))
    server: Any = asking.server._server
    before = server.takes_calls()
    monkeypatch.setattr(asking.server.embedded.authorizer, "record", held)
    call = asking.ask(handle, "read")
    try:
        wait_until(lambda: not server.takes_calls())
    finally:
        go_on.set()

    assert before
    assert decision(call).outcome == OUTCOME_ALLOW
    wait_until(server.takes_calls)


def test_every_answer_of_the_loop_is_recorded(asking: Asking) -> None:
    """Calls that come together leave as many records and spans as answers, each with its own id."""
    handle = asking.session()
    decision(asking.ask(handle, "read"))
    answers = [decision(call) for call in [asking.ask(handle, "read") for _ in range(50)]]
    evidence = asking.server.evidence
    asked = {one.decision_id for one in answers}

    assert len(asked) == 50
    assert ["read"] == asking.asked
    assert asked < {record["id"] for record in evidence.decision_records}
    assert len(evidence.decision_records) == len(evidence.decision_spans) == 51


def test_budgets_are_the_same_on_both_listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that takes of a budget has a thread. Others are answered by the loop, and take nothing there either."""
    told = {}
    for transport in (GRPC, LOOP):
        with serving(tmp_path / f"{transport}.db", monkeypatch, BUDGETED, transport) as asking:
            sessions = asking.session(), asking.session(max_calls_of_mutating=1), asking.session(max_calls=3)
            # The first call reads the session, and the first of a tool parses its policies.
            for handle, name in [(sessions[0], "mark"), *[(one, "read") for one in sessions]]:
                decision(asking.ask(handle, name))
            asking.asked.clear()
            calls = [(handle, name) for handle in sessions for name in ("read", "mark", "mark", "read")]
            answers = [decision(asking.ask(handle, name)) for handle, name in calls]
            history, store = asking.server.embedded.history, asking.server.embedded.sessions
            rows = [history.used(store.view(handle_digest(one)).chain[0].id) for one in sessions]
            told[transport] = ([(one.outcome, one.basis, one.cache_result) for one in answers], rows)

    assert told[GRPC] == told[LOOP]
    assert [{}, {"max_calls_of_mutating": Used(1, 0)}, {"max_calls": Used(3, 0)}] == told[LOOP][1]
    assert [OUTCOME_DENY] * 3 == [one[0] for one in told[LOOP][0] if one[0] != OUTCOME_ALLOW]
    assert ["mark", "mark", "read", "mark", "mark", "read"] == asking.asked


def test_an_answer_that_cannot_be_written_has_no_other_recorded_twice(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads answer anew what came with it: nothing has come of that before."""
    handle = asking.session()
    decision(asking.ask(handle, "read"))
    failing = iter([True])

    write_well = DecisionMessages.write

    def write(messages: DecisionMessages, made: Decision, message: Any) -> None:
        if next(failing, False):
            raise RuntimeError("an error that nobody foresaw")
        write_well(messages, made, message)

    monkeypatch.setattr(DecisionMessages, "write", write)
    answers = [decision(call) for call in [asking.ask(handle, "read") for _ in range(16)]]
    recorded = Counter(record["id"] for record in asking.server.evidence.decision_records[1:])

    assert Counter(one.decision_id for one in answers) == recorded
    assert {OUTCOME_ALLOW} == {one.outcome for one in answers}


def test_a_call_that_goes_on_for_another_is_answered_before_the_loop_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is late lets one go on that waits to be asked; its snapshot would grow old while nothing comes."""
    monkeypatch.setattr(loop, "_TICK_SECONDS", 3600.0)
    with serving(tmp_path / "s.db", monkeypatch) as asking:
        handle, server = asking.session(), asking.server
        decision(asking.ask(handle, "read"))
        own = [(name, value.encode()) for name, value in asking.credentials]
        last = 2 * ASKED + 1
        silent = b"".join(headers(number, more=own) for number in range(3, last + 1, 2))
        with connected(int(server.address.rpartition(":")[2])) as peer:
            peer.sendall(frames.PREFACE + frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}))
            peer.sendall(headers(1, {"grpc-timeout": "1S"}, more=own) + silent)
            wait_until(lambda: len(server._server._boundary._begun) == ASKED + 1)
            peer.sendall(data(last, message(a_call(handle, "read"))))
            answer = _first_message(peer, last)

    assert AuthorizeResponse.FromString(answer).decision.outcome == OUTCOME_ALLOW


def _first_message(peer: socket.socket, stream: int) -> bytes:
    """Return the first message that comes on a stream."""
    reader = FrameReader()
    while received := peer.recv(65536):
        for one in reader.read(received):
            if one.stream == stream and one.kind == frames.DATA:
                return one.payload[PREFIX_BYTES:]
    raise AssertionError("the server has hung up")
