"""A freeze, and a server that is away, as doors see them: who listens hears of it, and a session is opened later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest

from pdp.client import AsyncClient, UnavailableError
from pdp.doors import refusals
from pdp.doors.feeds import SessionsFeed
from pdp.doors.session import NoSessionError, RequestedSession
from pdp.doors.tasks import Joined
from pdp.testing.inprocess import running_server
from pdp.v1.session_pb2 import WatchSessionsResponse
from tests.doors.desk import files

PATIENCE, START = 30.0, 1.0


class Alone:
    """A task that is shared with none."""

    async def join(self, client: AsyncClient) -> Joined:
        """Request its session."""
        opened = await client.request_session(user="alice", agent="coder", purpose="p", tools=("desk/*",))
        return Joined(opened.session_handle, opened.session, opened.link)

    async def leave(self, _: AsyncClient) -> None:
        """Let it end by itself."""


class Away(Alone):
    """A task whose server does not answer."""

    async def join(self, _: AsyncClient) -> Joined:
        """Find nobody."""
        raise UnavailableError("nothing answers")


def test_all_who_listen_hear_of_a_freeze_and_of_its_end() -> None:
    """Their sessions have not changed, but what these can call has."""
    told: asyncio.Queue[list[str]] = asyncio.Queue()

    async def changes(_: str) -> AsyncIterator[WatchSessionsResponse]:
        while True:
            yield WatchSessionsResponse(revision="x", frozen_tenants=await told.get())

    async def heard() -> list[bool]:
        feed, found = SessionsFeed(changes), list[bool]()
        with feed.hearing(lambda: "ses_1") as changed:
            for frozen in ([], ["default"], ["default"], []):
                changed.clear()
                told.put_nowait(frozen)
                # The turns of the loop in which the feed takes a message, and passes it on.
                for _ in range(9):
                    await asyncio.sleep(0)
                found.append(changed.is_set())
        await feed.close()
        return found

    with patch("pdp.doors.feeds._SHORTEST_SECONDS", 0.0):
        # What a feed begins with is always news.
        assert [True, True, False, True] == asyncio.run(heard())


def test_a_session_waits_for_the_end_of_a_freeze() -> None:
    """The agent is told at once what is wrong, and a person is asked when it is over."""
    with running_server(files()) as server:
        freeze = server.client("admin").set_freeze(tenant="default", reason="acts strangely")

        async def scene() -> tuple[str, str]:
            token = server.token("pep")
            async with AsyncClient(server.address, token=token, plaintext=True) as client:
                session = RequestedSession(client, Alone(), pdp_command="pdp {}".format)
                during = await missing(session)
                server.embedded.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)
                after = during
                async with asyncio.timeout(PATIENCE):
                    while after == during:
                        await asyncio.sleep(0.02)
                        after = await missing(session)
                await session.close()
                return during, after

        with patch("pdp.doors.session._MOST_START_SECONDS", PATIENCE):
            during, after = asyncio.run(scene())

    assert refusals.FROZEN == during
    assert after.startswith("Waiting for approval")


def test_a_server_that_is_away_is_waited_for_once(caplog: pytest.LogCaptureFixture) -> None:
    """Only as long as one may take to start; whoever runs the door hears of it once."""

    def told_of() -> int:
        # gRPC logs of its own that the event loop of an earlier test is closed.
        return sum("the session cannot be opened now" in one for one in caplog.messages)

    async def scene() -> list[tuple[str, bool]]:
        seen = []
        async with AsyncClient("127.0.0.1:1", token="sesame", plaintext=True) as client:  # noqa: S106 - of no server
            session = RequestedSession(client, Away(), pdp_command="pdp {}".format)
            for _ in range(2):
                asking = asyncio.ensure_future(missing(session))
                # More turns of the loop than an answer takes that waits for nothing.
                for _ in range(99):
                    await asyncio.sleep(0)
                waits = not asking.done()
                seen.append((await asking, waits))
            async with asyncio.timeout(PATIENCE):
                while not told_of():
                    await missing(session)
                    await asyncio.sleep(0.02)
            await session.close()
        return seen

    with patch("pdp.doors.session._MOST_START_SECONDS", START), patch("pdp.doors.session._AGAIN_SECONDS", START):
        assert [(refusals.AWAY, True), (refusals.AWAY, False)] == asyncio.run(scene())
    assert 1 == told_of()


async def missing(session: RequestedSession) -> str:
    """Return what an agent is told that has no session."""
    with pytest.raises(NoSessionError) as caught:
        await session.current()
    return str(caught.value)
