"""What callers write, field by field: every refusal names the field."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.errors import InvalidRequestError
from pdp.limits import Limits
from pdp.server.fields import moment_of, timestamp
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import Shape
from pdp.v1.authorization_pb2 import AuthorizeResponse, BatchAuthorizeRequest
from pdp.v1.decision_pb2 import BASIS_UNKNOWN_TOOL, OUTCOME_DENY
from pdp.v1.session_pb2 import (
    ListSessionsRequest,
    RequestSessionResponse,
)
from tests.machinery.rpcs.asking import wanted
from tests.machinery.rpcs.table import ALL
from tests.machinery.servers.running import Running, Serve, a_call


@pytest.fixture(scope="module")
def path_of() -> Callable[[Message], tuple[str, str]]:
    """Return what finds the RPC of a message that is no stream of calls, and a caller that may call it."""

    def find(message: Message) -> tuple[str, str]:
        name = message.DESCRIPTOR.full_name
        [row] = [
            row for row in RPCS.values() if row.request.DESCRIPTOR.full_name == name and row.shape is not Shape.EXCHANGE
        ]
        return row.path, min(getattr(role, "value", "") for role in row.roles)

    return find


WRONG = [wrong for rpc in RPCS.values() if rpc.shape is not Shape.EXCHANGE for wrong in ALL[rpc.method].wrong]


def test_a_wrong_field_is_named(running: Running, path_of: Callable[[Message], tuple[str, str]]) -> None:
    """A field that its caller wrote wrongly is INVALID_ARGUMENT with the field's name, and told to the observer."""
    expected, found = [], []
    for message, field in WRONG:
        path, caller = path_of(message)
        running.notes.forget()

        refused = running.refused(path, message.SerializeToString(), caller)

        told = running.notes.refusal().facts["field"]
        expected.append((path, grpc.StatusCode.INVALID_ARGUMENT, f"`{field}`", field))
        found.append((path, refused.code(), refused.details().split(": ")[0], told))

    assert expected == found
    assert running.notes.decisions == []


def test_the_last_page_size_is_allowed(running: Running) -> None:
    """The bounds of the table above are bounds, and what lies within them passes."""
    wire = ListSessionsRequest(page_size=1000).SerializeToString()

    assert running.unary("/pdp.v1.SessionService/ListSessions", wire) == b""


@pytest.mark.parametrize("tool", ["", "git_log\n\u202e", "a" * 5000, "git_log/../git_log"])
def test_the_name_of_a_tool_is_no_field_of_ours(running: Running, tool: str) -> None:
    """Whatever name the agent made up, the answer is a deny."""
    handle = running.open_session()

    answer = running.unary("/pdp.v1.AuthorizationService/Authorize", a_call(handle, tool=tool).SerializeToString())

    decision = AuthorizeResponse.FromString(answer).decision
    assert (decision.outcome, decision.basis, decision.tool) == (OUTCOME_DENY, BASIS_UNKNOWN_TOOL, tool)


def test_limits_are_the_servers_settings(serve: Serve) -> None:
    """Other limits, other refusals; each names its limit."""
    running = serve(limits=Limits(batch_size=2, purpose_characters=10))
    batch = BatchAuthorizeRequest(requests=[a_call()] * 3).SerializeToString()
    purpose = wanted(purpose="a" * 11).SerializeToString()

    assert running.refused("/pdp.v1.AuthorizationService/BatchAuthorize", batch).details() == (
        "`requests`: more than 2 (limit `batch_size`)"
    )
    assert running.refused("/pdp.v1.SessionService/RequestSession", purpose).details() == (
        "`purpose`: longer than 10 characters (limit `purpose_characters`)"
    )


def test_a_purpose_has_lines(running: Running) -> None:
    """A user's own words fit: 4,096 characters with line breaks and tabs, kept as they came."""
    purpose = "Pay the rent:\r\n\t- 1,200 to the landlord\n".ljust(4096, "x")

    asked = wanted(purpose=purpose).SerializeToString()
    answer = RequestSessionResponse.FromString(running.unary("/pdp.v1.SessionService/RequestSession", asked))

    assert answer.session.purpose == purpose


@pytest.mark.parametrize("purpose", ["a\rb", "a\x1b[2J", "a\x85b", "a\u202eb", "a\u2028b", "\n \n", "x" * 4097])
def test_what_hides_in_a_purpose_is_refused(running: Running, purpose: str) -> None:
    """What would overwrite, colour or turn what an approver reads does not get in, nor does nothing at all."""
    asked = wanted(purpose=purpose).SerializeToString()

    refused = running.refused("/pdp.v1.SessionService/RequestSession", asked)

    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.details()).startswith("`purpose`: ")


def test_a_time_is_before_the_year_10000() -> None:
    """Also as a float, as which the last nanoseconds before are the next second."""
    assert moment_of("time", Timestamp(seconds=253402300799)) == 253402300799.0
    with pytest.raises(InvalidRequestError, match="must be a time between 1970 and 9999"):
        moment_of("time", Timestamp(seconds=253402300799, nanos=999_999_999))


@pytest.mark.parametrize("at", [0.0, 1.5, 1_767_225_600.123456, 1_767_225_600.9999999999, 253402300799.0])
def test_times_survive_the_way(at: float) -> None:
    """A moment written as a timestamp is the moment, to the microsecond, and a valid timestamp."""
    written = timestamp(at)

    assert abs(written.seconds + written.nanos / 1e9 - at) < 1e-6
    assert json.loads(json.dumps(written.ToJsonString())).endswith("Z")
