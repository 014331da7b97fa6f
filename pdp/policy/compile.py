"""Compile a bundle: parse, validate and analyse it. Runs in a child process, because policy text can end one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import cedarpy

from pdp.errors import BundleError, Problem, UnsafePolicyError
from pdp.limits import Limits
from pdp.policy.analysis import action_scope, entity_uids, reads
from pdp.policy.contents import SCHEMA, Contents, read_contents
from pdp.policy.directory import Entity
from pdp.policy.safety import PolicyText, scan, scan_schema
from pdp.policy.schema import SESSION_ATTRIBUTES, SESSION_DECLARATION, full_schema

_ID = re.compile(r"[a-z0-9._/-]{1,128}\Z")
_POSITION = re.compile(r"policy(\d+)\Z")
_QUOTED = re.compile(r"`([^`]+)`")

Policy = dict[str, Any]


def compile_bundle(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the files of a bundle.

    `job` holds `files` (path to text) and `limits` (fields of `Limits`). Return either `{"problems": [[file, line,
    message], …]}`, or `{"policies": […]}` with `id`, `effect`, `file`, `line`, `column`, `text`, `actions` (ids that
    the action scope names; null means any), `reads` (attributes of the context, `resource` for the resource; null means
    everything) and `entities` (uids that it names) for each policy, in the order of their files.
    """
    limits = Limits(**job["limits"])
    try:
        contents = read_contents(
            {path: text.encode("utf-8", "surrogateescape") for path, text in job["files"].items()}, limits
        )
        return {"policies": _compile(contents, limits)}
    except BundleError as error:
        return {"problems": [[problem.file, problem.line, _one_line(problem.message)] for problem in error.problems]}


def _compile(contents: Contents, limits: Limits) -> list[Policy]:
    schema = _schema(contents, limits)
    _check_entities(contents, schema)
    policies = [policy for file, text in contents.policies.items() for policy in _policies(file, text, limits)]
    _check_ids(policies)
    _validate(policies, schema)
    return policies


def _one_line(message: str) -> str:
    # What the engine quotes of a file may hold line breaks and characters that hide or turn others.
    return " ".join("".join(letter if letter.isprintable() else " " for letter in message).split())


def _schema(contents: Contents, limits: Limits) -> cedarpy.Schema:
    try:
        scan_schema(contents.schema, limits)
    except UnsafePolicyError as error:
        raise BundleError((Problem(SCHEMA, error.line, str(error)),)) from None
    text = full_schema(contents.schema, contents.caller_facts, tuple(contents.catalogue.tools.values()))
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        message = str(error)
        hint = ""
        if "resolve" in message:
            hint = "; `User`, `Agent`, `Session`, `Grant`, `Server` and each mapped resource type must be declared"
        raise BundleError((Problem(SCHEMA, _line_of(contents.schema, message, 1), message + hint),)) from None


def _check_entities(contents: Contents, schema: cedarpy.Schema) -> None:
    sample = {
        "uid": {"type": "Session", "id": "sample"},
        "attrs": {name: _sample(kind) for name, kind in SESSION_ATTRIBUTES.items()},
        "parents": [{"type": "Grant", "id": "sample"}],
    }
    if not _fits([sample], schema):
        message = f"the schema must hold exactly these attributes of a session, others optional: {SESSION_DECLARATION}"
        raise BundleError((Problem(SCHEMA, _line_of(contents.schema, "`Session`", 1), message),))
    _check_resources(contents, schema)
    _check_directory(contents, schema)


def _check_resources(contents: Contents, schema: cedarpy.Schema) -> None:
    server = {"type": "Server", "id": "sample"}
    types = sorted({tool.resource_type for tool in contents.catalogue.tools.values()} - {"Server"})
    wrong = [
        name
        for name in types
        if not _fits([{"uid": {"type": name, "id": ""}, "attrs": {}, "parents": [server]}], schema)
    ]
    if wrong:
        # A resource that the directory does not know has no attributes, and always stands below its server.
        message = "a type that calls are mapped to must be declared `in [Server]`, all its attributes optional"
        raise BundleError(
            tuple(Problem(SCHEMA, _line_of(contents.schema, f"`{w}`", 1), f"`{w}`: {message}") for w in wrong)
        )


def _check_directory(contents: Contents, schema: cedarpy.Schema) -> None:
    # One check of all entities; only when it fails are they checked one by one, to name the wrong ones.
    entities = contents.directory.entities.values()
    if _fits([one.json for one in entities], schema):
        return
    wrong = [one for one in entities if not _fits([one.json], schema)]
    raise BundleError(tuple(_entity_problem(one) for one in wrong) or (_mixed_problem(),))


def _entity_problem(one: Entity) -> Problem:
    return Problem("directory.yaml", one.line, f"`{one.uid[0]}::{one.uid[1]}` does not fit the schema")


def _mixed_problem() -> Problem:
    return Problem("directory.yaml", 0, "the entities do not fit together; is there a cycle of parents?")


def _fits(entities: list[Mapping[str, Any]], schema: cedarpy.Schema) -> bool:
    try:
        cedarpy.Entities.from_json_str(json.dumps(entities), schema)
    except ValueError:
        return False
    return True


def _sample(kind: str) -> object:
    return {"String": "", "Long": 0, "Set<String>": []}[kind]


def _policies(file: str, text: str, limits: Limits) -> list[Policy]:
    try:
        parts = scan(text, limits)
    except UnsafePolicyError as error:
        raise BundleError((Problem(file, error.line, str(error)),)) from None
    found: list[Policy] = []
    problems: list[Problem] = []
    for part in parts:
        try:
            found.append(_policy(file, part))
        except BundleError as error:
            problems += error.problems
    if problems:
        raise BundleError(tuple(problems))
    return found


def _policy(file: str, part: PolicyText) -> Policy:
    try:
        tree = json.loads(cedarpy.policies_to_json_str(part.text))
    except ValueError as error:
        line = part.line + _line_of(part.text, str(error), 1) - 1
        raise BundleError((Problem(file, line, f"not a policy: {error}"),)) from None
    if tree.get("templates"):
        raise BundleError((Problem(file, part.line, "templates are not allowed; use groups"),))
    (policy,) = tree["staticPolicies"].values()
    return {
        "id": policy.get("annotations", {}).get("id") or "",
        "effect": policy["effect"],
        "file": file,
        "line": part.line,
        "column": part.column,
        "text": part.text,
        "actions": action_scope(policy),
        "reads": reads(policy),
        "entities": entity_uids(policy),
    }


def _check_ids(policies: list[Policy]) -> None:
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for policy in policies:
        name, stem = policy["id"], policy["file"].removesuffix(".cedar")
        if not _ID.match(name):
            message = f"`@id` must match [a-z0-9._/-]{{1,128}}: `{name[:128]}`" if name else "a policy needs an `@id`"
            problems.append(Problem(policy["file"], policy["line"], message))
        elif not name.startswith(stem):
            message = f"`@id` must start with the name of its file, `{stem}`: `{name}`"
            problems.append(Problem(policy["file"], policy["line"], message))
        elif name in first:
            message = f"`@id` stands twice: `{name}`; first at {first[name]}"
            problems.append(Problem(policy["file"], policy["line"], message))
        first.setdefault(name, f"{policy['file']}:{policy['line']}")
    if problems:
        raise BundleError(tuple(problems))


def _validate(policies: list[Policy], schema: cedarpy.Schema) -> None:
    result = cedarpy.validate_policies("\n".join(policy["text"] for policy in policies), schema)
    if result.validation_passed:
        return
    problems = [_validation_problem(error.policy_id, error.error, policies) for error in result.errors]
    # The engine's order changes from run to run. What names the most comes first: it is the nearest to the cause.
    problems.sort(key=lambda one: (one.file, one.line, -one.message.count("`"), one.message))
    raise BundleError(tuple(problems))


def _validation_problem(position: str, message: str, policies: list[Policy]) -> Problem:
    match = _POSITION.match(position)
    if match is None:
        return Problem("", 0, message)
    policy = policies[int(match.group(1))]
    text = message.replace(f"for policy `{position}`, ", "")
    line = policy["line"] + _line_of(policy["text"], text, 1) - 1
    return Problem(policy["file"], line, f"policy `{policy['id']}`: {text}")


def _line_of(text: str, message: str, default: int) -> int:
    """Return the line of the first word that the engine's message quotes and the text holds.

    The engine gives no positions; for most messages this is the very line.
    """
    for match in _QUOTED.finditer(message):
        at = text.find(match.group(1))
        if at >= 0:
            return text.count("\n", 0, at) + 1
    return default
