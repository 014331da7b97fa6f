"""`ReachService` on a real server: when a tool was last used, as far as the record knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from pdp.client import Client
from pdp.foundation.paging import page_token_of
from pdp.limits import DEFAULT_LIMITS
from pdp.model import AT_EACH_CALL, Caller, Role, TraceParent
from pdp.server.reach import ReachHandlers
from pdp.serving.origin import Origin
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.reach_pb2 import GetReachRequest, GetReachResponse

DAY = 86400.0
LEAD = Caller(id="lead", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A server with a session in which one of two tools was used at a time, and its clock."""

    server: RunningServer
    approver: Client
    session_id: str
    handle: str
    clock: FakeClock
    began_at: float
    used_at: float


@pytest.fixture
def used() -> Iterator[Used]:
    """Serve a record with one allowed call and one denied one."""
    policy = '@id("files/read") permit (principal, action == Action::"files/read", resource is Server);'
    files = bundle_files(
        policies={"files": policy},
        tools={"files": [tool("read"), tool("write")]},
        directory="users: {alice: {}, bob: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
    )
    clock, pep = FakeClock(), Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
    with running_server(files, callers=[pep, LEAD], clock=clock) as server:
        began_at, gateway, approver = clock.now().wall_at, server.client("pep"), server.client("lead")
        asked = gateway.request_session(user="alice", agent="coder", purpose="Work", tools=["files/*"])
        approver.approve_session(asked.session.session_id, request_digest=asked.session.request_digest)
        clock.advance(60.0)
        answers = [gateway.authorize(asked.session_handle, "files", name, {}).allowed for name in ("read", "write")]
        assert [True, False] == answers
        yield Used(
            server=server,
            approver=approver,
            session_id=asked.session.session_id,
            handle=asked.session_handle,
            clock=clock,
            began_at=began_at,
            used_at=clock.now().wall_at,
        )


def last_used(found: GetReachResponse) -> dict[str, float]:
    """Return when each tool was last used, without those that were not."""
    return {
        one.tool.tool: one.last_allow_time.ToNanoseconds() / 1e9
        for one in found.tools
        if one.HasField("last_allow_time")
    }


def test_the_last_use_is_that_of_the_record(used: Used) -> None:
    """Only allowed calls count, of the session, or of the user and the agent, in the days that are asked about."""
    at, approver = used.used_at, used.approver

    assert {"read": at} == last_used(approver.get_reach(session_id=used.session_id))
    assert {"read": at} == last_used(approver.get_reach(user="alice", agent="coder", asked_now=True))
    assert {} == last_used(approver.get_reach(user="bob", agent="coder", asked_now=True))
    used.clock.advance(2 * DAY)
    assert {"read": at} == last_used(approver.get_reach(agent="coder", user="alice", asked_now=True, used_days=3))
    later = approver.get_reach(agent="coder", user="alice", asked_now=True, used_days=1)
    assert {} == last_used(later)
    assert used.clock.now().wall_at - DAY == later.used_since_time.ToNanoseconds() / 1e9


def test_a_young_record_says_how_far_back_it_knows(used: Used) -> None:
    """A tool that was not used since the record began may have been used before it."""
    found = used.approver.get_reach(user="alice", used_days=366)

    assert ("", True) == (
        found.use_unknown,
        used.began_at <= found.used_since_time.ToNanoseconds() / 1e9 <= used.used_at,
    )


def test_pages_follow_one_another(used: Used) -> None:
    """The token of a page leads to the next one, and the last page has none."""
    first = used.approver.get_reach(user="alice", page_size=1)
    second = used.approver.get_reach(user="alice", page_size=1, page_token=first.next_page_token)

    assert (["read"], ["write"], "") == (
        [one.tool.tool for one in first.tools],
        [one.tool.tool for one in second.tools],
        second.next_page_token,
    )


def test_further_pages_repeat_what_the_record_said(used: Used) -> None:
    """All pages of an answer say the same, for five minutes; a first page asks the record."""
    page = partial(used.approver.get_reach, user="alice")
    further = page_token_of("a")
    page()
    used.clock.advance(1.0)
    assert used.server.client("pep").authorize(used.handle, "files", "read", {}).allowed

    assert used.used_at == last_used(page(page_token=further))["read"]
    assert used.used_at + 1.0 == last_used(page())["read"]
    used.clock.advance(1.0)
    assert used.server.client("pep").authorize(used.handle, "files", "read", {}).allowed
    used.clock.advance(301.0)
    assert used.used_at + 2.0 == last_used(page(page_token=further))["read"]


def test_without_a_record_the_reach_is_told_all_the_same(used: Used) -> None:
    """The answer says why it does not know of any use."""
    reaching = used.server.embedded.reaching
    handlers = ReachHandlers(reaching, used.server.embedded.keeper, None, clock=used.clock, limits=DEFAULT_LIMITS)
    origin = Origin(caller=LEAD, parent=TraceParent(traceparent="", tracestate=""))

    found = handlers.get_reach(GetReachRequest(session_id=used.session_id), origin)

    assert ["read", "write"] == [one.tool.tool for one in found.tools]
    assert ("this server keeps no record", False) == (found.use_unknown, found.HasField("used_since_time"))
