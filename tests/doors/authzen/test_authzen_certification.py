"""The cases of AuthZEN's certification that belong to Basic, Batch and Discovery, by their numbers in its scenario."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.doors.authzen.gateway import EVALUATION, EVALUATIONS, Gateway

ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ADMIN = {**BOB, "properties": {"role": "admin"}}
ONE, TWO = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ACTIVE, ARCHIVED = {**ONE, "properties": {"status": "active"}}, {**TWO, "properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}


def question(subject: Any = ALICE, action: Any = READ, resource: Any = ONE, **more: Any) -> dict[str, Any]:
    """Return a question; without what is None."""
    whole = {"subject": subject, "action": action, "resource": resource, **more}
    return {name: value for name, value in whole.items() if value is not None}


def delete(*, soft: bool) -> dict[str, Any]:
    """Return the action that deletes."""
    return {"name": "delete", "properties": {"soft": soft}}


DECISIONS = {
    "alice reads (2.2.1, rule 1)": (question(), True),
    "alice writes (rule 2)": (question(action=WRITE), True),
    "bob reads (rule 3)": (question(BOB), True),
    "bob writes (2.2.2, rule 4)": (question(BOB, WRITE), False),
    "with a context (2.2.3)": (question(context={"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}), True),
    "alice writes what is archived (2.2.4, rule 5)": (question(action=WRITE, resource=ARCHIVED), False),
    "an admin writes what is archived (2.2.5, rule 6)": (question(ADMIN, WRITE, ARCHIVED), True),
    "a soft delete (2.2.6, rule 7)": (question(action=delete(soft=True)), True),
    "a hard delete (2.2.7, rule 8)": (question(action=delete(soft=False)), False),
    "with additional properties (2.2.8)": (
        question(
            {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
            {"name": "read", "properties": {"method": "GET"}},
            {**ONE, "properties": {"status": "active", "owner": "bob"}},
        ),
        True,
    ),
    "with unknown fields (2.2.9)": (question(foo="bar", futureField={"nested": True}), True),
}


@pytest.mark.parametrize(("asked", "decision"), DECISIONS.values(), ids=DECISIONS)
def test_a_question_of_the_scenario_is_decided(harness: Gateway, asked: dict[str, Any], decision: Any) -> None:
    """The eight decisions, and what must not change them; the answer has the form of 2.3."""
    answer = harness.post(EVALUATION, asked)

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert answer.json()["decision"] is decision
    assert isinstance(answer.json()["context"], dict)


@pytest.mark.parametrize(
    "asked",
    [
        question(subject=None),
        question(action=None),
        question(resource=None),
        question(subject={"id": "alice"}),
        question(subject={"type": "user"}),
        question(action={}),
        question(resource={"id": "record-1"}),
        question(resource={"type": "record"}),
        question(subject="alice"),
        question(action={"name": 123}),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
def test_what_is_missing_or_of_another_type_is_400(harness: Gateway, path: str, asked: dict[str, Any]) -> None:
    """Of each entity, each member that it must have (2.4.1, 2.4.2, 2.4.6); the answer names it."""
    answer = harness.post(path, asked)

    assert 400 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert answer.json()["error"]["message"].startswith(("`subject", "`action", "`resource"))


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", ""])
def test_another_content_type_is_400(harness: Gateway, kind: str) -> None:
    """And not 415 (2.4.3)."""
    assert 400 == harness.post(EVALUATION, question(), content_type=kind).status_code


@pytest.mark.parametrize("body", [b"", b"{", b'{"subject": '], ids=repr)
def test_a_body_that_is_no_json_is_400(harness: Gateway, body: bytes) -> None:
    """Empty or cut off (2.4.4, 2.4.5)."""
    assert 400 == harness.post(EVALUATION, body).status_code


@pytest.mark.parametrize("asked", [question(), {}], ids=["a decision", "an error"])
def test_the_id_of_a_request_comes_back(harness: Gateway, asked: dict[str, Any]) -> None:
    """As it was sent (2.5.1)."""
    answer = harness.post(EVALUATION, asked, x_request_id="bfe9eb29-ab87-4ca3-be83-a1d5d8305716")

    assert "bfe9eb29-ab87-4ca3-be83-a1d5d8305716" == answer.headers["x-request-id"]


def test_a_request_needs_no_id(harness: Gateway) -> None:
    """Nor does it get one (2.5.2)."""
    assert "x-request-id" not in harness.post(EVALUATION, question()).headers


def test_the_same_question_gets_the_same_decision(harness: Gateway) -> None:
    """However often it is asked (2.6)."""
    assert {True} == {harness.post(EVALUATION, question()).json()["decision"] for _ in range(5)}


BATCHES = {
    "an action for two records (3.2.1)": (
        {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {"resource": TWO}]},
        [True, True],
    ),
    "two actions in order (3.2.2)": (
        {"subject": BOB, "resource": ONE, "evaluations": [{"action": READ}, {"action": WRITE}]},
        [True, False],
    ),
    "properties of the resource (3.2.3)": (
        {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    "properties of the subject (3.2.4)": (
        {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]},
        [False, True],
    ),
    "no defaults (3.2.5)": ({"evaluations": [question(), question(BOB, WRITE)]}, [True, False]),
    "a context for all but one (3.2.6)": (
        {
            "subject": ALICE,
            "action": READ,
            "context": {"time": "2025-06-27T18:03-07:00"},
            "evaluations": [
                {"resource": ONE},
                {"resource": TWO, "context": {"time": "2025-06-27T19:00-07:00", "source": "batch-override"}},
            ],
        },
        [True, True],
    ),
    "a type by default (3.2.7)": (
        {
            "subject": ALICE,
            "action": WRITE,
            "resource": {"type": "record"},
            "evaluations": [
                {"resource": {"id": "record-1", "properties": {"status": "active"}}},
                {"resource": ARCHIVED},
            ],
        },
        [True, False],
    ),
    "one without a resource (3.4.1)": (
        {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {}]},
        [True, False],
    ),
}


@pytest.mark.parametrize(("asked", "decisions"), BATCHES.values(), ids=BATCHES)
def test_several_questions_are_decided_in_order(harness: Gateway, asked: dict[str, Any], decisions: list[bool]) -> None:
    """One answer for each, and no decision above them (3.3)."""
    answer = harness.post(EVALUATIONS, asked)

    assert 200 == answer.status_code
    assert ["evaluations"] == list(answer.json())
    assert decisions == [one["decision"] for one in answer.json()["evaluations"]]


@pytest.mark.parametrize("more", [{}, {"evaluations": []}], ids=["without evaluations", "with none"])
def test_no_evaluations_are_one_question(harness: Gateway, more: dict[str, Any]) -> None:
    """The answer is that of one question (3.4.2, 3.4.3)."""
    answer = harness.post(EVALUATIONS, question(**more))

    assert 200 == answer.status_code
    assert answer.json()["decision"] is True
    assert "evaluations" not in answer.json()


def test_the_endpoints_are_found(harness: Gateway) -> None:
    """All are https and begin with the base URL, which is the one that the door is known by; there is no search (6)."""
    answer = harness.get("/.well-known/authzen-configuration", authorization="", x_pdp_session="")

    found = answer.json()
    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert "https://pdp.example.org" == found.pop("policy_decision_point")
    assert ["urn:openid:authzen:capability:access-request"] == found.pop("capabilities")
    assert {
        "access_evaluation_endpoint": "https://pdp.example.org/access/v1/evaluation",
        "access_evaluations_endpoint": "https://pdp.example.org/access/v1/evaluations",
        "access_request_endpoint": "https://pdp.example.org/access/v1/requests",
    } == found
