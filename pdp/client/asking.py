"""Build the question about a tool call and judge the answer: pure, and shared by both clients.

An answer is an allow only with status `OK`, `OUTCOME_ALLOW` and a permit, and for exactly the call that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp.client.diagnosis import TOO_LARGE
from pdp.client.errors import InvalidRequestError, details_of, one_line, reason_of
from pdp.client.values import ERROR_BASIS, Answer, CallToken, Obligation, ResultReading, ToolCall
from pdp.foundation import jsontext
from pdp.model import Outcome
from pdp.v1 import calltoken_pb2, decision_pb2
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeStreamResponse
from pdp.v1.decision_pb2 import Decision

_BASES = {number: name.removeprefix("BASIS_").lower() for name, number in decision_pb2.Basis.items() if number}
_CACHE_RESULTS = {
    number: name.removeprefix("CACHE_RESULT_").lower() for name, number in decision_pb2.CacheResult.items() if number
}
_STATUS_NAMES: dict[int, str] = {code.value[0]: code.name.lower() for code in grpc.StatusCode}
# gRPC itself answers `CANCELLED`, without a pause: for calls that a server ends when it stops, and for those that wait
# when too many do. A proxy that drains resets calls in the same way.
_RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})
_NOT_BEGUN = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED})
_REPEATABLE = _NOT_BEGUN | {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
# A server ends the whole stream, with the calls of others on it, when a message is larger than its limit
# `message_bytes`; this is the default limit, less a frame.
_LARGEST_BYTES = 256 * 1024 - 16
# The most attempts of a management call.
MANAGEMENT_TRIES = 4
_PAUSE_SECONDS = 0.05  # When the server names no pause: enough for a restarted worker, little of a call's deadline.
# Before each further try of what gRPC has dropped unread: where too many wait, the next one may be dropped as well.
_DROPPED_PAUSES = (0.05, 0.2, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCall:
    """A question as it is sent, and the values that its answer must repeat."""

    call: ToolCall
    request: AuthorizeRequest = field(repr=False)
    arguments_digest: str

    def refused(self, error: str, reason: str = "") -> Answer:
        """Return the deny for a question that got no decision."""
        return _refused(self.call, self.request.request_id, error, reason)


def prepare(call: ToolCall) -> PreparedCall | Answer:
    """Return the question to send, or the deny for a call that cannot be encoded."""
    request_id = call.request_id or uuid4().hex
    try:
        arguments = json_object("arguments", call.arguments) or b"{}"
        request = AuthorizeRequest(
            call=decision_pb2.Call(
                session_handle=call.session_handle,
                server=call.server,
                tool=call.tool,
                arguments_json=arguments,
                definition_digest=call.definition_digest,
                facts_json=json_object("facts", call.facts),
            ),
            request_id=request_id,
            tool_call_id=call.tool_call_id,
            call_tokens=[
                calltoken_pb2.CallTokenRequest(
                    audience=one.audience,
                    certificate_thumbprint=one.certificate_thumbprint or None,
                    key_thumbprint=one.key_thumbprint or None,
                )
                for one in call.call_tokens
            ],
            min_revision=call.min_revision,
        )
    except InvalidRequestError as error:
        return _refused(call, request_id, str(error))
    except Exception:  # noqa: BLE001 - fails closed: a call that cannot be written down, for whatever reason, is denied
        return _refused(call, request_id, "the call holds a value that cannot be sent")
    return PreparedCall(call=call, request=request, arguments_digest=jsontext.digest(arguments))


def prepare_for_stream(call: ToolCall) -> PreparedCall | Answer:
    """Return the question to send on a stream, or the deny when it must not be sent there."""
    prepared = prepare(call)
    if isinstance(prepared, PreparedCall) and prepared.request.ByteSize() > _LARGEST_BYTES:
        return prepared.refused(f"a call on a stream may not be larger than {_LARGEST_BYTES} bytes", TOO_LARGE)
    return prepared


def judge(prepared: PreparedCall, decision: Decision, known_obligations: frozenset[str]) -> Answer:
    """Return the answer for a decision; one that does not fit its question is a deny."""
    error = _mismatch(prepared, decision) or _flaw(decision)
    unmet = () if error else _unmet(decision, known_obligations)
    error = error or _unknown(unmet)
    allowed = not error and decision.outcome == decision_pb2.OUTCOME_ALLOW
    waits = not error and decision.basis == decision_pb2.BASIS_APPROVAL_REQUIRED
    return Answer(
        outcome=Outcome.ALLOW if allowed else Outcome.DENY,
        basis=ERROR_BASIS if error else _BASES[decision.basis],
        server=prepared.call.server,
        tool=prepared.call.tool,
        request_id=prepared.request.request_id,
        policies=tuple(decision.determining_policies),
        policies_left_out=decision.policies_left_out,
        decision_id=decision.decision_id,
        error=error,
        session_id=decision.session_id,
        user=decision.user,
        agent=decision.agent,
        bundle_version=decision.bundle_version,
        cache_result=_CACHE_RESULTS.get(decision.cache_result, ""),
        ancestor_session_id=decision.ancestor_session_id,
        ancestor_basis=_BASES.get(decision.ancestor_basis, ""),
        duration_us=decision.duration_us,
        trace_id=decision.trace_id,
        span_id=decision.span_id,
        labels_added=tuple(decision.labels_added),
        policies_lifted=tuple(decision.policies_lifted),
        outcome_token=decision.outcome_token if allowed else "",
        result_reading=_reading(prepared, decision) if allowed else None,
        obligations=_obligations(decision) if allowed else (),
        unmet_obligations=unmet,
        advice=tuple(decision.advice),
        access_request_id=decision.access_request.id if waits else "",
        access_expires_at=_unix_seconds(decision.access_request.expire_time) if waits else 0.0,
        access_link=decision.access_request.link if waits else "",
        call_tokens=tuple(map(_call_token, decision.call_tokens)) if allowed else (),
    )


def judge_batch(
    prepared: Iterable[PreparedCall | Answer], decisions: Iterable[Decision], known_obligations: frozenset[str]
) -> tuple[Answer, ...]:
    """Return one answer for each call of a batch, in order; a wrong number of decisions denies them all."""
    entries, pending = tuple(prepared), list(decisions)
    sent = sum(isinstance(entry, PreparedCall) for entry in entries)
    if len(pending) != sent:
        return refuse_batch(entries, f"{len(pending)} decisions came for {sent} calls")
    pending.reverse()
    return tuple(
        judge(entry, pending.pop(), known_obligations) if isinstance(entry, PreparedCall) else entry
        for entry in entries
    )


def refuse_batch(prepared: Iterable[PreparedCall | Answer], error: str, reason: str = "") -> tuple[Answer, ...]:
    """Return the denies for a batch that got no decisions."""
    return tuple(entry.refused(error, reason) if isinstance(entry, PreparedCall) else entry for entry in prepared)


def judge_stream(
    prepared: PreparedCall, response: AuthorizeStreamResponse, known_obligations: frozenset[str]
) -> Answer:
    """Return the answer for one message of a stream."""
    if response.HasField("error"):
        name = _STATUS_NAMES.get(response.error.code, "unknown status")
        return prepared.refused(one_line(f"{name}: {response.error.message}"), response.error.reason)
    return judge(prepared, response.decision, known_obligations)


def retry_pause(error: grpc.RpcError, remaining: float, *, retries: int) -> float | None:
    """Return the seconds to wait before a call is asked again, or None for no retry.

    There is none when it would not help or come too late. What a server answers is asked once more, and what is
    cancelled without its word three times. `remaining` is the rest of the call's deadline, in seconds, and `retries` is
    how often it was asked again before.
    """
    if error.code() not in _RETRYABLE or reason_of(error) == TOO_LARGE:
        return None
    stated = _stated_pause(error)
    pauses: tuple[float, ...] = (_PAUSE_SECONDS if stated is None else stated,)
    if stated is None and error.code() is grpc.StatusCode.CANCELLED:
        pauses = _DROPPED_PAUSES
    return pauses[retries] if retries < len(pauses) and pauses[retries] < remaining else None


def repeat_pause(error: grpc.RpcError, remaining: float, *, repeatable: bool, told_by_id: bool = False) -> float | None:
    """Return the seconds to wait before a management call is repeated, or None.

    None means that it must not be repeated, or too late. An overloaded server answers before it begins. An unavailable
    one, and whatever cancels a call, may have begun; repeating a `repeatable` call changes nothing. A server must state
    the pause, but what cancels a call never can; nor can it be stated when the answer is lost with its connection, and
    then a call is repeated that the server would have answered, because it is `told_by_id`.
    """
    codes = _REPEATABLE if repeatable else _NOT_BEGUN
    if error.code() not in codes:
        return None
    pause, lost = _stated_pause(error), {grpc.StatusCode.CANCELLED}
    if told_by_id:
        lost.add(grpc.StatusCode.UNAVAILABLE)
    if pause is None and error.code() in lost:
        pause = _PAUSE_SECONDS
    return pause if pause is not None and pause < remaining else None


def json_object(field: str, value: Mapping[str, Any] | bytes | None) -> bytes:
    """Return a JSON object as compact UTF-8; bytes pass unchanged, None is empty.

    Raise `InvalidRequestError` for a value that JSON cannot hold.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    try:
        return json.dumps(dict(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequestError(f"`{field}`: not an object of JSON values (numbers must be finite)") from None


def _refused(call: ToolCall, request_id: str, error: str, reason: str = "") -> Answer:
    return Answer(
        outcome=Outcome.DENY,
        basis=ERROR_BASIS,
        server=call.server,
        tool=call.tool,
        request_id=request_id,
        error=error,
        reason=reason,
    )


def _mismatch(prepared: PreparedCall, decision: Decision) -> str:
    """Name the first way in which a decision is not about the call that was sent."""
    call = prepared.call
    if decision.server != call.server or decision.tool != call.tool:
        return "the decision is about another tool"
    if decision.arguments_digest != prepared.arguments_digest:
        return "the decision is about other arguments"
    if call.session_id and decision.session_id != call.session_id:
        return "the decision is about another session"
    if not decision.bundle_version:
        return "the decision names no bundle version"
    return ""


def _flaw(decision: Decision) -> str:
    """Name the first reason not to rely on a decision."""
    if decision.outcome not in (decision_pb2.OUTCOME_ALLOW, decision_pb2.OUTCOME_DENY):
        return f"the decision states no known outcome: `{decision.outcome}`"
    if decision.basis not in _BASES:
        return f"the decision states no known basis: `{decision.basis}`"
    if (decision.outcome == decision_pb2.OUTCOME_ALLOW) != (decision.basis == decision_pb2.BASIS_PERMIT):
        return f"outcome and basis contradict each other: basis `{_BASES[decision.basis]}`"
    if not decision.decision_id:
        return "the decision has no id"
    if decision.outcome == decision_pb2.OUTCOME_ALLOW and not decision.session_id:
        return "the decision allows without a session"
    return ""


def _unmet(decision: Decision, known_obligations: frozenset[str]) -> tuple[Obligation, ...]:
    """Return the obligations of an allow that are not known."""
    if decision.outcome != decision_pb2.OUTCOME_ALLOW:
        return ()
    return tuple(one for one in _obligations(decision) if one.id not in known_obligations)


def _unknown(unmet: tuple[Obligation, ...]) -> str:
    ids = tuple(dict.fromkeys(one.id for one in unmet))
    what = "unknown obligation" if len(ids) == 1 else "unknown obligations"
    return one_line(f"{what}: {', '.join(f'`{name}`' for name in ids)}") if ids else ""


def _obligations(decision: Decision) -> tuple[Obligation, ...]:
    return tuple(Obligation(id=each.id, parameters_json=each.parameters_json) for each in decision.obligations)


def _call_token(one: calltoken_pb2.CallToken) -> CallToken:
    return CallToken(
        audience=one.audience, token=one.token, expires_at=_unix_seconds(one.expire_time), refusal=one.refusal
    )


def _reading(prepared: PreparedCall, decision: Decision) -> ResultReading | None:
    if not (decision.outcome_token and decision.HasField("result_reading")):
        return None
    wanted = decision.result_reading
    return ResultReading(
        key=wanted.key,
        trusted=wanted.trusted,
        issues=tuple(wanted.issues),
        kinds=tuple(wanted.kinds),
        arguments_json=prepared.request.call.arguments_json,
    )


def has_stated_pause(error: grpc.RpcError) -> bool:
    """Say whether the server states after which pause a retry can succeed."""
    return _stated_pause(error) is not None


def _stated_pause(error: grpc.RpcError) -> float | None:
    retry = RetryInfo()
    stated = any(detail.Unpack(retry) for detail in details_of(error))
    return max(0.0, _seconds(retry.retry_delay)) if stated else None


def _unix_seconds(moment: Timestamp) -> float:
    return moment.seconds + moment.nanos / 1e9


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
