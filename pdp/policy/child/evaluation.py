"""Evaluate plain Cedar as its author wrote it: untrusted policies, schema, entities and requests.

Runs in the child process, since untrusted text can crash a process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import cedarpy

from pdp.errors import InvalidJSONError, InvalidRequestError, UnsafePolicyError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.misfits import entities_problem
from pdp.policy.safety import scan, scan_json, scan_schema

JSON = dict[str, Any]

# An id in this alphabet cannot be confused with the text around it in the engine's messages.
_LINK_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}\Z")
_FAILED_POLICY = re.compile(r"error while evaluating policy `([A-Za-z0-9._:@/-]+)`: ")


def evaluate(job: Mapping[str, Any]) -> JSON:
    """Evaluate a job of `policies`, `template_links`, `schema` or `schema_json`, `entities_json` and `requests_json`.

    Missing fields are empty; `validate` and `skip_request_validation` are booleans.
    Return `{"evaluations": […], "valid": bool, "validation_errors": […]}`, or `{"invalid": {"field", "problem"}}` when
    a field cannot be read. Each evaluation holds `decision` (`Allow`, `Deny` or `NoDecision`, the engine's words),
    `reasons` and `erroring_policies` (ids, sorted) and `errors` (the engine's texts).

    Ids are the engine's: a policy's position in the text (`policy0` …), whatever its `@id`, or the new id of a link.
    """
    try:
        return _evaluate(job)
    except InvalidRequestError as error:
        return {"invalid": {"field": error.attribute, "problem": error.problem}}


def policy_ids(text: str) -> tuple[str, ...]:
    """Return the ids of the policies of a text, in their order: the `@id`, otherwise the engine's id.

    Raise `InvalidRequestError` when the text cannot be read.
    """
    try:
        scan(text, DEFAULT_LIMITS)
        found: JSON = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    except (UnsafePolicyError, ValueError) as error:
        _refuse("policies", error)
    names = (f"policy{index}" for index in range(len(found)))
    return tuple(found[name].get("annotations", {}).get("id") or name for name in names)


def _evaluate(job: Mapping[str, Any]) -> JSON:
    schema = _schema(job.get("schema", ""), job.get("schema_json", ""))
    policies = _policies(job.get("policies", ""), job.get("template_links", ()))
    entities = _entities(job.get("entities_json", ""), schema)
    requests = [_request(text, f"requests_json[{n}]") for n, text in enumerate(job.get("requests_json", ()))]
    errors = _validate(job.get("policies", ""), schema) if job.get("validate") else []
    # Without request validation, the entities still have what the schema adds, mainly the groups of actions.
    request_schema = None if job.get("skip_request_validation") else schema
    return {
        "evaluations": [
            _answer(request, f"requests_json[{n}]", policies, entities, request_schema)
            for n, request in enumerate(requests)
        ],
        "valid": bool(job.get("validate")) and not errors,
        "validation_errors": errors,
    }


def _schema(text: str, json_text: str) -> cedarpy.Schema | None:
    if text and json_text:
        raise InvalidRequestError("schema_json", "must be empty with `schema`")
    try:
        if text:
            scan_schema(text, DEFAULT_LIMITS)
            return cedarpy.Schema.from_str(text)
        if json_text:
            scan_json(json_text)
            return cedarpy.Schema.from_json_str(json_text)
    except (UnsafePolicyError, InvalidJSONError, ValueError) as error:
        _refuse("schema" if text else "schema_json", error)
    return None


def _policies(text: str, links: Sequence[Mapping[str, Any]]) -> cedarpy.PolicySet:
    try:
        scan(text, DEFAULT_LIMITS)
        policies = cedarpy.PolicySet.from_str(text)
    except (UnsafePolicyError, ValueError) as error:
        _refuse("policies", error)
    for n, link in enumerate(links):
        if not _LINK_ID.match(link["new_id"]):
            raise InvalidRequestError(f"template_links[{n}].new_id", "must match [A-Za-z0-9._:@/-]{1,128}")
    try:
        return policies.with_linked_batch([_link(link) for link in links]) if links else policies
    except ValueError as error:
        _refuse("template_links", error)


def _link(link: Mapping[str, Any]) -> JSON:
    slots = {f"?{slot}": dict(link[slot]) for slot in ("principal", "resource") if link.get(slot)}
    return {"template_id": link["template_id"], "new_id": link["new_id"], "values": slots}


def _entities(text: str, schema: cedarpy.Schema | None) -> cedarpy.Entities:
    try:
        scan_json(text)
    except InvalidJSONError as error:
        _refuse("entities_json", error)
    try:
        return cedarpy.Entities.from_json_str(text or "[]", schema)
    except UnicodeError as error:
        _refuse("entities_json", error)
    except ValueError:
        path, problem = entities_problem(text, schema)
        raise InvalidRequestError(f"entities_json{path}", " ".join(problem.split())) from None


def _validate(text: str, schema: cedarpy.Schema | None) -> list[str]:
    if schema is None:
        raise InvalidRequestError("validate", "needs a schema")
    return [error.error for error in cedarpy.validate_policies(text, schema).errors]


def _request(text: str, field: str) -> JSON:
    try:
        scan_json(text)
        request = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(field, f"not JSON (line {error.lineno}, column {error.colno})") from None
    except InvalidJSONError as error:
        _refuse(field, error)
    except ValueError:
        raise InvalidRequestError(field, "an integer has too many digits") from None
    if not isinstance(request, dict) or not {"principal", "action", "resource"} <= request.keys():
        raise InvalidRequestError(field, "must be an object with `principal`, `action`, `resource` and `context`")
    unknown = request.keys() - {"principal", "action", "resource", "context"}
    if unknown:
        raise InvalidRequestError(field, f"unknown key: `{min(unknown)}`")
    if not isinstance(request.get("context", {}), dict):
        raise InvalidRequestError(f"{field}.context", "must be an object")
    uids = {name: _uid(request[name], f"{field}.{name}") for name in ("principal", "action", "resource")}
    return uids | {"context": json.dumps(request.get("context", {}))}


def _uid(value: Any, field: str) -> JSON:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict) and value.keys() == {"type", "id"} and all(isinstance(v, str) for v in value.values()):
        return value
    raise InvalidRequestError(field, 'must be `{"type": "…", "id": "…"}`')


def _object(pairs: list[tuple[str, Any]]) -> JSON:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidJSONError("a key appears twice in one object")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise InvalidJSONError("NaN and Infinity are not JSON")


def _answer(
    request: JSON, field: str, policies: cedarpy.PolicySet, entities: cedarpy.Entities, schema: cedarpy.Schema | None
) -> JSON:
    try:
        result = cedarpy.is_authorized(request, policies, entities, schema)
    except ValueError as error:
        _refuse(field, error)
    errors = result.diagnostics.errors
    failed = {match.group(1) for text in errors if (match := _FAILED_POLICY.match(text))}
    return {
        "decision": result.decision.value,
        "reasons": sorted(result.diagnostics.reasons),
        "erroring_policies": sorted(failed),
        "errors": errors,
    }


def _refuse(field: str, error: Exception) -> NoReturn:
    if isinstance(error, UnicodeError):
        raise InvalidRequestError(field, "a string holds a lone surrogate") from None
    prefix = f"line {error.line}: " if isinstance(error, UnsafePolicyError) else ""
    raise InvalidRequestError(field, prefix + " ".join(str(error).split())) from None
