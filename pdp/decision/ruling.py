"""What the policies are asked about one call, for a session and each above it, and what follows from the answers.

The authorizer decides by it and the explainer explains by it, so that the two cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdp.decision.gate import ancestor_deny
from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError
from pdp.foundation.jsontext import parse_object
from pdp.limits import Limits
from pdp.model import Call, Ruling, Session
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Question, datetime_value
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.mapping import map_resource

# A record is a line; a longer value stands in it with its length alone.
_LOGGED_CHARACTERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """A call as policies see it: what it is mapped to, and the context but for what each session adds.

    `logged` is what the bundle allows to be recorded of the arguments, each as name and JSON text.
    """

    resource: tuple[str, str] = field(repr=False)
    context: Mapping[str, Any] = field(repr=False)
    logged: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def caller_facts(bundle: Bundle, call: Call, limits: Limits) -> Mapping[str, Any]:
    """Return the typed facts that a PEP vouches for. Raise `InvalidRequestError`, of `call.facts_json`."""
    if not call.facts_json and not bundle.caller_facts.required:
        return {}
    try:
        facts, _ = bundle.caller_facts.convert(parse_object(call.facts_json, limits))
    except (InvalidJSONError, InvalidArgumentsError) as error:
        raise InvalidRequestError("call.facts_json", str(error)) from None
    return facts


def call_facts(tool: Tool, call: Call, caller_id: str, facts: Mapping[str, Any], limits: Limits) -> CallFacts:
    """Type the arguments, hold them against the tool's schema, and map the call to its resource.

    Raise `InvalidJSONError` or `InvalidArgumentsError` for what the agent wrote, and for a tool that cannot be called.
    """
    if tool.unusable:
        raise InvalidArgumentsError(f"the tool cannot be called: {tool.unusable}")
    arguments = parse_object(call.arguments_json, limits)
    shown, opaque = tool.input.convert(arguments)
    if tool.check is not None:
        tool.check.require(arguments, len(call.arguments_json))
    resource = map_resource(tool, arguments, limits.resource_id_characters)
    return CallFacts(
        resource=resource,
        context={"input": shown, "opaque": list(opaque), "caller": {**facts, "id": caller_id}},
        logged=tuple((name, _logged(arguments[name])) for name in tool.log if name in arguments),
    )


def _logged(value: Any) -> str:  # noqa: ANN401 - any JSON value
    # Decimals are written as texts: nothing is rounded.
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)
    return text if len(text) <= _LOGGED_CHARACTERS else f'{{"omitted_characters":{len(text)}}}'


def question_of(session: Session, facts: CallFacts, wall_at: float) -> Question:
    """Return what the engine is asked for one session of the chain."""
    context = {
        **facts.context,
        "agent": {"__entity": {"type": "Agent", "id": session.agent}},
        "session": {"__entity": {"type": "Session", "id": session.id}},
        "now": datetime_value(wall_at),
    }
    return Question(
        user=session.user,
        agent=session.agent,
        session_id=session.id,
        resource=facts.resource,
        context=context,
    )


def rule_chain(chain: Sequence[Session], ask: Callable[[Session], Ruling]) -> Ruling:
    """Ask for the session and then for each above it: all must permit. The first that does not decides."""
    own: Ruling | None = None
    for session in chain:
        ruling = ask(session)
        if own is not None and not ruling.allowed:
            return ancestor_deny(session, ruling)
        own = own or ruling
        if not own.allowed:
            return own
    if own is None:
        raise AssertionError("the gate lets no call without a session through")
    return own


def of_this_call(ruling: Ruling, tool: Tool, facts: CallFacts) -> Ruling:
    """Return the ruling with what is told about this very call: what it is mapped to, and what may be recorded."""
    return replace(
        ruling,
        resource_type=facts.resource[0],
        resource_id=facts.resource[1],
        log_resource=tool.log_resource,
        logged_arguments=facts.logged,
    )
