"""How resources, properties and facts become calls, as the operator of the door says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.authzen.gateway import EVALUATION, Gateway, call_of, door, opened
from tests.machinery.servers.scripted import ScriptedServer

RECORD = {"type": "record", "id": "r-1"}


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """Return a server that keeps what it was asked."""
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def mapping(scripted: ScriptedServer) -> Iterator[Gateway]:
    """Return a gateway before a door with a rule for records, and one fact."""
    rules = {"record": ("id", "status", "soft")}
    with door(None, "pdps_secret", address=scripted.start(), objects=rules, facts=("role",)) as gateway:
        yield gateway


def about(resource: dict[str, Any], action: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a question about an object."""
    return {**call_of(""), "resource": resource, "action": action or {"name": "write"}, **more}


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        (about(RECORD), {"id": "r-1"}),
        (about({**RECORD, "properties": {"status": "x", "owner": "bob"}}), {"id": "r-1", "status": "x"}),
        (about(RECORD, {"name": "write", "properties": {"soft": True, "method": "GET"}}), {"id": "r-1", "soft": True}),
        (about(RECORD, context={"arguments": {"note": "n"}}), {"id": "r-1", "note": "n"}),
    ],
)
def test_an_object_is_the_arguments_of_a_call(
    mapping: Gateway, scripted: ScriptedServer, asked: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """The type is the server, the action the tool; of the properties only those that a rule names count."""
    mapping.post(EVALUATION, asked)

    (sent,) = scripted.sent("Authorize")
    assert ("record", "write") == (sent.call.server, sent.call.tool)
    assert arguments == json.loads(sent.call.arguments_json)


@pytest.mark.parametrize(
    "asked",
    [
        about({**RECORD, "properties": {"status": "a"}}, {"name": "write", "properties": {"status": "b"}}),
        about({**RECORD, "properties": {"status": "a"}}, context={"arguments": {"status": "a"}}),
        about(RECORD, context={"arguments": {"id": "r-2"}}),
    ],
)
def test_an_argument_that_is_there_twice_is_refused(
    mapping: Gateway, scripted: ScriptedServer, asked: dict[str, Any]
) -> None:
    """The gateway would run one of them, and the other would be asked about."""
    answer = mapping.post(EVALUATION, asked)

    assert 400 == answer.status_code
    assert "an argument is there twice" in answer.text
    assert [] == scripted.sent("Authorize")


def test_properties_of_tools_are_ignored(mapping: Gateway, scripted: ScriptedServer) -> None:
    """Only `context.arguments` says what a tool gets."""
    question = call_of("desk/note", {"text": "x"})
    question["resource"]["properties"] = {"status": "y"}
    question["action"]["properties"] = {"soft": True}

    mapping.post(EVALUATION, question)

    (sent,) = scripted.sent("Authorize")
    assert b'{"text":"x"}' == sent.call.arguments_json


@pytest.mark.parametrize(
    ("properties", "facts"),
    [
        ({}, b""),
        ({"department": "Sales"}, b""),
        ({"role": "admin", "department": "Sales"}, b'{"role":"admin"}'),
        ({"role": ["a", 1]}, b'{"role":["a",1]}'),
    ],
)
def test_facts_are_the_properties_that_the_operator_names(
    mapping: Gateway, scripted: ScriptedServer, properties: dict[str, Any], facts: bytes
) -> None:
    """Others are ignored."""
    question = call_of("desk/note")
    question["subject"]["properties"] = properties

    mapping.post(EVALUATION, question)

    (sent,) = scripted.sent("Authorize")
    assert facts == sent.call.facts_json


def test_a_fact_must_be_written_as_rfc_8785_writes_it(mapping: Gateway) -> None:
    """As the arguments must."""
    question = call_of("desk/note")
    question["subject"]["properties"] = {"role": 1.0}

    assert 400 == mapping.post(EVALUATION, question).status_code


@pytest.mark.parametrize("role", [7, ["admin"], None, {}])
def test_a_fact_of_another_type_allows_nothing(records: RunningServer, role: Any) -> None:
    """The server denies a call with it, or refuses the call."""
    _, handle = opened(records, "record/*")
    with door(records, handle, facts=("role",)) as gateway:
        question = call_of("record/read", {"id": "r-1"})
        question["subject"]["properties"] = {"role": role}
        answer = gateway.post(EVALUATION, question)

    assert answer.status_code == 400 or answer.json()["decision"] is False
