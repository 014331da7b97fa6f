"""What a caller is answered about one question: a decision, and what it must know besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pdp.client import Answer
from pdp.doors.authzen.questions import Question
from pdp.observer import CallOutcome, Refusal
from pdp.serving.web import BAD_REQUEST, FORBIDDEN

UNAUTHORIZED, INTERNAL = 401, 500
UNDECIDED: Final = "no decision could be made"
_ACCESS_REQUEST: Final = "access_request"
UNKNOWN_CALLER: Final = "the policy decision point does not know this caller"
# By the reason that the server gives with an error. Everything else is no decision.
_STATUSES: Final[Mapping[str, tuple[int, str]]] = {
    "INVALID_FIELD": (BAD_REQUEST, "the policy decision point refuses a field of the call, or of the facts"),
    "REQUEST_ID_CONFLICT": (BAD_REQUEST, "`context.request_id` was used for another call"),
    "MESSAGE_TOO_LARGE": (BAD_REQUEST, "the call is too large"),
    "UNAUTHENTICATED": (UNAUTHORIZED, UNKNOWN_CALLER),
    "PERMISSION_DENIED": (FORBIDDEN, "this caller may not ask about calls of this session"),
}


class NoDecisionError(Exception):
    """There is no decision: answer with this status. The message is for the caller.

    `why` is what a request counts as that asks about no call.
    """

    def __init__(self, status: int = INTERNAL, text: str = UNDECIDED, *, why: Refusal | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision and its context, as AuthZEN has them. Anything but a true decision is a deny."""

    decision: bool
    context: Mapping[str, Any] = field(repr=False)

    @property
    def outcome(self) -> CallOutcome:
        """Return what becomes of the call."""
        if self.decision:
            return CallOutcome.ALLOW
        return CallOutcome.WAITING if _ACCESS_REQUEST in self.context else CallOutcome.DENY

    @property
    def sent(self) -> Mapping[str, Any]:
        """Return what is sent."""
        return {"decision": self.decision, "context": self.context}


def denied(reason: str) -> Verdict:
    """Return a deny of the door itself, about which the server was not asked."""
    return Verdict(decision=False, context={"reason": reason})


def faulty(status: int, text: str) -> Verdict:
    """Return the deny for a faulty question among others."""
    return Verdict(decision=False, context={"error": {"status": status, "message": text}})


def verdict(question: Question, answer: Answer, *, endpoint: str) -> Verdict:
    """Return what the caller is answered. `endpoint` is where it asks for access.

    Raise `NoDecisionError` when the answer is none.
    """
    if answer.undecided:
        raise NoDecisionError(*_STATUSES.get(answer.reason, (INTERNAL, UNDECIDED)))
    context = _told(answer)
    if reason := _objection(question, answer):
        return Verdict(decision=False, context={**context, "reason": reason, **_unmet(answer)})
    if answer.allowed:
        return Verdict(decision=True, context={**context, **_duties(answer)})
    context |= {"reason": answer.basis, "advice": list(answer.advice)}
    if answer.waits:
        context[_ACCESS_REQUEST] = {
            "endpoint": endpoint,
            "expires_at": timestamp(answer.access_expires_at),
            "binding_token": answer.access_request_id,
        }
    return Verdict(decision=False, context=context)


def timestamp(at: float) -> str:
    """Write unix seconds by RFC 3339, without a fraction."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _objection(question: Question, answer: Answer) -> str:
    """Return why the door denies what the server may have allowed; empty for no reason."""
    # Of an unknown handle the server names no user, and denies.
    if answer.user != question.subject and (answer.user or answer.allowed):
        return "subject_mismatch"
    if question.agent and answer.agent != question.agent and (answer.agent or answer.allowed):
        return "agent_mismatch"
    if answer.unmet_obligations:
        return "unknown_obligation"
    if answer.outcome_token and not question.reports:
        # Only a caller that sees the result can say what it brought into the session.
        return "outcome_not_reported"
    if answer.allowed and question.call_token and not _token_of(answer):
        # What stands behind the gateway would refuse the call.
        return "no_call_token"
    return ""


def _token_of(answer: Answer) -> str:
    """Return the call token that was asked for; empty without one."""
    return answer.call_tokens[0].token if len(answer.call_tokens) == 1 else ""


def _told(answer: Answer) -> dict[str, Any]:
    return {"evaluation_id": answer.decision_id, "basis": answer.basis, "bundle_version": answer.bundle_version}


def _unmet(answer: Answer) -> Mapping[str, Any]:
    ids = sorted({one.id for one in answer.unmet_obligations})
    return {"unmet_obligations": ids} if ids else {}


def _duties(answer: Answer) -> Mapping[str, Any]:
    duties: dict[str, Any] = {}
    if answer.obligations:
        duties["obligations"] = [
            {"id": one.id, "parameters": json.loads(one.parameters_json or b"{}")} for one in answer.obligations
        ]
    if answer.outcome_token:
        duties["outcome_token"] = answer.outcome_token
    if token := _token_of(answer):
        duties["call_token"] = token
    return duties
