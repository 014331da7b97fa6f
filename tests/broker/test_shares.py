"""One presenter cannot have all that is open, over HTTP or gRPC, and calls leave room for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import islice
from threading import Event
from typing import Any, NoReturn

import grpc
import pytest

from pdp.broker.calls import CallFace
from pdp.broker.personalcalls import handlers_of
from pdp.broker.persons import Person
from pdp.broker.sending import Answer, UpstreamFailedError
from pdp.broker.shares import Room, Shares
from pdp.broker.v1 import broker_pb2
from pdp.broker.v1.connection_pb2 import EndConnectionRequest, EndConnectionResponse
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError
from tests.broker.worlds import World, world
from tests.machinery.calltokens import PRESENTER
from tests.machinery.servers.running import PATIENCE


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    """Provide a broker."""
    with world() as made:
        yield made


class EndedError(Exception):
    """An RPC has ended with a code."""


class Context:
    """That of an RPC of a process on the same machine, with a bearer token or without."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """Return the token."""
        return [("authorization", self._token)]

    def auth_context(self) -> dict[str, Any]:
        """Return no certificate."""
        return {}

    def peer(self) -> str:
        """Return a Unix socket."""
        return "unix:"

    def set_trailing_metadata(self, _: Any) -> None:
        """Forget it."""

    def abort(self, code: grpc.StatusCode, _: str) -> NoReturn:
        """End the RPC."""
        raise EndedError(code)


def test_one_presenter_has_half() -> None:
    """Others have the rest, and what was given back is there again."""
    shares, local = Shares(4), Presenter()
    with ExitStack() as opened:
        for presenter in (local, local, PRESENTER):
            opened.enter_context(shares.taken(presenter))
        with pytest.raises(OverloadedError), shares.taken(local):
            pass
        with shares.taken(None), pytest.raises(OverloadedError), shares.taken(PRESENTER):
            pass
    with shares.taken(local), shares.taken(local):
        pass


def test_answers_that_are_held_have_so_much_room(here: World) -> None:
    """Small ones always; of large ones so much at once, and what was handed on makes room again."""
    face = CallFace(here.broker, None)  # type: ignore[arg-type]  # no desk is asked
    face._room = Room(free=2, most=3)

    def answered(size: int) -> bytes:
        return face._response(Answer(status=200, headers=[], pieces=iter([b"x"] * size)))

    for _ in range(2):
        assert b"x" * 5 == broker_pb2.CallResponse.FromString(answered(5)).body
        with face._room.whole([b"large"]):
            assert b"xx" == broker_pb2.CallResponse.FromString(answered(2)).body
            with pytest.raises(UpstreamFailedError, match="more than there is room for"):
                answered(3)
        with pytest.raises(UpstreamFailedError):
            answered(6)


def test_what_is_under_way_ends_with_the_process(here: World) -> None:
    """An upstream that answers slowly would keep it from ending, for as long as an answer may take."""
    with here.broker.under_way.noted(["ses_1"], tenant="acme") as running:
        CallFace(here.broker, None).close()  # type: ignore[arg-type]  # no desk is asked

    assert running.ended


@pytest.mark.parametrize("method", ["call", "checkout"])
def test_a_call_beyond_the_share_of_its_presenter_is_refused(here: World, method: str) -> None:
    """Before it is read further: one more has a place, and is looked at."""
    face, ended = CallFace(here.broker, None), list[Any]()  # type: ignore[arg-type]  # no desk is asked
    for places in (48, 47):
        with ExitStack() as opened:
            for _ in range(places):
                opened.enter_context(face._open.taken(Presenter()))
            with pytest.raises(EndedError) as refused:
                getattr(face, method)(b"", Context())
            ended += refused.value.args

    assert [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT] == ended


def test_a_person_leaves_room_for_others() -> None:
    """To end a connection can take most of a minute. Nobody's calls wait for that, and no other person."""
    over = Event()

    def waits(_: Any, __: Person) -> EndConnectionResponse:
        assert over.wait(PATIENCE)
        return EndConnectionResponse()

    def person_of(name: str) -> Person:
        return Person(id=name, roles=(), tenants=())

    end = handlers_of({"EndConnection": (EndConnectionRequest, waits)}, person_of)["EndConnection"].unary_unary
    with ThreadPoolExecutor(24) as pool:
        asking = [pool.submit(end, b"", Context(f"Bearer {name}")) for name in "abcd" for _ in range(6)]
        try:
            refused = list(islice(as_completed(asking, PATIENCE), 14))
        finally:
            over.set()
        kept = Counter("abcd"[number // 6] for number, one in enumerate(asking) if one not in refused)

    assert {EndedError} == {type(one.exception()) for one in refused}
    assert (10, 3) == (kept.total(), max(kept.values()))
