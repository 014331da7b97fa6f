"""Who follows sessions: told of each change that they may see, and of nothing else, without a thread of the server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pdp.app.embedded import Embedded, open_embedded
from pdp.client import AsyncClient, Client, PDPClientError
from pdp.errors import StoreUnavailableError
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.callersfile import init_callers
from pdp.limits import DEFAULT_LIMITS
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.registry.following import MOST_CHANGES, Following
from pdp.registry.words import SessionRequest
from pdp.server.following import SessionFollowers
from pdp.server.revisions import revision_text
from pdp.serving.transport import Outgoing
from pdp.serving.watches import Watch
from pdp.sessions.lease import Lease
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server, write_folder
from pdp.v1.session_pb2 import (
    SESSION_STATE_ACTIVE,
    SESSION_STATE_REQUESTED,
    SESSION_STATE_REVOKED,
    WatchSessionsRequest,
    WatchSessionsResponse,
)
from tests.machinery.servers.rawmessages import TroubledStore
from tests.machinery.servers.running import PATIENCE, Serve, read_tokens

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}), authenticated_at=AT_EACH_CALL)
OTHER = Caller(id="other", kind="token", roles=frozenset({Role.PEP}), authenticated_at=AT_EACH_CALL)
FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("commit")]},
    overlays={"git": "risk: mutating"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)
WATCH = "/pdp.v1.SessionService/WatchSessions"


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Run a server with two gateways."""
    with running_server(FILES, callers=(*ONE_OF_EACH_ROLE, OTHER)) as running:
        yield running


def requested(pep: Client) -> str:
    """Request a session; return its id."""
    opened = pep.request_session(user="alice", agent="coder", purpose="p", tools=("git/*",))
    return opened.session.session_id


def serving_threads() -> set[threading.Thread]:
    """Return the threads of the server."""
    return {one for one in threading.enumerate() if one.name.startswith("pdp-")}


def approve(server: RunningServer, session_id: str) -> None:
    """Approve a session."""
    approver = server.client("approver")
    approver.approve_session(session_id, request_digest=approver.get_session(session_id).request_digest)


def following(client: Client, **how: object) -> Iterator[WatchSessionsResponse]:
    """Begin a watch, and take its first message."""
    feed = client.watch_sessions(**how)  # type: ignore[arg-type]  # the arguments of the method
    first = next(feed)
    assert first.changes == []
    return feed


def test_each_change_is_told(server: RunningServer) -> None:
    """A request, its approval and its revocation, each with its state, its epoch and a revision of its own."""
    feed = following(server.client("pep"))
    session_id = requested(server.client("pep"))
    told = [next(feed)]
    approve(server, session_id)
    told.append(next(feed))
    server.client("approver").revoke_sessions(session_id=session_id, reason="enough")
    told.append(next(feed))

    states = [(one.changes[0].session_id, one.changes[0].state) for one in told]
    assert states == [
        (session_id, SESSION_STATE_REQUESTED),
        (session_id, SESSION_STATE_ACTIVE),
        (session_id, SESSION_STATE_REVOKED),
    ]
    assert len({one.revision for one in told}) == len(told)
    assert [one.changes[0].epoch for one in told] == [1, 2, 3]
    assert not any(one.reset for one in told)


def test_a_gateway_is_told_of_its_own_sessions(server: RunningServer) -> None:
    """And people of all in their tenant."""
    own, people = following(server.client("other")), following(server.client("auditor"))
    foreign, mine = requested(server.client("pep")), requested(server.client("other"))

    assert [mine] == [one.session_id for one in next(own).changes]
    seen: set[str] = set()
    while len(seen) < 2:
        seen |= {one.session_id for one in next(people).changes}
    assert {foreign, mine} == seen


def test_a_freeze_is_told(server: RunningServer) -> None:
    """That the tenant of a gateway is frozen, and when that is over; no session has changed by it."""
    feed = following(server.client("pep"))
    freeze = server.client("admin").set_freeze(tenant="default", reason="acts strangely")
    frozen, late = next(feed), next(server.client("pep").watch_sessions())
    server.embedded.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)
    lifted = next(feed)

    assert [["default"], ["default"], []] == [list(one.frozen_tenants) for one in (frozen, late, lifted)]
    assert not any(one.changes or one.reset for one in (frozen, lifted))
    assert frozen.revision != lifted.revision


def test_one_session_can_be_followed(server: RunningServer) -> None:
    """It is told how that is now, then what changes, and nothing of others."""
    first, second = requested(server.client("pep")), requested(server.client("pep"))
    feed = server.client("pep").watch_sessions(session_id=second)
    told = [next(feed)]
    approve(server, first)
    approve(server, second)
    told.append(next(feed))

    assert [[(second, SESSION_STATE_REQUESTED)], [(second, SESSION_STATE_ACTIVE)]] == [
        [(one.session_id, one.state) for one in message.changes] for message in told
    ]


def test_what_was_missed_is_told_first(server: RunningServer) -> None:
    """From the revision of the last message that the follower has."""
    pep = server.client("pep")
    seen = next(pep.watch_sessions()).revision
    session_id = requested(pep)

    first = next(pep.watch_sessions(since_revision=seen))
    assert [session_id] == [one.session_id for one in first.changes]
    assert not first.reset


@pytest.mark.parametrize("another", [False, True])
def test_who_is_too_far_behind_reads_anew(server: RunningServer, *, another: bool) -> None:
    """So does who knows a revision of other data, such as a later one, or one of another history."""
    latest = server.embedded.sessions.head()
    other = revision_text(replace(latest, tag="another") if another else replace(latest, revision=2**40))
    first = next(server.client("pep").watch_sessions(since_revision=other))

    assert first.reset
    assert first.changes == []


def test_more_changes_than_can_be_told_are_a_reset(server: RunningServer) -> None:
    """Of 300 sessions that were requested while the follower was away."""
    pep = server.client("pep")
    seen = next(pep.watch_sessions()).revision
    for _ in range(300):
        requested(pep)

    first = next(pep.watch_sessions(since_revision=seen))
    assert (True, 0) == (first.reset, len(first.changes))


def test_another_bundle_is_told(server: RunningServer) -> None:
    """Each message names the active one."""
    before = server.client("author").get_bundle().bundle.version
    feed = server.client("pep").watch_sessions()

    assert before == next(feed).bundle_version
    (server.policies / "git.cedar").write_text('@id("git/other") permit (principal, action, resource);')
    server.client("author").reload_bundle()
    assert server.client("author").get_bundle().bundle.version == next(feed).bundle_version


def test_a_caller_without_a_role_for_it_is_refused(server: RunningServer) -> None:
    """Like every caller that the table does not list."""
    with pytest.raises(PDPClientError, match="may not call"):
        next(server.client("author").watch_sessions())


def test_a_removed_caller_is_told_nothing_more(serve: Serve, tmp_path: Path) -> None:
    """It is asked for again with each message, signs of life included."""
    path = init_callers(tmp_path, development=True)
    known = KnownCallers(path, development=True)
    running = serve(authenticator=TokenAuthenticator(known))
    running.tokens = read_tokens(path)
    feed = running.channel.unary_stream(WATCH)(
        b"", metadata=(("authorization", f"Bearer {running.tokens['pep']}"),), timeout=PATIENCE
    )
    next(feed)
    path.write_text(path.read_text().replace("pep:", "someone-else:").replace("[pep]", "[author]"))
    known.reload()

    code = None
    while code is None:
        # The server looks every hundredth of a second.
        running.clock.advance(20.0)
        time.sleep(0.02)
        code = feed.code() if feed.done() else None
    assert grpc.StatusCode.PERMISSION_DENIED is code


def test_a_caller_has_a_thousand_watches_and_they_hold_no_thread(server: RunningServer) -> None:
    """All are told of a change; one more is refused, until one ends."""
    most = 1024
    before = serving_threads()

    async def watch() -> None:
        metadata = (("authorization", f"Bearer {server.token('pep')}"),)
        async with AsyncExitStack() as opened:
            channels = [
                # A connection has at most a hundred calls.
                await opened.enter_async_context(
                    grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)])
                )
                for _ in range(most // 90 + 1)
            ]
            feeds, first = list[Any](), list[Any]()
            # Of one caller 64 messages may be on their way: more calls at once would end some on a busy machine.
            for begin in range(0, most, 60):
                numbers = range(begin, min(begin + 60, most))
                feeds += [channels[number // 90].unary_stream(WATCH)(b"", metadata=metadata) for number in numbers]
                first += await asyncio.gather(*[feed.read() for feed in feeds[begin:]])
            # Those of other tests may end meanwhile.
            assert serving_threads() <= before
            assert not any(WatchSessionsResponse.FromString(wire).changes for wire in first)
            session_id = await asyncio.to_thread(requested, server.client("pep"))
            for wire in await asyncio.gather(*[feed.read() for feed in feeds]):
                assert [session_id] == [one.session_id for one in WatchSessionsResponse.FromString(wire).changes]

            async def one_more() -> bytes:
                extra: bytes = await channels[-1].unary_stream(WATCH)(b"", metadata=metadata).read()
                return extra

            with pytest.raises(grpc.aio.AioRpcError, match="full share"):
                await one_more()
            feeds[0].cancel()
            async with asyncio.timeout(PATIENCE):
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        assert await one_more()
                        return

    asyncio.run(watch())


@pytest.mark.parametrize("text", ["1", "MS5h!", "x" * 129, "MDEuYQ", "LTEuYQ", "MS5hIGI"])
def test_what_is_no_revision_is_refused(server: RunningServer, text: str) -> None:
    """By the name of the field: a text that no server has given out."""
    with pytest.raises(PDPClientError, match="since_revision"):
        next(server.client("pep").watch_sessions(since_revision=text))


def test_the_client_for_asyncio_follows_too(server: RunningServer) -> None:
    """With the same messages."""

    async def follow() -> list[list[str]]:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True) as client:
            feed = client.watch_sessions()
            first = await anext(feed)
            expected.append(await asyncio.to_thread(requested, server.client("pep")))
            second = await anext(feed)
            return [[one.session_id for one in message.changes] for message in (first, second)]

    expected: list[str] = []
    assert [[], expected] == asyncio.run(follow())


class Slow:
    """A client that takes what is sent only when the test says so."""

    def __init__(self) -> None:
        self.over, self.idle = False, True
        self.sent: list[WatchSessionsResponse] = []

    def send(self, wire: bytes) -> None:
        """Keep a message until the client takes it."""
        self.idle = False
        self.sent.append(WatchSessionsResponse.FromString(wire))

    def cancel(self) -> None:
        """End the call."""
        self.over = True


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    """Return a PDP without a server."""
    write_folder(tmp_path / "policies", FILES)
    opened = open_embedded(tmp_path / "policies", compile_files=compile_here, clock=FakeClock())
    yield opened
    opened.close()


def followers_of(store: TroubledStore, clock: FakeClock) -> SessionFollowers:
    """Return the followers of a store that can be given trouble."""
    return SessionFollowers(Following(cast("Any", store), clock), clock, DEFAULT_LIMITS, every=1.0)


def watch_of(client: Slow, left: list[Any]) -> Watch:
    """Return the watch of a client; `left` is told of its end."""
    return Watch(
        PEP, cast("Outgoing", client), admits=lambda: True, refuse=left.append, leave=lambda: left.append("left")
    )


def test_a_message_says_how_old_it_may_be(embedded: Embedded) -> None:
    """While the store does not answer, the age grows, and who is new is turned away; then it is told as before."""
    clock, client, left = FakeClock(), Slow(), list[Any]()
    store = TroubledStore(embedded.sessions)
    followers = followers_of(store, clock)
    followers.add(WatchSessionsRequest(heartbeat=Duration(seconds=1)), watch_of(client, left))
    ages = []
    for trouble in (False, True, True, False):
        client.idle = True
        store.before = _raise_unavailable if trouble else lambda _: None
        if trouble:
            followers.add(WatchSessionsRequest(), watch_of(Slow(), left))
        followers.look_carefully()
        ages.append(client.sent[-1].age.ToSeconds())
        clock.advance(1.0)

    assert [0, 1, 2, 0] == ages
    assert [StoreUnavailableError, str] * 2 == [type(one) for one in left]


def test_under_a_lease_the_age_is_that_of_the_lease(embedded: Embedded) -> None:
    """What is remembered has what was acknowledged until the lease was asked for, and may lack what came later."""
    clock, client = FakeClock(), Slow()
    store = TroubledStore(embedded.sessions)
    followers = followers_of(store, clock)
    lease = Lease(head=embedded.sessions.head(), begun=clock.now(), seconds=5.0)
    store.after = lambda name, found: lease if name == "lease" else found
    clock.advance(2.0)
    followers.add(WatchSessionsRequest(), watch_of(client, []))
    followers.look()

    assert 2 == client.sent[-1].age.ToSeconds()


@pytest.mark.parametrize(("wanted", "expected"), [(None, 2), (0.01, 65), (1.0, 17), (5.0, 4), (60.0, 2)])
def test_a_watch_has_as_many_messages_as_it_asks_for(embedded: Embedded, wanted: float | None, expected: int) -> None:
    """In 16 seconds with four looks each, the first message included: one at least every 15 seconds."""
    clock, client = FakeClock(), Slow()
    followers = followers_of(TroubledStore(embedded.sessions), clock)
    request = WatchSessionsRequest()
    if wanted is not None:
        request.heartbeat.FromMicroseconds(round(wanted * 1e6))
    followers.add(request, watch_of(client, []))
    for _ in range(65):
        client.idle = True
        followers.look()
        clock.advance(0.25)

    assert expected == len(client.sent)


def _raise_unavailable(_: str) -> None:
    raise StoreUnavailableError("away")


def test_a_slow_client_holds_up_nobody_and_is_let_go(embedded: Embedded) -> None:
    """What it has not taken is one message, then a word that it must read anew, and at last the end of its watch."""
    clock, slow, quick = FakeClock(), Slow(), Slow()
    left: list[Any] = []
    followers = SessionFollowers(embedded.following, clock, DEFAULT_LIMITS, every=1.0)
    for one in (slow, quick):
        followers.add(WatchSessionsRequest(), watch_of(one, left))
    followers.look()
    told = 0
    for number in range(MOST_CHANGES + 10):
        wanted = SessionRequest(user="alice", agent="coder", purpose=f"{number}", tool_patterns=("git/*",))
        embedded.registrar.request(wanted, PEP)
        quick.idle = True
        followers.look()
        told += len(quick.sent[-1].changes)

    assert (1, MOST_CHANGES + 10) == (len(slow.sent), told)
    slow.idle = True
    followers.look()
    assert slow.sent[-1].reset
    clock.advance(DEFAULT_LIMITS.stream_idle_seconds + 1)
    quick.idle = True
    followers.look()
    followers.look()
    assert (slow.over, quick.over, left, len(followers)) == (True, False, ["left"], 1)
