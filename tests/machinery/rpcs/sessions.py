"""RPCs about sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.v1.session_pb2 import (
    SESSION_STATE_ACTIVE,
    ApproveSessionRequest,
    ApproveSessionResponse,
    DenySessionRequest,
    DenySessionResponse,
    EndSessionRequest,
    EndSessionResponse,
    GetSessionRequest,
    GetSessionResponse,
    ListSessionsRequest,
    ListSessionsResponse,
    Narrowing,
    NarrowSessionRequest,
    NarrowSessionResponse,
    RequestSessionRequest,
    RequestSessionResponse,
    ReviewSessionRequest,
    ReviewSessionResponse,
    RevokeSessionsRequest,
    RevokeSessionsResponse,
    Session,
    SessionState,
    WatchSessionsRequest,
)
from tests.machinery.rpcs.asking import BIDI, DIGEST, FOREIGN_TOKENS, wanted
from tests.machinery.rpcs.row import ERROR, RECORD, STORE, WATCHFUL, Row, Wrapped, opener, tenant
from tests.machinery.rpcs.states import DECIDED, SEEN, in_states

_SESSION = Session(session_id="ses_1", user="alice")


_NARROWING = Narrowing(
    tool_patterns=["files/read"], duration=Duration(seconds=90, nanos=500_000_000), terms_json=b'{"max_calls":3}'
)
_NO_NARROWINGS = (
    (Narrowing(tool_patterns=["git/\x1b"]), "narrowing.tool_patterns[0]"),
    (Narrowing(duration=Duration(seconds=-1)), "narrowing.duration"),
    (Narrowing(terms_json=b" " * (16 * 1024 + 1)), "narrowing.terms_json"),
)


def _shown(session: Any) -> str:
    return SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()


SESSIONS: Mapping[str, Row] = {
    "RequestSession": Row(
        ask=lambda session: RequestSessionRequest(
            user="ada", agent="coder", purpose="errand", tool_patterns=["git/*"], parent_session_handle=session.handle
        ),
        # The session is the parent of the one that is asked for.
        roles={"pep": opener("OK")},
        states=in_states(
            live="OK",
            over="FAILED_PRECONDITION",
            requested="FAILED_PRECONDITION",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="NOT_FOUND",
        ),
        wrong=(
            (RequestSessionRequest(user="ada", agent="coder", purpose="\u202e"), "purpose"),
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
            (wanted(terms_json=b" " * (16 * 1024 + 1)), "terms_json"),
            (wanted(terms_json=b'{"ticket":'), "terms_json"),
            (wanted(terms_json=b'{"ticket": "OPS-1"}'), "terms_json"),
            (wanted(labels=["a b"]), "labels[0]"),
            (wanted(labels=["a"] * 65), "labels"),
            (wanted(request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.request_session(
                user="alice",
                agent="coder",
                purpose="mend",
                tools=["files/*"],
                duration=90.5,
                parent_session_handle="pdps_0",
                environment="test",
                user_attributes={"team": "a"},
                labels=["l"],
                may_delegate=True,
                terms={"ticket": "OPS-1"},
            ),
            RequestSessionRequest(
                user="alice",
                agent="coder",
                purpose="mend",
                tool_patterns=["files/*"],
                duration=Duration(seconds=90, nanos=500_000_000),
                parent_session_handle="pdps_0",
                environment="test",
                user_attributes_json=b'{"team":"a"}',
                labels=["l"],
                may_delegate=True,
                terms_json=b'{"ticket":"OPS-1"}',
            ),
            RequestSessionResponse(session=_SESSION, session_handle="pdps_1"),
            RequestSessionResponse(session=_SESSION, session_handle="pdps_1"),
        ),
        seen_again={
            # What a person is shown, decides about, and says why. A session keeps it, its record tells it.
            "purpose": {RECORD, STORE},
            "environment": {RECORD, STORE},
            # One that the bundle declares is its author's word; another one goes back to whoever sent it.
            "labels": {ERROR},
            "user": {ERROR},
            "agent": {ERROR},
            # Only the name of an attribute goes back, never the value; values that may be vouched for stand in the
            # session, and in the record as digests.
            "user_attributes_json": {ERROR, STORE},
            # So are terms.
            "terms_json": {ERROR, STORE},
        },
    ),
    "ApproveSession": Row(
        ask=lambda session: ApproveSessionRequest(session_id=session.id, request_digest=session.digest),
        roles={"approver": tenant("OK")},
        states=DECIDED,
        wrong=(
            (ApproveSessionRequest(session_id="ses_a", request_digest="md5:0"), "request_digest"),
            (ApproveSessionRequest(request_digest=DIGEST), "session_id"),
            (ApproveSessionRequest(session_id="ses_a"), "request_digest"),
            (ApproveSessionRequest(session_id="ses_a", request_digest="x"), "request_digest"),
            (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, grants=["a", ""]), "grants[1]"),
            (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, grants=["a"] * 65), "grants"),
            (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, request_id="a b"), "request_id"),
            *(
                (ApproveSessionRequest(session_id="ses_a", request_digest=DIGEST, narrowing=narrowing), field)
                for narrowing, field in _NO_NARROWINGS
            ),
        ),
        wrapped=Wrapped(
            lambda client: client.approve_session(
                "ses_1",
                request_digest="sha256:r",
                grants=["merge"],
                tools=["files/read"],
                duration=90.5,
                terms={"max_calls": 3},
            ),
            ApproveSessionRequest(
                session_id="ses_1", request_digest="sha256:r", grants=["merge"], narrowing=_NARROWING
            ),
            ApproveSessionResponse(session=_SESSION),
            _SESSION,
        ),
        seen_again={
            # A name that is not known goes back to whoever sent it.
            "grants": {ERROR},
            # So does the name of a term, never its value.
            "narrowing.terms_json": {ERROR},
        },
        waits=True,
        spends=True,
    ),
    "DenySession": Row(
        ask=lambda session: DenySessionRequest(session_id=session.id),
        roles={"approver": tenant("OK")},
        states=DECIDED,
        wrong=(
            (DenySessionRequest(session_id="ses a"), "session_id"),
            (DenySessionRequest(), "session_id"),
            (DenySessionRequest(session_id="ses_a", reason="a\rb"), "reason"),
            (DenySessionRequest(session_id="ses_a", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.deny_session("ses_1", reason="no"),
            DenySessionRequest(session_id="ses_1", reason="no"),
            DenySessionResponse(session=_SESSION),
            _SESSION,
        ),
        seen_again={
            "reason": {RECORD, STORE},
        },
        waits=True,
        spends=True,
        without_bundle="OK",
    ),
    "EndSession": Row(
        ask=lambda session: EndSessionRequest(session_handle=session.handle),
        roles={"pep": opener("OK")},
        states=in_states(
            live="OK",
            over="FAILED_PRECONDITION",
            requested="OK",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="NOT_FOUND",
        ),
        wrong=(
            (EndSessionRequest(), "session_handle"),
            (EndSessionRequest(session_handle="pdps_1", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.end_session("pdps_1"),
            EndSessionRequest(session_handle="pdps_1"),
            EndSessionResponse(session=_SESSION),
            _SESSION,
        ),
        spends=True,
        without_bundle="OK",
    ),
    "RevokeSessions": Row(
        ask=lambda session: RevokeSessionsRequest(session_id=session.id, reason="a test"),
        said=lambda found, session: f"revokes {list(found.session_ids).count(session.id)}",
        roles=dict.fromkeys(("approver", "admin", "revoker"), tenant("revokes 1")),
        # To revoke what is over is no mistake: two people may revoke at the same time.
        states=in_states(
            live="revokes 1",
            over="revokes 0",
            requested="revokes 1",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="revokes 1",
        ),
        wrong=(
            (RevokeSessionsRequest(reason="x"), "selector"),
            (RevokeSessionsRequest(reason="x", user=""), "user"),
            (RevokeSessionsRequest(reason="x", agent="a b"), "agent"),
            (RevokeSessionsRequest(reason="x", tenant="*"), "tenant"),
            (RevokeSessionsRequest(reason="x", session_id="\n"), "session_id"),
            (RevokeSessionsRequest(reason="x", user="alice", of_tenant="*"), "of_tenant"),
            (RevokeSessionsRequest(reason="x", tenant="default", of_tenant="default"), "of_tenant"),
            (RevokeSessionsRequest(user="alice"), "reason"),
            (RevokeSessionsRequest(user="alice", reason="x", request_id="a b"), "request_id"),
            (RevokeSessionsRequest(user="alice", reason="x", validate_only=True), "reason"),
        ),
        wrapped=Wrapped(
            lambda client: client.revoke_sessions(agent="coder", of_tenant="default", reason="stolen"),
            RevokeSessionsRequest(agent="coder", of_tenant="default", reason="stolen"),
            RevokeSessionsResponse(session_ids=["ses_1", "ses_2"]),
            ("ses_1", "ses_2"),
        ),
        seen_again={
            "reason": {RECORD, STORE},
            # The row by which many are revoked at once names whose sessions they are.
            "agent": {STORE},
        },
        spends=True,
        # To take authority away must always be possible.
        without_bundle="OK",
    ),
    "ReviewSession": Row(
        ask=lambda session: ReviewSessionRequest(session_id=session.id),
        said=lambda found, _: _shown(found.session),
        roles={"approver": tenant("active")},
        # What is over is not judged any more.
        states=in_states(
            live="active",
            over="FAILED_PRECONDITION",
            requested="requested",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="active",
        ),
        wrong=(
            (ReviewSessionRequest(session_id="ses_a", grants=["a b"]), "grants[0]"),
            (ReviewSessionRequest(), "session_id"),
            (ReviewSessionRequest(session_id="ses_1", grants=["a b"]), "grants[0]"),
            *(
                (ReviewSessionRequest(session_id="ses_1", narrowing=narrowing), field)
                for narrowing, field in _NO_NARROWINGS
            ),
        ),
        wrapped=Wrapped(
            lambda client: client.review_session(
                "ses_1", grants=["merge"], tools=["files/read"], duration=90.5, terms={"max_calls": 3}
            ),
            ReviewSessionRequest(session_id="ses_1", grants=["merge"], narrowing=_NARROWING),
            ReviewSessionResponse(session=_SESSION, known_grants=["merge"]),
            ReviewSessionResponse(session=_SESSION, known_grants=["merge"]),
        ),
    ),
    "GetSession": Row(
        ask=lambda session: GetSessionRequest(session_id=session.id),
        said=lambda found, _: _shown(found.session),
        roles={"pep": opener("active"), **dict.fromkeys(WATCHFUL, tenant("active"))},
        states=SEEN,
        wrong=(
            (GetSessionRequest(session_id="a b"), "session_id"),
            (GetSessionRequest(session_id="ses_1", min_revision="x"), "min_revision"),
            (GetSessionRequest(), "session_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.get_session("ses_1"),
            GetSessionRequest(session_id="ses_1"),
            GetSessionResponse(session=_SESSION),
            _SESSION,
        ),
    ),
    "ListSessions": Row(
        ask=lambda _: ListSessionsRequest(page_size=1000),
        said=lambda found, session: next(
            (_shown(one) for one in found.sessions if one.session_id == session.id), "not listed"
        ),
        roles={
            "pep": opener("active", hidden="not listed"),
            **dict.fromkeys(WATCHFUL, tenant("active", hidden="not listed")),
        },
        states={state: "not listed" if seen == "NOT_FOUND" else seen for state, seen in SEEN.items()},
        wrong=(
            (ListSessionsRequest(page_size=-1), "page_size"),
            (ListSessionsRequest(state=99), "state"),  # type: ignore[arg-type]  # a state of a newer API
            (ListSessionsRequest(user="a b"), "user"),
            (ListSessionsRequest(agent="a b"), "agent"),
            (ListSessionsRequest(tenant="a b"), "tenant"),
            (ListSessionsRequest(page_size=1001), "page_size"),
            *(
                (ListSessionsRequest(page_token=token), "page_token")
                for token in ("nonsense", "nan/x", *FOREIGN_TOKENS)
            ),
        ),
        wrapped=Wrapped(
            lambda client: client.list_sessions(
                state="active", user="alice", agent="coder", tenant="acme", summaries=True, page_size=2
            ),
            ListSessionsRequest(
                state=SESSION_STATE_ACTIVE, user="alice", agent="coder", tenant="acme", summaries=True, page_size=2
            ),
            ListSessionsResponse(sessions=[_SESSION]),
            [_SESSION],
        ),
    ),
    "NarrowSession": Row(
        ask=lambda session: NarrowSessionRequest(session_id=session.id, tool_patterns=["git/*"]),
        roles={"pep": opener("OK"), "approver": tenant("OK")},
        states=in_states(
            live="OK",
            over="FAILED_PRECONDITION",
            requested="FAILED_PRECONDITION",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="NOT_FOUND",
        ),
        wrong=(
            (NarrowSessionRequest(session_id="ses_a", labels=["a b"]), "labels[0]"),
            (NarrowSessionRequest(session_id="ses_a", request_id="a b"), "request_id"),
            (NarrowSessionRequest(), "session_id"),
            (NarrowSessionRequest(session_id="ses_a", tool_patterns=["*"]), "tool_patterns[0]"),
            (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(seconds=-1)), "expire_time"),
            (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(seconds=2**62)), "expire_time"),
            (NarrowSessionRequest(session_id="ses_a", expire_time=Timestamp(nanos=10**9)), "expire_time"),
            (NarrowSessionRequest(session_id="ses_a", labels=["\u202e"]), "labels[0]"),
        ),
        wrapped=Wrapped(
            lambda client: client.narrow_session("ses_1", tools=["files/read"], expires_at=12.25, labels=["l"]),
            NarrowSessionRequest(
                session_id="ses_1",
                tool_patterns=["files/read"],
                expire_time=Timestamp(seconds=12, nanos=250_000_000),
                labels=["l"],
            ),
            NarrowSessionResponse(session=_SESSION),
            _SESSION,
        ),
        seen_again={
            "labels": {ERROR},
        },
        # Only new labels need one.
        without_bundle="OK",
    ),
    "WatchSessions": Row(
        ask=lambda session: WatchSessionsRequest(session_id=session.id),
        said=lambda found, _: next(map(_shown, found.changes), "not listed"),
        roles={
            "pep": opener("active", hidden="not listed"),
            **dict.fromkeys((*WATCHFUL, "broker"), tenant("active", hidden="not listed")),
        },
        states={state: "not listed" if seen == "NOT_FOUND" else seen for state, seen in SEEN.items()},
        without_bundle="OK",
        wrong=(
            (WatchSessionsRequest(since_revision="x"), "since_revision"),
            (WatchSessionsRequest(heartbeat=Duration(seconds=-1)), "heartbeat"),
            (WatchSessionsRequest(session_id="ses 1"), "session_id"),
        ),
    ),
}
