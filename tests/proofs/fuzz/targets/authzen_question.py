"""Questions of AuthZEN: refused in one line, or asked about with the arguments that another reader of JSON finds."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from pdp.doors.authzen.handles import Handles
from pdp.doors.authzen.mapping import Mapped, UnknownTargetError
from pdp.doors.authzen.questions import InvalidQuestionError, Question, read_json, read_questions

WORDS = (
    *('"subject":{', '"action":{', '"resource":{', '"context":{', '"type":', '"id":', '"name":', '"properties":{'),
    *(
        '"arguments":{',
        '"evaluations":[',
        '"options":{',
        '"evaluations_semantic":',
        '"tools/call"',
        '"tool"',
        '"alice"',
    ),
    *(
        '"deny_on_first_deny"',
        '"record"',
        '"status"',
        '"role"',
        "1.0",
        "1e2",
        "-0",
        "1e400",
        "9007199254740993",
        "\\ud800",
    ),
)
_WHO = '"subject":{"type":"user","id":"alice","properties":{"role":"admin","age":1.50}}'
_TOOL = '"action":{"name":"tools/call"},"resource":{"type":"tool","id":"git/git_log"}'
SEEDS = tuple(
    text.encode()
    for text in (
        f'{{{_WHO},{_TOOL},"context":{{"arguments":{{"n":1,"x":0.1,"l":[true,null]}},"agent":"coder"}}}}',
        f'{{{_WHO},"action":{{"name":"read"}},"resource":{{"type":"record","id":"record-1","properties":{{"status":1}}}}}}',
        f'{{{_WHO},{_TOOL},"evaluations":[{{}},{{"context":{{"arguments":{{"n":1.0}}}}}},7,{{"resource":{{"id":"git/x"}}}}]}}',
        f'{{{_WHO},{_TOOL},"evaluations":[],"options":{{"evaluations_semantic":"permit_on_first_permit"}}}}',
        f'{{{_WHO},"action":{{"name":"git_log"}},"resource":{{"type":"git","id":"git_log"}},"context":{{}}}}',
        "alice=pdps_a, b%40c=pdps_b",
    )
)

_MAPPED = Mapped(objects={"record": ("id", "status")}, facts=("role", "age"))


def run(data: bytes) -> None:
    """Read some bytes as the body of a request, and as the header of its sessions."""
    try:
        Handles.read(data.decode("latin-1")).of("alice")
    except InvalidQuestionError as error:
        assert str(error).isprintable()
    try:
        body = read_json(data)
        questions = read_questions(body)
    except InvalidQuestionError as error:
        assert str(error).isprintable()
        return
    if isinstance(questions, Question):
        _asked(questions, data, None)
        return
    for place, question in enumerate(questions.each):
        if isinstance(question, Question):
            _asked(question, data, place)
        else:
            assert str(question).isprintable()


def _asked(question: Question, data: bytes, place: int | None) -> None:
    try:
        call = _MAPPED.call(question, "pdps_a")
    except (InvalidQuestionError, UnknownTargetError) as error:
        assert str(error).isprintable() or not str(error)
        return
    assert isinstance(call.arguments, bytes)
    # To a reader of doubles, and to one that keeps all digits.
    for parse_float in (float, Decimal):
        whole: dict[str, Any] = json.loads(data, parse_float=parse_float)
        entry = {} if place is None else whole["evaluations"][place]
        resource, action, context = (entry.get(name, whole.get(name, {})) for name in ("resource", "action", "context"))
        expected = dict(context.get("arguments", {}))
        if question.resource_type == "record":
            properties = {**resource.get("properties", {}), **action.get("properties", {})}
            expected |= {"id": question.resource_id}
            expected |= {name: value for name, value in properties.items() if name == "status"}
        assert expected == json.loads(call.arguments, parse_float=parse_float)
