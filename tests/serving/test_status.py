"""The table of errors: every class has a status, and nothing else gets out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp import errors
from pdp.clock import Instant
from pdp.decision.authorizer import Authorizer
from pdp.model import Caller, Role
from pdp.registry.approvers import require_presence
from pdp.serving.status import NEVER_SENT, STATUSES, refusal_of
from tests.machinery.servers.running import Running, Serve, a_call, retry_info

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
Code = grpc.StatusCode

SENT = [
    (errors.InvalidRequestError("call.tool", "is odd"), Code.INVALID_ARGUMENT, False),
    (errors.UnauthenticatedError("who", what="a token", reason="unknown"), Code.UNAUTHENTICATED, False),
    (errors.PermissionDeniedError("no"), Code.PERMISSION_DENIED, False),
    (errors.NotFoundError("none"), Code.NOT_FOUND, False),
    (errors.WrongStateError("over"), Code.FAILED_PRECONDITION, False),
    (errors.UnknownRevisionError("unknown"), Code.FAILED_PRECONDITION, False),
    (errors.FrozenError("frozen"), Code.FAILED_PRECONDITION, False),
    (errors.ConflictError("lost"), Code.ABORTED, False),
    (errors.RequestIdConflictError("used"), Code.ALREADY_EXISTS, False),
    (errors.AlreadyReportedError("reported"), Code.ALREADY_EXISTS, False),
    (errors.OverloadedError("much"), Code.RESOURCE_EXHAUSTED, True),
    (errors.UnavailableError("away"), Code.UNAVAILABLE, True),
    (errors.StoreUnavailableError("store away"), Code.UNAVAILABLE, True),
    (errors.BundleUnavailableError("no bundle"), Code.UNAVAILABLE, True),
    (errors.EvaluatorUnavailableError("died"), Code.UNAVAILABLE, True),
    (errors.BundleError((errors.Problem("a.cedar", 3, "is odd"),)), Code.FAILED_PRECONDITION, False),
]
NOT_SENT = [
    errors.ConfigurationError("secret text"),
    errors.CannotListenError("secret text"),
    errors.InvalidArgumentsError("secret text"),
    errors.InvalidJSONError("secret text"),
    errors.UnsafePolicyError("secret text", 1),
    ValueError("secret text"),
    KeyError("secret text"),
    RecursionError("secret text"),
    MemoryError("secret text"),
]


class Failing:
    """An authorizer that fails in one way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def authorize(self, *_: Any, **__: Any) -> None:
        """Fail."""
        raise self._error


def failing(serve: Serve, error: Exception) -> Running:
    """Start a server whose authorizer fails."""
    return serve(authorizer=cast("Authorizer", Failing(error)))


def leaves(kind: type[errors.PDPError]) -> Iterator[type[errors.PDPError]]:
    """Yield the classes of the tree of `pdp.errors` that a caller could be told apart by."""
    below = [one for one in kind.__subclasses__() if one.__module__ == "pdp.errors"]
    if not below:
        yield kind
    for one in below:
        yield from leaves(one)


def test_every_leaf_is_in_the_table() -> None:
    """A new error class has a status, or is listed as one that never reaches a caller; not both."""
    assert set(leaves(errors.PDPError)) <= set(STATUSES) | NEVER_SENT
    assert set(STATUSES) & NEVER_SENT == set()


@pytest.mark.parametrize(("error", "code", "retryable"), SENT, ids=lambda value: type(value).__name__)
def test_errors_and_their_statuses(serve: Serve, error: Exception, code: grpc.StatusCode, *, retryable: bool) -> None:
    """A caller sees the status and the text of an error, and whether a retry is worthwhile."""
    running = failing(serve, error)

    refused = running.refused(AUTHORIZE, a_call().SerializeToString())

    assert refused.code() is code
    assert refused.details() == str(error)
    assert (retry_info(refused) is not None) == retryable
    told = refusal_of(error)
    assert told is not None
    assert reason(refused) == ("pdp.v1", told.kind)
    assert running.notes.refusal().facts["status"] == code.name


def test_a_refusal_that_a_log_in_lifts_says_how_old_it_may_be() -> None:
    """`max_age` comes with a refusal for lack of presence, and with no other."""
    info = [ErrorInfo(), ErrorInfo()]
    lately = Caller(id="ann", kind="jwt", roles=frozenset({Role.APPROVER}), authenticated_at=1000.0)
    with pytest.raises(errors.PermissionDeniedError) as caught:
        require_presence(lately, "`wipe` is destructive", Instant(wall_at=1301.0, boot_at=0.0, boot_id=""))

    for found, error in zip(info, (caught.value, errors.PermissionDeniedError("no")), strict=True):
        told = refusal_of(error)
        assert told is not None
        assert Status.FromString(told.trailing_metadata[0][1]).details[0].Unpack(found)

    assert [{"max_age": "300"}, {}] == [dict(one.metadata) for one in info]


def test_every_class_with_a_status_is_tried() -> None:
    """The table above misses none of the tree's classes."""
    tried = {type(error) for error, *_ in SENT} | {type(error) for error in NOT_SENT}

    assert set(leaves(errors.PDPError)) <= tried


@pytest.mark.parametrize("error", NOT_SENT, ids=lambda error: type(error).__name__)
def test_internal_errors_say_nothing(serve: Serve, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What was not foreseen is INTERNAL with a trace id; its text is in the log and nowhere else."""
    running = failing(serve, error)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    parent = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-00"),)

    with caplog.at_level(logging.ERROR, "pdp.server"):
        refused = running.refused(AUTHORIZE, a_call().SerializeToString(), metadata=parent)

    assert refused.code() is Code.INTERNAL
    assert refused.details() == f"internal error (trace id {trace_id})"
    assert reason(refused) == ("pdp.v1", "INTERNAL")
    assert "secret text" in caplog.text
    assert trace_id in caplog.text
    assert "secret text" not in str(running.notes.refusal())


def test_an_internal_error_without_trace_gets_an_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The id that a caller is told finds the log, also when it sent no trace."""
    running = failing(serve, ValueError("secret text"))

    with caplog.at_level(logging.ERROR, "pdp.server"):
        refused = running.refused(AUTHORIZE, a_call().SerializeToString())

    trace_id = refused.details().removeprefix("internal error (trace id ").removesuffix(")")
    assert len(trace_id) == 32
    assert trace_id in caplog.text


def test_retry_and_field_for_programs() -> None:
    """The trailers hold what programs read: when to retry, and which field is wrong."""
    retry = refusal_of(errors.OverloadedError("much"))
    field = refusal_of(errors.InvalidRequestError("requests[3].call.server", "is required"))
    assert retry is not None
    assert field is not None

    [(name, packed)] = retry.trailing_metadata
    status = Status.FromString(packed)
    info = RetryInfo()
    assert status.details[1].Unpack(info)
    assert (name, status.code, status.message) == ("grpc-status-details-bin", 8, "much")
    assert info.retry_delay.ToTimedelta().total_seconds() == 0.1
    bad = BadRequest()
    assert Status.FromString(field.trailing_metadata[0][1]).details[1].Unpack(bad)
    assert bad.field_violations[0].field == "requests[3].call.server"


def test_details_are_one_short_line() -> None:
    """However long and odd a message is, the trailers stay within what clients accept."""
    problems = tuple(errors.Problem("ä.cedar", line, "“odd”\n\x1b[31m") for line in range(1000))

    refusal = refusal_of(errors.BundleError(problems))

    assert refusal is not None
    assert refusal.details.isprintable()
    assert len(refusal.details.encode()) < 1100
    assert refusal.details.startswith("ä.cedar: “odd” [31m; ä.cedar:1: ")


def test_every_reason_is_explained(project_root: Path) -> None:
    """The table of reasons in the page of the API holds exactly those that errors carry, each with its status."""
    page = (project_root / "proto" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", page, re.MULTILINE))

    kinds = [(rule.kind, rule.code.name) for rule in STATUSES.values()]
    assert {*kinds, ("INTERNAL", "INTERNAL")} == listed
    assert len({kind for kind, _ in kinds}) == len(kinds)


def reason(refused: grpc.RpcError) -> tuple[str, str]:
    """Return domain and reason that came with a refusal."""
    info = ErrorInfo()
    for key, value in refused.trailing_metadata():
        if key == "grpc-status-details-bin":
            assert any(detail.Unpack(info) for detail in Status.FromString(value).details)
    return info.domain, info.reason
