"""What every RPC goes through: sizes, decoding, deadlines, overload, and what is told about refusals."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message

from pdp.app.embedded import Embedded
from pdp.audit import Search
from pdp.audit.searchable import SearchableRecord
from pdp.decision.authorizer import Authorizer
from pdp.errors import UnauthenticatedError
from pdp.limits import Limits
from pdp.model import Caller, Head, Role, TraceParent
from pdp.server.authorization import AuthorizationHandlers
from pdp.server.rpcs import RPCS
from pdp.server.service import _route
from pdp.serving.atonce import AtOnce
from pdp.serving.boundary import Boundary, _Call
from pdp.serving.origin import trace_parent
from pdp.serving.parts import Parts
from pdp.serving.route import Route
from pdp.serving.transports import LOOP
from pdp.sessions.fences import Fences
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import (
    AuthorizeRequest,
    AuthorizeResponse,
    BatchAuthorizeRequest,
    BatchAuthorizeResponse,
)
from pdp.v1.decision_pb2 import BASIS_SESSION_NOT_FOUND, OUTCOME_DENY, Call
from pdp.v1.session_pb2 import RevokeSessionsRequest
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call, retry_info

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
BATCH = "/pdp.v1.AuthorizationService/BatchAuthorize"
Code = grpc.StatusCode


def wire_of(*messages: Any) -> bytes:
    """Return messages one after the other, which is how protobuf writes a field twice."""
    return b"".join(message.SerializeToString() for message in messages)


def test_an_answer_repeats_the_question(running: Running) -> None:
    """A call of an unknown session is a deny with the call in it, and no error."""
    answer = AuthorizeResponse.FromString(running.unary(AUTHORIZE, a_call().SerializeToString())).decision

    assert (answer.outcome, answer.basis) == (OUTCOME_DENY, BASIS_SESSION_NOT_FOUND)
    assert (answer.server, answer.tool) == ("git", "git_log")
    assert len(running.notes.decisions) == 1


@pytest.mark.parametrize(
    ("path", "wire", "field"),
    [
        pytest.param(AUTHORIZE, b"\xff", "request", id="no message"),
        pytest.param(AUTHORIZE, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "request", id="cut"),
        pytest.param(AUTHORIZE, b"\x12\x02\xff\xfe", "request", id="text that is not UTF-8"),
        pytest.param(AUTHORIZE, wire_of(a_call(), a_call()), "call", id="call twice"),
        pytest.param(
            AUTHORIZE, wire_of(a_call(), AuthorizeRequest(call=Call(tool="other"))), "call", id="call in two parts"
        ),
        pytest.param(AUTHORIZE, wire_of(a_call(), AuthorizeRequest(call=Call())), "call", id="empty second call"),
        pytest.param(
            AUTHORIZE, b"\x1a\x00" + wire_of(a_call(), a_call()), "call", id="call twice after a needless field"
        ),
        pytest.param(
            AUTHORIZE,
            wire_of(a_call(), AuthorizeRequest(request_id="a"), AuthorizeRequest(request_id="b")),
            "request_id",
            id="request id twice",
        ),
        pytest.param(
            AUTHORIZE,
            b"\x0a\x0a" + wire_of(Call(tool="abc"), Call(tool="def")),
            "call.tool",
            id="a field of the call twice",
        ),
        pytest.param(
            BATCH,
            wire_of(BatchAuthorizeRequest(requests=[a_call()]))
            + b"\x0a"
            + bytes([len(wire_of(a_call(), a_call()))])
            + wire_of(a_call(), a_call()),
            "requests[1].call",
            id="call twice in a batch",
        ),
    ],
)
def test_undecodable_and_ambiguous_bytes(running: Running, path: str, wire: bytes, field: str) -> None:
    """Bytes that are no message, or that two readers could read differently, are refused with the field's name."""
    refused = running.refused(path, wire)

    assert refused.code() is Code.INVALID_ARGUMENT
    assert refused.details().startswith(f"`{field}`: ")
    assert running.notes.refusal().facts["field"] == field
    assert running.notes.decisions == []


def test_two_selectors_are_refused(running: Running) -> None:
    """Of two fields of which one may be set, none is believed."""
    wire = wire_of(RevokeSessionsRequest(user="alice", reason="x"), RevokeSessionsRequest(agent="coder"))

    refused = running.refused("/pdp.v1.SessionService/RevokeSessions", wire, "admin")

    assert refused.details() == "`selector`: appears twice"


def test_odd_but_unambiguous_bytes_are_read(running: Running) -> None:
    """Fields of a newer API, and a default that is written out, change nothing."""
    wire = wire_of(a_call()) + b"\x1a\x00" + b"\xfa\x07\x03new"

    assert AuthorizeResponse.FromString(running.unary(AUTHORIZE, wire)).decision.outcome == OUTCOME_DENY


def test_a_large_message_is_refused(serve: Serve) -> None:
    """A message beyond the limit is not even received: gRPC says so itself; a retry is of no use."""
    running = serve(limits=Limits(message_bytes=1000))

    refused = running.refused(AUTHORIZE, b"\xff" * 1001)

    assert refused.code() is Code.RESOURCE_EXHAUSTED
    assert refused.details() == "SERVER: Received message larger than max (1001 vs. 1000)"
    assert retry_info(refused) is None


class Waiting:
    """An authorizer that waits for a signal in every call, and then goes on as the real one."""

    def __init__(self, real: Authorizer) -> None:
        self._real = real
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def authorize(self, *what: Any, **more: Any) -> Any:
        """Say that the call is here, wait, decide."""
        self.entered.release()
        assert self.go_on.wait(PATIENCE)
        return self._real.authorize(*what, **more)


@contextmanager
def occupied(serve: Serve, embedded: Embedded, calls: int, limits: Limits) -> Iterator[tuple[Running, list[Any]]]:
    """Yield a server whose handler threads are busy with calls, and those calls."""
    waiting = Waiting(embedded.authorizer)
    running = serve(authorizer=cast("Authorizer", waiting), limits=limits)
    try:
        stub = running.channel.unary_unary(AUTHORIZE)
        metadata = running.credentials("pep")
        open_calls = [
            stub.future(a_call().SerializeToString(), metadata=metadata, timeout=PATIENCE) for _ in range(calls)
        ]
        for _ in range(min(calls, 4)):
            assert waiting.entered.acquire(timeout=PATIENCE)
        yield running, open_calls
        waiting.go_on.set()
        assert {call.code() for call in open_calls} == {Code.OK}
    finally:
        waiting.go_on.set()


def test_overload_is_refused_with_advice(serve: Serve, embedded: Embedded) -> None:
    """The call beyond a caller's share is told at once when to try again; other callers and lanes go on."""
    with occupied(serve, embedded, calls=4, limits=Limits(concurrent_calls=8)) as (running, _):
        refused = running.refused(AUTHORIZE, a_call().SerializeToString())

        assert refused.code() is Code.RESOURCE_EXHAUSTED
        expected = "`pep` has 4 calls open, its full share of 8 (limit `concurrent_calls`); try again"
        assert expected == refused.details()
        assert retry_info(refused) is not None
        assert running.notes.refusal().facts["status"] == "RESOURCE_EXHAUSTED"
        assert running.unary("/grpc.health.v1.Health/Check", b"", None) != b""
        assert running.unary("/pdp.v1.PolicyService/GetBundle", b"", "author") != b""

    # A call is answered before its place is free.
    wait_until(lambda: running.server._pools[0]._open == {})
    assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""


def test_metadata_beyond_the_limit_is_refused(serve: Serve) -> None:
    """What a caller sends beside its message has a bound, which is a setting; within it nothing is lost."""
    running = serve(limits=Limits(metadata_bytes=4096))
    wire, metadata = a_call().SerializeToString(), (("x-more", "x" * 4096),)

    refused = running.refused(AUTHORIZE, wire, metadata=metadata)

    assert refused.code() is Code.RESOURCE_EXHAUSTED
    assert running.unary(AUTHORIZE, wire, metadata=(("x-more", "x" * 2048),)) != b""


class Stalled(SearchableRecord):
    """An auditor whose questions wait until they are let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def search(self) -> Search:
        """Say that the question is here, wait, answer."""
        self.entered.release()
        assert self.go_on.wait(PATIENCE)
        return super().search()


def test_questions_about_the_record_keep_no_call_waiting(serve: Serve, tmp_path: Path) -> None:
    """However many questions are open, calls are decided at once, and one question too many is refused."""
    stalled = Stalled(tmp_path)
    running = serve(searchable=stalled)
    ask = running.channel.unary_unary("/pdp.v1.AuditService/ListRecords")
    try:
        questions = [ask.future(b"", metadata=running.credentials("auditor"), timeout=PATIENCE) for _ in range(8)]
        assert stalled.entered.acquire(timeout=PATIENCE)
        # The auditor has one thread, however many questions wait; the admin's gets the other one.
        questions.append(ask.future(b"", metadata=running.credentials("admin"), timeout=PATIENCE))
        assert stalled.entered.acquire(timeout=PATIENCE)
        wait_until(lambda: running.open_calls == len(questions))

        assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""
        refused = running.refused("/pdp.v1.AuditService/ListRecords", b"", "auditor")
        assert refused.code() is Code.RESOURCE_EXHAUSTED
    finally:
        stalled.go_on.set()
    assert {question.code() for question in questions} == {Code.OK}
    stalled.close()


def test_calls_within_the_bound_wait(serve: Serve, embedded: Embedded) -> None:
    """More calls than threads are answered in turn."""
    with occupied(serve, embedded, calls=12, limits=Limits(concurrent_calls=24)) as (_, open_calls):
        assert len(open_calls) == 12


def test_silent_strangers_occupy_no_thread(serve: Serve) -> None:
    """Unary calls that never send their message are refused without credentials, however many they are."""
    running = serve(limits=Limits(concurrent_calls=4))
    silence = threading.Event()

    def nothing() -> Iterator[bytes]:
        silence.wait(PATIENCE)
        yield from ()

    open_calls = [running.channel.stream_unary(AUTHORIZE).future(nothing(), timeout=PATIENCE) for _ in range(20)]
    codes = {call.code() for call in open_calls}
    silence.set()

    assert codes == {Code.UNAUTHENTICATED}
    assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""


class Hanging:
    """An authenticator that does not come back before it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def needs_peer(self, _: object) -> bool:
        """Return False: a token says everything."""
        return False

    def authenticate(self, *_: object) -> Caller:
        """Wait, and know nobody."""
        assert self.go_on.wait(4 * PATIENCE)
        raise UnauthenticatedError("nobody is known", what="a token", reason="it is not known")


def test_a_server_that_takes_no_calls_says_so(serve: Serve) -> None:
    """What holds up gRPC's own thread holds up every call: then a worker no longer says that it lives."""
    hanging = Hanging()
    running = serve(authenticator=hanging)
    before = running.server.takes_calls()
    call = running.channel.unary_unary(AUTHORIZE).future(b"", timeout=PATIENCE)
    try:
        wait_until(lambda: not running.server.takes_calls())
    finally:
        hanging.go_on.set()

    assert before
    assert call.code() is Code.UNAUTHENTICATED
    wait_until(running.server.takes_calls)


def test_many_calls_wait_for_their_turn(serve: Serve, transport: str) -> None:
    """While gRPC's own thread is busy, 3,000 calls wait and none of them is dropped; only those beyond are."""
    if transport == LOOP:
        pytest.skip("the loop has no queue of its own: calls wait on their connections")
    most, beyond = 3000, 10
    hanging = Hanging()
    running = serve(authenticator=hanging, limits=Limits(connection_calls=most))
    grpc.channel_ready_future(running.channel).result(PATIENCE)
    ask = running.channel.unary_unary(AUTHORIZE)
    # All of them are answered by one thread.
    calls = [ask.future(b"", timeout=4 * PATIENCE) for _ in range(most + beyond)]
    try:
        wait_until(calls[-1].done, seconds=4 * PATIENCE)
    finally:
        hanging.go_on.set()
    codes = Counter(call.code() for call in calls)

    assert set(codes) == {Code.UNAUTHENTICATED, Code.CANCELLED}
    assert codes[Code.UNAUTHENTICATED] >= most


class Context:
    """A call whose deadline has passed."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def is_active(self) -> bool:
        """Say that the call was ended."""
        return False

    def time_remaining(self) -> float:
        """Return what is left."""
        return 0.0

    def peer(self) -> str:
        """Return whence it comes."""
        return "ipv4:127.0.0.1:1"

    def set_trailing_metadata(self, _: object) -> None:
        """Take note of nothing."""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Keep how the call ended, and unwind as gRPC does."""
        self.ended = [code, details]
        raise ConnectionAbortedError


def test_nothing_is_done_after_the_deadline(serve: Serve) -> None:
    """A call that waited beyond its deadline is not decided any more: nobody would hear the answer."""
    running = serve()
    boundary: Boundary = running.server._boundary
    route, caller = route_of(AUTHORIZE, authorize=None), Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
    incoming = SimpleNamespace(metadata=running.credentials("pep"))
    call = SimpleNamespace(route=route, caller=caller, incoming=incoming, latest=math.inf)
    context = Context()

    with pytest.raises(ConnectionAbortedError):
        boundary.unary(cast("Any", call), a_call().SerializeToString(), cast("Any", context))

    assert context.ended == [Code.DEADLINE_EXCEEDED, "the deadline has passed"]
    assert running.notes.decisions == []
    assert running.notes.refusal().facts["status"] == "DEADLINE_EXCEEDED"


class Fading(Context):
    """A batch whose caller is gone, or whose deadline passes, after two of its calls."""

    def __init__(self, asked: Sequence[object], *, cancelled: bool) -> None:
        super().__init__()
        self._asked, self._cancelled = asked, cancelled

    def is_active(self) -> bool:
        """Say whether the caller still waits."""
        return not self._cancelled or len(self._asked) < 2

    def time_remaining(self) -> float:
        """Return what is left."""
        return float(self._cancelled or len(self._asked) < 2)


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "begun together, and in vain"])
@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "too late"])
def test_a_batch_that_nobody_waits_for_is_decided_no_further(
    serve: Serve, embedded: Embedded, *, cancelled: bool, at_once: bool
) -> None:
    """The calls that are left when the caller has gone, or the deadline has passed, change nothing any more."""
    listening = Listening(embedded.authorizer)
    handlers = AuthorizationHandlers(cast("Authorizer", listening), embedded.outcomes, embedded.call_tokens, Limits())
    boundary: Boundary = serve().server._boundary
    caller = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
    route = _route(RPCS[BATCH], handlers, Limits(), Fences(), embedded.following.head)
    if at_once:
        in_vain = AtOnce(begin=iter, go_on=list, finish=lambda _: None)
        route = replace(route, parts=replace(cast("Parts", route.parts), at_once=in_vain))
    incoming = SimpleNamespace(metadata=())
    call = SimpleNamespace(route=route, caller=caller, incoming=incoming, latest=math.inf)
    wire = BatchAuthorizeRequest(requests=[a_call()] * 4, independent=True).SerializeToString()

    answer = BatchAuthorizeResponse.FromString(
        boundary.unary(cast("Any", call), wire, cast("Any", Fading(listening.parents, cancelled=cancelled)))
    )

    late = Code.DEADLINE_EXCEEDED.value[0]
    assert len(listening.parents) == 2
    assert [one.error.code for one in answer.answers] == ([0, 0] if cancelled else [0, 0, late, late])


@pytest.mark.parametrize(
    ("path", "done"), [(AUTHORIZE, ["answer"]), (BATCH, ["answer", "after"])], ids=["one call", "batch"]
)
def test_what_was_put_off_is_done_when_the_answers_of_a_batch_have_left(
    serve: Serve, path: str, done: list[str]
) -> None:
    """The thread that has answered a batch has much to encode; after one call, it goes on to the next."""
    boundary: Boundary = serve().server._boundary
    found: list[str] = []
    boundary.answers_left = lambda: found.append("after")
    incoming = SimpleNamespace(serve=lambda *_: found.append("answer"))
    lane = SimpleNamespace(put=lambda _, *works: [work() for work in works if work is not None])
    caller = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))

    boundary._queue(
        _Call(boundary, cast("Any", None), boundary.routes[path], cast("Any", lane), caller, cast("Any", incoming))
    )

    assert done == found


def test_a_caller_whose_batch_was_answered_can_ask_again(serve: Serve) -> None:
    """What the thread that has answered it encodes then is no open call of its caller, whose share can be one."""
    running = serve(limits=Limits(concurrent_calls=2))
    encoding, go_on = threading.Event(), threading.Event()

    def encode() -> None:
        # After a turn of the loop, too: only the thread that has answered the batch stays.
        if threading.current_thread().name != "pdp-loop":
            encoding.set()
            assert go_on.wait(PATIENCE)

    running.server._boundary.answers_left = encode
    wire = BatchAuthorizeRequest(requests=[a_call()], independent=True).SerializeToString()
    running.unary(BATCH, wire)
    assert encoding.wait(PATIENCE)

    try:
        assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""
    finally:
        go_on.set()


def queued(running: Running) -> int:
    """Return how many calls have come, and wait for a thread."""
    return running.server._pools[0]._tasks.qsize()


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread take the place of one whose call takes long: the calls after it wait."""
    monkeypatch.setattr("pdp.server.service._PATIENCE_SECONDS", math.inf)


@pytest.mark.usefixtures("no_more_threads")
def test_a_call_that_waits_too_long_is_not_decided(serve: Serve, embedded: Embedded) -> None:
    """A caller whose deadline passed while its call waited for a thread leaves no decision behind."""
    seconds, waiting = 0.25, 0
    with occupied(serve, embedded, calls=4, limits=Limits()) as (running, _):
        ask, metadata = running.channel.unary_unary(AUTHORIZE), running.credentials("pep")
        # On a busy machine the deadline can pass before the call arrives.
        while not waiting:
            seconds *= 2
            late = ask.future(a_call().SerializeToString(), metadata=metadata, timeout=seconds)
            assert late.code() is Code.DEADLINE_EXCEEDED
            waiting = queued(running)
        # The server's deadline is later than the caller's: it begins when the call arrives, and gRPC rounds it up.
        over_at = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > over_at)

    running.server.stop(PATIENCE)
    assert len(running.notes.decisions) == 4


@pytest.mark.usefixtures("no_more_threads")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (AUTHORIZE, a_call()),
        (BATCH, BatchAuthorizeRequest(requests=[a_call()] * 2)),
        (BATCH, BatchAuthorizeRequest(requests=[a_call()] * 2, independent=True)),
    ],
    ids=["one call", "batch", "batch of independent calls"],
)
def test_a_call_that_was_cancelled_before_its_turn_is_not_decided(
    serve: Serve, embedded: Embedded, path: str, message: Message
) -> None:
    """A caller that has left while its call waited for a thread leaves no decision behind, and no refusal."""
    wire = message.SerializeToString()
    with occupied(serve, embedded, calls=4, limits=Limits()) as (running, _):
        ask = running.channel.unary_unary(path)
        left = ask.future(wire, metadata=running.credentials("pep"), timeout=PATIENCE)
        wait_until(lambda: queued(running) == 1)

        left.cancel()
        wait_until(lambda: running.open_calls == 4)

    running.server.stop(PATIENCE)
    assert len(running.notes.decisions) == 4
    assert not [event for event in running.notes.events if event.kind == "request.refused"]
    assert running.server._pools[0]._open == {}


def test_what_ends_authority_is_done_for_a_caller_that_has_left() -> None:
    """A revocation, and a report of what a call has shown, count once they have come."""
    done = {rpc.method for rpc in RPCS.values() if rpc.done_anyway}

    assert {"RevokeSessions", "EndSession", "SetFreeze", "DenyCall", "ReportOutcome", "ActivateBundle"} <= done
    assert done.isdisjoint({"Authorize", "BatchAuthorize", "ApproveSession", "ApproveCall", "RequestSession"})


@pytest.mark.usefixtures("no_more_threads")
def test_the_server_has_a_deadline_of_its_own(serve: Serve, embedded: Embedded) -> None:
    """A call whose turn comes too late is refused with advice and without a decision, although its caller has time."""
    with occupied(serve, embedded, calls=4, limits=Limits(concurrent_calls=10)) as (running, _):
        stub = running.channel.unary_unary(AUTHORIZE)
        late = stub.future(a_call().SerializeToString(), metadata=running.credentials("pep"), timeout=PATIENCE)
        wait_until(lambda: queued(running) == 1)

        running.clock.advance(2.5)

    assert late.code() is Code.RESOURCE_EXHAUSTED
    assert late.details() == "the call waited longer than 2 s (limit `wait_seconds`); try again"
    assert retry_info(late) is not None
    running.server.stop(PATIENCE)
    assert len(running.notes.decisions) == 4


def test_only_calls_have_it() -> None:
    """What takes long by its nature, such as compiling a bundle, is not refused for a wait."""
    assert route_of(AUTHORIZE, authorize=None).longest_wait == 2.0
    assert route_of("/pdp.v1.PolicyService/CheckBundle", check_bundle=None).longest_wait == math.inf


def route_of(path: str, **service: Any) -> Route:
    """Return how an RPC is served by a service with these functions."""
    return _route(RPCS[path], SimpleNamespace(**service), Limits(), Fences(), lambda: Head(revision=1, tag=""))


class Listening:
    """An authorizer that keeps the trace of each call."""

    def __init__(self, real: Authorizer) -> None:
        self._real = real
        self.parents: list[TraceParent] = []

    def try_now(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Decide nothing at once."""
        return iter(())

    def authorize(self, *what: Any, parent: TraceParent, **more: Any) -> Any:
        """Keep the trace and decide."""
        self.parents.append(parent)
        return self._real.authorize(*what, parent=parent, **more)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((), TraceParent()),
        ((("traceparent", "00-a"),), TraceParent(traceparent="00-a")),
        ((("traceparent", "00-a"), ("tracestate", "x=1")), TraceParent(traceparent="00-a", tracestate="x=1")),
        ((("traceparent", "00-a"), ("traceparent", "00-b"), ("tracestate", "x=1")), TraceParent()),
        ((("traceparent", "00-a"), ("tracestate", "x"), ("tracestate", "y")), TraceParent(traceparent="00-a")),
        ((("tracestate", "x=1"),), TraceParent()),
    ],
)
def test_trace_headers(metadata: tuple[tuple[str, str], ...], expected: TraceParent) -> None:
    """A header that stands twice is ignored: which of the two is meant, nobody knows."""
    assert trace_parent(metadata) == expected


def test_the_trace_is_passed_on(serve: Serve, embedded: Embedded) -> None:
    """What the caller says about its trace reaches the decision."""
    listening = Listening(embedded.authorizer)
    running = serve(authorizer=cast("Authorizer", listening))

    running.unary(AUTHORIZE, a_call().SerializeToString(), metadata=(("traceparent", "00-a"), ("tracestate", "x=1")))

    assert listening.parents == [TraceParent(traceparent="00-a", tracestate="x=1")]


def test_refusals_name_caller_and_field(running: Running) -> None:
    """What is told about a refusal says who, what and where, and nothing that the caller sent."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    wire = a_call(definition_digest="sha256:canary").SerializeToString()

    running.refused(AUTHORIZE, wire, metadata=(("traceparent", parent),))

    event = running.notes.refusal()
    assert (event.caller_id, event.tenant, event.at) == ("pep", "default", running.clock.now().wall_at)
    assert event.facts == {
        "rpc": "pdp.v1.AuthorizationService/Authorize",
        "status": "INVALID_ARGUMENT",
        "peer": "127.0.0.1",
        "field": "call.definition_digest",
        "traceparent": parent,
    }


def test_a_denied_caller_is_named(running: Running) -> None:
    """Who tried what it may not do is told by name."""
    running.refused(AUTHORIZE, a_call().SerializeToString(), "approver")

    event = running.notes.refusal()
    assert (event.caller_id, event.facts["status"]) == ("approver", "PERMISSION_DENIED")


def test_large_metadata_is_refused(running: Running) -> None:
    """Metadata beyond 8 KiB does not reach a handler."""
    refused = running.refused(AUTHORIZE, a_call().SerializeToString(), metadata=(("x", "y" * 9000),))

    assert refused.code() is Code.RESOURCE_EXHAUSTED
    assert running.notes.decisions == []
