"""The questions to the policies about one call, for a session and each above it, and the ruling from the answers.

Both the authorizer and the explainer use it, so that they cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from operator import attrgetter
from typing import Any

from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError
from pdp.foundation.jsontext import parse_object
from pdp.limits import MOST_ADVICE, MOST_OBLIGATIONS, Limits
from pdp.model import Basis, Call, Counted, Outcome, Ruling, Session, Targets
from pdp.policy.answers import TOO_MANY_OBLIGATIONS
from pdp.policy.bundle import Bundle
from pdp.policy.provenance import FindNames, found_nowhere
from pdp.policy.question import Facts
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.mapping import map_resource

# A record is one line; of a longer value it holds only the length.
_LOGGED_CHARACTERS = 512
# What is of a call, and not of all calls that share its ruling; and all other fields of a ruling.
_OF_A_CALL = (
    "resource_type",
    "resource_id",
    "log_resource",
    "logged_arguments",
    "targets",
    "counted",
    "ancestor_counted",
)
_SHARED = tuple(field.name for field in fields(Ruling) if field.name not in _OF_A_CALL)
_shared_of = attrgetter(*_SHARED)


def caller_facts(bundle: Bundle, call: Call, limits: Limits) -> Mapping[str, Any]:
    """Return the typed facts that a PEP vouches for. Raise `InvalidRequestError` for `call.facts_json`."""
    if not call.facts_json and not bundle.caller_facts.required:
        return {}
    try:
        facts, _ = bundle.caller_facts.convert(parse_object(call.facts_json, limits))
    except (InvalidJSONError, InvalidArgumentsError) as error:
        raise InvalidRequestError("call.facts_json", str(error)) from None
    return facts


def _no_targets(_: Mapping[str, Any]) -> tuple[Targets, ...]:
    return ()


def seen_targets(
    bundle: Bundle, chain: Sequence[Session], tool: Tool, find: FindNames = found_nowhere
) -> Callable[[Mapping[str, Any]], tuple[Targets, ...]]:
    """Return what `call_facts` needs to find the targets of a call; nothing is done where no policy can see them.

    `find` finds names in results, see `decision.values`.
    """
    if not bundle.slice(tool.action).sees_targets:
        return _no_targets
    return partial(bundle.provenances.of, chain, tool, find=find)


def call_facts(
    tool: Tool,
    call: Call,
    caller_id: str,
    facts: Mapping[str, Any],
    limits: Limits,
    targets: Callable[[Mapping[str, Any]], tuple[Targets, ...]] = _no_targets,
) -> Facts:
    """Type the arguments, check them against the tool's schema, and map the call to its resource.

    `targets` returns what each session of the chain sees as `context.targets`, from the raw arguments. Raise
    `InvalidJSONError` or `InvalidArgumentsError` for a mistake of the agent, and for an unusable tool, and what
    `targets` raises.
    """
    if tool.unusable:
        raise InvalidArgumentsError(f"the tool cannot be called: {tool.unusable}")
    arguments = parse_object(call.arguments_json, limits)
    shown, opaque = tool.input.convert(arguments)
    if tool.check is not None:
        tool.check.require(arguments, len(call.arguments_json))
    resource = map_resource(tool, arguments, limits.resource_id_characters)
    return Facts(
        action=tool.action,
        resource=resource,
        context={"input": shown, "opaque": list(opaque), "caller": {**facts, "id": caller_id}},
        logged=tuple((name, _logged(arguments[name])) for name in tool.log if name in arguments),
        targets=targets(arguments),
    )


def _logged(value: Any) -> str:  # noqa: ANN401 - any JSON value
    # Decimals are written as texts, so that nothing is rounded.
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)
    return text if len(text) <= _LOGGED_CHARACTERS else f'{{"omitted_characters":{len(text)}}}'


def judge_chain(bundle: Bundle, chain: Sequence[Session], facts: Facts, at: float) -> Ruling:
    """Ask the policies about facts in a session, then in each above it, up to the first deny."""
    return of_chain(chain, (bundle.judge(session, facts.seen_in(place), at) for place, session in enumerate(chain)))


def of_chain(chain: Sequence[Session], rulings: Iterable[Ruling]) -> Ruling:
    """Return the ruling of a chain: all its sessions must permit, and the first deny decides.

    An allow has the obligations of all of them. A deny that a person can lift decides only when there is no other; then
    all sessions ask together.
    """
    allow: Ruling | None = None
    asking: list[Ruling] = []
    for session, ruling in zip(chain, rulings, strict=True):
        held = ruling if ruling.otherwise is None else ruling.otherwise
        if not held.allowed:
            return ruling if allow is None else ancestor_deny(session, ruling)
        if held is not ruling:
            asking.append(ruling)
        allow = held if allow is None else _with_obligations(allow, held)
    if allow is None:
        raise AssertionError("the gate lets no call without a session through")
    if len(allow.obligations) > MOST_OBLIGATIONS:
        return deny(Basis.POLICY_ERROR, TOO_MANY_OBLIGATIONS)
    return _asking(asking, allow) if asking else allow


def _asking(asking: Sequence[Ruling], otherwise: Ruling) -> Ruling:
    """Return the deny of a call that a person can allow in all sessions that ask."""
    asks = tuple(sorted(one for ruling in asking for one in ruling.asks))
    advice = dict.fromkeys(line for ruling in asking for line in ruling.advice)
    return Ruling(
        outcome=Outcome.DENY,
        basis=Basis.APPROVAL_REQUIRED,
        policies=tuple(sorted({one.policy for one in asks})),
        advice=tuple(advice)[:MOST_ADVICE],
        asks=asks,
        otherwise=otherwise,
    )


def lifted(ruling: Ruling) -> Ruling:
    """Return the allow of a call that a person has approved, for the deny that asked."""
    if ruling.otherwise is None:
        raise AssertionError("only what a person can lift is lifted")
    return replace(
        ruling,
        outcome=ruling.otherwise.outcome,
        basis=ruling.otherwise.basis,
        policies=ruling.otherwise.policies,
        obligations=ruling.otherwise.obligations,
        policies_lifted=ruling.policies,
        advice=(),
        asks=(),
        otherwise=None,
    )


def _with_obligations(own: Ruling, above: Ruling) -> Ruling:
    """Return an allow that also has the obligations of an allow in a session above."""
    if own.obligations == above.obligations:
        return own
    return replace(own, obligations=tuple(sorted({*own.obligations, *above.obligations})))


def of_this_call(ruling: Ruling, chain: Sequence[Session], tool: Tool, facts: Facts) -> Ruling:
    """Return the ruling with this call's resource, what policies saw of it, and the arguments that may be recorded."""
    above: Counted | None = None
    if facts.counted and ruling.ancestor_id:
        above = next(
            seen for session, seen in zip(chain, facts.counted, strict=True) if session.id == ruling.ancestor_id
        )
    # `dataclasses.replace` looks for the fields each time, and this runs for each call that is decided anew.
    return Ruling(
        **dict(zip(_SHARED, _shared_of(ruling), strict=True)),
        resource_type=facts.resource[0],
        resource_id=facts.resource[1],
        log_resource=tool.log_resource,
        logged_arguments=facts.logged,
        targets=facts.targets[0] if facts.targets else None,
        counted=facts.counted[0] if facts.counted else None,
        ancestor_counted=above,
    )


def deny(basis: Basis, detail: str = "") -> Ruling:
    """Return a deny with a basis."""
    return Ruling(outcome=Outcome.DENY, basis=basis, detail=detail)


def ancestor_deny(ancestor: Session, ruling: Ruling) -> Ruling:
    """Return the deny of a call that would be denied in a session above."""
    return Ruling(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        policies=ruling.policies,
        errors=ruling.errors,
        ancestor_id=ancestor.id,
        ancestor_basis=ruling.basis,
        advice=ruling.advice,
        detail=ruling.detail,
    )
