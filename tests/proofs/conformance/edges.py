"""Cases in which an adapter that is nearly right answers wrongly, and such adapters.

The material of others happens to hold none of these: an adapter could say `Deny` for what has no decision, or tidy up
the text of policies, and agree with all of it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from tests.proofs.conformance.cases import JSON, Case, Expected, Run

SCHEMA = """
entity Person;
entity Thing in [Thing];
action "use" appliesTo {
  principal: Person, resource: Thing, context: { "word"?: String, "count"?: Long, "words"?: Set<String> },
};
"""
ANN, BOX = {"type": "Person", "id": "ann"}, {"type": "Thing", "id": "box"}
COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
PERMIT = "permit (principal, action, resource);"
# The sum is past the largest number, so the policy cannot be evaluated.
ERRING = "when { 9223372036854775807 + context.count > 0 }"


def _request(**context: Any) -> str:
    uids = {"principal": ANN, "action": {"type": "Action", "id": "use"}, "resource": BOX}
    return json.dumps({**uids, "context": context})


def _when(condition: str) -> str:
    return f"permit (principal, action, resource) when {{ {condition} }};"


def _case(name: str, policies: str, *pairs: tuple[str, Expected], schema: str = SCHEMA, **job: Any) -> Case:
    requests, expected = zip(*pairs, strict=True)
    whole = {"policies": policies, "schema": schema, "requests_json": list(requests), **job}
    return Case(name=name, job=whole, expected=expected)


def _allow(*reasons: str, erring: tuple[str, ...] = ()) -> Expected:
    return Expected(decision="Allow", reasons=reasons, erroring_policies=erring)


def _deny(*reasons: str, erring: tuple[str, ...] = ()) -> Expected:
    return Expected(decision="Deny", reasons=reasons, erroring_policies=erring)


NO_DECISION = Expected(decision="NoDecision", reasons=(), erroring_policies=())

EDGES: tuple[Case, ...] = (
    _case(
        "what does not fit the schema has no decision, and what is permitted nonetheless is no deny",
        PERMIT,
        (_request(unknown=1), NO_DECISION),
        (_request(count="many"), NO_DECISION),
        (_request(), _allow("policy0")),
    ),
    _case(
        "without validation of the request, it has one",
        PERMIT,
        (_request(unknown=1), _allow("policy0")),
        skip_request_validation=True,
    ),
    _case(
        "a policy that errs takes no part",
        f"{PERMIT}\nforbid (principal, action, resource) {ERRING};",
        (_request(count=1), _allow("policy0", erring=("policy1",))),
        (_request(count=0), _deny("policy1")),
    ),
    _case(
        "a permit that errs denies nothing that another permits, and allows nothing",
        f"permit (principal, action, resource) {ERRING};\n{_when('context has word')}",
        (_request(count=1, word="x"), _allow("policy1", erring=("policy0",))),
        (_request(count=1), _deny(erring=("policy0",))),
    ),
    _case(
        "texts compare by code point: composed and decomposed letters differ",
        _when(f'context has word && context.word == "{DECOMPOSED}"'),
        (_request(word=DECOMPOSED), _allow("policy0")),
        (_request(word=COMPOSED), _deny()),
    ),
    _case(
        "names compare by code point as well",
        f'permit (principal == Person::"{DECOMPOSED}", action, resource);',
        (json.dumps({**json.loads(_request()), "principal": {"type": "Person", "id": DECOMPOSED}}), _allow("policy0")),
        (json.dumps({**json.loads(_request()), "principal": {"type": "Person", "id": COMPOSED}}), _deny()),
    ),
    Case(
        name="a carriage return in a text is refused",
        job={"policies": _when('context has word && context.word == "a\r\nb"'), "requests_json": [_request()]},
        expected=(),
        refused=True,
    ),
    _case(
        "a line break in a text is what it is",
        _when('context has word && context.word == "a\nb"'),
        (_request(word="a\nb"), _allow("policy0")),
        (_request(word="a\r\nb"), _deny()),
    ),
    _case(
        "blanks at the end of a text, and upper case, are what they are",
        _when('context has word && context.word == "Ab "'),
        (_request(word="Ab "), _allow("policy0")),
        (_request(word="Ab"), _deny()),
        (_request(word="ab "), _deny()),
    ),
    _case(
        "numbers are whole and exact",
        _when("context has count && context.count == 9007199254740993"),
        (_request(count=9007199254740993), _allow("policy0")),
        (_request(count=9007199254740992), _deny()),
    ),
    _case(
        "a set has each value once, in no order",
        _when('context has words && context.words == ["a", "b"]'),
        (_request(words=["b", "a", "b"]), _allow("policy0")),
        (_request(words=["a"]), _deny()),
    ),
    _case(
        "what is above is reached through others, and a forbid beats every permit",
        f'{PERMIT}\nforbid (principal, action, resource in Thing::"top");',
        (_request(), _deny("policy1")),
        entities_json=json.dumps(
            [
                {"uid": BOX, "attrs": {}, "parents": [{"type": "Thing", "id": "middle"}]},
                {"uid": {"type": "Thing", "id": "middle"}, "attrs": {}, "parents": [{"type": "Thing", "id": "top"}]},
            ]
        ),
    ),
    _case("nothing permits", "", (_request(), _deny())),
)


def _answers(change: Callable[[JSON], JSON]) -> Callable[[Run], Run]:
    """Return what makes an adapter change each of its evaluations."""

    def broken(run: Run) -> Run:
        def changed(job: JSON) -> JSON:
            result = run(job)
            return result | {"evaluations": [change(dict(one)) for one in result.get("evaluations", [])]}

        return changed

    return broken


def _jobs(change: Callable[[JSON], JSON]) -> Callable[[Run], Run]:
    """Return what makes an adapter change the job before it asks."""
    return lambda run: lambda job: run(change(dict(job)))


def _texts(change: Callable[[str], str]) -> Callable[[Run], Run]:
    return _jobs(lambda job: job | {"policies": change(job["policies"])})


def _requests(change: Callable[[str], str]) -> Callable[[Run], Run]:
    return _jobs(lambda job: job | {"requests_json": list(map(change, job["requests_json"]))})


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", json.dumps(json.loads(text), ensure_ascii=False))


def _without_entities(job: JSON) -> JSON:
    return {name: value for name, value in job.items() if name != "entities_json"}


# Adapters that are nearly right, and what they do.
BROKEN: Mapping[str, Callable[[Run], Run]] = {
    "no decision said as a deny": _answers(
        lambda one: one | {"decision": "Deny" if one["decision"] == "NoDecision" else one["decision"]}
    ),
    "no decision said as an allow": _answers(
        lambda one: one | {"decision": "Allow" if one["decision"] == "NoDecision" else one["decision"]}
    ),
    "deny whenever a policy errs": _answers(
        lambda one: one | ({"decision": "Deny", "reasons": []} if one["erroring_policies"] else {})
    ),
    "errors left out": _answers(lambda one: one | {"erroring_policies": []}),
    "reasons left out": _answers(lambda one: one | {"reasons": []}),
    "policies in normal form C": _texts(lambda text: unicodedata.normalize("NFC", text)),
    "requests in normal form C": _requests(lambda text: json.dumps(json.loads(_composed(text)))),
    "line breaks made one": _texts(lambda text: text.replace("\r\n", "\n")),
    "text stripped": _texts(lambda text: text.replace(' "', '"').replace("b ", "b")),
    "text in lower case": _texts(lambda text: text.replace("Ab", "ab")),
    "requests never validated": _jobs(lambda job: job | {"skip_request_validation": True}),
    "requests always validated": _jobs(lambda job: job | {"skip_request_validation": False}),
    "numbers as floating point": _requests(lambda text: text.replace("9007199254740993", "9007199254740992")),
    "entities left out": _jobs(_without_entities),
    "an allow where nothing speaks": _answers(
        lambda one: one | ({"decision": "Allow"} if not one["reasons"] and one["decision"] == "Deny" else {})
    ),
    "the first request only": _jobs(lambda job: job | {"requests_json": job["requests_json"][:1]}),
}
