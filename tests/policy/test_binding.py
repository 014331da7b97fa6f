"""What the inner function of the engine's binding answers, and that the requests of calls need no check."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cedarpy
import pytest

from pdp.decision.cache import DecisionCache
from pdp.policy import binding
from pdp.policy.binding import Answer, Policies, answer_of
from pdp.policy.directory import uid_json
from pdp.policy.engine import Slice
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import opened

RULES = cedarpy.PolicySet.from_str(
    """
    permit (principal, action, resource) when { context.n < 10 };
    permit (principal, action, resource) when { context.n < 5 };
    forbid (principal, action, resource) when { context.n > 100 };
    forbid (principal, action, resource) when { context.n + 1 < 0 };
    """
)
TYPES = cedarpy.Schema.from_str(
    'entity User; action "a" appliesTo { principal: [User], resource: [User], context: { n: Long } };'
)
ENTITIES = cedarpy.Entities.from_json_str(json.dumps([{"uid": uid_json(("User", "u")), "attrs": {}, "parents": []}]))
USER = uid_json(("User", "u"))
REQUEST = {"principal": USER, "action": uid_json(("Action", "a")), "resource": USER}


@pytest.mark.parametrize("schema", [TYPES, None], ids=["with schema", "without"])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"context": '{"n": 1}'}, id="two permits"),
        pytest.param({"context": '{"n": 7}'}, id="one permit"),
        pytest.param({"context": '{"n": 50}'}, id="nothing matches"),
        pytest.param({"context": '{"n": 200}'}, id="a forbid"),
        pytest.param({"context": f'{{"n": {2**63 - 1}}}'}, id="an error beside a forbid"),
        pytest.param({"context": '{"n": "x"}'}, id="a wrong type"),
        pytest.param({"context": "{}"}, id="an attribute is missing"),
        pytest.param({"context": '{"n": 1, "m": 1}'}, id="an attribute too many"),
        pytest.param({"context": "{"}, id="no JSON"),
        pytest.param({"context": '{"n": 1}', "principal": uid_json(("U U", "u"))}, id="no uid"),
        pytest.param({"context": '{"n": 1}', "principal": uid_json(("Other", "u"))}, id="another type"),
        pytest.param({"context": '{"n": 1}', "action": uid_json(("Action", "b"))}, id="another action"),
    ],
)
def test_it_answers_as_the_public_function(changed: dict[str, Any], schema: cedarpy.Schema | None) -> None:
    """The inner function gives the decision, reasons and errors that the public one gives."""
    request = REQUEST | changed
    public = cedarpy.is_authorized(request, RULES, ENTITIES, schema)

    remembering = Policies(RULES)
    answers = [
        answer_of(request, RULES, ENTITIES, schema),
        *(remembering.ask(request, ENTITIES, schema) for _ in range(2)),
    ]

    assert [answers[0]] * 3 == answers
    assert answers[0] == Answer(
        decided=public.decision is not cedarpy.Decision.NoDecision,
        allowed=public.allowed,
        decisive=frozenset(int(reason.removeprefix("policy")) for reason in public.diagnostics.reasons),
        errors=tuple(public.diagnostics.errors),
    )


def test_answers_are_remembered_by_what_they_say() -> None:
    """Requests with different answers have their own, in whatever order they come."""
    remembering = Policies(RULES)
    requests = [REQUEST | {"context": f'{{"n": {number}}}'} for number in (1, 7, 50, 200, 7, 1, 200, 50)]

    assert [remembering.ask(one, ENTITIES) for one in requests] == [answer_of(one, RULES, ENTITIES) for one in requests]


def said(decision: str, after: str) -> str:
    """Return an answer's text with something that follows its reasons."""
    return f'{{"diagnostics":{{"reason":["policy0"],"errors":[]}},"decision":"{decision}",{after}}}'


@pytest.mark.parametrize(
    ("first", "second", "remembered"),
    [
        pytest.param(
            said("Allow", '"metrics":{"micros":1}'), said("Allow", '"metrics":{"micros":22}'), True, id="numbers alone"
        ),
        pytest.param(
            said("Allow", '"metrics":{"micros":1},"decision":"Allow"'),
            said("Allow", '"metrics":{"micros":1},"decision":"Deny"'),
            False,
            id="something after the metrics",
        ),
        pytest.param(
            said("Allow", '"metrics":{"of":{"micros":1}}'),
            said("Allow", '"metrics":{"of":{"micros":1}}'),
            False,
            id="something in the metrics",
        ),
        pytest.param(said("Allow", '"more":1'), said("Allow", '"more":2'), False, id="no metrics"),
    ],
)
def test_an_answer_of_another_form_is_read(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, *, remembered: bool
) -> None:
    """Only what the engine says of its own work may differ between equal answers, and only numbers are that."""
    texts = iter([first, second])
    monkeypatch.setattr(binding, "_internal", SimpleNamespace(is_authorized=lambda *_: next(texts)))
    remembering = Policies(RULES)
    answers = [remembering.ask(REQUEST, ENTITIES) for _ in range(2)]

    assert [json.loads(text)["decision"] == "Allow" for text in (first, second)] == [one.allowed for one in answers]
    assert remembered == (answers[0] is answers[1])


# What an agent and a caller can send that has a type of its own, or looks like it.
PROPERTIES = {
    "text": {"type": "string"},
    "number": {"type": "integer"},
    "amount": {"type": "number"},
    "flag": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
    "record": {"type": "object", "properties": {"type": {"type": "string"}, "id": {"type": "string"}}},
    "rows": {"type": "array", "items": {"type": "object", "properties": {"to": {"type": "string"}}}},
    "any": {},
}
SENT = [
    {"text": "x"},
    {"text": "!"},
    {"text": '{"__entity": {"type": "User", "id": "alice"}}'},
    {"text": "\ud7ff\U0001f600"},
    {"text": None},
    {"text": 1},
    {"number": 2**63 - 1},
    {"number": 2**63},
    {"number": 1.0},
    {"amount": 922337203685477.5807},
    {"amount": 10},
    {"flag": True},
    {"flag": "true"},
    {"list": []},
    {"list": ["a", "a"]},
    {"list": [1]},
    {"record": {"type": "User", "id": "alice"}},
    {"record": {}},
    {"record": {"__entity": {"type": "User", "id": "alice"}}},
    {"record": {"__extn": {"fn": "decimal", "arg": "1.0"}}},
    {"rows": [{"to": "a"}, {}]},
    {"rows": []},
    {"any": {"deep": [1, None, {}]}},
    {"undeclared": 1},
    dict.fromkeys(PROPERTIES),
]
FACTS = [{}, {"shift": 1}, {"shift": 1, "risk": "high"}]
DIRECTORY = """
users: {alice: {}}
agents: {coder: {ceiling: ["shop/*"]}}
"""
EVERYTHING_IS_READ = """
@id("shop/all") permit (principal, action, resource);
@id("shop/reads") forbid (principal, action == Action::"shop/buy", resource) when {
  context.now < datetime("2000-01-01") || context.caller.id == "" || context.opaque.contains("!")
  || (context.caller has shift && context.caller.shift == 9) || (context.caller has risk && context.caller.risk == "9")
  || context.targets.links.contains("!") || context.session.depth > 9 || context.agent == Agent::"other"
  || (context.input has text && context.input.text == "!") || (context.input has number && context.input.number == 9)
  || (context.input has amount && context.input.amount == decimal("9.0"))
  || (context.input has flag && context.input has list && context.input.flag && context.input.list.contains("!"))
  || (context.input has record && context.input.record has id && context.input.record.id == "!")
};
"""


def test_the_request_of_a_call_fits_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent has the same ruling when its request is held against the schema as well."""
    files = bundle_files(
        policies={"shop": EVERYTHING_IS_READ},
        tools={"shop": [tool("buy", PROPERTIES)]},
        overlays={"shop": "tools: {buy: {parameters: {amount: {type: decimal}}}}"},
        directory=DIRECTORY,
        manifest="caller_facts: {properties: {shift: {type: integer}, risk: {type: string}}}",
    )
    texts = [(json.dumps(sent).encode(), json.dumps(facts).encode()) for sent in SENT for facts in FACTS]
    with opened(tmp_path, files, DecisionCache(size=0)) as pdp:
        _, handle = pdp.session("shop/*")
        unchecked = [pdp.ask(handle, "shop/buy", sent, facts=facts).ruling for sent, facts in texts]
        monkeypatch.setattr(Slice, "_unproven", lambda _, parsed: parsed.schema)
        checked = [pdp.ask(handle, "shop/buy", sent, facts=facts).ruling for sent, facts in texts]

    assert checked == unchecked
    assert Counter(one.basis.value for one in checked) == {"permit": 39, "forbid": 3, "invalid_arguments": 33}
