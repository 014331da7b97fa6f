"""A call that a person must approve waits for the answer, with a bound, and is then asked about again."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pdp.client import Answer, AsyncClient, Client, ToolCallDenied
from pdp.v1 import access_pb2, decision_pb2
from pdp.v1.access_pb2 import (
    ACCESS_STATE_APPROVED,
    ACCESS_STATE_DENIED,
    ACCESS_STATE_EXPIRED,
    ACCESS_STATE_OPEN,
    GetAccessRequestResponse,
    RequestedAccess,
    WatchAccessRequestsResponse,
)
from pdp.v1.decision_pb2 import AccessRequest, Decision

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

PATIENCE = 30.0
CALL = ("pdps_1", "files", "read", {"path": "/a"})


class People:
    """The access requests of a scripted server, and the people who answer them."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.states: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.asked: list[str] = []
        self.watches: list[queue.SimpleQueue[RequestedAccess | None]] = []
        self.ended = threading.Semaphore(0)
        self.watching = threading.Semaphore(0)
        self.reading = threading.Semaphore(0)
        self.broken = False
        server.decide = self.decide
        server.scripts["GetAccessRequest"] = self._get
        server.scripts["WatchAccessRequests"] = self._watch

    def decide(self, request: Any, _: Any) -> Decision:
        """Allow what was approved; each path is a request of its own."""
        allow = self.server.honest(request)
        name = f"acc_{request.call.arguments_json.decode().split('/')[1].rstrip(chr(34) + '}')}"
        self.asked.append(request.request_id)
        if self.states.setdefault(name, ACCESS_STATE_OPEN) == ACCESS_STATE_APPROVED:
            return allow
        allow.outcome = decision_pb2.OUTCOME_DENY
        allow.basis = decision_pb2.BASIS_APPROVAL_REQUIRED
        allow.access_request.CopyFrom(AccessRequest(id=name))
        return allow

    def answer(self, name: str, state: Any, reason: str = "") -> None:
        """Answer, and tell all watches."""
        self.states[name], self.reasons[name] = state, reason
        for watch in self.watches:
            watch.put(self._request(name))

    def _request(self, name: str) -> RequestedAccess:
        return RequestedAccess(access_request_id=name, state=self.states[name], reason=self.reasons.get(name, ""))

    def _get(self, request: Any, context: Any) -> GetAccessRequestResponse:
        self.reading.release()
        if request.access_request_id not in self.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such access request")
        return GetAccessRequestResponse(access_request=self._request(request.access_request_id))

    def _watch(self, _: Any, context: Any) -> Iterator[WatchAccessRequestsResponse]:
        if self.broken:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
        changes: queue.SimpleQueue[RequestedAccess | None] = queue.SimpleQueue()
        context.add_callback(lambda: changes.put(None))
        self.watches.append(changes)
        try:
            yield WatchAccessRequestsResponse(complete=True)
            self.watching.release()
            while (change := changes.get()) is not None:
                yield WatchAccessRequestsResponse(access_requests=[change], complete=True)
        finally:
            # gRPC drops what it has not read to its end when the caller has gone.
            self.watches.remove(changes)
            self.ended.release()


@pytest.fixture
def people(server: ScriptedServer) -> People:
    """Return the people of a server."""
    return People(server)


def _sync(address: str, wait: float, do: Callable[[], None], *paths: str) -> list[Answer]:
    """Ask about calls at the same time, and have people do something once they wait."""
    answers: dict[str, Answer] = {}
    with Client(address) as client:

        def ask(path: str) -> None:
            answers[path] = client.authorize("pdps_1", "files", "read", {"path": path}, wait=wait)

        threads = [threading.Thread(target=ask, args=(path,)) for path in paths or ("/a",)]
        for thread in threads:
            thread.start()
        do()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
    return [answers[path] for path in paths or ("/a",)]


def _async(address: str, wait: float, do: Callable[[], None], *paths: str) -> list[Answer]:
    async def run() -> list[Answer]:
        async with AsyncClient(address) as client:
            asked = [
                client.authorize("pdps_1", "files", "read", {"path": path}, wait=wait) for path in paths or ("/a",)
            ]
            answers, _ = await asyncio.gather(asyncio.gather(*asked), asyncio.to_thread(do))
            return list(answers)

    return asyncio.run(run())


both = pytest.mark.parametrize("ask", [_sync, _async], ids=["sync", "async"])
Ask = Callable[..., list[Answer]]


@both
def test_an_approved_call_goes_on(people: People, address: str, ask: Ask) -> None:
    """It is asked about once more, with the same request id, so that an approval is used once."""

    def approve() -> None:
        assert people.watching.acquire(timeout=PATIENCE)
        people.answer("acc_a", ACCESS_STATE_APPROVED)

    (answer,) = ask(address, PATIENCE, approve)

    assert answer.allowed
    assert len(people.asked) == 2
    assert len(set(people.asked)) == 1


@both
@pytest.mark.parametrize(
    ("state", "reason", "advice"),
    [
        (ACCESS_STATE_DENIED, "not him", "a person refused this call (`not him`): do not ask for it again"),
        (ACCESS_STATE_EXPIRED, "", "no person answered before the request, its session or the rules ended"),
        (access_pb2.ACCESS_STATE_REVOKED, "", "the approval of this call was taken back: do not ask for it again"),
    ],
)
def test_a_call_that_is_not_approved_is_denied(
    people: People, address: str, ask: Ask, state: Any, reason: str, advice: str
) -> None:
    """The deny says what the person answered, and the call is not asked about again."""

    def refuse() -> None:
        assert people.watching.acquire(timeout=PATIENCE)
        people.answer("acc_a", state, reason)

    (answer,) = ask(address, PATIENCE, refuse)

    assert (False, "approval_required") == (answer.allowed, answer.basis)
    assert answer.advice[0].startswith(advice)
    assert len(people.asked) == 1


@both
def test_waiting_has_a_bound(people: People, address: str, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who does not answer is not waited for longer."""
    for client in ("aio", "sync"):
        # For what is read at the end: on a busy machine that takes longer than a second.
        monkeypatch.setattr(f"pdp.client.{client}.waiting._UNWATCHED_SECONDS", PATIENCE)
    started = time.monotonic()

    (answer,) = ask(address, 0.3, lambda: None)

    assert time.monotonic() - started < PATIENCE / 2
    assert answer.advice == ("no person has answered within 0.3 s: go on with something else, or ask again later",)
    assert answer.access_request_id == "acc_a"
    assert len(people.asked) == 1


@both
def test_no_call_waits_by_itself(people: People, address: str, ask: Ask) -> None:
    """Without `wait` the deny comes at once, with the id of the request, and nothing is watched."""
    (answer,) = ask(address, 0.0, lambda: None)

    assert (False, "acc_a") == (answer.allowed, answer.access_request_id)
    assert people.server.sent("WatchAccessRequests") == people.server.sent("GetAccessRequest") == []


@both
def test_calls_share_one_watch(people: People, address: str, ask: Ask) -> None:
    """However many wait; it ends when the last has its answer."""

    def approve() -> None:
        assert people.watching.acquire(timeout=PATIENCE)
        names = {"acc_a", "acc_b", "acc_c"}
        # A call that reads its request waits. An answer before all wait would end the watch, and open another.
        while not names.issubset(one.access_request_id for one in people.server.sent("GetAccessRequest")):
            assert people.reading.acquire(timeout=PATIENCE)
        for name in names:
            people.answer(name, ACCESS_STATE_APPROVED)
        assert people.ended.acquire(timeout=PATIENCE)

    answers = ask(address, PATIENCE, approve, "/a", "/b", "/c")

    assert all(answers)
    assert len(people.server.sent("WatchAccessRequests")) == 1
    assert people.watches == []


@both
def test_without_a_watch_the_request_is_read(people: People, address: str, ask: Ask) -> None:
    """A server without room for a watch, or an old one, is asked from time to time."""
    people.broken = True

    def approve() -> None:
        for _ in range(2):
            assert people.reading.acquire(timeout=PATIENCE)
        people.answer("acc_a", ACCESS_STATE_APPROVED)

    (answer,) = ask(address, PATIENCE, approve)

    assert answer.allowed


@both
def test_an_answer_before_the_watch_is_not_missed(people: People, address: str, ask: Ask) -> None:
    """Once a watch is open, each call that waits reads its request: what was answered before is not in the watch."""

    def approve() -> None:
        assert people.reading.acquire(timeout=PATIENCE)
        people.states["acc_a"] = ACCESS_STATE_APPROVED  # and no watch is told

    (answer,) = ask(address, PATIENCE, approve)

    assert answer.allowed


@both
def test_a_request_that_is_gone_is_a_deny(people: People, address: str, ask: Ask) -> None:
    """Whatever went wrong: a call that cannot be waited for is not allowed."""

    def forget(_: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such access request")

    people.server.scripts["GetAccessRequest"] = forget

    (answer,) = ask(address, PATIENCE, lambda: None)

    assert not answer.allowed
    assert answer.advice[0].startswith("what a person answers cannot be read: ")


def test_an_approval_that_does_not_help_is_not_asked_for_again(people: People, address: str) -> None:
    """A server that says approved and denies is not asked for ever."""
    people.server.scripts["GetAccessRequest"] = lambda *_: GetAccessRequestResponse(
        access_request=RequestedAccess(access_request_id="acc_a", state=ACCESS_STATE_APPROVED)
    )

    with Client(address) as client:
        answer = client.authorize(*CALL, wait=PATIENCE)

    assert not answer.allowed
    assert len(people.asked) == 2


def test_a_cancelled_task_leaves_nothing_behind(people: People, address: str) -> None:
    """Its watch ends with it, and the client goes on."""

    async def run() -> Answer:
        async with AsyncClient(address) as client:
            waiting = asyncio.create_task(client.authorize(*CALL, wait=PATIENCE))
            assert await asyncio.to_thread(people.watching.acquire, timeout=PATIENCE)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await asyncio.to_thread(people.ended.acquire, timeout=PATIENCE)
            people.answer("acc_a", ACCESS_STATE_APPROVED)
            return await client.authorize(*CALL)

    assert asyncio.run(run()).allowed
    assert people.watches == []


def test_closing_a_client_ends_what_waits(people: People, address: str) -> None:
    """The call is a deny, and neither a thread nor a watch is left."""
    client, answers = Client(address), list[Answer]()
    thread = threading.Thread(target=lambda: answers.append(client.authorize(*CALL, wait=PATIENCE)))
    thread.start()
    assert people.watching.acquire(timeout=PATIENCE)

    client.close()
    thread.join(PATIENCE)

    assert not answers[0].allowed
    assert people.ended.acquire(timeout=PATIENCE)
    assert not any(one.name == "pdp-answers" for one in threading.enumerate())


def test_a_guard_waits_as_its_session_says(people: People, address: str) -> None:
    """A guarded function runs once a person has approved, and not after a no."""
    with Client(address) as client:
        session = client.attach("pdps_1", wait_for_approval=PATIENCE)

        @session.guard(server="files", tool="read")
        def read(path: str) -> str:
            return f"what {path} holds"

        def answer(name: str, state: Any) -> None:
            assert people.watching.acquire(timeout=PATIENCE)
            people.answer(name, state)

        for name, state in (("acc_a", ACCESS_STATE_APPROVED), ("acc_b", ACCESS_STATE_DENIED)):
            threading.Thread(target=answer, args=(name, state)).start()
            if state == ACCESS_STATE_APPROVED:
                assert read("/a") == "what /a holds"
            else:
                with pytest.raises(ToolCallDenied, match="a person refused this call"):
                    read("/b")


def test_a_person_watches(people: People, address: str) -> None:
    """An approver's program gets each request as it comes."""

    def ask() -> None:
        assert people.watching.acquire(timeout=PATIENCE)
        people.answer("acc_z", ACCESS_STATE_OPEN)

    with Client(address) as client:
        watch = client.watch_access_requests()
        threading.Thread(target=ask).start()

        first = next(watch)
        watch.close()  # type: ignore[attr-defined]  # a generator

    assert first.access_request_id == "acc_z"
    assert people.ended.acquire(timeout=PATIENCE)
