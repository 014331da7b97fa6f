"""Independent calls of a batch: each is answered as if it had come alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import grpc
import pytest

from pdp.decision.authorizer import Decided
from pdp.errors import StoreUnavailableError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Decision
from pdp.sessions.memory import MemorySessionStore
from pdp.telemetry.names import SPAN_DECISION
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.authorization_pb2 import (
    AuthorizeRequest,
    AuthorizeResponse,
    AuthorizeStreamRequest,
    AuthorizeStreamResponse,
    BatchAnswer,
    BatchAuthorizeRequest,
    BatchAuthorizeResponse,
)
from pdp.v1.calltoken_pb2 import CallTokenRequest
from pdp.v1.decision_pb2 import BASIS_LEDGER_UNAVAILABLE, BASIS_PERMIT, BASIS_SESSION_NOT_FOUND, Basis, Call
from tests.machinery.servers.rawmessages import PATIENCE, TroubledStore

FILES = bundle_files(
    policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
    tools={"mail": [tool("read"), tool("send")]},
    overlays={"mail": "tools: {send: {adds_labels: [sent]}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    labels=["sent"],
    schema=with_terms("max_calls?: Long"),
)
# Calls of its tool wait for nothing.
PLAIN = bundle_files(
    policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
    tools={"mail": [tool("read")]},
    overlays={"mail": "risk: read_only\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
)
# A person must allow each call of one of its tools.
ASKING = bundle_files(
    policies={
        "mail": '@id("mail/all") permit (principal, action, resource);'
        '@id("mail/ask") @step_up("may it?") forbid (principal, action == Action::"mail/send", resource);'
    },
    tools={"mail": [tool("read"), tool("send")]},
    overlays={"mail": "risk: read_only\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
)
SERVICE = "/pdp.v1.AuthorizationService"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def store() -> TroubledStore:
    """Return the server's store, which can be given trouble."""
    return TroubledStore(MemorySessionStore())


@pytest.fixture(scope="module")
def server(store: TroubledStore) -> Iterator[RunningServer]:
    """Return a running server."""
    with running_server(FILES, store=cast("Any", store)) as running:
        yield running


@pytest.fixture(scope="module")
def plain() -> Iterator[RunningServer]:
    """Return a running server where no call waits: it has asked the policies before."""
    with running_server(PLAIN) as running:
        assert running.client("pep").authorize(_session(running), "mail", "read", {}).allowed
        yield running


@pytest.fixture(scope="module")
def asking() -> Iterator[RunningServer]:
    """Return a running server where a person must allow some calls: it has asked the policies before."""
    with running_server(ASKING) as running:
        for name in ("read", "send"):
            running.client("pep").authorize(_session(running), "mail", name, {})
        yield running


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """Return a channel to the server."""
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def handle(server: RunningServer, store: TroubledStore) -> Iterator[str]:
    """Return the handle of a new session; afterwards the store has no trouble."""
    yield _session(server)
    store.before = lambda _: None


def _session(server: RunningServer, **terms: Any) -> str:
    opened = server.client("pep").request_session(
        user="alice", agent="coder", purpose="to ask", tools=["mail/*"], terms=terms or None
    )
    shown = opened.session
    server.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return str(opened.session_handle)


def _call(handle: str, name: str = "read", server: str = "mail", **more: Any) -> AuthorizeRequest:
    return AuthorizeRequest(call=Call(session_handle=handle, server=server, tool=name), **more)


Headers = tuple[tuple[str, str], ...]


@pytest.fixture
def ask(server: RunningServer, channel: grpc.Channel) -> Callable[..., list[BatchAnswer]]:
    """Return what asks about independent calls."""
    return partial(_ask, server, channel)


Ask = Callable[..., list[BatchAnswer]]


def _ask(
    server: RunningServer, channel: grpc.Channel, *requests: AuthorizeRequest, headers: Headers = ()
) -> list[BatchAnswer]:
    message = BatchAuthorizeRequest(requests=requests, independent=True)
    reply = BatchAuthorizeResponse.FromString(_send(server, channel, "BatchAuthorize", message, headers))
    assert not reply.decisions
    return list(reply.answers)


def _send(server: RunningServer, channel: grpc.Channel, method: str, message: Any, headers: Headers = ()) -> bytes:
    metadata = (("authorization", f"Bearer {server.token('pep')}"), *headers)
    call = channel.unary_unary(f"{SERVICE}/{method}")
    answer: bytes = call(message.SerializeToString(), metadata=metadata, timeout=PATIENCE)
    return answer


def _said(answer: BatchAnswer) -> str:
    return answer.error.reason or Basis.Name(answer.decision.basis)


def _traceparent(number: int) -> str:
    return f"00-{TRACE}-{number:016x}-01"


def _parents(server: RunningServer, answers: list[Any]) -> list[str]:
    spans = {span.span_id: span for span in server.evidence.spans if span.name == SPAN_DECISION}
    return [spans[answer.decision.span_id].parent_id for answer in answers]


def test_a_refused_call_refuses_no_other(ask: Ask, handle: str) -> None:
    """Each answer stands in its call's place and repeats its request id; an error says what a call alone would hear."""
    unsayable = [CallTokenRequest(audience="a b")]
    answers = ask(
        _call(handle, request_id="a"),
        _call(handle, server="ma/il", request_id="b"),
        _call(handle, name="send", request_id="a"),
        AuthorizeRequest(request_id="c"),
        _call(handle, call_tokens=unsayable, request_id="d"),
        _call("pdps_unknown", request_id="e"),
        _call(handle, request_id="f"),
    )

    assert ["a", "b", "a", "c", "d", "e", "f"] == [answer.request_id for answer in answers]
    assert [
        "BASIS_PERMIT",
        "INVALID_FIELD",
        "REQUEST_ID_CONFLICT",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "BASIS_SESSION_NOT_FOUND",
        "BASIS_PERMIT",
    ] == list(map(_said, answers))
    assert ["`call.server`", "`call`", "`call_tokens[0].audience`"] == [
        answers[index].error.message.partition(":")[0] for index in (1, 3, 4)
    ]
    assert grpc.StatusCode.INVALID_ARGUMENT.value[0] == answers[1].error.code


def test_each_span_is_in_the_trace_of_its_call(ask: Ask, server: RunningServer, handle: str) -> None:
    """What a call says of its trace counts instead of the metadata, which counts for a call that says nothing."""
    answers = ask(
        *[_call(handle, traceparent=_traceparent(number), tracestate=f"a={number}") for number in (1, 2, 3)],
        _call(handle),
        _call(handle, traceparent="unreadable"),
        headers=(("traceparent", _traceparent(9)), ("tracestate", "a=9")),
    )

    assert [f"{number:016x}" for number in (1, 2, 3, 9)] + [""] == _parents(server, answers)
    spans = {span.span_id: span.trace_state for span in server.evidence.spans}
    assert ["a=1", "a=2", "a=3", "a=9", ""] == [spans[answer.decision.span_id] for answer in answers]


@pytest.mark.parametrize("way", ["Authorize", "BatchAuthorize", "AuthorizeStream"])
def test_every_call_can_say_its_trace(server: RunningServer, channel: grpc.Channel, handle: str, way: str) -> None:
    """In every RPC the fields count instead of the metadata."""
    asked, headers = _call(handle, traceparent=_traceparent(5)), (("traceparent", _traceparent(9)),)
    if way == "AuthorizeStream":
        metadata = (("authorization", f"Bearer {server.token('pep')}"), *headers)
        wires = iter([AuthorizeStreamRequest(request=asked).SerializeToString()])
        answered = next(channel.stream_stream(f"{SERVICE}/{way}")(wires, metadata=metadata, timeout=PATIENCE))
        decision = AuthorizeStreamResponse.FromString(answered).decision
    elif way == "Authorize":
        decision = AuthorizeResponse.FromString(_send(server, channel, way, asked, headers)).decision
    else:
        reply = _send(server, channel, way, BatchAuthorizeRequest(requests=[asked]), headers)
        (decision,) = BatchAuthorizeResponse.FromString(reply).decisions

    assert [f"{5:016x}"] == _parents(server, [BatchAnswer(decision=decision)])


def test_each_refusal_is_in_the_trace_of_its_call(
    ask: Ask, server: RunningServer, channel: grpc.Channel, handle: str
) -> None:
    """Each refused call of a batch is told by itself, as a call alone is that says its own trace."""
    before = len(server.evidence.spans)
    headers = (("traceparent", _traceparent(9)),)
    ask(_call(handle), _call("not an id", traceparent=_traceparent(1)), AuthorizeRequest(), headers=headers)
    with pytest.raises(grpc.RpcError):
        _send(server, channel, "Authorize", _call("not an id", traceparent=_traceparent(2)), headers)

    told = [span for span in server.evidence.spans[before:] if span.name != SPAN_DECISION]
    assert [f"{number:016x}" for number in (1, 9, 2)] == [span.parent_id for span in told]


def test_a_failure_of_the_ledger_denies_one_call(ask: Ask, store: TroubledStore, handle: str) -> None:
    """What one call changes cannot be written: it is denied, and the others go on."""
    failures = iter([StoreUnavailableError("the store is away")])

    def once(method: str) -> None:
        if method == "settle":
            raise next(failures, None) or AssertionError("a second write")

    store.before = once
    answers = ask(_call(handle), _call(handle, "send"), _call(handle))

    assert [BASIS_PERMIT, BASIS_LEDGER_UNAVAILABLE, BASIS_PERMIT] == [one.decision.basis for one in answers]


def test_a_store_that_is_away_for_a_moment_fails_one_call(ask: Ask, store: TroubledStore, handle: str) -> None:
    """Each call that changes something reads its session itself; the one that cannot hears when to ask again."""
    views = iter([False, True, False])

    def second(method: str) -> None:
        if method == "view" and next(views):
            raise StoreUnavailableError("the store is away")

    store.before = second
    answers = ask(*[_call(handle, "send")] * 3)

    assert ["BASIS_PERMIT", "STORE_UNAVAILABLE", "BASIS_PERMIT"] == list(map(_said, answers))
    assert answers[1].error.retry_delay.ToMilliseconds() > 0


def test_each_call_sees_the_store_as_it_is_then(
    ask: Ask, server: RunningServer, store: TroubledStore, handle: str
) -> None:
    """A session that ends between two calls of a batch allows the first and not the second."""
    other, views = _session(server), iter([False, True])

    def end_other(method: str) -> None:
        if method == "view" and next(views, False):
            store.before = lambda _: None
            server.client("pep").end_session(other)

    store.before = end_other
    answers = ask(_call(other, "send"), _call(other, "send"), _call(handle))

    assert ["BASIS_PERMIT", "BASIS_SESSION_ENDED", "BASIS_PERMIT"] == list(map(_said, answers))


def test_what_follows_a_call_that_waits_sees_what_was_done_meanwhile(
    ask: Ask, server: RunningServer, store: TroubledStore, handle: str
) -> None:
    """A revocation that was acknowledged holds for what goes on after it, although some calls share a snapshot."""
    assert all(one.decision.basis == BASIS_PERMIT for one in ask(*[_call(handle)] * 3))

    def revoke(method: str) -> None:
        if method == "settle":
            store.before = lambda _: None
            server.client("admin").revoke_sessions(reason="for a test", user="alice")

    store.before = revoke
    answers = ask(_call(handle), _call(handle), _call(handle, "send"), _call(handle), _call(handle))

    assert ["BASIS_PERMIT"] * 2 + ["BASIS_SESSION_REVOKED"] * 3 == list(map(_said, answers))


def test_a_retry_debits_nothing_twice(ask: Ask, server: RunningServer) -> None:
    """The same calls again, in a batch or alone, take nothing more of a budget, and keep their decision ids."""
    handle = _session(server, max_calls=3)
    calls = [_call(handle, request_id=f"once-{number}") for number in range(2)]

    first, again, alone = ask(*calls), ask(*reversed(calls)), ask(calls[0])
    rest = ask(_call(handle), _call(handle))

    ids = [answer.decision.decision_id for answer in first]
    assert (ids[::-1], ids[:1]) == tuple([one.decision.decision_id for one in answers] for answers in (again, alone))
    assert ["BASIS_PERMIT", "BASIS_BUDGET_EXHAUSTED"] == list(map(_said, rest))


@pytest.mark.parametrize(("busy", "together"), [(False, [2, 1]), (True, [])])
def test_what_waits_for_nothing_is_recorded_together(
    plain: RunningServer, monkeypatch: pytest.MonkeyPatch, *, busy: bool, together: list[int]
) -> None:
    """Unless the record is busy: then each is decided anew, by itself. A call that waits does so after those before."""
    handle, record, written = _session(plain), plain.embedded.authorizer.record, list[int]()

    def recorded(decided: Sequence[Decided]) -> Sequence[Decision] | None:
        if busy:
            return None
        written.append(len(decided))
        return record(decided)

    monkeypatch.setattr(plain.embedded.authorizer, "record", recorded)
    calls = [_call(handle, request_id=f"a-{busy}"), _call(handle), _call("pdps_unknown"), _call(handle)]
    with grpc.insecure_channel(plain.address) as channel:
        answers = _ask(plain, channel, *calls)

    assert ["BASIS_PERMIT", "BASIS_PERMIT", "BASIS_SESSION_NOT_FOUND", "BASIS_PERMIT"] == list(map(_said, answers))
    assert together == written
    assert [answer.decision.decision_id for answer in answers] == [
        line["id"] for line in plain.evidence.decision_records[-4:]
    ]


@pytest.mark.parametrize("other", ["pdps_unknown", "not an id"], ids=["waits", "refused"])
def test_calls_of_a_batch_go_on_together(plain: RunningServer, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """Up to sixteen at a time, and those before one that has to wait, or is refused, apart from those after it."""
    handle, authorizer, sizes = _session(plain), plain.embedded.authorizer, list[tuple[str, int]]()

    def noting(name: str, step: Callable[..., Any], calls: Sequence[Any], **more: Any) -> object:
        sizes.append((name, len(calls)))
        return step(calls, **more)

    for name in ("decide_now", "record"):
        monkeypatch.setattr(authorizer, name, partial(noting, name, getattr(authorizer, name)))
    with grpc.insecure_channel(plain.address) as channel:
        answers = _ask(plain, channel, *[_call(handle)] * 18, _call(other), *[_call(handle)] * 2)

    decided, recorded = [16, 2, 1, 1], [18, 2]
    assert decided == [size for name, size in sizes if name == "decide_now"]
    assert recorded == [size for name, size in sizes if name == "record"]
    assert ["BASIS_PERMIT"] * 18 + ["BASIS_PERMIT"] * 2 == list(map(_said, answers[:18] + answers[19:]))


def test_what_comes_after_a_call_that_waits_is_not_decided_before_it(asking: RunningServer) -> None:
    """Not even its request id is taken: the first of two different calls has it."""
    handle = _session(asking)
    with grpc.insecure_channel(asking.address) as channel:
        answers = _ask(asking, channel, *[_call(handle, name, request_id="r-1") for name in ("send", "read", "send")])

    assert ["BASIS_APPROVAL_REQUIRED", "REQUEST_ID_CONFLICT", "BASIS_APPROVAL_REQUIRED"] == list(map(_said, answers))


@pytest.mark.parametrize(
    ("names", "ruled", "looked_up"), [(["send"] * 20, 40, 55), (["send", "read"] * 10, 30, 60)], ids=["all", "half"]
)
def test_calls_that_wait_cost_little_more_together(
    asking: RunningServer, monkeypatch: pytest.MonkeyPatch, names: list[str], ruled: int, looked_up: int
) -> None:
    """The policies are asked twice about each of these, and once about the others."""
    handle, judge, counted = _session(asking), asking.embedded.authorizer._judge, list[str]()

    def counting(name: str, step: Callable[..., Any], *given: Any, **more: Any) -> object:
        counted.append(name)
        return step(*given, **more)

    for name in ("look_up", "rule"):
        monkeypatch.setattr(judge, name, partial(counting, name, getattr(judge, name)))
    with grpc.insecure_channel(asking.address) as channel:
        _ask(asking, channel, *[_call(handle, name) for name in names])

    assert ruled >= counted.count("rule")
    assert looked_up >= counted.count("look_up")


@pytest.mark.parametrize("count", [0, DEFAULT_LIMITS.batch_size + 1])
def test_a_batch_has_a_size(server: RunningServer, channel: grpc.Channel, count: int) -> None:
    """None of the calls is decided when there are too many; a server says how many it takes."""
    before = len(server.evidence.decision_records)
    message = BatchAuthorizeRequest(requests=[_call("pdps_unknown")] * count, independent=True)

    with pytest.raises(grpc.RpcError) as caught:
        _send(server, channel, "BatchAuthorize", message)
    alone = AuthorizeResponse.FromString(_send(server, channel, "Authorize", _call("pdps_unknown")))

    assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
    assert before + 1 == len(server.evidence.decision_records)
    assert (BASIS_SESSION_NOT_FOUND, DEFAULT_LIMITS.batch_size) == (alone.decision.basis, alone.batch_size)
