"""The door before a server that is away, slow, or answers otherwise than it should: nothing is allowed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from unittest.mock import patch

import grpc
import httpx2
import pytest

from pdp.doors.authzen.door import MOST_OPEN
from pdp.testing.waiting import wait_until
from pdp.v1.decision_pb2 import Decision
from tests.doors.authzen.gateway import EVALUATION, EVALUATIONS, call_of, door
from tests.doors.noting import Noted
from tests.machinery.ports import free_port
from tests.machinery.servers.scripted import ScriptedServer

HANDLE = "pdps_secret"


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """Return a server that answers as a test tells it to."""
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{ "text": "b", "amount": 1 }', '{"amount":1,"text":"b"}'),
        ('{"value": [0.1, 1e+300, 9007199254740991, -0, null, true]}', None),
        (
            '{"text": "\\u00e9 e\\u0301 \\u202eevil \\ud83e\\udd8a \\ufeff"}',
            '{"text":"é e\u0301 \u202eevil 🦊 \ufeff"}',
        ),
        ('{"text": "a\\u0000b"}', '{"text":"a\\u0000b"}'),
        ("{}", "{}"),
    ],
    ids=ascii,
)
def test_arguments_are_asked_about_as_rfc_8785_writes_them(
    scripted: ScriptedServer, arguments: str, written: str | None
) -> None:
    """In type and in every digit and character; nothing is normalized."""
    body = json.dumps(call_of("desk/note")).replace('"context": {}', f'"context": {{"arguments": {arguments}}}')
    written = written or '{"value":[0.1,1e+300,9007199254740991,0,null,true]}'
    with door(None, HANDLE, address=scripted.start()) as gateway:
        answer = gateway.post(EVALUATION, body.encode())

    assert answer.json()["decision"] is True
    (sent,) = scripted.sent("Authorize")
    assert written == sent.call.arguments_json.decode()


def test_without_a_server_there_is_no_decision() -> None:
    """The status is 500, and the answer does not say where the server should be; a batch is the same."""
    port = free_port()
    with door(None, HANDLE, address=f"127.0.0.1:{port}", timeout=0.5) as gateway:
        body = gateway.call("desk/note")
        several = gateway.post(EVALUATIONS, {**call_of("desk/note"), "evaluations": [{}, {}]})

    assert [] == gateway.ran
    assert {"error": {"status": 500, "message": "no decision could be made"}} == body
    assert 500 == several.status_code
    assert str(port) not in json.dumps(body)


def test_a_server_that_goes_away_and_comes_back_needs_no_new_door() -> None:
    """Calls meanwhile do not run."""
    address = f"127.0.0.1:{free_port()}"
    servers = [ScriptedServer(), ScriptedServer()]
    servers[0].start(address)
    with door(None, HANDLE, address=address) as gateway:
        gateway.call("desk/note", {"text": "before"})
        servers[0].stop()
        gateway.call("desk/note", {"text": "away"})
        servers[1].start(address)
        # A channel tries again a moment after it has failed.
        wait_until(lambda: gateway.call("desk/note", {"text": "back"}).get("decision") is True)
        servers[1].stop()

    assert ["before", "back"] == [arguments["text"] for _, arguments in gateway.ran]


def test_an_answer_that_is_late_is_no_answer(scripted: ScriptedServer) -> None:
    """The question is given up at the client's deadline."""

    def late(request: Any, _: Any) -> Decision:
        scripted.released.wait(30)
        return scripted.honest(request)

    scripted.decide = late
    with door(None, HANDLE, address=scripted.start(), timeout=0.2) as gateway:
        gateway.call("desk/note")
        scripted.released.set()

    assert [] == gateway.ran


def test_all_questions_of_a_request_together_have_a_time(scripted: ScriptedServer) -> None:
    """However many there are: then the request is answered with status 500."""

    def slow(request: Any, _: Any) -> Decision:
        scripted.released.wait(0.3)
        return scripted.honest(request)

    scripted.decide = slow
    noted = Noted()
    # What is left for the answer is more than a busy machine needs.
    with (
        patch("pdp.doors.authzen.door._OF_THE_TIME", 1 / 30),
        door(None, HANDLE, address=scripted.start(), seconds=30.0, observer=noted) as gateway,
    ):
        answer = gateway.post(EVALUATIONS, {**call_of("desk/note"), "evaluations": [{}] * 100})

    assert 500 == answer.status_code
    assert ("execute_tool", "undecided", "undecided") == noted.shown[-1]
    assert len(scripted.sent("Authorize")) < 20


@pytest.mark.parametrize(
    "lie",
    [
        lambda decision: setattr(decision, "tool", "pay"),
        lambda decision: setattr(decision, "arguments_digest", "sha256:" + "0" * 64),
        lambda decision: setattr(decision, "outcome", 7),
        lambda decision: setattr(decision, "outcome", 0),
        lambda decision: setattr(decision, "session_id", ""),
        lambda decision: setattr(decision, "decision_id", ""),
        lambda decision: setattr(decision, "user", ""),
        lambda decision: setattr(decision, "user", "bob"),
    ],
    ids=["tool", "arguments", "outcome", "no outcome", "session", "id", "no user", "user"],
)
def test_an_answer_about_something_else_allows_nothing(
    scripted: ScriptedServer, lie: Callable[[Decision], None]
) -> None:
    """About another tool, other arguments or another user, with an outcome that nobody knows, or without a session."""

    def decide(request: Any, _: Any) -> Decision:
        decision = scripted.honest(request)
        lie(decision)
        return decision

    scripted.decide = decide
    with door(None, HANDLE, address=scripted.start()) as gateway:
        gateway.call("desk/note")

    assert [] == gateway.ran


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED], ids=str
)
def test_an_error_of_the_server_is_not_told(scripted: ScriptedServer, code: grpc.StatusCode) -> None:
    """The caller learns that there is no decision, and nothing else."""
    scripted.decide = lambda _, context: context.abort(code, "inner words")
    with door(None, HANDLE, address=scripted.start()) as gateway:
        answer = gateway.post(EVALUATION, call_of("desk/note"))

    assert 500 == answer.status_code
    assert "inner" not in answer.text


def test_a_fault_of_the_door_allows_nothing(scripted: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the answer nor the log says what the fault says, since that can hold arguments."""
    caplog.set_level(logging.DEBUG)
    with (
        door(None, HANDLE, address=scripted.start()) as gateway,
        patch("pdp.doors.authzen.evaluations.verdict", side_effect=LookupError("inner words")),
    ):
        answer = gateway.post(EVALUATION, call_of("desk/note"))

    assert 500 == answer.status_code
    assert "inner" not in answer.text + caplog.text
    assert "LookupError" in caplog.text


@pytest.mark.parametrize("known", [True, False])
def test_more_requests_than_can_be_open_are_told_to_wait(scripted: ScriptedServer, *, known: bool) -> None:
    """The others are answered as before, and so are those of another caller that the server has answered before.

    Callers that it has not answered count as one, with whatever tokens.
    """
    most = 2 * MOST_OPEN // 3
    arrived = threading.Semaphore(0)

    def hold(request: Any, _: Any) -> Decision:
        arrived.release()
        scripted.released.wait(30)
        return scripted.honest(request)

    statuses: list[int] = []
    with door(None, HANDLE, address=scripted.start()) as gateway:
        for name in ("Bearer other", *(["Bearer own"] if known else [])):
            assert 200 == gateway.post(EVALUATION, call_of("desk/note"), authorization=name).status_code
        scripted.decide = hold
        limits = httpx2.Limits(max_connections=2 * MOST_OPEN)
        with httpx2.Client(base_url=gateway.url, timeout=60, limits=limits) as http:
            gateway.http, old = http, gateway.http

            def ask(**headers: str) -> None:
                statuses.append(gateway.post(EVALUATION, call_of("desk/note"), **headers).status_code)

            tokens = ["Bearer own" if known else f"Bearer {number}" for number in range(most + 1)]
            threads = [threading.Thread(target=ask, kwargs={"authorization": one}) for one in tokens]
            for thread in threads:
                thread.start()
            while not statuses:
                arrived.acquire(timeout=0.05)
            # Until then another caller waits for the server, and is not refused.
            threading.Timer(1.0, scripted.released.set).start()
            ask(authorization="Bearer other")
            for thread in threads:
                thread.join()
            gateway.http = old

    assert 1 == statuses.count(503)
    assert most + 1 == statuses.count(200)


def test_a_caller_that_hangs_up_asks_no_more(scripted: ScriptedServer) -> None:
    """Of several questions, those that are left are not asked, and the door stays up."""
    begun = threading.Event()

    def hold(request: Any, _: Any) -> Decision:
        if request.call.tool == "note":
            begun.set()
            scripted.released.wait(30)
        return scripted.honest(request)

    scripted.decide = hold
    noted = Noted()
    with door(None, HANDLE, address=scripted.start(), observer=noted) as gateway:
        body = {**call_of("desk/note"), "evaluations": [{}] * 50}
        headers = {"authorization": "Bearer sesame", "x-pdp-session": HANDLE, "content-type": "application/json"}
        caller = HTTPConnection(gateway.url.removeprefix("http://"))
        caller.request("POST", EVALUATIONS, json.dumps(body), headers)
        assert begun.wait(30)
        caller.close()
        wait_until(lambda: bool(noted.calls))
        gateway.call("desk/other")
        scripted.released.set()
        gateway.call("desk/other")

    assert 2 == len(gateway.ran)
    assert ["cancelled", "allow", "allow"] == [outcome for _, outcome, _ in noted.shown]
    assert 1 == sum(sent.call.tool == "note" for sent in scripted.sent("Authorize"))


def test_the_token_of_each_request_is_its_own(scripted: ScriptedServer) -> None:
    """Over one connection to the server, also for requests at the same time."""
    meeting = threading.Barrier(2, timeout=30)

    def meet(request: Any, _: Any) -> Decision:
        meeting.wait()
        return scripted.honest(request)

    scripted.decide = meet
    with door(None, HANDLE, address=scripted.start()) as gateway:

        def ask(token: str) -> None:
            gateway.post(EVALUATION, call_of(f"desk/{token}"), authorization=f"Bearer {token}")

        for _ in range(5):
            threads = [threading.Thread(target=ask, args=(token,)) for token in ("one", "two")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    sent = zip(scripted.requests, scripted.metadata, strict=True)
    assert 10 == len(scripted.requests)
    assert {"one": "Bearer one", "two": "Bearer two"} == {
        request.call.tool: metadata["authorization"] for (_, request), metadata in sent
    }
