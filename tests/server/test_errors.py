"""Every error class: how it really arises, which status a caller sees, whether a retry helps, and its record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp import errors
from pdp.limits import Limits
from pdp.model import Head
from pdp.policy.child.process import PolicyChild
from pdp.server.revisions import revision_text
from pdp.serving.listener import Listener
from pdp.serving.status import STATUSES, DeadlinePassedError, MessageLateError, MessageTooLargeError, NotHereError
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.clock import FakeClock
from pdp.v1.authorization_pb2 import (
    CALL_STATUS_FAILED,
    CALL_STATUS_SUCCEEDED,
    AuthorizeRequest,
    AuthorizeStreamRequest,
    BatchAuthorizeRequest,
    ReportOutcomeRequest,
)
from pdp.v1.policy_pb2 import BundleFile, CheckBundleRequest, EvaluateRequest, GetBundleRequest, ReloadBundleRequest
from pdp.v1.session_pb2 import (
    ApproveSessionRequest,
    GetSessionRequest,
    NarrowSessionRequest,
    RequestSessionRequest,
    RevokeSessionsRequest,
)
from tests.machinery.rpcs.asking import a_call, basis_of
from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.rawmessages import (
    BUNDLE,
    FILES,
    METHODS,
    PATIENCE,
    UNKNOWN_ID,
    Opened,
    Service,
    serving,
)
from tests.machinery.ways.notation import changed, files_of
from tests.machinery.ways.ways import CALLERS

FROZEN = files_of(
    changed(BUNDLE, {"policies": {"freeze": '@id("freeze/all") forbid (principal, action, resource is Repository);'}})
)


def a_field_is_missing(service: Service) -> grpc.RpcError:
    """Leave out what decides."""
    return service.refused("Authorize", AuthorizeRequest())


def nobody_calls(service: Service) -> grpc.RpcError:
    """Send no token."""
    return service.refused("GetSession", GetSessionRequest(session_id=UNKNOWN_ID), caller=None)


def a_changed_token(service: Service) -> grpc.RpcError:
    """Change the last character of a token."""
    token = service.server.token("gateway")
    return service.refused("Authorize", a_call("h"), token=token[:-1] + ("A" if token[-1] != "A" else "B"))


def a_gateway_approves(service: Service) -> grpc.RpcError:
    """Approve with the token that asked."""
    return service.refused("ApproveSession", _approval(service.open()), caller="gateway")


def the_policies_refuse(service: Service) -> grpc.RpcError:
    """Ask for somebody who may not ask."""
    wanted = RequestSessionRequest(user="visitor", agent="coder", purpose="look", tool_patterns=["git/*"])
    return service.refused("RequestSession", wanted)


def a_foreign_tenant_is_revoked(service: Service) -> grpc.RpcError:
    """Revoke all sessions of another tenant."""
    return service.refused("RevokeSessions", RevokeSessionsRequest(tenant="elsewhere", reason="war"))


def an_unknown_id(service: Service) -> grpc.RpcError:
    """Look at a session that nobody opened."""
    return service.refused("GetSession", GetSessionRequest(session_id=UNKNOWN_ID))


def a_revision_of_another_store(service: Service) -> grpc.RpcError:
    """Insist on a change that another store has."""
    call = a_call("h")
    call.min_revision = revision_text(Head(revision=1, tag="another"))
    return service.refused("Authorize", call)


def reported_otherwise(service: Service) -> grpc.RpcError:
    """Report a call that was reported in another way."""
    token = service.open().approved().outcome_token
    service.send("ReportOutcome", ReportOutcomeRequest(outcome_token=token, status=CALL_STATUS_FAILED))
    return service.refused("ReportOutcome", ReportOutcomeRequest(outcome_token=token, status=CALL_STATUS_SUCCEEDED))


def approved_twice(service: Service) -> grpc.RpcError:
    """Approve what was approved."""
    return service.refused("ApproveSession", _approval(service.open().approved()))


def another_thing_was_shown(service: Service) -> grpc.RpcError:
    """Approve what the session does not ask for."""
    session = service.open()
    other = service.open(purpose="something else")
    return service.refused("ApproveSession", ApproveSessionRequest(session_id=session.id, request_digest=other.digest))


def another_was_first_to_decide(service: Service) -> grpc.RpcError:
    """Approve while somebody else refuses, after the state was read and before it is written."""
    session = service.open()
    registrar = service.server.embedded.registrar
    _meanwhile(service, lambda: registrar.deny(session.id, reason="", caller=CALLERS["lead"]))
    return service.refused("ApproveSession", _approval(session))


def another_was_first_to_narrow(service: Service) -> grpc.RpcError:
    """Narrow while the owner ends the session."""
    session = service.open().approved()
    registrar = service.server.embedded.registrar
    _meanwhile(service, lambda: registrar.end(session.handle, caller=CALLERS["gateway"]))
    return service.refused("NarrowSession", NarrowSessionRequest(session_id=session.id, labels=["harmless"]))


def the_tenant_is_frozen(service: Service) -> grpc.RpcError:
    """Approve a session that was asked for before."""
    session = service.open()
    freeze = service.server.client("lead").set_freeze(tenant="default", reason="acts strangely")
    try:
        return service.refused("ApproveSession", _approval(session))
    finally:
        for other in ("admin", "ada"):
            service.server.client(other).lift_freeze(freeze.freeze_id)


def a_request_id_for_two_calls(service: Service) -> grpc.RpcError:
    """Use a request id again for other bytes."""
    session = service.open().approved()
    service.send("Authorize", a_call(session.handle, request_id="once"))
    return service.refused("Authorize", a_call(session.handle, arguments=b'{"repo":"web"}', request_id="once"))


def a_request_id_for_two_calls_of_a_batch(service: Service) -> grpc.RpcError:
    """Use a request id twice in one message."""
    session = service.open().approved()
    twice = [a_call(session.handle, request_id="once"), a_call(session.handle, "commit", request_id="once")]
    return service.refused("BatchAuthorize", BatchAuthorizeRequest(requests=twice))


def one_stream_too_many(service: Service) -> grpc.RpcError:
    """Open a stream beside the only one that may be open."""
    session = service.open().approved()
    with service.server.client("gateway").stream() as stream:
        assert stream.authorize(session.handle, "git", "log", {"repo": "web"})
        return service.refused("AuthorizeStream", AuthorizeStreamRequest(request=a_call(session.handle)))


def the_bundle_never_rests(service: Service) -> grpc.RpcError:
    """Ask about two sessions while each look finds another bundle active."""
    one, other = service.open().approved(), service.open().approved()
    looks: list[str] = []

    def restless(name: str, found: Any) -> Any:
        looks.append(name)
        return replace(found, bundle=replace(found.bundle, activated_at=len(looks))) if name == "view" else found

    service.store.after = restless
    try:
        both = [a_call(one.handle), a_call(other.handle)]
        return service.refused("BatchAuthorize", BatchAuthorizeRequest(requests=both))
    finally:
        service.store.after = lambda _, found: found


def the_store_is_silent(service: Service) -> grpc.RpcError:
    """Ask while the store does not answer."""
    session = service.open().approved()
    with _trouble(service, errors.StoreUnavailableError("the session store does not answer")):
        return service.refused("Authorize", a_call(session.handle))


def nothing_was_activated(service: Service) -> grpc.RpcError:
    """Ask while the store knows of no bundle."""
    session = service.open().approved()
    service.store.after = without_bundle
    try:
        return service.refused("Authorize", a_call(session.handle))
    finally:
        service.store.after = lambda _, found: found


def the_evaluator_is_gone(service: Service) -> grpc.RpcError:
    """Evaluate when there is no child process for it."""
    return service.refused("Evaluate", EvaluateRequest(policies="permit (principal, action, resource);"))


def the_folder_is_wrong(service: Service) -> grpc.RpcError:
    """Reload from a folder whose bundle does not load."""
    service.server.write_policies(FILES | {"wrong.cedar": b"\npermit (principal, action, resource);\n"})
    error = service.refused("ReloadBundle", ReloadBundleRequest())
    assert "wrong.cedar:2: a policy needs an `@id`" in error.details()
    return error


def the_message_is_too_large(service: Service) -> grpc.RpcError:
    """Send an upload whose entries take more memory than a bundle may."""
    return service.refused("CheckBundle", CheckBundleRequest(files=[BundleFile()] * 131_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way in which an error arises: the class, the status that a caller sees, and the deed."""

    error: type[errors.PDPError]
    status: str
    deed: Callable[[Service], grpc.RpcError]
    retry: bool = False
    options: Callable[[], Mapping[str, Any]] = field(default=dict)


def _without_evaluator() -> Mapping[str, Any]:
    child = PolicyChild(timeout=PATIENCE)
    child.close()
    return {"evaluator": child}


TABLE = (
    Row(error=errors.InvalidRequestError, status="INVALID_ARGUMENT", deed=a_field_is_missing),
    Row(error=errors.UnauthenticatedError, status="UNAUTHENTICATED", deed=nobody_calls),
    Row(error=errors.UnauthenticatedError, status="UNAUTHENTICATED", deed=a_changed_token),
    Row(error=errors.PermissionDeniedError, status="PERMISSION_DENIED", deed=a_gateway_approves),
    Row(error=errors.PermissionDeniedError, status="PERMISSION_DENIED", deed=the_policies_refuse),
    Row(error=errors.PermissionDeniedError, status="PERMISSION_DENIED", deed=a_foreign_tenant_is_revoked),
    Row(error=errors.NotFoundError, status="NOT_FOUND", deed=an_unknown_id),
    Row(error=errors.WrongStateError, status="FAILED_PRECONDITION", deed=approved_twice),
    Row(error=errors.WrongStateError, status="FAILED_PRECONDITION", deed=another_thing_was_shown),
    Row(error=errors.WrongStateError, status="FAILED_PRECONDITION", deed=another_was_first_to_decide),
    Row(error=errors.UnknownRevisionError, status="FAILED_PRECONDITION", deed=a_revision_of_another_store),
    Row(error=errors.FrozenError, status="FAILED_PRECONDITION", deed=the_tenant_is_frozen),
    Row(error=errors.ConflictError, status="ABORTED", deed=another_was_first_to_narrow),
    Row(error=errors.RequestIdConflictError, status="ALREADY_EXISTS", deed=a_request_id_for_two_calls),
    Row(error=errors.RequestIdConflictError, status="ALREADY_EXISTS", deed=a_request_id_for_two_calls_of_a_batch),
    Row(error=errors.AlreadyReportedError, status="ALREADY_EXISTS", deed=reported_otherwise),
    Row(
        error=errors.OverloadedError,
        status="RESOURCE_EXHAUSTED",
        deed=one_stream_too_many,
        retry=True,
        options=lambda: {"limits": Limits(streams=1)},
    ),
    Row(error=errors.UnavailableError, status="UNAVAILABLE", deed=the_bundle_never_rests, retry=True),
    Row(error=errors.StoreUnavailableError, status="UNAVAILABLE", deed=the_store_is_silent, retry=True),
    Row(error=errors.BundleUnavailableError, status="UNAVAILABLE", deed=nothing_was_activated, retry=True),
    Row(
        error=errors.EvaluatorUnavailableError,
        status="UNAVAILABLE",
        deed=the_evaluator_is_gone,
        retry=True,
        options=_without_evaluator,
    ),
    Row(error=errors.BundleError, status="FAILED_PRECONDITION", deed=the_folder_is_wrong),
    Row(error=MessageTooLargeError, status="RESOURCE_EXHAUSTED", deed=the_message_is_too_large),
)

NO_ROW = {
    # Its caller's own clock ends the call first; `tests/serving/test_boundary.py` shows what the server does.
    DeadlinePassedError,
    # It takes a call without a message: `tests/serving/test_half_open.py`.
    MessageLateError,
    # It takes the control address: `tests/server/test_control.py`.
    NotHereError,
    # These become something else on the way: the tests below, and `test_written.py`.
    errors.ConfigurationError,
    errors.CannotListenError,
    errors.InvalidArgumentsError,
    errors.InvalidJSONError,
    errors.UnsafePolicyError,
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.error.__name__}-{row.deed.__name__}")
def test_how_each_error_arises(row: Row) -> None:
    """The status is the table's, a retry is advised where it helps, the refusal is recorded, and the server goes on."""
    with serving(**row.options()) as service:
        error = row.deed(service)

        assert (row.status, row.retry) == (error.code().name, advises_retry(error))
        assert STATUSES[row.error].code is error.code()
        assert [record["facts"]["status"] for record in service.refusals] == [row.status]
        assert still_answers(service)


def test_every_error_class_has_a_row() -> None:
    """A new class cannot be forgotten."""
    classes = {kind for kind in _below(errors.PDPError) if kind.__module__ in ("pdp.errors", "pdp.serving.status")}

    assert classes - NO_ROW == {row.error for row in TABLE}


def test_what_nobody_foresaw_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Any other error is INTERNAL without its text, is recorded, and denies only that one call."""
    with serving() as service:
        session = service.open().approved()
        with caplog.at_level(logging.ERROR, "pdp.server"), _trouble(service, RuntimeError("a secret text")):
            error = service.refused("Authorize", a_call(session.handle))

        assert error.code().name == "INTERNAL"
        assert error.details().startswith("internal error (trace id ")
        assert "a secret text" in caplog.text
        assert "a secret text" not in str(service.server.evidence.records)
        assert [record["facts"]["status"] for record in service.refusals] == ["INTERNAL"]
        assert still_answers(service)


def test_unsafe_policies_are_the_authors_mistake() -> None:
    """Text that is too deep for the engine never reaches it."""
    with serving() as service:
        deep = "permit (principal, action, resource) when { " + "(" * 100 + "true" + ")" * 100 + " };"
        error = service.refused("Evaluate", EvaluateRequest(policies=deep))

        assert error.code().name == "INVALID_ARGUMENT"
        assert error.details().startswith("`policies`: ")
        assert still_answers(service)


def test_a_wrong_configuration_never_serves() -> None:
    """A listener that others can reach without TLS does not come to be, so no caller ever sees this error."""
    with pytest.raises(errors.ConfigurationError):
        Listener(address="0.0.0.0:0")


def test_a_stream_goes_on_after_an_error() -> None:
    """On a stream an error answers the one call that it is about."""
    with serving() as service:
        session = service.open().approved()
        with service.server.client("gateway").stream() as stream:
            first = stream.authorize(session.handle, "git", "log", {"repo": "web"}, request_id="once")
            second = stream.authorize(session.handle, "git", "log", {"repo": "attic"}, request_id="once")
            third = stream.authorize(session.handle, "git", "log", {"repo": "attic"}, request_id="twice")

        assert (True, False, True) == (first.allowed, second.allowed, third.allowed)
        assert second.error.startswith("already_exists: ")
        assert [record["facts"]["status"] for record in service.refusals] == ["ALREADY_EXISTS"]


def test_a_retry_is_the_same_decision() -> None:
    """The same request id with the same bytes gives the same decision id, until the gate closes."""
    with serving() as service:
        session = service.open().approved()
        ids = [
            service.send("Authorize", a_call(session.handle, request_id="once")).decision.decision_id for _ in range(2)
        ]
        service.server.client("gateway").end_session(session.handle)
        late = service.send("Authorize", a_call(session.handle, request_id="once")).decision

        assert ids[0] == ids[1] != late.decision_id
        assert basis_of(late.basis) == "session_ended"


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """Serve for the tables below; each cell opens a session of its own."""
    with serving() as running:
        yield running


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_without_a_store(shared: Service, method: str) -> None:
    """A store that does not answer is never guessed for; afterwards all is as before."""
    message = OWN[method].ask(_session_for(shared, method))
    with _trouble(shared, errors.StoreUnavailableError("the session store does not answer")):
        assert OWN[method].without_store == shared.status(method, message)

    assert shared.status(method, message) == OWN[method].status


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_without_a_bundle(shared: Service, method: str) -> None:
    """Without an active bundle nothing is decided; afterwards all is as before."""
    message = OWN[method].ask(_session_for(shared, method))

    def until_reloaded(name: str) -> None:
        if name == "activate_bundle":
            shared.store.after = lambda _, found: found

    shared.store.before = until_reloaded
    shared.store.after = without_bundle
    try:
        assert OWN[method].without_bundle == shared.status(method, message)
    finally:
        shared.store.before = lambda _: None
        shared.store.after = lambda _, found: found
    spent = OWN[method].spends and OWN[method].without_bundle == "OK"
    assert spent or shared.status(method, message) == OWN[method].status


def test_a_bad_folder_leaves_the_good_bundle() -> None:
    """A bundle that does not load changes nothing, and GetBundle says what is wrong until one loads again."""
    with serving() as service:
        good = service.send("GetBundle", GetBundleRequest())
        the_folder_is_wrong(service)
        bad = service.send("GetBundle", GetBundleRequest())
        service.server.write_policies(FILES)
        mended = service.send("ReloadBundle", ReloadBundleRequest())

        assert bad.bundle == good.bundle
        assert list(bad.load_errors) == ["wrong.cedar:2: a policy needs an `@id`"]
        assert (mended.changed, mended.bundle.version) == (False, good.bundle.version)
        assert list(service.send("GetBundle", GetBundleRequest()).load_errors) == []


def test_a_worker_that_is_behind_says_so_and_catches_up(tmp_path: Path) -> None:
    """Once one worker made a bundle active, no other decides by the one before."""
    file, clock = tmp_path / "sessions.sqlite", FakeClock()
    stores = [SQLiteSessionStore(file) for _ in range(2)]
    with (
        serving(store=stores[0], clock=clock) as ahead,
        serving(store=stores[1], clock=clock) as behind,
    ):
        session = ahead.open().approved()
        before = behind.send("Authorize", a_call(session.handle)).decision
        ahead.server.write_policies(FROZEN)
        version = ahead.send("ReloadBundle", ReloadBundleRequest()).bundle.version
        error = behind.refused("Authorize", a_call(session.handle))
        end = monotonic() + PATIENCE
        while behind.status("Authorize", a_call(session.handle)) != "OK":
            assert monotonic() < end, "the worker does not catch up"
        after = behind.send("Authorize", a_call(session.handle)).decision

        assert basis_of(before.basis) == "permit"
        assert (error.code().name, advises_retry(error)) == ("UNAVAILABLE", True)
        assert (basis_of(after.basis), after.bundle_version) == ("forbid", version)
        assert [decision["basis"] for decision in behind.server.evidence.decision_records[:1]] == ["permit"]
        assert "permit" not in {decision["basis"] for decision in behind.server.evidence.decision_records[1:]}
    for store in stores:
        store.close()


def advises_retry(error: grpc.RpcError) -> bool:
    """Say whether an error tells when to try again."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in Status.FromString(value).details)
    return False


def still_answers(service: Service) -> bool:
    """Say whether a good call in a new session is permitted."""
    decision = service.send("Authorize", a_call(service.open().approved().handle)).decision
    return basis_of(decision.basis) == "permit"


def without_bundle(name: str, found: Any) -> Any:
    """Take the bundle out of what the store says, as after `TroubledStore.after`."""
    if name == "active_bundle":
        return None
    return replace(found, bundle=None) if name in {"view", "known"} and found is not None else found


@contextmanager
def _trouble(service: Service, error: Exception) -> Iterator[None]:
    """Have every method of the store raise inside the `with` block."""

    def fail(_: str) -> None:
        raise error

    service.store.before = fail
    try:
        yield
    finally:
        service.store.before = lambda _: None


def _meanwhile(service: Service, deed: Callable[[], object]) -> None:
    """Have something happen just before the next update is written."""

    def before(name: str) -> None:
        if name == "update":
            service.store.before = lambda _: None
            deed()

    service.store.before = before


def _session_for(service: Service, method: str) -> Opened:
    session = service.open()
    assert session.decision_id
    return session if OWN[method].waits else session.approved()


def _approval(session: Opened) -> ApproveSessionRequest:
    return ApproveSessionRequest(session_id=session.id, request_digest=session.digest)


def _below(kind: type[errors.PDPError]) -> Iterator[type[errors.PDPError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
