"""Which call of a tool a question means: by rules that the operator writes, and no guess."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pdp.client import ToolCall
from pdp.doors.authzen.questions import LIMITS, InvalidQuestionError, Question
from pdp.errors import ConfigurationError, InvalidJSONError
from pdp.foundation import jsontext

# The action of every tool; a tool's own name means the same.
CALL: Final = "tools/call"
_TOOL: Final = "tool"
_OBJECTS = re.compile(r"(?P<type>[^=/,]+)=(?P<parameters>[^=,]+(?:,[^=,]+)*)")


class UnknownTargetError(Exception):
    """A question is about no tool: deny it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """How questions become calls.

    `objects` are types of resources that are objects of the server of that name. The action is then the tool, the id of
    the resource is the first parameter that is named here, and properties with the names of the others are arguments
    too. `facts` are the properties of a subject that the bundle declares as facts of a caller. Other properties are
    ignored.
    """

    objects: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    facts: Collection[str] = ()

    def call(self, question: Question, handle: str) -> ToolCall:
        """Return the call that a question is about.

        Raise `UnknownTargetError` for a question about no tool, and `InvalidQuestionError` for arguments that would not
        be what the caller runs.
        """
        server, tool, arguments = self.target(question)
        facts = {name: value for name, value in question.subject_properties.items() if name in self.facts}
        return ToolCall(
            server=server,
            tool=tool,
            arguments=arguments,
            session_handle=handle,
            definition_digest=question.definition_digest,
            request_id=question.request_id,
            tool_call_id=question.tool_call_id,
            facts=_written("subject.properties", facts) if facts else None,
            call_tokens=(question.call_token,) if question.call_token else (),
        )

    def target(self, question: Question) -> tuple[str, str, bytes]:
        """Return server, tool and arguments of the call. Raise as `call`."""
        if question.resource_type in self.objects:
            return question.resource_type, question.action, _written("arguments", self._of_object(question))
        server, tool = question.resource_type, question.resource_id
        if server == _TOOL:
            server, _, tool = tool.partition("/")
        if not (server and tool) or "/" in server or question.action not in (CALL, tool):
            raise UnknownTargetError
        return server, tool, _written("context.arguments", question.arguments)

    def _of_object(self, question: Question) -> Mapping[str, Any]:
        first, *others = self.objects[question.resource_type]
        arguments: dict[str, Any] = {first: question.resource_id}
        for properties in (question.resource_properties, question.action_properties):
            _add(arguments, {name: properties[name] for name in others if name in properties})
        _add(arguments, question.arguments)
        return arguments


def object_types(rules: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the parameters for each type, from rules such as `record=id,status`. Raise `ConfigurationError`."""
    found: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        match = _OBJECTS.fullmatch(rule)
        if match is None or match["type"] == _TOOL:
            raise ConfigurationError(f"not a type of objects with parameters, such as `record=id,status`: `{rule}`")
        if match["type"] in found:
            raise ConfigurationError(f"the type `{match['type']}` has two rules: each type has one")
        found[match["type"]] = tuple(match["parameters"].split(","))
    return MappingProxyType(found)


def _add(arguments: dict[str, Any], more: Mapping[str, Any]) -> None:
    if not arguments.keys().isdisjoint(more):
        raise InvalidQuestionError("an argument is there twice, in `resource`, `action` or `context.arguments`")
    arguments |= more


def _written(name: str, value: Mapping[str, Any]) -> bytes:
    try:
        return jsontext.canonical_unchanged(value, LIMITS)
    except InvalidJSONError as error:
        raise InvalidQuestionError(f"`{name}`: {error}") from None
