"""One presenter cannot have all that is open, over HTTP or gRPC, and calls leave room for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from itertools import islice
from threading import Event
from typing import Any, NoReturn

import grpc
import pytest

from pdp.broker.calls import CallFace
from pdp.broker.personalcalls import handlers_of
from pdp.broker.persons import Person
from pdp.broker.proxy import ProxyFace
from pdp.broker.sending import Answer, UpstreamFailedError
from pdp.broker.shares import Room, Shares
from pdp.broker.v1 import broker_pb2
from pdp.broker.v1.connection_pb2 import EndConnectionRequest, EndConnectionResponse
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError
from tests.broker.worlds import ARGUMENTS, World, request, token, world
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

    def is_active(self) -> bool:
        """Say that the client waits."""
        return True

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


def test_one_tenant_leaves_a_quarter_to_others() -> None:
    """Through however many presenters it comes, and what was given back is there again."""
    shares = Shares(8)
    with ExitStack() as opened:
        for one in "aaabbb":
            opened.enter_context(shares.taken_by(one))("acme")
        with shares.taken_by("c") as of_tenant, pytest.raises(OverloadedError):
            of_tenant("acme")
        with shares.taken_by("c") as of_tenant:
            of_tenant("other")
    with shares.taken_by("c") as of_tenant:
        of_tenant("acme")


@contextmanager
def _taken_up(shares: Shares, places: int) -> Iterator[None]:
    """Have so many requests open of the tenant of the tests, each of another presenter."""
    with ExitStack() as opened:
        for one in range(places):
            opened.enter_context(shares.taken_by(f"{one}"))("acme")
        yield


def test_a_call_beyond_the_share_of_its_tenant_is_refused(here: World) -> None:
    """Nothing is sent, and it is recorded; one more has a place."""
    face, wanted = CallFace(here.broker, None), broker_pb2.CallRequest  # type: ignore[arg-type]  # no desk is asked
    arguments = json.dumps(ARGUMENTS).encode()

    def called() -> bytes:
        asked = wanted(call_token=token(presenter=None), server="github", tool="create_issue", arguments_json=arguments)
        return face.call(asked.SerializeToString(), Context())

    here.upstream.got.clear()
    here.record.events.clear()
    with _taken_up(face._open, 72), pytest.raises(EndedError) as refused:
        called()
    kinds = here.record.kinds
    with _taken_up(face._open, 71):
        called()

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, 1) == (refused.value.args[0], len(here.upstream.got))
    assert ["calltoken.refused"] == kinds


@pytest.mark.parametrize("greets", [False, True])
def test_a_request_beyond_the_share_of_its_tenant_is_refused(here: World, greets: bool) -> None:  # noqa: FBT001 - a row of the table
    """Over HTTP, too, also of what calls no tool: the stream of a session of MCP can be open for long."""
    face, statuses = ProxyFace(here.broker, presenter=lambda _: Presenter(), most_open=8), list[int]()
    try:
        for places in (6, 5):
            with _taken_up(face._open, places):
                headers = {} if greets else {"pdp-call-token": token(presenter=None)}
                statuses.append(request(face, "GET", "/remote/mcp" if greets else "/github/user", headers).status)
    finally:
        face.close()

    assert [503, 200] == statuses


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
