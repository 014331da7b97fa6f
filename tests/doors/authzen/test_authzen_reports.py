"""Where the server wants to know what came of a call, only a caller that reports it gets an allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pdp.calltokens.claims import Presenter
from pdp.calltokens.keys import claims_of, key_named_by, keys_of
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.authzen.gateway import Gateway, door, opened
from tests.doors.desk import files

OUTCOME = "/access/v1/outcome"
ISSUER = "https://pdp.example"


@pytest.fixture(scope="module")
def asking() -> Iterator[RunningServer]:
    """Return a server that wants to know what came of calls."""
    with running_server(files(reports=True)) as server:
        yield server


@pytest.fixture(scope="module")
def reporter(asking: RunningServer) -> Iterator[Gateway]:
    """Return a gateway before that server."""
    with door(asking) as gateway:
        yield gateway


def test_an_allow_brings_the_call_token_that_was_asked_for() -> None:
    """For this call alone; where the server gives none, the call is denied, and reported as not made."""
    audience = "https://tools.example"
    bundle = files(reports=True, overlay=f"audiences: ['{audience}']\n")
    with running_server(bundle, call_token_issuer=ISSUER) as server, door(server) as gateway:
        session_id, gateway.handle = opened(server, "desk/*")
        wanted = {"reports_outcome": True, "call_token": {"audience": audience, "certificate": "c" * 43}}
        allowed = gateway.call("desk/note", **wanted)
        denied = gateway.call("desk/note", **{**wanted, "call_token": {"audience": "https://other.example"}})
        keys = keys_of(server.client("pep").get_call_token_keys().jwks_json)

        claims = claims_of(allowed["context"]["call_token"], keys[key_named_by(allowed["context"]["call_token"])])
        assert (audience, "desk", "note", session_id) == (
            claims.audience,
            claims.server,
            claims.tool,
            claims.session_id,
        )
        assert Presenter(certificate="c" * 43) == claims.presenter
        assert (False, "no_call_token") == (denied["decision"], denied["context"]["reason"])
        assert "call_token" not in denied["context"]
        assert ["failed"] == reported(server, session_id)


def reported(server: RunningServer, session_id: str) -> list[str]:
    """Return what was reported of the calls of a session."""
    return [
        one["facts"]["status"]
        for one in server.evidence.records
        if one["kind"] == "call.reported" and one["session_id"] == session_id
    ]


def test_without_a_report_the_call_is_denied(reporter: Gateway, asking: RunningServer) -> None:
    """The door cannot see results. It tells the server that the call was not made."""
    session_id, reporter.handle = opened(asking, "desk/*")
    body = reporter.call("desk/note")

    assert body["decision"] is False
    assert "outcome_not_reported" == body["context"]["reason"]
    assert "outcome_token" not in body["context"]
    assert ["failed"] == reported(asking, session_id)


def test_a_caller_that_reports_gets_a_token_for_it(reporter: Gateway, asking: RunningServer) -> None:
    """What it says of the result counts for the next call; the same report again changes nothing."""
    session_id, reporter.handle = opened(asking, "desk/*")
    token = reporter.call("desk/note", reports_outcome=True)["context"]["outcome_token"]
    report = {"outcome_token": token, "succeeded": True, "labels": ["untrusted"]}
    statuses = [reporter.post(OUTCOME, report).status_code for _ in range(2)]
    other = reporter.post(OUTCOME, {**report, "succeeded": False, "labels": []})

    assert [204, 204] == statuses
    assert 409 == other.status_code
    assert ["succeeded"] == reported(asking, session_id)
    assert ["untrusted"] == list(asking.client("pep").get_session(session_id).labels)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome_token": "x"},
        {"outcome_token": "x", "succeeded": 1},
        {"outcome_token": "", "succeeded": True},
        {"outcome_token": "unknown", "succeeded": True},
        {"outcome_token": "x", "succeeded": True, "labels": "untrusted"},
        {"outcome_token": "x", "succeeded": True, "labels": [1]},
    ],
    ids=str,
)
def test_what_is_no_report_is_400(reporter: Gateway, body: dict[str, Any]) -> None:
    """And names what is wrong, without the token."""
    answer = reporter.post(OUTCOME, body)

    assert 400 == answer.status_code
    assert "unknown" not in answer.text


def test_a_report_of_a_session_that_is_over_is_refused(reporter: Gateway, asking: RunningServer) -> None:
    """The caller must not use the result."""
    session_id, reporter.handle = opened(asking, "desk/*")
    token = reporter.call("desk/note", reports_outcome=True)["context"]["outcome_token"]
    asking.client("approver").revoke_sessions(session_id=session_id, reason="enough")

    assert 409 == reporter.post(OUTCOME, {"outcome_token": token, "succeeded": True}).status_code


def test_a_report_needs_a_caller_that_the_server_knows(reporter: Gateway) -> None:
    """Its token is passed on, also with a report."""
    report = {"outcome_token": "x", "succeeded": True}

    assert 401 == reporter.post(OUTCOME, report, authorization="Bearer sesame").status_code
