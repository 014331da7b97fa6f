"""An answer says what its change has waited for, and nothing of other requests."""

from __future__ import annotations

from threading import Thread

import pytest

from pdp.server.fencing import FENCED, fenced
from pdp.sessions.fences import Fences
from pdp.sessions.lease import Fence, FencedBy
from pdp.v1.fence_pb2 import FENCED_BY_CONFIRMED, FENCED_BY_UNSPECIFIED, FENCED_BY_WAITED
from pdp.v1.session_pb2 import EndSessionResponse
from tests.machinery.servers.rawmessages import METHODS

QUICK = Fence(by=FencedBy.CONFIRMED, seconds=0.25)
SLOW = Fence(by=FencedBy.WAITED, seconds=1.5)


def test_the_methods_are_those_whose_answers_have_the_fields() -> None:
    """A new one cannot be forgotten."""
    assert {name for name, method in METHODS.items() if "fenced_by" in method.output_type.fields_by_name} == FENCED


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

    def handle() -> EndSessionResponse:
        for fence in waited:
            fences.note(fence)
        other = Thread(target=fences.note, args=(SLOW,), name="other")
        other.start()
        other.join()
        return EndSessionResponse()

    fences.note(SLOW)
    answer = fenced("EndSession", handle, fences)()
    duration = answer.fence_duration.ToNanoseconds() / 1e9

    assert expected == (answer.fenced_by, answer.HasField("fence_duration"), duration)
