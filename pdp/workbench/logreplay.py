"""Replay the calls of a decision log through two bundles, as far as the log can tell.

A log holds no arguments, and its labels and purposes are not looked at. A call whose policies read any of these cannot
be decided again and is counted as untold, never guessed; so is one of a session whose approval the log does not hold.
What a gateway vouched for about the user is not looked at either: users are as the directories describe them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pdp.audit.values import listed
from pdp.clock import Deadline
from pdp.model import Basis, Session, SessionState, Visibility
from pdp.policy.bundle import Bundle
from pdp.ruling import CallFacts, question_of
from pdp.workbench.bundlediff import Answer, CallChange, effect_of

Record = Mapping[str, Any]

# What policies decided: they were asked, and came to an answer.
_JUDGED = frozenset({Basis.PERMIT.value, Basis.FORBID.value, Basis.DEFAULT_DENY.value})
_UNRECORDED: Final = re.compile(r"\b(?:purpose|labels)\b")
# Of a session above, a record holds no more than its id.
_UNRECORDED_ABOVE: Final = re.compile(r"\b(?:purpose|labels|environment|opened_by)\b")
# In a log from before lists were recorded a longer fact is cut, so a text of this length may lack its end.
FACT_CHARACTERS = 512
_NEVER = Deadline(wall_at=0.0, boot_at=0.0, boot_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDifference:
    """What became of the recorded calls: how many were read, how often which reason kept one from being told."""

    decisions: int
    untold: Mapping[str, int]
    changes: tuple[CallChange, ...]

    @property
    def told(self) -> int:
        """Return how many calls could be decided again."""
        return self.decisions - sum(self.untold.values())


class _UntoldError(Exception):
    """The log does not hold what a bundle decides a call by; the message says what is missing."""


@dataclass(slots=True)
class _Sessions:
    """What the log has said so far about sessions: user, agent and grants by id."""

    approved: dict[str, tuple[str, str, tuple[str, ...]]] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        facts = record.get("facts", {})
        grants = facts.get("grants", "")
        cut = isinstance(grants, str) and len(grants) >= FACT_CHARACTERS
        if record.get("kind") == "session.approved" and not cut:
            given = listed(facts, "grants")
            person = str(record.get("user", "")), str(record.get("agent", ""))
            self.approved[str(record.get("session_id", ""))] = (*person, given)


def compare_records(old: Bundle, new: Bundle, records: Iterable[Record]) -> LogDifference:
    """Decide every recorded call by both bundles, and say which are decided otherwise.

    Takes records in the order in which they were written. What a bundle decided itself is taken from the record.
    """
    sessions = _Sessions()
    untold: Counter[str] = Counter()
    changes: list[CallChange] = []
    decisions = 0
    for record in records:
        if record.get("kind") != "decision":
            sessions.learn(record)
            continue
        decisions += 1
        try:
            was, now = (_answer(bundle, record, sessions) for bundle in (old, new))
        except _UntoldError as untellable:
            untold[str(untellable)] += 1
            continue
        if (effect := effect_of(was, now)) is not None:
            changes.append(CallChange(name=_name(record), what=_action(record), effect=effect, was=was, now=now))
    return LogDifference(decisions=decisions, untold=dict(untold), changes=tuple(changes))


def _answer(bundle: Bundle, record: Record, sessions: _Sessions) -> Answer:
    if record.get("basis") not in _JUDGED:
        raise _UntoldError("not decided by the policies")
    if record.get("bundle_version") == bundle.version:
        policies = tuple(map(str, record.get("policies", ())))
        return Answer(allowed=record.get("outcome") == "allow", basis=str(record["basis"]), policies=policies)
    action = _action(record)
    if action not in bundle.catalogue.tools:
        return Answer(problem="the tool is not in the catalogue")
    if "resource_id" not in record:
        raise _UntoldError("the resource is not in the log")
    unrecorded = _UNRECORDED_ABOVE if record.get("ancestors") else _UNRECORDED
    if any(unrecorded.search(policy.text) for policy in bundle.slice(action).policies):
        raise _UntoldError("policies read what is not in the log")
    chain = _chain(record, sessions, bundle)
    if any(action not in bundle.within_ceiling(session.agent) for session in chain):
        return Answer(problem="not within the agent's ceiling")
    return _judgement({_visibility(bundle, session, record) for session in chain})


def _chain(record: Record, sessions: _Sessions, bundle: Bundle) -> list[Session]:
    """Return the session of a call and those above it, with what a bundle's directory knows of them."""
    above = tuple(map(str, record.get("ancestors", ())))
    ids = (str(record.get("session_id", "")), *above)
    return [_session(session_id, above[place:], record, sessions, bundle) for place, session_id in enumerate(ids)]


def _session(session_id: str, above: tuple[str, ...], record: Record, sessions: _Sessions, bundle: Bundle) -> Session:
    if session_id not in sessions.approved:
        raise _UntoldError("the session's approval is not in the log")
    user, agent, grants = sessions.approved[session_id]
    return Session(
        id=session_id,
        handle_digest=b"",
        state=SessionState.ACTIVE,
        user=user,
        agent=agent,
        purpose="",
        tool_patterns=(),
        duration=0.0,
        requested_at=0.0,
        deadline=_NEVER,
        tenant=str(record.get("tenant", "")),
        environment=str(record.get("environment", "")),
        opened_by=str(record.get("opened_by", "")),
        ancestor_ids=above,
        grants=grants,
        entities_json=bundle.directory.capture(user, agent) or "[]",
    )


def _visibility(bundle: Bundle, session: Session, record: Record) -> Visibility:
    resource = (str(record.get("resource_type", "")), str(record["resource_id"]))
    caller = {"id": str(record.get("caller_id", ""))}
    facts = CallFacts(resource=resource, context={"input": {}, "opaque": [], "caller": caller})
    wall_at = datetime.fromisoformat(str(record["time"])).timestamp()
    asked = bundle.slice(_action(record))
    try:
        known = bundle.session_entities(session)
    except (KeyError, ValueError):
        # The directory no longer knows the user or the agent, or they do not fit the schema.
        return Visibility.NEVER
    question = question_of(session, facts, wall_at)
    return asked.visibility(question, known, mapped=False)


def _judgement(seen: AbstractSet[Visibility]) -> Answer:
    """Return what follows when all sessions of a chain must be permitted."""
    if Visibility.NEVER in seen:
        return Answer(basis="by the policies")
    if Visibility.DEPENDS in seen:
        raise _UntoldError("policies read what is not in the log")
    return Answer(allowed=True, basis="by the policies")


def _action(record: Record) -> str:
    return f"{record.get('server', '')}/{record.get('tool', '')}"


def _name(record: Record) -> str:
    return f"{record.get('id', '')} at {record.get('time', '')} ({record.get('user', '')}, {record.get('agent', '')})"
