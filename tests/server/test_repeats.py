"""A change whose answer was lost is asked for again, made once, and answered like the first time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from google.protobuf.message import Message

from pdp.errors import StoreUnavailableError
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.values import PublishedKey
from pdp.v1 import access_pb2 as access_api
from pdp.v1 import calltoken_pb2 as token_api
from pdp.v1 import freeze_pb2 as freeze_api
from pdp.v1 import policy_pb2 as policy_api
from pdp.v1 import session_pb2 as api
from pdp.v1.decision_pb2 import BASIS_PERMIT, BASIS_SESSION_NOT_FOUND
from tests.machinery.rpcs.asking import a_call, wanted
from tests.machinery.servers.rawmessages import FILES, METHODS, Opened, Service, TroubledStore, serving

# A change of a session that waits for approval, or is active, and what it then is.
ASKED: dict[str, tuple[bool, Callable[[Opened], Message], int]] = {
    "RequestSession": (False, lambda _: wanted(user="ada", purpose="once"), api.SESSION_STATE_REQUESTED),
    "ApproveSession": (
        True,
        lambda session: api.ApproveSessionRequest(session_id=session.id, request_digest=session.digest),
        api.SESSION_STATE_ACTIVE,
    ),
    "DenySession": (
        True,
        lambda session: api.DenySessionRequest(session_id=session.id, reason="no"),
        api.SESSION_STATE_DENIED,
    ),
    "EndSession": (
        False,
        lambda session: api.EndSessionRequest(session_handle=session.handle),
        api.SESSION_STATE_ENDED,
    ),
    "RevokeSessions": (
        False,
        lambda session: api.RevokeSessionsRequest(session_id=session.id, reason="enough"),
        api.SESSION_STATE_REVOKED,
    ),
    "NarrowSession": (
        False,
        lambda session: api.NarrowSessionRequest(session_id=session.id, tool_patterns=["git/*"]),
        api.SESSION_STATE_ACTIVE,
    ),
}
ANSWERS: dict[str, tuple[Callable[[Opened], Message], int]] = {
    "ApproveCall": (
        lambda session: access_api.ApproveCallRequest(
            access_request_id=session.access_request_id, request_digest=session.access_digest
        ),
        access_api.ACCESS_STATE_APPROVED,
    ),
    "DenyCall": (
        lambda session: access_api.DenyCallRequest(access_request_id=session.access_request_id),
        access_api.ACCESS_STATE_DENIED,
    ),
}
# What cannot be asked twice of a server, because of something else than the id of a management call.
TOLD_OTHERWISE = {
    "Authorize": "the request id of the call",
    "BatchAuthorize": "the request ids of its calls",
    "AuthorizeStream": "the request ids of its calls",
    "ReportOutcome": "the decision that its token names, of which there is one report",
}
# They have tests of their own.
APART = {"LiftFreeze", "SetFreeze", "RevokeAccess", "WithdrawCallTokenKey", "ActivateBundle", "ReloadBundle"}
READING = ("Get", "List", "Watch", "Review", "Plan", "Verify", "Explain", "Evaluate", "Check", "Compare")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a server on a store in a file."""
    folder = tmp_path_factory.mktemp("repeats")
    with closing(SQLiteSessionStore(folder / "sessions.sqlite")) as store, serving(store=TroubledStore(store)) as one:
        yield one


def prepared(service: Service, method: str, request_id: str) -> tuple[Message, Opened]:
    """Return a change of a session of its own, under a request id, and the session."""
    waits, ask, _ = ASKED[method]
    session = service.open() if waits else service.open().approved()
    message: Any = ask(session)
    message.request_id = request_id
    return message, session


def losing(service: Service, method: str, message: Message, **more: Any) -> str:
    """Make a change whose answer is lost between the commit and the caller, and return the status."""

    def lost(name: str, found: Any) -> Any:
        if name in {"insert", "update", "change_tree", "lift", "freeze", "change_freeze", "activate_bundle"}:
            raise StoreUnavailableError("the answer is lost")
        return found

    service.store.after = lost
    try:
        return service.status(method, message, **more)
    finally:
        service.store.after = lambda _, found: found


@contextmanager
def losing_in(owner: type, name: str) -> Iterator[None]:
    """Lose the answer of each change by a method of the history."""
    change = getattr(owner, name)

    def lost(*what: Any, **more: Any) -> Any:
        change(*what, **more)
        raise StoreUnavailableError("the answer is lost")

    with patch.object(owner, name, lost):
        yield


def comparable(method: str, answer: Any) -> Any:
    """Return an answer without what each repetition changes: how much it knows, and a handle, which has an epoch."""
    if "revision" in answer.DESCRIPTOR.fields_by_name:
        answer.revision = ""
    if method == "RequestSession":
        answer.session_handle, answer.session.epoch = "", 0
    return answer


def test_every_change_is_accounted_for() -> None:
    """A new RPC reads, or has a request id and a test here; what is told otherwise is about single calls."""
    with_id = {name for name, method in METHODS.items() if "request_id" in method.input_type.fields_by_name}
    changing = {name for name in METHODS if not name.startswith(READING)}

    assert changing - TOLD_OTHERWISE.keys() == with_id - TOLD_OTHERWISE.keys()
    assert ASKED.keys() | ANSWERS.keys() | APART == with_id - TOLD_OTHERWISE.keys()


@pytest.mark.parametrize("method", ASKED)
def test_a_lost_answer_is_given_again(service: Service, method: str) -> None:
    """The change is made once, and each further answer is the same."""
    message, session = prepared(service, method, f"lost-{method}")
    lost = losing(service, method, message)
    again, once_more = (service.send(method, message) for _ in range(2))
    session_id = again.session_ids[0] if method == "RevokeSessions" else again.session.session_id
    stored = service.server.client("lead").get_session(session_id)

    assert "UNAVAILABLE" == lost
    assert comparable(method, again) == comparable(method, once_more)
    assert ASKED[method][2] == stored.state
    assert (session_id == session.id) == (method != "RequestSession")
    # A request and an approval, and the change.
    assert method == "RequestSession" or stored.epoch == (2 if ASKED[method][0] else 3)


@pytest.mark.parametrize("method", ASKED)
def test_an_id_is_for_one_change(service: Service, method: str) -> None:
    """Another change under the same id is refused and not made."""
    message, _ = prepared(service, method, f"one-{method}")
    other, session = prepared(service, method, f"one-{method}")
    if method == "RequestSession":
        other = wanted(user="ada", purpose="another", request_id=f"one-{method}")
    service.send(method, message)
    before = service.server.client("lead").get_session(session.id)
    status = service.status(method, other)

    assert "ALREADY_EXISTS" == status
    assert before == service.server.client("lead").get_session(session.id)


@pytest.mark.parametrize("method", ASKED)
def test_a_try_that_ends_meanwhile_is_told(service: Service, method: str) -> None:
    """The second one has asked before whether there was a first one, and finds nothing left to do."""
    message, _ = prepared(service, method, f"meanwhile-{method}")
    first = service.send(method, message)
    blind = iter([None])
    service.store.after = lambda name, found: next(blind, found) if name == "written" else found
    try:
        again = service.send(method, message)
    finally:
        service.store.after = lambda _, found: found

    assert comparable(method, first) == comparable(method, again)


@pytest.mark.parametrize("method", ANSWERS)
def test_a_lost_answer_about_a_call_is_given_again(service: Service, method: str) -> None:
    """The access request is answered once."""
    ask, state = ANSWERS[method]
    message: Any = ask(service.open().approved())
    message.request_id = f"call-{method}"
    with losing_in(type(service.server.embedded.history.access()), "answer"):
        status = service.status(method, message)
    again, once_more = (service.send(method, message) for _ in range(2))

    assert "UNAVAILABLE" == status
    assert again == once_more
    assert state == again.access_request.state
    message.access_request_id = service.open().approved().access_request_id
    assert "ALREADY_EXISTS" == service.status(method, message)


def test_a_freeze_is_confirmed_once(service: Service) -> None:
    """What a person has confirmed or lifted is told again, and the second time is not taken for the second person."""
    freeze_id = service.send("SetFreeze", freeze_api.SetFreezeRequest(tenant="default", reason="x"), caller="admin")
    lifted = []
    for caller in ("lead", "ada"):
        message = freeze_api.LiftFreezeRequest(freeze_id=freeze_id.freeze.freeze_id, request_id="lift")
        losing(service, "LiftFreeze", message, caller=caller)
        lifted += [service.send("LiftFreeze", message, caller=caller).lifted for _ in range(2)]

    assert [False, False, True, True] == lifted


def test_a_freeze_is_set_once(service: Service) -> None:
    """Its id stays; when it has been lifted meanwhile, the same request does not stop all calls once more."""
    message = freeze_api.SetFreezeRequest(tenant="default", reason="x", request_id="set")
    lost = losing(service, "SetFreeze", message, caller="admin")
    again, once_more = (service.send("SetFreeze", message, caller="admin") for _ in range(2))
    listed = service.send("ListFreezes", freeze_api.ListFreezesRequest(), caller="admin").freezes
    other = freeze_api.SetFreezeRequest(tenant="default", reason="y", request_id="set")
    statuses = [service.status("SetFreeze", other, caller="admin")]
    for caller in ("lead", "ada"):
        service.send("LiftFreeze", freeze_api.LiftFreezeRequest(freeze_id=again.freeze.freeze_id), caller=caller)
    statuses.append(service.status("SetFreeze", message, caller="admin"))

    assert "UNAVAILABLE" == lost
    assert [again.freeze] == [once_more.freeze] == list(listed)
    assert ["ALREADY_EXISTS", "FAILED_PRECONDITION"] == statuses
    assert not service.send("ListFreezes", freeze_api.ListFreezesRequest(), caller="admin").freezes


@pytest.mark.parametrize("selector", ["access_request_id", "session_id"])
def test_approvals_are_taken_back_once(service: Service, selector: str) -> None:
    """The ids are told again, of those that are taken back by now."""
    session = service.open().approved()
    answered = ANSWERS["ApproveCall"][0](session)
    service.send("ApproveCall", answered)
    which = {"access_request_id": session.access_request_id, "session_id": session.id}[selector]
    message = access_api.RevokeAccessRequest(reason="x", request_id=f"take-{selector}", **{selector: which})
    requests = type(service.server.embedded.history.access())
    change = "answer" if selector == "access_request_id" else "answer_all"

    with losing_in(requests, change):
        lost = service.status("RevokeAccess", message)
    with patch.object(requests, "written", side_effect=[None, (session.access_request_id,)]):
        meanwhile = service.send("RevokeAccess", message)
    again, once_more = (service.send("RevokeAccess", message) for _ in range(2))
    message.reason = "y"

    assert "UNAVAILABLE" == lost
    assert again == meanwhile
    assert [session.access_request_id] == list(again.access_request_ids) == list(once_more.access_request_ids)
    assert "ALREADY_EXISTS" == service.status("RevokeAccess", message)


def test_a_key_is_withdrawn_once(service: Service) -> None:
    """That there was such a key is told again."""
    keys = service.server.embedded.history.call_token_keys()
    for name in ("a", "b"):
        keys.publish(PublishedKey(id=name * 43, content=b"", published_at=1.0, ends_at=math.inf))
    message = token_api.WithdrawCallTokenKeyRequest(key_id="a" * 43, reason="x", request_id="withdraw")
    with losing_in(type(keys), "withdraw"):
        lost = service.status("WithdrawCallTokenKey", message)
    known = [service.send("WithdrawCallTokenKey", message).known for _ in range(2)]
    message.key_id = "b" * 43

    assert ("UNAVAILABLE", [True, True]) == (lost, known)
    assert "ALREADY_EXISTS" == service.status("WithdrawCallTokenKey", message)
    assert [True, False] == [one.withdrawn for name in ("a", "b") if (one := keys.get(name * 43)) is not None]


@pytest.mark.parametrize("method", ["ActivateBundle", "ReloadBundle"])
def test_a_bundle_is_activated_once(service: Service, method: str) -> None:
    """What is active since stays so, and the answer is about the bundle that was asked for."""
    first = service.send("GetBundle", policy_api.GetBundleRequest()).bundle.version
    service.server.write_policies({**FILES, "another.cedar": b"// " + method.encode()})
    second = service.send("ReloadBundle", policy_api.ReloadBundleRequest()).bundle.version
    if method == "ReloadBundle":
        service.server.write_policies(FILES)
        message: Any = policy_api.ReloadBundleRequest(request_id="reload")
    else:
        message = policy_api.ActivateBundleRequest(version=first, request_id="activate")
    lost = losing(service, method, message)
    # The second one has asked before whether there was a first one.
    blind = iter([None])
    service.store.after = lambda name, found: next(blind, found) if name == "written" else found
    try:
        meanwhile = service.send(method, message)
    finally:
        service.store.after = lambda _, found: found
    service.send("ActivateBundle", policy_api.ActivateBundleRequest(version=second))
    again, once_more = (service.send(method, message) for _ in range(2))

    assert "UNAVAILABLE" == lost
    assert (first, True, True) == (meanwhile.bundle.version, meanwhile.changed, meanwhile.bundle.active)
    assert again == once_more
    assert (first, True, False) == (again.bundle.version, again.changed, again.bundle.active)
    assert second == service.send("GetBundle", policy_api.GetBundleRequest()).bundle.version
    service.server.write_policies(FILES)
    service.send("ReloadBundle", policy_api.ReloadBundleRequest())


def test_an_id_is_one_of_its_caller(service: Service) -> None:
    """The same id of another caller is another change."""
    revoked = []
    for caller in ("lead", "admin"):
        message, session = prepared(service, "RevokeSessions", "shared")
        found = service.send("RevokeSessions", message, caller=caller)
        revoked.append((list(found.session_ids), [session.id]))

    assert [one for one, _ in revoked] == [other for _, other in revoked]


def test_a_handle_that_was_lost_is_void(service: Service) -> None:
    """While the session waits another one takes its place, which the approval is for; afterwards there is no third."""
    message = wanted(user="ada", purpose="lost", request_id="handle")
    first, second = (service.send("RequestSession", message) for _ in range(2))
    service.server.client("lead").approve_session(
        second.session.session_id, request_digest=first.session.request_digest
    )
    bases = [service.send("Authorize", a_call(one.session_handle)).decision.basis for one in (first, second)]

    assert first.session.session_id == second.session.session_id
    assert [BASIS_SESSION_NOT_FOUND, BASIS_PERMIT] == bases
    assert "ALREADY_EXISTS" == service.status("RequestSession", message)


def test_the_client_asks_again(service: Service) -> None:
    """What it returns is the session that its first try has opened."""
    tries: list[str] = []

    def lost(name: str, found: Any) -> Any:
        if name == "insert":
            tries.append(name)
            raise StoreUnavailableError("the answer is lost")
        return found

    service.store.after = lost
    try:
        opened = service.open(purpose="told apart")
    finally:
        service.store.after = lambda _, found: found
    listed = service.server.client("lead").list_sessions()

    assert ["insert"] == tries
    assert [opened.id] == [one.session_id for one in listed if one.purpose == "told apart"]
