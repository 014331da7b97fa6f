"""Run a job of the evaluator over gRPC, through `PolicyService.Evaluate`."""

from __future__ import annotations

from typing import Any

import grpc

from pdp.client.uploads import evaluation_upload
from pdp.v1 import policy_pb2, policy_pb2_grpc
from tests.proofs.conformance.cases import JSON, Run

_DECISIONS = {
    policy_pb2.ENGINE_DECISION_ALLOW: "Allow",
    policy_pb2.ENGINE_DECISION_DENY: "Deny",
    policy_pb2.ENGINE_DECISION_NO_DECISION: "NoDecision",
}


def over_grpc(channel: grpc.Channel, token: str) -> Run:
    """Return what runs jobs on the server behind a channel, with the token of an author."""
    metadata = (("authorization", f"Bearer {token}"),)
    service = policy_pb2_grpc.PolicyServiceStub(channel)  # type: ignore[no-untyped-call]  # generated without types

    def run(job: JSON) -> JSON:
        try:
            upload = iter(evaluation_upload(request_of(job)))
            return result_of(service.Evaluate(upload, timeout=60, metadata=metadata))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            return {"invalid": {"field": "", "problem": error.details()}}

    return run


def request_of(job: JSON) -> policy_pb2.EvaluateRequest:
    """Return the message that says what a job says."""
    fields = {name: value for name, value in job.items() if name != "template_links"}
    return policy_pb2.EvaluateRequest(**fields, template_links=map(_link, job.get("template_links", ())))


def result_of(response: policy_pb2.EvaluateResponse) -> JSON:
    """Return the result that a response holds."""
    return {
        "evaluations": [
            {
                "decision": _DECISIONS[evaluation.decision],
                "reasons": list(evaluation.reasons),
                "erroring_policies": list(evaluation.erroring_policies),
                "errors": list(evaluation.errors),
            }
            for evaluation in response.evaluations
        ],
        "valid": response.valid,
        "validation_errors": list(response.validation_errors),
    }


def _link(link: JSON) -> policy_pb2.TemplateLink:
    return policy_pb2.TemplateLink(
        template_id=link["template_id"],
        new_id=link["new_id"],
        principal=_uid(link.get("principal")),
        resource=_uid(link.get("resource")),
    )


def _uid(uid: dict[str, Any] | None) -> policy_pb2.EntityUid | None:
    return policy_pb2.EntityUid(type=uid["type"], id=uid["id"]) if uid else None
