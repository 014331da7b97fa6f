"""What the engine says about a whole policy set, and what of a check's claims contradicts it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import cedarpy

from pdp.clock import Deadline
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, Ruling, Session, SessionState, Targets
from pdp.policy.bundle import Bundle
from pdp.policy.child.compile import compile_bundle
from pdp.policy.contents import Contents, read_contents
from pdp.policy.directory import load_directory
from pdp.policy.entities import SessionEntities
from pdp.policy.loading import compile_job, load_bundle
from pdp.policy.question import Question
from pdp.policy.reading import Reading
from pdp.policy.schema import full_schema
from tests.machinery.randomworld import (
    ACTIONS,
    DIRECTORY,
    RISK,
    Request,
    files,
    random_policies,
    random_request,
    random_twin,
    request_key,
)

_CONTENTS = read_contents(files([]), DEFAULT_LIMITS)
_SCHEMA_TEXT = full_schema(
    _CONTENTS.schema, _CONTENTS.caller_facts, tuple(_CONTENTS.catalogue.tools.values()), _CONTENTS.groups
)
_SCHEMA = cedarpy.Schema.from_str(_SCHEMA_TEXT)
_DIRECTORY = load_directory({"directory.yaml": DIRECTORY.encode()})
_REQUESTS, _ACTIONS = 12, 3


class Answer(NamedTuple):
    """What the whole set says: whether it allows, what determined it, and what failed. A failure allows nothing."""

    allowed: bool
    reasons: frozenset[int]
    errors: frozenset[int]


@contextmanager
def world_read_once() -> Iterator[None]:
    """Let compiler and loader take the world's YAML and schema as read: only its policies differ from set to set."""

    def contents(given: Mapping[str, bytes], _: object) -> Contents:
        return replace(_CONTENTS, policies={"p.cedar": given["p.cedar"].decode("utf-8")})

    with (
        patch("pdp.policy.child.compile.read_contents", contents),
        patch("pdp.policy.loading.read_contents", contents),
        patch("pdp.policy.child.compile._schema", lambda *_: _SCHEMA),
        patch("pdp.policy.child.compile._check_entities", lambda *_: None),
    ):
        yield


class Claims(NamedTuple):
    """What a check says of a set: which policies, by place, never match, and which never change an outcome."""

    policies: Sequence[str]
    never: frozenset[int]
    shadowed: frozenset[int]
    compiled: Mapping[str, Any]


def contradictions(seed: int, counts: Counter[str]) -> list[str]:
    """Make a random set and random requests; return every claim that the engine contradicts. `counts` is told all."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    claims = checked([policy.text(n) for n, policy in enumerate(random_policies(random))])
    counts.update(sets=1, policies=len(claims.policies), never=len(claims.never), shadowed=len(claims.shadowed))
    bundle = load_bundle(files(claims.policies), DEFAULT_LIMITS, lambda _: dict(claims.compiled))
    whole = cedarpy.PolicySet.from_str("\n".join(claims.policies))
    kept = [n for n in range(len(claims.policies)) if n not in claims.shadowed]
    rest = cedarpy.PolicySet.from_str("\n".join(claims.policies[n] for n in kept))
    wrong = []
    actions = random.sample(ACTIONS, _ACTIONS)
    for _ in range(_REQUESTS):
        request = random_request(random, actions)
        answer = ask(request, whole)
        told = f"seed {seed}, {request_key(request)}: "
        counts.update(allowed=answer.allowed, failed=bool(answer.errors), requests=1)
        if matched := claims.never & (answer.reasons | answer.errors):
            wrong.append(f"{told}never matches, and matched or failed: {_texts(claims, matched)}")
        if claims.shadowed and ask(request, rest).allowed != answer.allowed:
            wrong.append(f"{told}shadowed, and changed the outcome: {_texts(claims, claims.shadowed)}")
        if (found := through_slice(request, bundle)) != answer:
            wrong.append(f"{told}the slice says {found}, the whole set {answer}")
        if request.action in RISK:
            twin, reading = random_twin(random, request), bundle.slice(request.action).reading
            if twin != request and reading.cacheable and _part(reading, request) == _part(reading, twin):
                counts.update(twins=1, twins_in_time=request.context["now"] != twin.context["now"])
                if (found := ask(twin, whole)) != answer:
                    wrong.append(f"{told}the twin {request_key(twin)} gets {found}, and {answer} is remembered for it")
    return wrong


def _part(reading: Reading, request: Request) -> tuple[object, ...]:
    """Return what a remembered answer to a call is found by, beside its session and tool."""
    now = datetime.fromisoformat(request.context["now"]["__extn"]["arg"]).timestamp()
    targets = Targets(**{name: tuple(words) for name, words in request.context["targets"].items()})
    return reading.part(request.resource, request.context, (targets,)), reading.place_in_time(now)


def checked(policies: Sequence[str]) -> Claims:
    """Check a set; what the validator refuses is left out first."""
    for _ in range(2):
        result = compile_bundle({**compile_job(files(policies), DEFAULT_LIMITS), "lint": True})
        refused = {problem["line"] - 1 for problem in result.get("problems", ())}
        if not refused:
            break
        policies = [text for n, text in enumerate(policies) if n not in refused]
    places: dict[str, set[int]] = {"never-matches": set(), "shadowed": set()}
    for problem in result["warnings"]:
        places.get(problem["code"], set()).add(problem["line"] - 1)
    return Claims(policies, frozenset(places["never-matches"]), frozenset(places["shadowed"]), result)


def ask(request: Request, policies: cedarpy.PolicySet) -> Answer:
    """Ask the engine about a request: the full schema, every entity, all policies."""
    question = {
        "principal": _uid("User", request.user),
        "action": _uid("Action", request.action),
        "resource": _uid(*request.resource),
        "context": json.dumps(request.context),
    }
    entities = _entities(request.action, request.resource, request.grants, request.labels, request.depth)
    result = cedarpy.is_authorized(question, policies, entities, _SCHEMA)
    assert result.decision is not cedarpy.Decision.NoDecision, (request, result.diagnostics.errors)
    errors = frozenset(int(text.partition("`policy")[2].partition("`")[0]) for text in result.diagnostics.errors)
    reasons = frozenset(int(reason.removeprefix("policy")) for reason in result.diagnostics.reasons)
    if errors:
        return Answer(allowed=False, reasons=frozenset(), errors=errors)
    return Answer(result.decision is cedarpy.Decision.Allow, reasons, errors)


def through_slice(request: Request, bundle: Bundle) -> Answer:
    """Ask the product: the slice of the action, its own schema, the entities that it puts together."""
    question = Question(
        user=request.user,
        agent=request.agent,
        session_id="s",
        resource=request.resource,
        context=request.context,
    )
    known = _session_entities(request.user, request.agent, request.grants, request.labels, request.depth)
    asked = bundle.slice(request.action)
    return _spoken(asked.ask(question, asked.beside(known)), bundle)


@cache
def _session_entities(
    user: str, agent: str, grants: tuple[str, ...], labels: tuple[str, ...], depth: int
) -> SessionEntities:
    """Let the product parse a session's entities. They depend on the directory, which is the same in every set."""
    session = Session(
        id="s",
        handle_digest=b"",
        state=SessionState.ACTIVE,
        user=user,
        agent=agent,
        purpose="p",
        tool_patterns=(),
        duration=1.0,
        requested_at=0.0,
        deadline=Deadline(wall_at=1.0, boot_at=1.0, boot_id="b"),
        tenant="default",
        environment="default",
        opened_by="c1",
        ancestor_ids=("a",) * depth,
        grants=grants,
        labels=labels,
        entities_json=_DIRECTORY.capture(user, agent) or "[]",
    )
    return _empty_bundle().session_entities(session)


@cache
def _empty_bundle() -> Bundle:
    return load_bundle(files([]), DEFAULT_LIMITS, lambda _: {"policies": []})


def _spoken(ruling: Ruling, bundle: Bundle) -> Answer:
    places = {policy: n for n, policy in enumerate(bundle.policies)}
    return Answer(
        ruling.basis is Basis.PERMIT,
        frozenset(places[one] for one in ruling.policies),
        frozenset(places[one] for one in ruling.errors),
    )


@cache
def _entities(
    action: str, resource: tuple[str, str], grants: tuple[str, ...], labels: tuple[str, ...], depth: int
) -> cedarpy.Entities:
    """Write every entity anew: the directory, the servers, the session with its grants, action and resource."""
    made = {uid: dict(one.json) for uid, one in _DIRECTORY.entities.items()}
    made |= {("Server", name): _entity("Server", name) for name in ("alpha", "beta")}
    made |= {("Grant", name): _entity("Grant", name) for name in grants}
    attributes = {"purpose": "p", "tenant": "default", "environment": "default", "opened_by": "c1"}
    made[("Session", "s")] = _entity("Session", "s", [("Grant", name) for name in grants]) | {
        "attrs": {**attributes, "depth": depth, "labels": list(labels)}
    }
    if resource[0] == "Thing":
        thing = made.get(resource) or _entity(*resource)
        made[resource] = {**thing, "parents": [*thing["parents"], _uid("Server", action.partition("/")[0])]}
    risk = RISK.get(action)
    made[("Action", action)] = _entity("Action", action, [("Action", risk)] if risk else [])
    if risk:
        made[("Action", risk)] = _entity("Action", risk)
    return cedarpy.Entities.from_json_str(json.dumps(list(made.values())), _SCHEMA)


def _entity(kind: str, name: str, parents: Collection[tuple[str, str]] = ()) -> dict[str, Any]:
    return {"uid": _uid(kind, name), "attrs": {}, "parents": [_uid(*parent) for parent in parents]}


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _texts(claims: Claims, places: Collection[int]) -> str:
    return " ".join(claims.policies[n] for n in sorted(places))
