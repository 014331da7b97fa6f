"""An answer says what its change has waited for, and nothing of other requests."""

from __future__ import annotations

from threading import Thread

import pytest

from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.model import Head
from pdp.server.fencing import FENCED, fenced
from pdp.server.revisions import optional_revision
from pdp.sessions.fences import Fences
from pdp.sessions.lease import Fence, FencedBy
from pdp.v1.fence_pb2 import FENCED_BY_CONFIRMED, FENCED_BY_UNSPECIFIED, FENCED_BY_WAITED
from pdp.v1.session_pb2 import EndSessionRequest, EndSessionResponse, RevokeSessionsRequest, RevokeSessionsResponse
from tests.machinery.servers.rawmessages import METHODS

HEAD = Head(revision=7, tag="a")
QUICK = Fence(by=FencedBy.CONFIRMED, seconds=0.25)
SLOW = Fence(by=FencedBy.WAITED, seconds=1.5)


def test_the_methods_are_those_whose_answers_have_the_fields() -> None:
    """A new one cannot be forgotten."""
    for field in ("fenced_by", "fence_duration", "revision"):
        assert {name for name, method in METHODS.items() if field in method.output_type.fields_by_name} - {
            "WatchSessions"
        } == FENCED


@pytest.mark.parametrize(
    ("waited", "expected"),
    [
        pytest.param([], (FENCED_BY_UNSPECIFIED, False, 0.0), id="nothing"),
        pytest.param([QUICK], (FENCED_BY_CONFIRMED, True, 0.25), id="one that was confirmed"),
        pytest.param([QUICK, SLOW, QUICK], (FENCED_BY_WAITED, True, 2.0), id="several, of which one was not"),
    ],
)
def test_an_answer_sums_up_the_fences_of_its_request(waited: list[Fence], expected: tuple[int, bool, float]) -> None:
    """What an earlier request of the thread has left does not count, nor does what another thread waits for."""
    fences = Fences()

    def handle(_: EndSessionRequest) -> EndSessionResponse:
        for fence in waited:
            fences.note(fence)
        other = Thread(target=fences.note, args=(SLOW,), name="other")
        other.start()
        other.join()
        return EndSessionResponse()

    fences.note(SLOW)
    answer = fenced("EndSession", handle, fences, lambda: HEAD)(EndSessionRequest())
    duration = answer.fence_duration.ToNanoseconds() / 1e9

    assert expected == (answer.fenced_by, answer.HasField("fence_duration"), duration)


@pytest.mark.parametrize(
    ("request_", "error", "expected"),
    [
        pytest.param(RevokeSessionsRequest(user="alice"), None, HEAD, id="a change"),
        pytest.param(RevokeSessionsRequest(user="alice", validate_only=True), None, None, id="no change"),
        pytest.param(RevokeSessionsRequest(user="alice"), StoreUnavailableError("away"), None, id="the store is away"),
        pytest.param(RevokeSessionsRequest(user="alice"), OverloadedError("busy"), None, id="the store is busy"),
    ],
)
def test_an_answer_names_a_revision_that_has_its_change(
    request_: RevokeSessionsRequest, error: Exception | None, expected: Head | None
) -> None:
    """The change stands, and is answered, also when none can be told any more."""

    def head() -> Head:
        if error is not None:
            raise error
        return HEAD

    answer = fenced("RevokeSessions", lambda _: RevokeSessionsResponse(), Fences(), head)(request_)

    assert expected == optional_revision("revision", answer.revision)
