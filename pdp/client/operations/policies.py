"""Bundles, and questions about policies: each RPC as a value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.client.asking import json_object
from pdp.client.errors import InvalidRequestError
from pdp.client.operations.fields import seconds_and_nanos, strings
from pdp.client.operations.rpc import Method, Operation, Reply, new_request_id, unchanged
from pdp.client.uploads import bundle_upload, evaluation_upload
from pdp.v1 import explain_pb2, policy_pb2


def get_bundle(
    version: str, *, with_sessions: bool = False, policy_ids: Sequence[str] = ()
) -> Operation[policy_pb2.GetBundleResponse, policy_pb2.GetBundleResponse]:
    """Show a bundle; without a version, the running one."""
    return Operation(
        method=_method("GetBundle", policy_pb2.GetBundleResponse),
        request=policy_pb2.GetBundleRequest(version=version, with_sessions=with_sessions, policy_ids=policy_ids),
        read=unchanged,
    )


def list_bundles() -> Operation[policy_pb2.ListBundlesResponse, tuple[policy_pb2.Bundle, ...]]:
    """List the bundles that are kept."""
    return Operation(
        method=_method("ListBundles", policy_pb2.ListBundlesResponse),
        request=policy_pb2.ListBundlesRequest(),
        read=lambda reply: tuple(reply.bundles),
    )


def activate_bundle(
    version: str, *, reason: str
) -> Operation[policy_pb2.ActivateBundleResponse, policy_pb2.ActivateBundleResponse]:
    """Make a version the running bundle."""
    return Operation(
        method=_method("ActivateBundle", policy_pb2.ActivateBundleResponse),
        request=policy_pb2.ActivateBundleRequest(version=version, reason=reason, request_id=new_request_id()),
        read=unchanged,
    )


def reload_bundle() -> Operation[policy_pb2.ReloadBundleResponse, policy_pb2.ReloadBundleResponse]:
    """Load what the server's source of bundles holds now."""
    return Operation(
        method=_method("ReloadBundle", policy_pb2.ReloadBundleResponse),
        request=policy_pb2.ReloadBundleRequest(request_id=new_request_id()),
        read=unchanged,
    )


def check_bundle(
    files: Mapping[str, bytes] | None,
) -> Operation[policy_pb2.CheckBundleResponse, policy_pb2.CheckBundleResponse]:
    """Check a bundle without loading it."""
    return Operation(
        method=_method("CheckBundle", policy_pb2.CheckBundleResponse),
        request=bundle_upload(files or {}),
        read=unchanged,
    )


def evaluate(
    requests: Iterable[Mapping[str, Any] | str],
    *,
    policies: str | None,
    entities: Sequence[Mapping[str, Any]] | str,
    schema: str | Mapping[str, Any],
    template_links: Iterable[policy_pb2.TemplateLink],
    validate: bool,
    skip_request_validation: bool,
) -> Operation[policy_pb2.EvaluateResponse, policy_pb2.EvaluateResponse]:
    """Evaluate plain Cedar; without `policies`, those of the running bundle."""
    return Operation(
        method=_method("Evaluate", policy_pb2.EvaluateResponse),
        request=evaluation_upload(
            policy_pb2.EvaluateRequest(
                policies=policies or "",
                running_bundle=policies is None,
                schema=schema if isinstance(schema, str) else "",
                schema_json="" if isinstance(schema, str) else json.dumps(schema),
                entities_json=_json_text(entities),
                template_links=template_links,
                validate=validate,
                requests_json=[_json_text(request) for request in requests],
                skip_request_validation=skip_request_validation,
            )
        ),
        read=unchanged,
    )


def explain(
    server: str,
    tool: str,
    arguments: Mapping[str, Any] | bytes | None,
    *,
    session_id: str,
    user: str,
    agent: str,
    grants: Sequence[str],
    labels: Sequence[str],
    purpose: str,
    environment: str,
    user_attributes: Mapping[str, Any] | bytes | None,
    terms: Mapping[str, Any] | bytes | None,
    definition_digest: str,
    facts: Mapping[str, Any] | bytes | None,
    caller_id: str,
    at: float | None,
) -> Operation[explain_pb2.ExplainResponse, explain_pb2.ExplainResponse]:
    """Explain a call of an existing session, or of a hypothetical one."""
    supposed = explain_pb2.SupposedSession(
        user=user,
        agent=agent,
        grants=strings("grants", grants),
        labels=strings("labels", labels),
        purpose=purpose,
        environment=environment,
        user_attributes_json=json_object("user_attributes", user_attributes),
        terms_json=json_object("terms", terms),
    )
    if bool(session_id) == bool(supposed.ByteSize()):
        raise InvalidRequestError("pass either `session_id`, or `user` and `agent` of a supposed session")
    request = explain_pb2.ExplainRequest(
        session_id=session_id or None,
        supposed=None if session_id else supposed,
        server=server,
        tool=tool,
        arguments_json=json_object("arguments", arguments),
        definition_digest=definition_digest,
        facts_json=json_object("facts", facts),
        caller_id=caller_id,
    )
    if at is not None:
        seconds, nanos = seconds_and_nanos(at)
        request.time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return Operation(
        method=_method("Explain", explain_pb2.ExplainResponse),
        request=request,
        read=unchanged,
    )


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.PolicyService/{name}", reply=reply)


def _json_text(value: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str) -> str:
    return value if isinstance(value, str) else json.dumps(value)
