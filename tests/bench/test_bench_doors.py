"""A door that is measured: what counts as its right answer."""

from __future__ import annotations

import json

import pytest

from pdp.bench.doors import EnvoyDialect
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import Shape
from pdp.bench.questions import Question, question
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse, DeniedResponse, OkResponse

DIALECT = EnvoyDialect(("pdps_first", "pdps_second"))
ALLOWED, DENIED = (question("s", "t", b'{"a": 1}', allowed=allowed, asker=1) for allowed in (True, False))


def told(*, sent_on: bool, basis: str = "") -> CheckResponse:
    """Return an answer of the door, which rests on a decision where there is a basis."""
    found = CheckResponse(ok_response=OkResponse()) if sent_on else CheckResponse(denied_response=DeniedResponse())
    found.status.code = 0 if sent_on else 7
    if basis:
        found.dynamic_metadata.fields["decision_id"].string_value = "dec_1"
        found.dynamic_metadata.fields["basis"].string_value = basis
    return found


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        (ALLOWED, told(sent_on=True, basis="permit"), ""),
        (DENIED, told(sent_on=False, basis="forbid"), ""),
        (ALLOWED, told(sent_on=False, basis="forbid"), "`s/t` must be sent on, and is refused by `forbid`"),
        (DENIED, told(sent_on=True, basis="permit"), "`s/t` must be refused, and is sent on by `permit`"),
        (DENIED, told(sent_on=False), "the door asked nobody about `s/t`"),
        (ALLOWED, told(sent_on=True), "the door asked nobody about `s/t`"),
    ],
)
def test_only_what_rests_on_the_right_decision_is_right(asked: Question, answer: CheckResponse, problem: str) -> None:
    """A door that lets everything pass, or refuses because it reaches no server, is fast and wrong."""
    try:
        DIALECT.check(Shape.UNARY, answer.SerializeToString(), [asked])
        found = ""
    except WrongAnswerError as error:
        found = str(error)

    assert problem == found


def test_bytes_of_something_else_are_no_answer() -> None:
    """What cannot be read is not counted as fast."""
    with pytest.raises(WrongAnswerError, match="not a message of Envoy's API"):
        DIALECT.check(Shape.UNARY, b"\xff", [ALLOWED])


def test_a_question_is_a_call_of_a_tool_in_the_session_of_its_asker() -> None:
    """Tool and arguments are in the body, the server is what the route says, and the handle is a header."""
    asked = CheckRequest.FromString(DIALECT.encode(Shape.UNARY, [ALLOWED]))

    http = asked.attributes.request.http
    assert {"name": "t", "arguments": {"a": 1}} == json.loads(http.raw_body)["params"]
    assert ("pdps_second", {"server": "s"}) == (
        http.headers["x-pdp-session"],
        dict(asked.attributes.context_extensions),
    )


def test_a_door_is_asked_one_by_one() -> None:
    """Envoy has no other way than a question about each request."""
    assert [Shape.UNARY] == [shape for shape in Shape if DIALECT.path(shape)]
