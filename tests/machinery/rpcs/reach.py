"""RPCs about what can be reached."""

from __future__ import annotations

from collections.abc import Mapping

from pdp.v1.reach_pb2 import GetReachRequest, GetReachResponse
from tests.machinery.rpcs.asking import FOREIGN_TOKENS
from tests.machinery.rpcs.row import ERROR, WATCHFUL, Row, Wrapped, tenant
from tests.machinery.rpcs.states import in_states

_REACH = GetReachResponse(bundle_version="sha256:1", session_count=2)

REACH: Mapping[str, Row] = {
    "GetReach": Row(
        ask=lambda session: GetReachRequest(session_id=session.id),
        said=lambda found, _: f"{found.session_count} session",
        roles=dict.fromkeys(WATCHFUL, tenant("1 session")),
        states=in_states(
            live="1 session",
            over="FAILED_PRECONDITION",
            requested="FAILED_PRECONDITION",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="1 session",
        ),
        wrong=(
            (GetReachRequest(), "session_id"),
            (GetReachRequest(session_id="ses 1"), "session_id"),
            (GetReachRequest(session_id="ses_1", user="alice"), "session_id"),
            (GetReachRequest(user="a b"), "user"),
            (GetReachRequest(agent="a\n"), "agent"),
            (GetReachRequest(user="alice", asked_now=True), "asked_now"),
            (GetReachRequest(user="stranger", agent="coder", asked_now=True), "user"),
            (GetReachRequest(user="alice", agent="stranger", asked_now=True), "agent"),
            (GetReachRequest(user="alice", terms_json=b"{}"), "terms_json"),
            (GetReachRequest(user="alice", agent="coder", asked_now=True, terms_json=b"{"), "terms_json"),
            (GetReachRequest(user="alice", agent="coder", asked_now=True, terms_json=b" " * 16385), "terms_json"),
            (GetReachRequest(user="alice", used_days=-1), "used_days"),
            (GetReachRequest(user="alice", used_days=367), "used_days"),
            (GetReachRequest(user="alice", former_version="v1"), "former_version"),
            (GetReachRequest(user="alice", page_size=-1), "page_size"),
            (GetReachRequest(user="alice", page_size=101), "page_size"),
            *((GetReachRequest(user="alice", page_token=token), "page_token") for token in ("x", *FOREIGN_TOKENS)),
        ),
        wrapped=Wrapped(
            lambda client: client.get_reach(
                user="alice",
                agent="coder",
                asked_now=True,
                terms={"max_calls": 3},
                used_days=7,
                page_size=10,
                page_token="abc",  # noqa: S106 - where a page begins
                former_version="sha256:f",
            ),
            GetReachRequest(
                former_version="sha256:f",
                user="alice",
                agent="coder",
                asked_now=True,
                terms_json=b'{"max_calls":3}',
                used_days=7,
                page_size=10,
                page_token="abc",  # noqa: S106 - the same
            ),
            _REACH,
            _REACH,
        ),
        # The version that is not kept, as with `GetBundle`.
        seen_again={"former_version": {ERROR}},
    ),
}
