"""What came of calls: guards report it before they hand a result on, and withhold what cannot be reported."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pdp.client import Answer, AsyncClient, Client, PDPClientError, ToolCall, ToolCallDenied, ToolResultWithheld
from pdp.foundation.names import Name
from pdp.foundation.valuedigests import value_digest
from pdp.v1.authorization_pb2 import (
    CALL_STATUS_FAILED,
    CALL_STATUS_SUCCEEDED,
    ReportOutcomeRequest,
    ReportOutcomeResponse,
)
from pdp.v1.decision_pb2 import OUTCOME_DENY, Decision, ResultReading
from tests.machinery.servers.scripted import ScriptedServer

GIVEN = "pdpo_1"
KEY = b"k" * 32
CANARY = "canary@example.com"
Run = Callable[[str, Callable[[], Any], dict[str, Any]], Any]


def _function(address: str, function: Callable[[], Any], options: dict[str, Any]) -> Any:
    with Client(address) as client:
        return client.attach("pdps_secret").guard(server="files", tool="read", **options)(function)()


def _coroutine(address: str, function: Callable[[], Any], options: dict[str, Any]) -> Any:
    async def awaited() -> Any:
        return function()

    with Client(address) as client:
        return asyncio.run(client.attach("pdps_secret").guard(server="files", tool="read", **options)(awaited)())


def _async_client(address: str, function: Callable[[], Any], options: dict[str, Any]) -> Any:
    async def awaited() -> Any:
        return function()

    async def run() -> Any:
        async with AsyncClient(address) as client:
            return await client.attach("pdps_secret").guard(server="files", tool="read", **options)(awaited)()

    return asyncio.run(run())


def _admitted(address: str, function: Callable[[], Any], options: dict[str, Any]) -> Any:
    with Client(address) as client:
        admitted = client.attach("pdps_secret").admit(ToolCall(server="files", tool="read"), **options)
        with admitted:
            admitted.result = function()
        return admitted.handed_on()


every_guard = pytest.mark.parametrize(
    "guarded",
    [_function, _coroutine, _async_client, _admitted],
    ids=["function", "coroutine", "async client", "admitted"],
)


@pytest.fixture
def reporting(server: ScriptedServer) -> ScriptedServer:
    """Return a server that wants to know what came of calls."""

    def decide(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        decision.outcome_token = GIVEN
        return decision

    server.decide = decide
    server.scripts["ReportOutcome"] = lambda _request, _context: ReportOutcomeResponse(decision_id="dec_1")
    return server


def reports(server: ScriptedServer) -> list[tuple[str, int, list[str]]]:
    """Return what was reported: token, status and labels."""
    return [(one.outcome_token, one.status, list(one.labels)) for one in server.sent("ReportOutcome")]


def broken() -> None:
    """Fail as a tool may."""
    raise LookupError("no such file")


@every_guard
def test_a_result_is_reported_before_it_is_handed_on(reporting: ScriptedServer, address: str, guarded: Run) -> None:
    """With the labels that were found for it."""
    result = guarded(
        address, lambda: "from outside", {"labels": lambda text: ["untrusted"] if "outside" in text else []}
    )

    assert "from outside" == result
    assert [(GIVEN, CALL_STATUS_SUCCEEDED, ["untrusted"])] == reports(reporting)


@every_guard
def test_a_tool_that_fails_is_reported_too(reporting: ScriptedServer, address: str, guarded: Run) -> None:
    """Its own error goes on."""
    with pytest.raises(LookupError, match="no such file"):
        guarded(address, broken, {"labels": lambda _: ["untrusted"]})

    assert [(GIVEN, CALL_STATUS_FAILED, [])] == reports(reporting)


@every_guard
def test_a_result_of_mcp_says_itself_that_its_call_failed(
    reporting: ScriptedServer, address: str, guarded: Run
) -> None:
    """It is reported as a failure, and handed on."""
    result = {"content": [{"type": "text", "text": "no such file"}], "isError": True}

    assert result == guarded(address, lambda: result, {})
    assert [(GIVEN, CALL_STATUS_FAILED, [])] == reports(reporting)


@every_guard
def test_a_result_that_cannot_be_reported_is_withheld(reporting: ScriptedServer, address: str, guarded: Run) -> None:
    """The session may be over meanwhile; the result goes nowhere."""
    reporting.scripts["ReportOutcome"] = lambda _, context: context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, "the session is revoked, not active"
    )

    with pytest.raises(ToolResultWithheld, match=r"could not be reported: .*the session is revoked") as caught:
        guarded(address, lambda: "secret", {})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@every_guard
def test_a_failure_that_cannot_be_reported_stays_the_tools(
    reporting: ScriptedServer, address: str, guarded: Run
) -> None:
    """There is no result to withhold."""
    reporting.scripts["ReportOutcome"] = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "broken")

    with pytest.raises(LookupError, match="no such file"):
        guarded(address, broken, {})


@every_guard
def test_labels_that_nobody_wants_withhold_the_result(server: ScriptedServer, address: str, guarded: Run) -> None:
    """The bundle makes no use of reports, so what is found about a result can be told to nobody."""
    with pytest.raises(ToolResultWithheld, match="the active bundle makes no use of it"):
        guarded(address, lambda: "result", {"labels": lambda _: ["untrusted"]})

    assert [] == server.sent("ReportOutcome")


@every_guard
@pytest.mark.parametrize("options", [{"report": False}, {"report": False, "labels": lambda _: ["untrusted"]}])
def test_reports_can_be_switched_off(
    reporting: ScriptedServer, address: str, guarded: Run, options: dict[str, Any]
) -> None:
    """In one line, for a result and for an error."""
    assert "result" == guarded(address, lambda: "result", options)
    with pytest.raises(LookupError):
        guarded(address, broken, options)

    assert [] == reports(reporting)


@every_guard
@pytest.mark.parametrize(
    "find",
    [
        lambda result: {}[result],
        lambda _: "untrusted",
        lambda _: [7],
        lambda _: None,
        lambda result: (one for one in [1 / 0, result]),
    ],
    ids=["raises", "a text", "no texts", "nothing", "raises too"],
)
def test_labels_that_cannot_be_found_withhold_the_result(
    reporting: ScriptedServer, address: str, guarded: Run, find: Any
) -> None:
    """An error of the finder could quote the result, so nothing of it is told."""
    with pytest.raises(ToolResultWithheld, match="the labels for it could not be found") as caught:
        guarded(address, lambda: CANARY, {"labels": find})

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert [] == reports(reporting)


@every_guard
def test_nothing_is_reported_where_nothing_is_wanted(server: ScriptedServer, address: str, guarded: Run) -> None:
    """An answer without a token."""
    assert "result" == guarded(address, lambda: "result", {"labels": lambda _: []})
    assert [] == server.sent("ReportOutcome")


@every_guard
def test_a_denied_call_is_not_reported(reporting: ScriptedServer, address: str, guarded: Run) -> None:
    """Not even by a server that sends a token with it."""
    allow = reporting.decide

    def decide(request: Any, context: Any) -> Decision:
        decision = allow(request, context)
        decision.outcome = OUTCOME_DENY
        return decision

    reporting.decide = decide
    with pytest.raises(ToolCallDenied):
        guarded(address, lambda: "result", {})

    assert [] == reports(reporting)


@every_guard
def test_what_is_redacted_is_reported_as_it_was(reporting: ScriptedServer, address: str, guarded: Run) -> None:
    """The labels are found for the whole result, and the agent gets the redacted one."""
    allow = reporting.decide

    def decide(request: Any, context: Any) -> Decision:
        decision = allow(request, context)
        decision.obligations.add(id="redact_result", parameters_json=b'{"fields": ["email"]}')
        return decision

    reporting.decide = decide
    seen: list[Any] = []

    def labels(result: Any) -> list[str]:
        seen.append(result)
        return []

    assert {"email": "[redacted]"} == guarded(address, lambda: {"email": "ann@example.com"}, {"labels": labels})
    assert [{"email": "ann@example.com"}] == seen
    with pytest.raises(ToolResultWithheld, match="the call failed"):
        guarded(address, broken, {"labels": labels})
    assert [CALL_STATUS_SUCCEEDED, CALL_STATUS_FAILED] == [status for _, status, _ in reports(reporting)]


def test_a_report_is_sent_again_when_the_server_is_away(reporting: ScriptedServer, address: str) -> None:
    """The same report again is the same answer."""

    def once_away(_: ReportOutcomeRequest, context: Any) -> ReportOutcomeResponse:
        if len(reporting.sent("ReportOutcome")) == 1:
            context.abort(grpc.StatusCode.CANCELLED, "draining")
        return ReportOutcomeResponse(decision_id="dec_1")

    reporting.scripts["ReportOutcome"] = once_away
    with Client(address) as client:
        answer = client.attach("pdps_secret").authorize("files", "read")
        client.report_outcome(answer)

    assert [(GIVEN, CALL_STATUS_SUCCEEDED, [])] * 2 == reports(reporting)


@pytest.mark.parametrize(
    ("allowed", "why"),
    [(True, "the active bundle makes no use of it"), (False, "it was denied")],
    ids=["allow", "deny"],
)
def test_an_answer_without_a_token_cannot_be_reported(
    server: ScriptedServer, address: str, *, allowed: bool, why: str
) -> None:
    """The error says why, and nothing is sent."""

    def decide(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        if not allowed:
            decision.outcome = OUTCOME_DENY
        return decision

    server.decide = decide
    with Client(address) as client:
        answer: Answer = client.attach("pdps_secret").authorize("files", "read")
        with pytest.raises(PDPClientError, match=f"`files/read` cannot be reported: {why}"):
            client.report_outcome(answer)
    assert [] == server.sent("ReportOutcome")


@pytest.mark.parametrize("name", ["outcome_token", "result_reading"])
def test_a_secret_is_not_shown(name: str) -> None:
    """Token and key are the gateway's."""
    (field,) = (one for one in Answer.__dataclass_fields__.values() if one.name == name)

    assert not field.repr


@pytest.fixture
def reading(reporting: ScriptedServer) -> ScriptedServer:
    """Return a server that wants to know what results hold."""
    allow = reporting.decide

    def decide(request: Any, context: Any) -> Decision:
        decision = allow(request, context)
        decision.result_reading.MergeFrom(ResultReading(key=KEY, trusted=True, issues=["id"], kinds=["iban"]))
        return decision

    reporting.decide = decide
    return reporting


def held(server: ScriptedServer) -> list[tuple[list[bytes], list[bytes]]]:
    """Return the digests that were reported."""
    return [(list(one.values.issued), list(one.values.others)) for one in server.sent("ReportOutcome")]


@every_guard
def test_what_a_result_holds_is_reported(reading: ScriptedServer, address: str, guarded: Run) -> None:
    """Before it is handed on; as digests, and without a word of it."""
    result = guarded(address, lambda: {"id": "file_1", "mail": CANARY}, {"labels": lambda _: ["untrusted"]})

    issued, other = (value_digest(KEY, Name(*name)) for name in (("id", "file_1"), ("address", CANARY)))
    assert {"id": "file_1", "mail": CANARY} == result
    assert [([issued], [other])] == held(reading)
    assert [(GIVEN, CALL_STATUS_SUCCEEDED, ["untrusted"])] == reports(reading)
    assert CANARY.encode() not in reading.sent("ReportOutcome")[0].SerializeToString()


@every_guard
@pytest.mark.parametrize(
    "result", [object(), b"\xff", iter([CANARY]), {"id": 10**5000}], ids=lambda one: type(one).__name__
)
def test_a_result_that_cannot_be_read_is_reported_without_values(
    reading: ScriptedServer, address: str, guarded: Run, result: Any
) -> None:
    """And handed on: what it holds is unseen."""
    assert result is guarded(address, lambda: result, {})
    assert [([], [])] == held(reading)
    assert not reading.sent("ReportOutcome")[0].HasField("values")


@every_guard
def test_a_call_that_failed_holds_nothing(reading: ScriptedServer, address: str, guarded: Run) -> None:
    """Whatever its error says."""
    with pytest.raises(LookupError):
        guarded(address, broken, {})

    assert [([], [])] == held(reading)


def test_values_can_be_switched_off(reading: ScriptedServer, address: str) -> None:
    """In one line, for all calls of a client: the rest of the report stays."""
    with Client(address, report_values=False) as client:
        client.attach("pdps_secret").guard(server="files", tool="read")(lambda: CANARY)()

    assert [([], [])] == held(reading)


def test_every_answer_says_how_its_result_is_read(reading: ScriptedServer, address: str) -> None:
    """Alone, in a batch and on a stream; with the arguments that were asked about, which a result may repeat."""
    with Client(address) as client:
        session = client.attach("pdps_secret")
        (batched,) = session.batch([ToolCall(server="files", tool="read", arguments={"q": CANARY})])
        with client.stream() as stream:
            streamed = stream.authorize("pdps_secret", "files", "read", {"q": CANARY})
        for answer in (session.authorize("files", "read", {"q": CANARY}), batched, streamed):
            session.report_outcome(answer, result=[CANARY, "bob@example.com"])

    assert [([], [value_digest(KEY, Name("address", "bob@example.com"))])] * 3 == held(reading)


def test_a_deny_and_an_answer_without_a_token_have_no_key(reading: ScriptedServer, address: str) -> None:
    """Whatever a server sends with them."""
    allow = reading.decide

    def decide(request: Any, context: Any) -> Decision:
        decision = allow(request, context)
        if request.call.tool == "read":
            decision.outcome = OUTCOME_DENY
        decision.outcome_token = ""
        return decision

    reading.decide = decide
    with Client(address) as client:
        answers = [client.attach("pdps_secret").authorize("files", tool) for tool in ("read", "write")]

    assert [(False, None), (True, None)] == [(one.allowed, one.result_reading) for one in answers]
