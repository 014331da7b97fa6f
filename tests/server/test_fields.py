"""What callers write, field by field: every refusal names the field."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.limits import Limits
from pdp.server.fields import timestamp
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import Shape
from pdp.v1.audit_pb2 import (
    GetRecordRequest,
    ListApprovalsRequest,
    ListRecordsRequest,
    ListTouchedRequest,
    PlanRevocationRequest,
    RecordFilter,
)
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeResponse, BatchAuthorizeRequest, ListToolsRequest
from pdp.v1.decision_pb2 import BASIS_UNKNOWN_TOOL, OUTCOME_DENY, Call
from pdp.v1.explain_pb2 import ExplainRequest, SupposedSession
from pdp.v1.policy_pb2 import BundleFile, CheckBundleRequest, EvaluateRequest
from pdp.v1.session_pb2 import (
    ApproveSessionRequest,
    DenySessionRequest,
    EndSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    NarrowSessionRequest,
    RequestSessionRequest,
    RequestSessionResponse,
    ReviewSessionRequest,
    RevokeSessionsRequest,
)
from tests.server.running import Running, Serve, a_call

DIGEST = "sha256:" + "a" * 64
LONG_ID = "a" * 129
BIDI = "pay \u202eevil"
# Of the right form and of values that no list is sorted by, for each kind of list one at least.
FOREIGN_TOKENS = tuple(
    base64.urlsafe_b64encode(text.encode()).decode()
    for text in (
        "[1]",
        '[1, "a", -1]',
        '[1, "a", 1e30]',
        f'[{1 << 63}, "a", 1]',
        '[true, "a", 1]',
        r'[1, "\ud800", 1]',
        r'["git", "\udfff", "", ""]',
        r'["\ud800"]',
        '[NaN, "a"]',
        '[1e999, "a"]',
        r'[1.0, "\ud800"]',
        "[" * 2000,
    )
)


def asked(**more: Any) -> AuthorizeRequest:
    """Return a question with more fields."""
    return AuthorizeRequest(call=a_call().call, **more)


def wanted(**more: Any) -> RequestSessionRequest:
    """Return a request for a session, right but for what is given."""
    fields: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "x", "tool_patterns": ["git/*"]}
    return RequestSessionRequest(**(fields | more))


WRONG: list[tuple[Message, str]] = [
    (AuthorizeRequest(), "call"),
    (AuthorizeRequest(call=Call(server="git", tool="git_log")), "call.session_handle"),
    (a_call(handle="pdps_ä"), "call.session_handle"),
    (a_call(handle=LONG_ID), "call.session_handle"),
    (a_call(server=""), "call.server"),
    (a_call(server="git/x"), "call.server"),
    (a_call(server="git\n"), "call.server"),
    (a_call(server="g" * 65), "call.server"),
    (a_call(definition_digest="a" * 64), "call.definition_digest"),
    (a_call(definition_digest=DIGEST.upper()), "call.definition_digest"),
    (a_call(definition_digest=DIGEST + "a"), "call.definition_digest"),
    (a_call(facts_json=b" " * (128 * 1024 + 1)), "call.facts_json"),
    (a_call(facts_json=b"[]"), "call.facts_json"),
    (asked(request_id="a b"), "request_id"),
    (asked(request_id=LONG_ID), "request_id"),
    (asked(request_id="a\n"), "request_id"),
    (asked(tool_call_id="a\nb"), "tool_call_id"),
    (asked(tool_call_id=BIDI), "tool_call_id"),
    (asked(tool_call_id="a" * 513), "tool_call_id"),
    (BatchAuthorizeRequest(), "requests"),
    (BatchAuthorizeRequest(requests=[a_call()] * 101), "requests"),
    (BatchAuthorizeRequest(requests=[a_call(), a_call(), a_call(), a_call(server="")]), "requests[3].call.server"),
    (BatchAuthorizeRequest(requests=[a_call(), AuthorizeRequest()]), "requests[1].call"),
    (BatchAuthorizeRequest(requests=[a_call(), a_call(facts_json=b"[]")]), "requests[1].call.facts_json"),
    (ListToolsRequest(), "session_handle"),
    (wanted(user=""), "user"),
    (wanted(user="alice smith"), "user"),
    (wanted(user="stranger"), "user"),
    (wanted(agent="coder\x00"), "agent"),
    (wanted(agent="stranger"), "agent"),
    (wanted(purpose=""), "purpose"),
    (wanted(purpose=" "), "purpose"),
    (wanted(purpose="a" * 4097), "purpose"),
    (wanted(purpose=BIDI), "purpose"),
    (wanted(purpose="a\rb"), "purpose"),
    (wanted(purpose="a\u2028b"), "purpose"),
    (wanted(tool_patterns=[]), "tool_patterns"),
    (wanted(tool_patterns=["git/*"] * 65), "tool_patterns"),
    (wanted(tool_patterns=["git/*", "*"]), "tool_patterns[1]"),
    (wanted(tool_patterns=["git/\x1b"]), "tool_patterns[0]"),
    (wanted(duration=Duration(seconds=-1)), "duration"),
    (wanted(duration=Duration(seconds=0)), "duration"),
    (wanted(duration=Duration(nanos=-1)), "duration"),
    (wanted(duration=Duration(seconds=2**62)), "duration"),
    (wanted(parent_session_handle="a b"), "parent_session_handle"),
    (wanted(environment="a b"), "environment"),
    (wanted(user_attributes_json=b" " * (128 * 1024 + 1)), "user_attributes_json"),
    (wanted(user_attributes_json=b"{"), "user_attributes_json"),
    (wanted(user_attributes_json=b'{"admin": true}'), "user_attributes_json"),
    (wanted(labels=["a b"]), "labels[0]"),
    (wanted(labels=["a"] * 65), "labels"),
    (ApproveSessionRequest(request_digest=DIGEST), "session_id"),
    (ApproveSessionRequest(session_id="ses_a"), "request_digest"),
    (ApproveSessionRequest(session_id="ses_a", request_digest="x"), "request_digest"),
    (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, grants=["a", ""]), "grants[1]"),
    (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, grants=["a"] * 65), "grants"),
    (DenySessionRequest(), "session_id"),
    (DenySessionRequest(session_id="ses_a", reason="a\rb"), "reason"),
    (EndSessionRequest(), "session_handle"),
    (RevokeSessionsRequest(reason="x"), "selector"),
    (RevokeSessionsRequest(reason="x", user=""), "user"),
    (RevokeSessionsRequest(reason="x", agent="a b"), "agent"),
    (RevokeSessionsRequest(reason="x", tenant="*"), "tenant"),
    (RevokeSessionsRequest(reason="x", session_id="\n"), "session_id"),
    (RevokeSessionsRequest(user="alice"), "reason"),
    (GetSessionRequest(), "session_id"),
    (ReviewSessionRequest(), "session_id"),
    (ReviewSessionRequest(session_id="ses_1", grants=["a b"]), "grants[0]"),
    (ListSessionsRequest(state=99), "state"),  # type: ignore[arg-type]  # a state of a newer API
    (ListSessionsRequest(user="a b"), "user"),
    (ListSessionsRequest(agent="a b"), "agent"),
    (ListSessionsRequest(page_size=-1), "page_size"),
    (ListSessionsRequest(page_size=1001), "page_size"),
    *((ListSessionsRequest(page_token=token), "page_token") for token in ("nonsense", "nan/x", *FOREIGN_TOKENS)),
    (NarrowSessionRequest(), "session_id"),
    (NarrowSessionRequest(session_id="ses_a", tool_patterns=["*"]), "tool_patterns[0]"),
    (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(seconds=-1)), "expire_time"),
    (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(seconds=2**62)), "expire_time"),
    (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(nanos=10**9)), "expire_time"),
    (NarrowSessionRequest(session_id="ses_a", labels=["\u202e"]), "labels[0]"),
    (CheckBundleRequest(files=[BundleFile(path="a"), BundleFile(path="a")]), "files[1].path"),
    (EvaluateRequest(running_bundle=True, policies="permit"), "policies"),
    (EvaluateRequest(running_bundle=True, schema="entity A;"), "schema"),
    (EvaluateRequest(running_bundle=True, schema_json="{}"), "schema_json"),
    (EvaluateRequest(policies="permit"), "policies"),
    (EvaluateRequest(requests_json=["[]"]), "requests_json[0]"),
    *(
        (ExplainRequest(**{"server": "git", "tool": "git_log", "session_id": "ses_a", field: value}), field)  # type: ignore[arg-type]  # by name
        for field, value in (
            ("session_id", "ses a"),
            ("server", "git/x"),
            ("tool", ""),
            ("definition_digest", "md5:0"),
            ("facts_json", b" " * (128 * 1024 + 1)),
            ("caller_id", "a b"),
            ("time", Timestamp(seconds=-1)),
        )
    ),
    *(
        (
            ExplainRequest(
                server="git",
                tool="git_log",
                supposed=SupposedSession(**{"user": "alice", "agent": "coder", field.partition("[")[0]: value}),  # type: ignore[arg-type]  # by name
            ),
            f"supposed.{field}",
        )
        for field, value in (
            ("user", ""),
            ("agent", "a b"),
            ("grants[1]", ["a", "a b"]),
            ("labels[0]", [BIDI]),
            ("purpose", "a\r"),
            ("environment", "a b"),
            ("user_attributes_json", b" " * (128 * 1024 + 1)),
        )
    ),
    (
        ExplainRequest(
            server="git",
            tool="git_log",
            supposed=SupposedSession(user="alice", agent="coder"),
            facts_json=b"[]",
        ),
        "facts_json",
    ),
    (GetRecordRequest(), "decision_id"),
    (GetRecordRequest(decision_id="dec 1"), "decision_id"),
    (ListApprovalsRequest(), "session_id"),
    (ListApprovalsRequest(session_id="ses 1"), "session_id"),
    (ListApprovalsRequest(decision_id="dec 1"), "decision_id"),
    *(
        (kind(filter=RecordFilter(**{field: value})), f"filter.{field}")  # type: ignore[arg-type]  # by name
        for kind in (ListRecordsRequest, ListTouchedRequest)
        for field, value in (
            ("session_id", "ses 1"),
            ("user", "a\n"),
            ("agent", "a b"),
            ("caller_id", LONG_ID),
            ("kind", "*"),
            ("outcome", 7),
            ("delegated", True),
            ("since_time", Timestamp(seconds=-1)),
            ("until_time", Timestamp(nanos=-1)),
        )
    ),
    *((kind(page_size=size), "page_size") for kind in (ListRecordsRequest, ListTouchedRequest) for size in (-1, 1001)),
    *(
        (kind(page_token=token), "page_token")
        for kind in (ListRecordsRequest, ListTouchedRequest)
        for token in ("nonsense", "bnVsbA==", "W" * 9000, *FOREIGN_TOKENS)
    ),
    *(
        (PlanRevocationRequest(**{field: value}), field)  # type: ignore[arg-type]  # by name
        for field, value in (
            ("session_id", "ses 1"),
            ("user", "a b"),
            ("agent", BIDI),
            ("pep", "a\n"),
            ("approver", LONG_ID),
            ("tool", "git_log"),
            ("tool", "git/" + BIDI),
            ("server", "a" * 1026),
            ("resource", "r" * 1025),
            ("bundle_version", "sha 256"),
            ("since_time", Timestamp(seconds=-1)),
            ("until_time", Timestamp(seconds=2**62)),
        )
    ),
    (PlanRevocationRequest(user="alice", page_size=1001), "page_size"),
    (PlanRevocationRequest(argument="recipients"), "argument"),
    (ListRecordsRequest(filter=RecordFilter(arguments=["a=b", "=c"])), "filter.arguments[1]"),
    (ListTouchedRequest(filter=RecordFilter(arguments=["a=b"] * 17)), "filter.arguments"),
    *((PlanRevocationRequest(user="alice", page_token=token), "page_token") for token in ("nonsense", *FOREIGN_TOKENS)),
    (PlanRevocationRequest(), "request"),
    (PlanRevocationRequest(tried=True), "request"),
]


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


@pytest.mark.parametrize(
    ("message", "field"), WRONG, ids=[f"{message.DESCRIPTOR.name}-{field}" for message, field in WRONG]
)
def test_a_wrong_field_is_named(
    running: Running, path_of: Callable[[Message], tuple[str, str]], message: Message, field: str
) -> None:
    """A field that its caller wrote wrongly is INVALID_ARGUMENT with the field's name, and told to the observer."""
    path, caller = path_of(message)

    refused = running.refused(path, message.SerializeToString(), caller)

    assert (refused.code(), refused.details().split(": ")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, f"`{field}`")
    assert running.notes.refusal().facts["field"] == field
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


@pytest.mark.parametrize("at", [0.0, 1.5, 1_767_225_600.123456, 1_767_225_600.9999999999, 253402300799.0])
def test_times_survive_the_way(at: float) -> None:
    """A moment written as a timestamp is the moment, to the microsecond, and a valid timestamp."""
    written = timestamp(at)

    assert abs(written.seconds + written.nanos / 1e9 - at) < 1e-6
    assert json.loads(json.dumps(written.ToJsonString())).endswith("Z")
