"""Say in an author's words what the validator refuses: what is wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pdp.errors import Problem
from pdp.foundation.nearest import did_you_mean
from pdp.policy.lint.arguments import opaque_finding, parameter_at
from pdp.policy.lint.facts import Environment, LintPolicy, nodes, path
from pdp.policy.locate import Anchor, Place, find, start
from pdp.policy.refusals.mismatch import mismatch
from pdp.policy.refusals.unguarded import asks_for, first_unguarded
from pdp.policy.tools.catalogue import RISKS
from pdp.policy.tools.parameters import RecordType, cedar_string

# The codes of errors that prevent a bundle from loading, with a few words; their meaning never changes.
ERRORS = {
    "bundle": "the bundle as a whole",
    "manifest": "`bundle.yaml`",
    "schema": "`schema.cedarschema`",
    "directory": "`directory.yaml`",
    "catalogue": "the tools that a server answered",
    "overlay": "the overlay of a server's tools",
    "limit": "a policy that is too deep or too wide",
    "syntax": "text that is not a Cedar policy",
    "template": "a template",
    "id": "a missing, wrong or repeated `@id`",
    "optional-attribute": "an optional attribute that is read without `has`",
    "unknown-attribute": "an attribute that nothing has",
    "unknown-action": "an action that is not a tool",
    "unknown-type": "an entity type that is not declared",
    "type-mismatch": "values of different types that are compared",
    "annotation": "an `@obligation` or `@advice` that cannot be read, or that no answer can carry",
    "count": "a use of `context.counts` or `context.done` that does not name what is counted",
    "label-widens": "a rule that may permit more for a label that a gateway can add",
    "validation": "anything else that the validator refuses",
    "policy": "anything else about a policy file",
}

# What to do, for codes without more specific help.
HELP = {
    "limit": "split it into several policies, or test with a set: `[…].contains(…)`",
    "syntax": "the rest of this file is not checked until it parses; `pdp new` writes policies to compare with",
    "template": "write one policy, with a group in its scope",
    "overlay": "`pdp tools list` shows each tool as its overlay makes it",
    "catalogue": "take the server's own answer: `pdp tools import SERVER --command …`",
}

_OPTIONAL = re.compile(r"unable to guarantee safety of access to optional attribute `([^`]+)` (in context|on entity)")
_MISSING = re.compile(r"attribute `([^`]+)` (in context|on entity type `([^`]+)`)")
_ACTION = re.compile(r'Action::"(?:[^"\\]|\\.)*"')
_QUOTED = re.compile(r"`([^`]+)`")
# The engine's words and ours; replaced in this order.
_ENGINE_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"__cedar::internal::AnyEntity", "entity"),
        (r"__cedar::internal::Any", "…"),
        (r"unexpected type: expected (.+) but saw (.+)", r"found type \2 where \1 is expected"),
        (r"the types (.+) and (.+) are not compatible", r"found types \1 and \2 where values of one type are expected"),
        (r"invalid variable: (\w+)", r"`\1` is not a variable"),
        (r"empty set literals are forbidden in policies", "an empty set `[]` has no type; use `….isEmpty()`"),
        (
            r"extension constructors may not be called with non-literal expressions",
            '`decimal`, `datetime`, `duration` and `ip` take only a literal text, such as `decimal("5.0")`',
        ),
        (r"error during extension function .*: failed to parse as an? (\w+) .*: `(.+)`", r"`\2` is not a \1"),
    )
)
_NO_ACTION = "unable to find an applicable action"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One refusal in our words; refusals of the same problem for several actions have the same `key`."""

    key: str
    code: str
    message: str
    help: str = ""
    at: tuple[Anchor, ...] = ()
    # The index among the places that match the first anchor.
    nth: int = 0


# What to do about words that the engine does not know, by its message.
_SYNTAX = (
    ("`(startsWith|endsWith|matches|match|includes|indexOf|substring)` is not", 'to match a text, use `like "start*"`'),
    (
        "`(hour|hours|getHours|minute|time)` is not",
        'for the time of day, in UTC, use `context.now.toTime() >= duration("8h")`',
    ),
    ("`(size|length|len|count)` is not", "a set has no size; `isEmpty()` says whether it is empty"),
    ("is not a variable", 'an entity is written `Type::"id"`, and a text in quotes: `"id"`'),
)


def syntax_help(message: str) -> str:
    """Return what to do about a text that does not parse; empty without more specific help than the code's."""
    return next((words for pattern, words in _SYNTAX if re.search(pattern, message)), "")


def refusals(policy: LintPolicy, messages: Iterable[str], known: Mapping[str, Environment]) -> list[Problem]:
    """Return the validator's messages about one policy as problems, the closest to the cause first."""
    # The engine's order changes from run to run. The message with the most quotes is the closest to the cause.
    texts = sorted(set(messages), key=lambda one: (-one.count("`"), one))
    if any(text.startswith("unrecognized") for text in texts):
        texts = [text for text in texts if not text.startswith(_NO_ACTION)]
    problems: dict[str, Problem] = {}
    for text in texts:
        told = _told(policy, text, known)
        anchors = (*told.at, *_QUOTED.findall(text))
        if told.key not in problems:
            problems[told.key] = _problem(
                policy, told, find(policy.text, anchors, policy.line, policy.column, nth=told.nth)
            )
    return list(problems.values())


def _told(policy: LintPolicy, text: str, known: Mapping[str, Environment]) -> _Told:
    if found := _OPTIONAL.search(text):
        return _optional(policy, text, found)
    if found := _MISSING.search(text):
        return _missing(policy, text, found, known)
    for start_of_text, explain in _BY_START.items():
        if text.startswith(start_of_text):
            return explain(policy, text, known)
    if "not compatible" in text or text.startswith("unexpected type"):
        return _mismatch(policy, text)
    return _Told(key=text, code="validation", message=f"policy `{policy.id}`: {plainly(text)}")


def _mismatch(policy: LintPolicy, text: str) -> _Told:
    if found := mismatch(policy):
        message = f"policy `{policy.id}`: {found.message}"
        return _Told(key="types", code="type-mismatch", message=message, help=found.help, at=found.at)
    advice = "compare values of one type; `pdp schema` prints the types"
    return _Told(key=text, code="type-mismatch", message=f"policy `{policy.id}`: {plainly(text)}", help=advice)


def plainly(text: str) -> str:
    """Return a message of the engine in our words."""
    for pattern, words in _ENGINE_WORDS:
        text = pattern.sub(words, text)
    return text


def _unknown_action(policy: LintPolicy, text: str, known: Mapping[str, Environment]) -> _Told:
    name = next(iter(_ACTION.findall(text)), "")
    named = {*RISKS, *(group for one in known.values() for group in one.groups)}
    hint = did_you_mean(name[len('Action::"') : -1], sorted(named))
    return _plain(policy, text, "unknown-action", hint or "`pdp tools list` shows the tools that exist")


def _unknown_type(policy: LintPolicy, text: str, _: Mapping[str, Environment]) -> _Told:
    return _plain(policy, text, "unknown-type", "declare it in `schema.cedarschema`, or correct its name")


def _no_action(policy: LintPolicy, text: str, _: Mapping[str, Environment]) -> _Told:
    message = f"policy `{policy.id}`: {text}: its principal, action and resource exclude each other"
    advice = (
        "the principal of every action is a `User`; the resource is the tool's `Server`, or the entity to which its "
        "overlay maps the call"
    )
    return _Told(key=text, code="never-matches", message=message, help=advice)


_BY_START = {
    "unrecognized action": _unknown_action,
    "unrecognized entity type": _unknown_type,
    _NO_ACTION: _no_action,
}


def _optional(policy: LintPolicy, text: str, found: re.Match[str]) -> _Told:
    attribute, in_context = found.group(1), found.group(2) == "in context"
    shown = f"context.{attribute}" if in_context else attribute
    base, _, name = shown.rpartition(".")
    if not in_context:
        base = next(
            (".".join(where[:-1]) for one in nodes(policy.conditions) if (where := path(one))[-1:] == (name,)), ""
        )
        shown = f"{base}.{name}" if base else name
    actions = [one[len('Action::"') : -1] for one in _ACTION.findall(text)]
    calls = f" in calls of `{actions[0]}`" if actions else ""
    left_out = "an argument that was left out" if in_context else "an unknown attribute"
    subject, where = base or "…", tuple(shown.split("."))
    test = f"{subject} has {name} && {subject}.{name} …"
    asked = asks_for(policy, where)
    why = f"a policy that reads {left_out} cannot be evaluated, and the call is denied"
    return _Told(
        key=shown,
        code="optional-attribute",
        message=f"policy `{policy.id}`: reads the optional attribute `{shown}`{calls} without `has`"
        + " before it" * asked,
        help=f"`has` guards what follows `&&` and `then`, but nothing after `!` or `||`: write "
        f"`if {subject} has {name} then … else true` (or `false`), or `{test}`; {why}"
        if asked
        else f"write `{test}`: {why}",
        at=(where, *_reads_of(name), name),
        nth=first_unguarded(policy, where),
    )


def _missing(policy: LintPolicy, text: str, found: re.Match[str], known: Mapping[str, Environment]) -> _Told:
    steps = tuple(found.group(1).split("."))
    if found.group(3):
        hint = f"declare it in `schema.cedarschema`, at `entity {found.group(3)}`"
        return _plain(policy, text, "unknown-attribute", hint, *_reads_of(steps[-1]))
    where = ("context", *steps)
    names = {f"Action::{cedar_string(action)}": one for action, one in known.items()}
    environment = next((names[one] for one in _ACTION.findall(text) if one in names), None)
    tool = environment.tool if environment else None
    if tool is None or steps[0] != "input":
        return _plain(policy, text, "unknown-attribute", "`pdp schema` prints what a context holds", where)
    parameter = parameter_at(tool, where)
    if parameter is not None and parameter.opaque:
        hidden = opaque_finding(policy.id, where, tool, parameter)
        return _Told(
            key=f"{found.group(1)} is opaque",
            code="opaque-parameter",
            message=hidden.message,
            help=hidden.help,
            at=(where,),
        )
    hint = (
        did_you_mean(steps[-1], _attributes(tool.input))
        or f"`{tool.action}` declares {_listed(_attributes(tool.input))}"
    )
    return _plain(policy, text, "unknown-attribute", hint, where)


def _reads_of(name: str) -> tuple[Anchor, ...]:
    bases = (("principal",), ("resource",), ("context", "agent"), ("context", "session"), ("context", "user"))
    return (*((*base, name) for base in bases), f".{name}")


def _attributes(record: RecordType) -> list[str]:
    return [one.name for one in record.parameters if not one.opaque]


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:12]) or "no parameter that policies can see"


def _plain(policy: LintPolicy, text: str, code: str, advice: str, *at: Anchor) -> _Told:
    return _Told(key=text, code=code, message=f"policy `{policy.id}`: {text}", help=advice, at=at)


def _problem(policy: LintPolicy, told: _Told, place: Place | None) -> Problem:
    where = place or start(policy.text, policy.line, policy.column)
    return Problem(
        policy.file, where.line, told.message, code=told.code, column=where.column, width=where.width, help=told.help
    )


def by_policy(errors: Iterable[tuple[str, str]]) -> Iterator[tuple[int | None, list[str]]]:
    """Group the validator's `(policy id, message)` by the policy's place in the text, None without one."""
    grouped: dict[int | None, list[str]] = {}
    for policy_id, message in errors:
        number = policy_id.removeprefix("policy")
        place = int(number) if number.isdecimal() and policy_id.startswith("policy") else None
        grouped.setdefault(place, []).append(message.replace(f"for policy `{policy_id}`, ", ""))
    yield from grouped.items()
