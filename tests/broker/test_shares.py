"""One presenter cannot have all that is open, over HTTP or gRPC, and calls leave room for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import grpc
import pytest

from pdp.broker.calls import CallFace
from pdp.broker.shares import Shares
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError
from tests.broker.worlds import World, world
from tests.machinery.calltokens import PRESENTER


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    """Provide a broker."""
    with world() as made:
        yield made


class EndedError(Exception):
    """An RPC has ended with a code."""


class Context:
    """That of an RPC of a process on the same machine."""

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
