"""Search for calls that show the effect of a changed policy, where no test case shows it.

Calls are generated from the test cases, the tools' own parameters, and the values that the two versions of the policy
compare and name. Every call that is found is a real decision of the real registrar and authorizer; a search without a
result proves nothing.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from pdp.clock import utc_text
from pdp.errors import InvalidJSONError
from pdp.foundation.jsontext import parse_object
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import SessionState
from pdp.policy.bundle import Bundle
from pdp.policy.directory import Directory
from pdp.policy.hints import hints
from pdp.policy.policysource import PolicySource
from pdp.policy.schema import APPROVE_CALL, APPROVE_SESSION, SESSION_ACTIONS
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.mapping import ResourceMapping
from pdp.workbench.reading import DEFAULT_NOW
from pdp.workbench.samples import sample_arguments
from pdp.workbench.suite import Case, Expectation, NamedCall, NamedSession, Step, Suite
from pdp.workbench.values import moment

GENERATED = "generated"

# The bounds of the search: a second or two for each policy that no case shows.
_MOST_SUITES = 4
_MOST_ACTIONS = 4
_MOST_SESSIONS = 48
_MOST_CALLS = 48
# Of each tool, calls whose approval is asked about.
_MOST_APPROVALS = 4
_MOST_MOMENTS = 4
_MOST_MEMBERS = 6
_MOST_POLICIES = 40
_MOST_CASES = 1200
_HALF = 0.5
_INPUT, _CALLER, _SESSION = "context.input.", "context.caller.", "context.session."
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clues:
    """The values that the versions of a policy compare and name, and the actions that they can match."""

    values: Mapping[str, tuple[Any, ...]]
    named: frozenset[tuple[str, str]]
    actions: tuple[str, ...]

    def of(self, prefix: str) -> dict[str, tuple[Any, ...]]:
        """Return the attributes' values below a prefix, by the first part of their names."""
        found: dict[str, tuple[Any, ...]] = {}
        for name, values in self.values.items():
            if name.startswith(prefix):
                step = name.removeprefix(prefix).partition(".")[0]
                found[step] = (*found.get(step, ()), *values)
        return found

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(name for one, name in self.named if one == kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a case is about: a call, a step of its session, or with both the approval of the call."""

    call: NamedCall | None = None
    step: Step | None = None

    def __str__(self) -> str:
        return " of ".join([*([self.step.value] if self.step else []), *([self.call.name] if self.call else [])])


def generated_suites(
    bundle: Bundle, versions: Sequence[PolicySource], suites: Sequence[Suite], limits: Limits = DEFAULT_LIMITS
) -> tuple[Suite, ...]:
    """Return cases that two versions of a policy could decide differently.

    The cases expect nothing.
    """
    actions = _actions(bundle, versions)
    # Another policy must permit what a forbid denies: values from the others are tried as well, but later.
    others = [one for action in actions for one in bundle.slice(action).policies]
    if APPROVE_CALL in actions:
        # What makes calls wait for a person.
        others = [*(one for one in bundle.policies.values() if one.step_up), *others]
    asked = list(dict.fromkeys((*versions, *islice(others, _MOST_POLICIES))))
    named = frozenset(uid for one in asked for uid in one.entities)
    clues = _Clues(values=hints(one.text for one in asked), named=named, actions=actions)
    grounds = list(_grounds(bundle, suites))
    return tuple(_suite(bundle, clues, one, limits, _MOST_CASES // len(grounds)) for one in grounds)


def _actions(bundle: Bundle, versions: Sequence[PolicySource]) -> tuple[str, ...]:
    """Return some of the actions that a policy can match, first those that it names."""
    # A policy for any action is rarely about the last one.
    known = (*(one for one in SESSION_ACTIONS if one != APPROVE_CALL), *sorted(bundle.catalogue.tools), APPROVE_CALL)
    matched = [action for action in known if any(one.may_match(bundle.groups_of(action)) for one in versions)]
    itself = {action for one in versions for action in one.actions or ()}
    return tuple(sorted(matched, key=lambda action: action not in itself)[:_MOST_ACTIONS])


def _grounds(bundle: Bundle, suites: Sequence[Suite]) -> Iterator[Suite]:
    """Yield starting suites: test files that open sessions, and user and agent pairs."""
    yield from [suite for suite in suites if suite.sessions][:_MOST_SUITES]
    entities = bundle.directory.entities
    users, agents = (sorted(name for kind, name in entities if kind == wanted) for wanted in ("User", "Agent"))
    servers = tuple(f"{server}/*" for server in bundle.catalogue.servers)
    pairs = [
        NamedSession(name=f"{agent} for {user}", line=0, user=user, agent=agent, tools=servers, purpose="work")
        for user, agent in islice(product(users, agents), _MOST_SESSIONS)
    ]
    sessions = {one.name: one for one in pairs}
    yield Suite(file=GENERATED, name=GENERATED, directory=Directory(), sessions=sessions, calls={}, cases=())


def _suite(bundle: Bundle, clues: _Clues, ground: Suite, limits: Limits, most: int) -> Suite:
    sessions = list({one.name: one for one in islice(_sessions(bundle, clues, ground), _MOST_SESSIONS)}.values())
    compared = map(float, clues.values.get("context.now", ()))
    times = dict.fromkeys([*compared, *(case.now for case in ground.cases), moment(DEFAULT_NOW)])
    moments = list(islice(times, _MOST_MOMENTS))
    opened, calls, cases = dict(ground.sessions), {}, []
    for action in clues.actions:
        every = [*product(sessions, _asked(bundle, clues, ground, limits, action), moments)]
        # Neighbours are decided alike: a mixture shows more. Each run has the same mixture.
        random.Random(action).shuffle(every)  # noqa: S311 - nothing secret
        for session, what, now in every[: most // len(clues.actions)]:
            # Only what a call needs, so that no rule about the scope of sessions interferes.
            opening, call = session, what.call
            if call is not None:
                opening = replace(session, name=f"{session.name} {call.action}", tools=(call.action,))
                calls[call.name] = call
            opened[opening.name] = opening
            cases.append(_case(opening, what, now))
    return replace(ground, file=GENERATED, name=GENERATED, sessions=opened, calls=calls, cases=tuple(cases))


def _asked(bundle: Bundle, clues: _Clues, ground: Suite, limits: Limits, action: str) -> list[_Asked]:
    """Return what to ask about an action: calls of a tool, a step, or approvals of calls of different tools."""
    if action != APPROVE_CALL:
        calls = islice(_calls(bundle, clues, ground, limits, action), _MOST_CALLS)
        return [*(_Asked(step=step) for step in Step if step.value == action), *(_Asked(call=one) for one in calls)]
    return [
        _Asked(step=Step.APPROVE_CALL, call=one)
        for tool in _kinds_of_tools(bundle, clues)
        for one in islice(_calls(bundle, clues, ground, limits, tool.action), _MOST_APPROVALS)
    ]


def _kinds_of_tools(bundle: Bundle, clues: _Clues) -> list[Tool]:
    """Return the tools that policies name, and one of each kind that policies about approvals can tell apart."""
    tools = bundle.catalogue.tools
    named = [tools[one] for one in clues.values.get("context.action", ()) if one in tools]
    kinds = {(one.risk, one.groups, one.targets is None): one for one in tools.values()}
    return list(islice({one.action: one for one in (*named, *kinds.values())}.values(), _MOST_CALLS // _MOST_APPROVALS))


def _case(session: NamedSession, what: _Asked, now: float) -> Case:
    name = f"{what}; {session.agent} for {session.user} in `{session.name}`, at {utc_text(now)}"
    return Case(
        file=GENERATED,
        line=0,
        name=name,
        now=now,
        session=session.name,
        call=what.call.name if what.call else "",
        step=what.step,
        expect=Expectation(),
    )


def _sessions(bundle: Bundle, clues: _Clues, suite: Suite) -> Iterator[NamedSession]:
    """Yield a suite's sessions, then endless variations with the policies' values."""
    live = [one for one in suite.sessions.values() if one.state is SessionState.ACTIVE and not one.parent]
    yield from live[:_MOST_MEMBERS]
    directory = bundle.directory.overlaid(suite.directory)
    compared, chance = clues.of(_SESSION), random.Random(suite.file)  # noqa: S311 - nothing secret
    compared_labels = compared.get("labels", ())
    labels = {one for values in compared_labels for one in (values if isinstance(values, list) else [values]) if one}
    grants = clues.names("Grant")
    choices: dict[str, list[Any]] = {
        "user": _members(directory, clues, "User", "UserGroup"),
        "agent": _members(directory, clues, "Agent", "AgentGroup"),
        "approver": _members(directory, clues, "User", "UserGroup") if _is_approved(clues) else [],
        "grants": [(), grants, *((one,) for one in grants)] if grants else [],
        "labels": [(), *((one,) for one in sorted(map(str, labels)))] if labels else [],
        "purpose": [one for one in compared.get("purpose", ()) if one],
        "environment": list(compared.get("environment", ())),
        "duration": [one for one in clues.values.get("context.duration", ()) if one > 0],
    }
    while live:
        one = chance.choice(live)
        # Each value changes with probability one half, so that several conditions are sometimes met together.
        change = {name: chance.choice(values) for name, values in choices.items() if values and chance.random() < _HALF}
        words = "".join(f" {name}={_shown(value)}" for name, value in change.items())
        yield replace(one, **change, name=f"{one.name}{words}", line=0)


def _is_approved(clues: _Clues) -> bool:
    return not {APPROVE_SESSION, APPROVE_CALL}.isdisjoint(clues.actions)


def _members(directory: Directory, clues: _Clues, kind: str, group: str) -> list[str]:
    """Return the users or agents that the policies name, and some in named groups."""
    groups = {(group, name) for name in clues.names(group)}
    within = (
        uid[1]
        for uid in sorted(directory.entities)
        if uid[0] == kind and not groups.isdisjoint(directory.closure([uid]))
    )
    known = (name for name in clues.names(kind) if (kind, name) in directory.entities)
    return list(islice(dict.fromkeys((*known, *within)), _MOST_MEMBERS))


def _calls(bundle: Bundle, clues: _Clues, ground: Suite, limits: Limits, action: str) -> Iterator[NamedCall]:
    """Yield calls of a tool: those of the ground, and each with the policies' values."""
    tool = bundle.catalogue.tools.get(action)
    if tool is None:
        return
    choices = {name: values for name, values in clues.of(_INPUT).items() if tool.input.parameter(name) is not None}
    seen: set[str] = set()
    for arguments, facts in _ground(bundle, tool, ground, limits):
        for changed, stated in product(_changed(arguments, choices), _changed(facts, clues.of(_CALLER))):
            written, stated_text = json.dumps(changed), json.dumps(stated) if stated else ""
            name = f"{action} {written}" + f" {stated_text}" * bool(stated_text)
            if name not in seen:
                seen.add(name)
                yield NamedCall(
                    name=name,
                    line=0,
                    server=tool.server,
                    tool=tool.name,
                    arguments_json=written.encode(),
                    facts_json=stated_text.encode(),
                )


def _ground(
    bundle: Bundle, tool: Tool, ground: Suite, limits: Limits
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield starting arguments and facts.

    They come from the ground's calls, are generated, or are about entities of the directory.
    """
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for call in [one for one in ground.calls.values() if one.action == tool.action][:_MOST_MEMBERS]:
        # A case can be about arguments that are not valid.
        with suppress(InvalidJSONError):
            arguments, facts = (parse_object(text, limits) for text in (call.arguments_json, call.facts_json))
            found.append((_plain(arguments), _plain(facts)))
    if (sample := sample_arguments(tool)) is not None:
        found.append((sample, {}))
    yield from found
    if tool.mapping is None:
        return
    known = [uid[1] for uid in sorted(bundle.directory.entities) if uid[0] == tool.resource_type]
    for parts in (_parts(tool.mapping, name) for name in known[:_MOST_MEMBERS]):
        yield from (({**arguments, **parts}, facts) for arguments, facts in found[-1:] if parts)


def _parts(mapping: ResourceMapping, resource: str) -> dict[str, str]:
    """Return the arguments that a resource's id was made from, if they can be known."""
    pattern = "(.+?)".join(map(re.escape, mapping.literals))
    match = re.fullmatch(pattern, resource)
    return dict(zip(mapping.fields, match.groups(), strict=True)) if match else {}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value, default=str))  # type: ignore[no-any-return] # decimals as texts


def _changed(ground: dict[str, Any], choices: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield a mapping unchanged, and then with some of its values changed."""
    yield ground
    each = {name: (*values, _ABSENT) for name, values in choices.items()}
    chance = random.Random(",".join(each))  # noqa: S311 - nothing secret; the same ones at each run
    for _ in range(_MOST_CALLS if each else 0):
        yield _with(ground, {name: chance.choice(values) for name, values in each.items() if chance.random() < _HALF})


def _with(ground: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**ground, **values}.items() if value is not _ABSENT}


def _shown(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
