"""Several questions in one request: when they end, and what of them counts."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.authzen.gateway import EVALUATIONS, Gateway, call_of, opened

YES, NO = ({"resource": {"type": "desk", "id": name}} for name in ("note", "closed"))


@pytest.mark.parametrize(
    ("semantic", "evaluations", "decisions"),
    [
        ("execute_all", [YES, NO, YES], [True, False, True]),
        (None, [YES, NO, YES], [True, False, True]),
        ("deny_on_first_deny", [YES, NO, YES], [True, False]),
        ("deny_on_first_deny", [YES, YES], [True, True]),
        ("deny_on_first_deny", [YES, {"resource": 1}, YES], [True, False]),
        ("permit_on_first_permit", [NO, YES, NO], [False, True]),
        ("permit_on_first_permit", [NO, NO], [False, False]),
        ("permit_on_first_permit", [{"action": {}}, 7, YES, YES], [False, False, True]),
    ],
)
def test_what_is_not_reached_is_not_asked(
    gateway: Gateway, server: RunningServer, semantic: str | None, evaluations: list[Any], decisions: list[bool]
) -> None:
    """A deny or a permit ends the rest where the caller says so; the answer has no more than was decided."""
    before = len(server.evidence.decision_spans)
    options = {"options": {"evaluations_semantic": semantic}} if semantic else {}

    answer = gateway.post(EVALUATIONS, {**call_of(""), "evaluations": evaluations, **options})

    assert 200 == answer.status_code
    assert decisions == [one["decision"] for one in answer.json()["evaluations"]]
    assert len(server.evidence.decision_spans) - before <= len(decisions)


def test_a_faulty_question_says_what_is_wrong_with_it(gateway: Gateway) -> None:
    """The others are decided."""
    body = {**call_of("desk/note"), "evaluations": [{}, {"subject": {"id": 7}}, {"context": {"arguments": 1.5}}, []]}

    answer = gateway.post(EVALUATIONS, body)

    good, *faulty = answer.json()["evaluations"]
    assert good["decision"] is True
    assert [
        "`subject.id` is not a text of 1 to 1024 characters",
        "`context.arguments` is not a JSON object",
        "not a JSON object",
    ] == [one["context"]["error"]["message"] for one in faulty]
    assert {(False, 400)} == {(one["decision"], one["context"]["error"]["status"]) for one in faulty}


def test_an_entity_takes_the_place_of_the_default_as_a_whole(gateway: Gateway) -> None:
    """Its properties do not mix, and neither do the arguments in a context."""
    body = {
        **call_of("desk/note", {"text": "by default"}),
        "evaluations": [{}, {"context": {"agent": "coder"}}, {"context": {"agent": "another"}}],
    }

    answers = gateway.post(EVALUATIONS, body).json()["evaluations"]

    assert [True, True, False] == [one["decision"] for one in answers]
    assert "agent_mismatch" == answers[2]["context"]["reason"]


def test_a_request_without_a_token_asks_nothing(gateway: Gateway, server: RunningServer) -> None:
    """Nor does one whose token the server does not know: all of it is 401."""
    before = len(server.evidence.decision_spans)
    body = {**call_of("desk/note"), "evaluations": [{}, {}]}

    statuses = [gateway.post(EVALUATIONS, body, authorization=token).status_code for token in ("", "Bearer sesame")]

    assert [401, 401] == statuses
    assert before == len(server.evidence.decision_spans)


def test_each_question_is_asked_in_the_session_of_its_subject(gateway: Gateway, server: RunningServer) -> None:
    """The header binds handles to subjects; one of another user does not fit."""
    _, handle = opened(server, "desk/*")
    gateway.handle = f"alice={handle}, bob={handle}"
    subjects = [{"subject": {"type": "user", "id": user}} for user in ("alice", "bob", "carol")]

    answers = gateway.post(EVALUATIONS, {**call_of("desk/note"), "evaluations": subjects}).json()["evaluations"]

    assert [True, False, False] == [one["decision"] for one in answers]
    assert ["subject_mismatch", "session_required"] == [one["context"]["reason"] for one in answers[1:]]
