"""Calls that a person must approve, by the access request profile of AuthZEN."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.authzen.gateway import EVALUATION, Gateway, call_of, opened
from tests.doors.conformance import approve

REQUESTS = "/access/v1/requests"
_PROBLEM = "urn:openid:authzen:access-request:error:"


@pytest.fixture
def session_id(gateway: Gateway, server: RunningServer) -> str:
    """Return the id of a session that the gateway asks in."""
    found, gateway.handle = opened(server, "desk/*")
    return found


def denied(gateway: Gateway, amount: int = 5) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask about a call that waits for a person; return the question, and the context of the answer."""
    question = call_of("desk/pay", {"amount": amount})
    body = gateway.post(EVALUATION, question).json()
    assert body["decision"] is False
    return question, body["context"]


def submission(question: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """Return what a gateway submits about a denied question."""
    access = context["access_request"]
    denial = {
        "evaluation_id": context["evaluation_id"],
        "reason": context["reason"],
        "expires_at": access["expires_at"],
        "binding_token": access["binding_token"],
    }
    return {**question, "denial": denial, "requested_access": {"emergency": True}}


def test_a_call_that_waits_runs_once_after_it_was_approved(
    gateway: Gateway, server: RunningServer, session_id: str
) -> None:
    """Deny, submission, task, approval, and the same question again; another call still waits."""
    question, context = denied(gateway)
    submitted = gateway.post(REQUESTS, submission(question, context))
    task = submitted.json()["task"]
    pending = gateway.get(task["status_endpoint"])
    approve(server, session_id)
    approved = gateway.get(task["status_endpoint"])
    other = gateway.call("desk/pay", {"amount": 6})
    body = gateway.call("desk/pay", {"amount": 5})
    again = gateway.call("desk/pay", {"amount": 5})
    used = gateway.get(task["status_endpoint"])

    assert "approval_required" == context["reason"]
    assert f"{gateway.url}{REQUESTS}" == context["access_request"]["endpoint"]
    assert (202, task["status_endpoint"]) == (submitted.status_code, submitted.headers["location"])
    assert "pending" == task["status"] == pending.json()["task"]["status"]
    assert context["access_request"]["expires_at"] == task["expires_at"]
    assert "5" == pending.headers["retry-after"]
    assert "approved" == approved.json()["task"]["status"] == used.json()["task"]["status"]
    assert "reevaluate" == approved.json()["result"]["mode"]
    assert approved.json()["result"]["approval"]["approved_until"].endswith("Z")
    assert body["decision"] is True
    assert [("desk/pay", {"amount": 5})] == gateway.ran
    assert "approval_required" == other["context"]["reason"] == again["context"]["reason"]


@pytest.mark.parametrize("answer", ["denied", "cancelled", "expired"])
def test_a_task_ends_as_the_person_wants_or_by_time(
    gateway: Gateway, server: RunningServer, session_id: str, answer: str
) -> None:
    """A no, an approval that was taken back, and nothing in time; the call does not run."""
    question, context = denied(gateway)
    number = context["access_request"]["binding_token"]
    approver = server.client("approver")
    if answer == "denied":
        approver.deny_call(number, reason="no")
    elif answer == "cancelled":
        approve(server, session_id)
        approver.revoke_access(access_request_id=number, reason="a mistake")
    else:
        server.clock.advance(3000)

    found = gateway.get(f"{REQUESTS}/{number}")
    gateway.call("desk/pay", {"amount": 5})

    assert answer == found.json()["task"]["status"]
    assert "result" not in found.json()
    assert [] == gateway.ran
    submitted = gateway.post(REQUESTS, submission(question, context))
    assert (410 if answer == "expired" else 201) == submitted.status_code


def test_a_submission_after_the_answer_gets_the_task_as_it_is(
    gateway: Gateway, server: RunningServer, session_id: str
) -> None:
    """There is nothing to wait for."""
    question, context = denied(gateway)
    approve(server, session_id)

    submitted = gateway.post(REQUESTS, submission(question, context))

    assert 201 == submitted.status_code
    assert "approved" == submitted.json()["task"]["status"]


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("context", {"arguments": {"amount": 6}}),
        ("context", {}),
        ("subject", {"type": "user", "id": "bob"}),
        ("resource", {"type": "tool", "id": "desk/note"}),
        ("resource", {"type": "x", "id": "y"}),
        ("denial", None),
        ("denial", {}),
        ("denial", {"evaluation_id": "dec_x"}),
        ("denial.binding_token", "acc_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("denial.binding_token", "../../etc"),
        ("denial.binding_token", 7),
        ("denial.expires_at", "2099-01-01T00:00:00Z"),
        ("denial.expires_at", None),
    ],
    ids=str,
)
def test_a_submission_is_bound_to_the_denied_call(gateway: Gateway, session_id: str, change: str, to: Any) -> None:
    """To its subject, tool, arguments and time: anything else is one and the same problem."""
    assert session_id
    body = submission(*denied(gateway))
    whole, _, part = change.partition(".")
    body[whole] = {**body[whole], part: to} if part else to

    answer = gateway.post(REQUESTS, body)

    assert 400 == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]
    assert f"{_PROBLEM}invalid_denial_binding" == answer.json()["type"]


def test_true_is_not_one(gateway: Gateway, session_id: str) -> None:
    """An argument of another type is another call."""
    assert session_id
    body = submission(*denied(gateway, 1))
    body["context"]["arguments"]["amount"] = True

    assert 400 == gateway.post(REQUESTS, body).status_code


def test_a_task_is_shown_in_its_session_only(gateway: Gateway, server: RunningServer, session_id: str) -> None:
    """Its id is not enough: without the handle, or with that of another session, there is no task."""
    assert session_id
    question, context = denied(gateway)
    path = f"{REQUESTS}/{context['access_request']['binding_token']}"
    _, other = opened(server, "desk/*")

    shown = [gateway.get(path, x_pdp_session=handle) for handle in (gateway.handle, "", other, "pdps_unknown")]
    submitted = gateway.post(REQUESTS, submission(question, context), x_pdp_session=other)

    assert [200, 404, 404, 404] == [one.status_code for one in shown]
    assert f"{_PROBLEM}unknown_task" == shown[1].json()["type"]
    assert shown[1].json() == shown[2].json() == shown[3].json()
    assert 400 == submitted.status_code


@pytest.mark.parametrize("number", ["acc_aaaaaaaaaaaaaaaaaaaaaaaaaa", "x", "acc_", "acc_a/b", "%2e%2e"])
def test_an_unknown_task_is_404(gateway: Gateway, number: str) -> None:
    """As a problem of the profile."""
    answer = gateway.get(f"{REQUESTS}/{number}")

    assert (404, f"{_PROBLEM}unknown_task") == (answer.status_code, answer.json()["type"])


def test_tasks_need_a_caller_that_the_server_knows(gateway: Gateway, session_id: str) -> None:
    """The token of each request is passed on, also with these."""
    assert session_id
    question, context = denied(gateway)
    path = f"{REQUESTS}/{context['access_request']['binding_token']}"

    shown = [gateway.get(path, authorization=token) for token in ("", "Bearer sesame")]
    submitted = gateway.post(REQUESTS, submission(question, context), authorization="Bearer sesame")

    assert [401, 401] == [one.status_code for one in shown]
    assert 401 == submitted.status_code


def test_a_user_who_is_not_the_sessions_is_offered_no_request(gateway: Gateway, session_id: str) -> None:
    """The deny says why, and not whom to ask."""
    assert session_id
    body = gateway.call("desk/pay", {"amount": 5}, user="bob")

    assert "subject_mismatch" == body["context"]["reason"]
    assert "access_request" not in body["context"]
