"""Translate the messages of `PolicyService.Explain` to the PDP's own types and back."""

from __future__ import annotations

from pdp.decision.explainer import Explainer, SupposedSession
from pdp.decision.explanation import Explanation, SessionExplanation, nearest_permits
from pdp.errors import InvalidRequestError
from pdp.limits import MOST_AT_ONCE, Limits
from pdp.model import Basis, Call
from pdp.policy.conditions import ConditionResult, PolicyResult, Value
from pdp.server.decisionmessages import BASES, OUTCOMES, numbers, obligation_message
from pdp.server.fields import (
    moment_of,
    optional_digest,
    optional_id,
    optional_purpose,
    require_id,
    require_ids,
    require_server,
    require_size,
    require_text,
    timestamp,
)
from pdp.serving.origin import Origin
from pdp.v1 import explain_pb2 as explanations

# The caller id that `pdp init` gives the one gateway it creates.
GATEWAY = "pep"

_VALUES = numbers(Value, explanations.ConditionValue, "CONDITION_VALUE_")


def explain(
    explainer: Explainer, request: explanations.ExplainRequest, origin: Origin, limits: Limits
) -> explanations.ExplainResponse:
    """Answer a request. Raise `InvalidRequestError`, which names the field."""
    call = Call(
        session_handle="",
        server=require_server("server", request.server),
        tool=require_text("tool", request.tool, limits.text_characters),
        arguments_json=request.arguments_json,
        definition_digest=optional_digest("definition_digest", request.definition_digest),
        facts_json=require_size("facts_json", request.facts_json, limits.arguments_bytes, "arguments_bytes"),
    )
    made_by = optional_id("caller_id", request.caller_id)
    at = moment_of("time", request.time) if request.HasField("time") else None
    match request.WhichOneof("who"):
        case "session_id":
            session_id = require_id("session_id", request.session_id)
            explanation = explainer.explain(session_id, call, origin.caller, made_by=made_by, at=at)
        case "supposed":
            supposed = _supposed(request.supposed, limits)
            explanation = explainer.suppose(supposed, call, origin.caller, made_by=made_by or GATEWAY, at=at)
        case _:
            raise InvalidRequestError("who", "one of `session_id` and `supposed` is required")
    return explanation_message(explanation)


def explanation_message(explanation: Explanation) -> explanations.ExplainResponse:
    """Return an explanation as a message of the API."""
    ruling = explanation.ruling
    return explanations.ExplainResponse(
        summary=explanation.summary,
        outcome=OUTCOMES[ruling.outcome],
        basis=BASES[ruling.basis],
        refusal=explanation.refusal,
        problem=explanation.problem,
        opaque=explanation.opaque,
        targets=[
            explanations.TargetExplanation(path=one.path, provenance=one.provenance) for one in explanation.targets
        ],
        values_not_compared=explanation.values_not_compared,
        sessions=[_session(one) for one in explanation.sessions],
        resource_type=explanation.resource[0],
        resource_id=explanation.resource[1],
        bundle_version=explanation.bundle_version,
        explain_time=timestamp(explanation.explained_at),
        obligations=map(obligation_message, ruling.obligations),
        advice=ruling.advice,
    )


def _supposed(message: explanations.SupposedSession, limits: Limits) -> SupposedSession:
    return SupposedSession(
        user=require_id("supposed.user", message.user),
        agent=require_id("supposed.agent", message.agent),
        grants=require_ids("supposed.grants", message.grants, MOST_AT_ONCE),
        labels=require_ids("supposed.labels", message.labels, MOST_AT_ONCE),
        purpose=optional_purpose("supposed.purpose", message.purpose, limits.purpose_characters),
        environment=optional_id("supposed.environment", message.environment),
        user_attributes_json=require_size(
            "supposed.user_attributes_json", message.user_attributes_json, limits.arguments_bytes, "arguments_bytes"
        ),
        terms_json=require_size("supposed.terms_json", message.terms_json, limits.terms_bytes, "terms_bytes"),
    )


def _session(one: SessionExplanation) -> explanations.SessionExplanation:
    rests_on = {*one.ruling.policies, *one.ruling.errors}
    return explanations.SessionExplanation(
        session_id=one.session.id if one.session.handle_digest else "",
        user=one.session.user,
        agent=one.session.agent,
        outcome=OUTCOMES[one.ruling.outcome],
        basis=BASES[one.ruling.basis],
        policies=[_policy(result, determining=result.policy.id in rests_on) for result in one.policies],
        nearest_permits=[result.policy.id for result in nearest_permits(one.policies)]
        if one.ruling.basis is Basis.DEFAULT_DENY
        else [],
        policies_left_out=one.left_out,
        counts=[
            explanations.CountExplanation(name=name, calls=calls)
            for name, calls in (one.counted.counts if one.counted else ())
        ],
        done=one.counted.done if one.counted else (),
    )


def _policy(result: PolicyResult, *, determining: bool) -> explanations.PolicyExplanation:
    return explanations.PolicyExplanation(
        policy_id=result.policy.id,
        effect=result.policy.effect,
        file=result.policy.file,
        line=result.policy.line,
        value=_VALUES[result.value],
        error=result.error,
        determining=determining,
        step_up=result.policy.step_up,
        conditions=[_condition(one) for one in result.parts],
    )


def _condition(one: ConditionResult) -> explanations.ConditionExplanation:
    condition = one.condition
    return explanations.ConditionExplanation(
        kind=condition.kind,
        text=condition.text,
        value=_VALUES[one.value],
        alone=_VALUES[one.alone],
        error=one.error,
        line=condition.line,
        column=condition.column,
        end_line=condition.end_line,
        end_column=condition.end_column,
        within=map(_condition, one.within),
    )
