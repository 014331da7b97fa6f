"""What runs behind a gateway that asks the door, and what does not."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from tests.doors.authzen.gateway import EVALUATION, Gateway, call_of, door, opened
from tests.doors.desk import files

ANOTHER = Caller(id="shop", kind="token", roles=frozenset({Role.PEP}), authenticated_at=AT_EACH_CALL)


def test_an_allowed_call_runs_once(gateway: Gateway, server: RunningServer) -> None:
    """The answer names the decision and the bundle, and the record has the same."""
    body = gateway.call("desk/note", {"text": "hello", "amount": 3})

    assert [("desk/note", {"text": "hello", "amount": 3})] == gateway.ran
    assert "permit" == body["context"]["basis"]
    assert body["context"]["bundle_version"].startswith("sha256:")
    assert body["context"]["evaluation_id"] == server.evidence.records[-1]["id"]


def test_a_denied_call_does_not_run_and_the_next_one_does(gateway: Gateway) -> None:
    """A deny is an answer: it has the status 200, the reason and advice, and names no policy."""
    denied = gateway.post(EVALUATION, call_of("desk/closed"))
    gateway.call("desk/note", {"text": "x"})

    assert 200 == denied.status_code
    assert denied.json()["decision"] is False
    assert "default_deny" == denied.json()["context"]["reason"]
    assert denied.json()["context"]["advice"]
    assert "desk/open" not in denied.text
    assert [("desk/note", {"text": "x"})] == gateway.ran


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("tools/call", {"type": "tool", "id": "desk/note"}),
        ("note", {"type": "tool", "id": "desk/note"}),
        ("tools/call", {"type": "desk", "id": "note"}),
        ("note", {"type": "desk", "id": "note"}),
    ],
)
def test_a_tool_has_four_names(gateway: Gateway, action: str, resource: dict[str, str]) -> None:
    """With its server in the id or as the type, and called by its name or as every tool."""
    question = {**call_of("", {"text": "x"}), "action": {"name": action}, "resource": resource}

    assert gateway.post(EVALUATION, question).json()["decision"] is True


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("tools/call", {"type": "tool", "id": "note"}),
        ("tools/call", {"type": "tool", "id": "/note"}),
        ("tools/call", {"type": "tool", "id": "desk/"}),
        ("pay", {"type": "tool", "id": "desk/note"}),
        ("desk/note", {"type": "tool", "id": "desk/note"}),
        ("Tools/Call", {"type": "tool", "id": "desk/note"}),
        ("tools/call", {"type": "a/desk", "id": "note"}),
        ("tools/call", {"type": "tool", "id": "nowhere/note"}),
        ("tools/call", {"type": "tool", "id": "desk/nothing"}),
        ("tools/call", {"type": "desk", "id": "desk/note"}),
        ("tools/call", {"type": "Desk", "id": "note"}),
    ],
)
def test_what_is_no_tool_is_a_deny(gateway: Gateway, action: str, resource: dict[str, str]) -> None:
    """And no error: nothing is guessed, and case counts."""
    answer = gateway.post(EVALUATION, {**call_of(""), "action": {"name": action}, "resource": resource})

    assert 200 == answer.status_code
    assert answer.json()["decision"] is False
    assert "unknown_tool" == answer.json()["context"]["reason"]


@pytest.mark.parametrize("over", ["expired", "revoked", "ended", "unknown"])
def test_a_session_that_is_over_allows_nothing(server: RunningServer, gateway: Gateway, over: str) -> None:
    """Nor does a handle that no session has."""
    session_id, gateway.handle = opened(server, "desk/*")
    if over == "expired":
        server.clock.advance(8 * 3600)
    elif over == "revoked":
        server.client("approver").revoke_sessions(session_id=session_id, reason="enough")
    elif over == "ended":
        server.client("pep").end_session(gateway.handle)
    else:
        gateway.handle = "pdps_" + "a" * 43

    body = gateway.call("desk/note")

    assert [] == gateway.ran
    assert {"unknown": "session_not_found"}.get(over, f"session_{over}") == body["context"]["reason"]


def test_a_session_that_is_revoked_meanwhile_allows_nothing_more(server: RunningServer, gateway: Gateway) -> None:
    """The next call is denied."""
    session_id, gateway.handle = opened(server, "desk/*")
    gateway.call("desk/note", {"amount": 1})
    server.client("approver").revoke_sessions(session_id=session_id, reason="enough")
    body = gateway.call("desk/note", {"amount": 2})

    assert [("desk/note", {"amount": 1})] == gateway.ran
    assert "session_revoked" == body["context"]["reason"]


@pytest.mark.parametrize("where", ["nowhere", "in the body"])
def test_naming_a_user_is_not_enough(gateway: Gateway, where: str) -> None:
    """Without a handle in the header a call is denied; what a body says about a session counts for nothing."""
    question = call_of("desk/note")
    if where == "in the body":
        question["context"] |= {"session": gateway.handle, "x-pdp-session": gateway.handle}
        question["subject"]["properties"] = {"session_handle": gateway.handle}

    body = gateway.post(EVALUATION, question, x_pdp_session="").json()

    assert body["decision"] is False
    assert "session_required" == body["context"]["reason"]


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"user": "bob"}, "subject_mismatch"),
        ({"user": "Alice"}, "subject_mismatch"),
        ({"agent": "x"}, "agent_mismatch"),
    ],
    ids=str,
)
def test_another_user_or_agent_than_the_sessions_is_a_deny(
    gateway: Gateway, stated: dict[str, Any], reason: str
) -> None:
    """The session says whose authority is used, and who calls; the answer names neither."""
    body = gateway.call("desk/note", **stated)

    assert [] == gateway.ran
    assert reason == body["context"]["reason"]
    assert "coder" not in json.dumps(body)


def test_the_agent_of_the_session_may_be_stated(gateway: Gateway) -> None:
    """Then it is compared, and the call runs."""
    gateway.call("desk/note", agent="coder")

    assert [("desk/note", None)] == gateway.ran


def test_a_handle_is_bound_to_the_subject_that_the_header_names(server: RunningServer, gateway: Gateway) -> None:
    """An id with other characters is written with percent signs; a subject without a handle has no session."""
    _, handle = opened(server, "desk/*")
    gateway.handle = f"alice={handle}, b%C3%A9a%40example.org=pdps_x"

    bodies = [gateway.call("desk/note", user=user) for user in ("alice", "béa@example.org", "carol")]

    assert 1 == len(gateway.ran)
    assert [None, "session_not_found", "session_required"] == [body["context"].get("reason") for body in bodies]


def test_the_record_names_the_caller_whose_token_it_is() -> None:
    """The door passes the token of each request on; one that the server does not know is 401."""
    with running_server(files(), callers=(*ONE_OF_EACH_ROLE, ANOTHER)) as server, door(server, caller="shop") as shop:
        shop.handle = opened(server, "desk/*", caller="shop")[1]
        shop.call("desk/note")
        named = server.evidence.records[-1]["caller_id"]
        unknown = shop.post(EVALUATION, call_of("desk/note"), authorization="Bearer sesame")
        wrong = shop.post(EVALUATION, call_of("desk/note"), authorization=f"Bearer {server.token('author')}")

    assert "shop" == named
    assert [("desk/note", None)] == shop.ran
    assert (401, "Bearer") == (unknown.status_code, unknown.headers["www-authenticate"])
    assert 403 == wrong.status_code


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer a b", "Basic YTpi", "token"], ids=repr)
def test_a_request_without_a_token_is_401(gateway: Gateway, header: str) -> None:
    """Before its body is read."""
    answer = gateway.post(EVALUATION, b"{", authorization=header)

    assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])


def test_a_door_can_be_a_caller_of_its_own(server: RunningServer) -> None:
    """Requests then need no token. If the server does not know the door, callers cannot help it: status 500."""
    _, handle = opened(server, "desk/*")
    with door(server, handle, own_caller=True) as gateway:
        gateway.call("desk/note")
    with door(server, handle, own_caller=True, token="sesame") as stranger:  # noqa: S106 - of a test
        answer = stranger.post(EVALUATION, call_of("desk/note"))

    assert [("desk/note", None)] == gateway.ran
    assert 500 == answer.status_code


@pytest.mark.parametrize(
    ("known", "decision"),
    [((), False), (("redact_result",), False), (("log_access",), True), (("log_access", "other"), True)],
    ids=str,
)
def test_an_obligation_must_be_known_to_the_caller(gateway: Gateway, known: tuple[str, ...], decision: Any) -> None:
    """Only then it is told, with an allow; otherwise the call is denied, and the answer names what is not known."""
    body = gateway.call("desk/access", known_obligations=list(known))

    assert body["decision"] is decision
    if decision:
        assert [{"id": "log_access", "parameters": {}}] == body["context"]["obligations"]
    else:
        assert "unknown_obligation" == body["context"]["reason"]
        assert ["log_access"] == body["context"]["unmet_obligations"]
        assert "obligations" not in body["context"]


def test_an_obligation_comes_with_its_parameters(gateway: Gateway) -> None:
    """As the policy states them."""
    body = gateway.call("desk/people", known_obligations=["redact_result"])

    assert [{"id": "redact_result", "parameters": {"fields": ["[].email"]}}] == body["context"]["obligations"]


def test_a_tool_that_was_changed_since_its_approval_is_denied(gateway: Gateway) -> None:
    """Where the gateway says how it sees the tool's definition now."""
    body = gateway.call("desk/note", definition_digest="sha256:" + "0" * 64)

    assert [] == gateway.ran
    assert "tool_changed" == body["context"]["reason"]


def test_a_repeated_question_with_an_id_gets_the_same_decision(gateway: Gateway) -> None:
    """Without one it is a new decision, and an id that was used for another call is refused."""
    ids = [gateway.call("desk/note", request_id=one)["context"]["evaluation_id"] for one in ("first", "first", "", "")]
    other = gateway.post(EVALUATION, call_of("desk/note", {"text": "x"}, request_id="first"))

    assert ids[0] == ids[1]
    assert 3 == len(set(ids))
    assert 400 == other.status_code


def test_the_models_id_of_a_call_is_in_its_span(gateway: Gateway, server: RunningServer) -> None:
    """As the gateway states it."""
    gateway.call("desk/note", tool_call_id="call_7")

    assert "call_7" == server.evidence.decision_spans[-1]["gen_ai.tool.call.id"]


def test_a_decision_joins_the_trace(gateway: Gateway, server: RunningServer) -> None:
    """Of the header `traceparent`; a malformed one is left out."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    gateway.post(EVALUATION, call_of("desk/note"), traceparent=f"00-{trace}-b7ad6b7169203331-01")
    joined = server.evidence.records[-1]["trace_id"]
    gateway.post(EVALUATION, call_of("desk/note"), traceparent="00-evil")

    assert trace == joined
    assert trace != server.evidence.records[-1]["trace_id"]


def test_calls_at_the_same_time_are_not_mixed_up(server: RunningServer, gateway: Gateway) -> None:
    """Fifty, in two sessions of which one is over."""
    over_id, over = opened(server, "desk/*")
    server.client("approver").revoke_sessions(session_id=over_id, reason="enough")

    def ask(number: int) -> bool:
        answer = gateway.post(
            EVALUATION,
            call_of("desk/note", {"amount": number}),
            x_pdp_session=over if number % 2 else gateway.handle,
            x_request_id=str(number),
        )
        assert str(number) == answer.headers["x-request-id"]
        return bool(answer.json()["decision"])

    with ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(ask, range(50)))

    assert [True, False] * 25 == decisions


@pytest.mark.parametrize(
    "value", ["1.0", "1e2", "-0.0", "0.10", "9007199254740993", "1" * 30, "1e400", "0.1234567890123456789"]
)
def test_a_number_that_would_be_written_otherwise_is_refused(gateway: Gateway, value: str) -> None:
    """The caller would run something else than was asked about: status 400, and no decision."""
    question = json.dumps(call_of("desk/note")).replace(
        '"context": {}', f'"context": {{"arguments": {{"value": {value}}}}}'
    )

    answer = gateway.post(EVALUATION, question.encode())

    assert 400 == answer.status_code
    assert "`context.arguments`: a number is" in answer.text


@pytest.mark.parametrize("arguments", [{"amount": "1"}, {"amount": 1.5}, {"text": 7}, {"text": None}, {"more": 1}])
def test_arguments_that_do_not_fit_are_denied(gateway: Gateway, arguments: dict[str, Any]) -> None:
    """The advice names them, without their values."""
    body = gateway.call("desk/note", arguments)

    assert [] == gateway.ran
    assert "invalid_arguments" == body["context"]["reason"]
    assert 2 == len(body["context"]["advice"])


@pytest.mark.parametrize("reserved", ["__entity", "__extn"])
def test_arguments_cannot_make_entities(gateway: Gateway, reserved: str) -> None:
    """Such a key in them is a deny."""
    body = gateway.call("desk/note", {"value": {reserved: {"type": "User", "id": "root"}}})

    assert "invalid_arguments" == body["context"]["reason"]
