"""What a request of AuthZEN asks: read strictly, with its defaults, and refused with the name of what is wrong.

Members that AuthZEN and this door do not know are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.client import CallTokenRequest
from pdp.errors import InvalidJSONError
from pdp.foundation import jsontext
from pdp.limits import DEFAULT_LIMITS, Limits

MOST_BYTES: Final = DEFAULT_LIMITS.message_bytes
MOST_QUESTIONS: Final = DEFAULT_LIMITS.batch_size
# What a call may hold is the server's to say; this bounds a whole request.
LIMITS: Final = Limits(arguments_bytes=MOST_BYTES, arguments_depth=48, arguments_nodes=32_768, string_bytes=MOST_BYTES)

# Each entity with the members that it must have, which are texts.
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "subject": ("type", "id"),
    "action": ("name",),
    "resource": ("type", "id"),
}
_DEFAULTS: Final = (*_REQUIRED, "context")
# The decision after which no more questions are asked.
_SEMANTICS: Final[Mapping[str, bool | None]] = {
    "execute_all": None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}
_MOST_CHARACTERS: Final = 1024


class InvalidQuestionError(Exception):
    """A question cannot be read. The message names the member, and holds nothing of its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question. The properties are those of the three entities; `subject` is the id of the user.

    `agent`, `definition_digest`, `request_id` and `tool_call_id` are empty when they are not stated. `knows` are the
    obligations that the caller meets, and `reports` says that it reports what came of the call. `call_token` is the
    call token that an allow must bring, or None.
    """

    subject: str
    subject_properties: Mapping[str, Any] = field(repr=False)
    action: str
    action_properties: Mapping[str, Any] = field(repr=False)
    resource_type: str
    resource_id: str
    resource_properties: Mapping[str, Any] = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    agent: str
    definition_digest: str
    request_id: str
    tool_call_id: str
    knows: frozenset[str]
    reports: bool
    call_token: CallTokenRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Several questions in order, each of which may be faulty, and the decision after which no more are asked."""

    each: tuple[Question | InvalidQuestionError, ...]
    last: bool | None


def read_json(raw: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a body. Raise `InvalidQuestionError`."""
    try:
        body = jsontext.parse(raw, LIMITS, minting=True)
    except InvalidJSONError as error:
        raise InvalidQuestionError(f"the body cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise InvalidQuestionError("the body is not a JSON object")
    return body


def read_question(body: Mapping[str, Any]) -> Question:
    """Return the one question of a body. Raise `InvalidQuestionError`."""
    subject, action, resource = (_entity(body, name) for name in _REQUIRED)
    context = _object(body, "context")
    reports = context.get("reports_outcome", False)
    if not isinstance(reports, bool):
        raise InvalidQuestionError("`context.reports_outcome` is neither true nor false")
    return Question(
        subject=subject["id"],
        subject_properties=_object(subject, "properties", "subject."),
        action=action["name"],
        action_properties=_object(action, "properties", "action."),
        resource_type=resource["type"],
        resource_id=resource["id"],
        resource_properties=_object(resource, "properties", "resource."),
        arguments=_object(context, "arguments", "context."),
        agent=_text(context, "agent"),
        definition_digest=_text(context, "definition_digest"),
        request_id=_text(context, "request_id"),
        tool_call_id=_text(context, "tool_call_id"),
        knows=_texts(context, "known_obligations"),
        reports=reports,
        call_token=_call_token(context),
    )


def read_questions(body: Mapping[str, Any]) -> Questions | Question:
    """Return the questions of a body, or its one question where it has no `evaluations`.

    Raise `InvalidQuestionError` for what is about all of them.
    """
    entries = body.get("evaluations", [])
    if not isinstance(entries, list):
        raise InvalidQuestionError("`evaluations` is not a list")
    semantic = _object(body, "options").get("evaluations_semantic", "execute_all")
    if not isinstance(semantic, str) or semantic not in _SEMANTICS:
        raise InvalidQuestionError(f"`options.evaluations_semantic` is none of {', '.join(_SEMANTICS)}")
    if not entries:
        return read_question(body)
    if len(entries) > MOST_QUESTIONS:
        raise InvalidQuestionError(f"`evaluations` has more than {MOST_QUESTIONS} entries")
    defaults = {name: _object(body, name) for name in _DEFAULTS if name in body}
    return Questions(each=tuple(_one_of(entry, defaults) for entry in entries), last=_SEMANTICS[semantic])


def read_report(body: Mapping[str, Any]) -> tuple[str, bool, tuple[str, ...]]:
    """Return what a report says: the token of the call, whether it succeeded, and the labels to add.

    Raise `InvalidQuestionError`.
    """
    token, succeeded, labels = body.get("outcome_token"), body.get("succeeded"), body.get("labels", [])
    if not isinstance(token, str) or not token:
        raise InvalidQuestionError("`outcome_token` is not the token of an allowed call")
    if not isinstance(succeeded, bool):
        raise InvalidQuestionError("`succeeded` is neither true nor false")
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise InvalidQuestionError("`labels` is not a list of texts")
    return token, succeeded, tuple(labels)


def _one_of(entry: Any, defaults: Mapping[str, Mapping[str, Any]]) -> Question | InvalidQuestionError:  # noqa: ANN401 - any JSON value
    try:
        if not isinstance(entry, dict):
            raise InvalidQuestionError("not a JSON object")
        return read_question(
            {**defaults, **{name: _over(entry, name, defaults) for name in _DEFAULTS if name in entry}}
        )
    except InvalidQuestionError as error:
        return error


def _over(entry: Mapping[str, Any], name: str, defaults: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return an entity of an entry: as a whole in place of the default, but for what it must have and does not name."""
    default = defaults.get(name, {})
    return {**{one: default[one] for one in _REQUIRED.get(name, ()) if one in default}, **_object(entry, name)}


def _entity(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in body:
        raise InvalidQuestionError(f"`{name}` is missing")
    entity = _object(body, name)
    for member in _REQUIRED[name]:
        if member not in entity:
            raise InvalidQuestionError(f"`{name}.{member}` is missing")
        if not isinstance(entity[member], str) or not 0 < len(entity[member]) <= _MOST_CHARACTERS:
            raise InvalidQuestionError(f"`{name}.{member}` is not a text of 1 to {_MOST_CHARACTERS} characters")
    return entity


def _object(value: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise InvalidQuestionError(f"`{where}{name}` is not a JSON object")
    return found


def _text(context: Mapping[str, Any], name: str) -> str:
    found = context.get(name, "")
    if not isinstance(found, str):
        raise InvalidQuestionError(f"`context.{name}` is not a text")
    return found


def _call_token(context: Mapping[str, Any]) -> CallTokenRequest | None:
    if "call_token" not in context:
        return None
    wanted = _object(context, "call_token", "context.")
    audience, certificate = wanted.get("audience"), wanted.get("certificate", "")
    if not isinstance(audience, str) or not audience or not isinstance(certificate, str):
        raise InvalidQuestionError("`context.call_token` has no `audience`, or a `certificate` that is no text")
    return CallTokenRequest(audience=audience, certificate_thumbprint=certificate)


def _texts(context: Mapping[str, Any], name: str) -> frozenset[str]:
    found = context.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidQuestionError(f"`context.{name}` is not a list of texts")
    return frozenset(found)
