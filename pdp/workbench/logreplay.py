"""Replay the calls of a decision log through two bundles, as far as the log allows.

A log holds no arguments. A call whose policies read them cannot be decided again and is counted as undecided, never
guessed; so is a call of a session whose approval the log does not hold. What a session was asked for (purpose, labels,
environment, who opened it) is read from its approval, and labels from each narrowing and each call that added some; in
logs from before approvals held it, calls whose policies read them are undecided. Which labels widened at the approval
is known if one of the two bundles was active then; otherwise calls of a session with a label that widens are undecided.
Of its terms only the names are used, as the values of most are not in the log: a call whose policies read `terms` is
undecided, too.
So is a call that a person was asked about, or whose forbids one had lifted.
Attributes of the user that a gateway vouched for are ignored: users are as the directories describe them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pdp.audit.rows import micros_of
from pdp.audit.values import listed
from pdp.clock import Deadline
from pdp.decision.visibility import facts_without_arguments
from pdp.limits import MOST_OBLIGATIONS
from pdp.model import Basis, Session, SessionState, Visibility
from pdp.observer import EventKind
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Foreseen
from pdp.policy.obligations import parameters_json
from pdp.policy.terms import sample_terms
from pdp.record.entry import obligation_fields
from pdp.record.fields import facts_of, object_of, text_of
from pdp.workbench.bundlediff import Answer, CallChange, effect_of

Record = Mapping[str, Any]

# The bases of decisions that the policies made without an error.
_JUDGED = frozenset({Basis.PERMIT.value, Basis.FORBID.value, Basis.DEFAULT_DENY.value})
_UNRECORDED: Final = re.compile(r"\b(?:purpose|labels)\b")
# For a session above, the record of a call holds only its id.
_UNRECORDED_ABOVE: Final = re.compile(r"\b(?:purpose|labels|environment|opened_by)\b")
_TERMS: Final = re.compile(r"\bterms\b")
# A log from before lists were recorded cuts a longer fact, so a text of this length can lack its end.
FACT_CHARACTERS = 512
_NEVER = Deadline(wall_at=0.0, boot_at=0.0, boot_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDifference:
    """The difference for the recorded calls: how many were read, and how many are undecided for each reason."""

    decisions: int
    undecided: Mapping[str, int]
    changes: tuple[CallChange, ...]

    @property
    def decided(self) -> int:
        """Return how many calls could be decided again."""
        return self.decisions - sum(self.undecided.values())


class _UndecidableError(Exception):
    """The log lacks a value that a bundle decides a call by; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a session was asked for, with its current labels; `terms` holds the names of its terms."""

    purpose: str
    environment: str
    opened_by: str
    labels: tuple[str, ...]
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Approved:
    """The approval of a session in the log; `asked` is None in a log from before that was recorded.

    `labels` and `tools` are those at the approval, and `bundle_version` is the bundle that was active then.
    """

    user: str
    agent: str
    grants: tuple[str, ...]
    labels: tuple[str, ...]
    tools: tuple[str, ...]
    bundle_version: str
    asked: _Asked | None


@dataclass(slots=True)
class _Sessions:
    """The sessions in the log so far, by id, and the two bundles by version."""

    bundles: Mapping[str, Bundle]
    approved: dict[str, _Approved] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        kind, session_id, facts = text_of(record, "kind"), text_of(record, "session_id"), facts_of(record)
        grants = facts.get("grants", "")
        cut = isinstance(grants, str) and len(grants) >= FACT_CHARACTERS
        if kind == EventKind.SESSION_APPROVED and not cut:
            self.approved[session_id] = _Approved(
                user=str(record.get("user", "")),
                agent=str(record.get("agent", "")),
                grants=listed(facts, "grants"),
                labels=listed(facts, "labels"),
                tools=listed(facts, "tools"),
                bundle_version=str(facts.get("bundle_version", "")),
                asked=_asked(facts),
            )
        elif kind == EventKind.SESSION_NARROWED and (one := self.approved.get(session_id)) and one.asked:
            asked = replace(one.asked, labels=listed(facts, "labels"))
            self.approved[session_id] = replace(one, asked=asked)
        elif kind == EventKind.CALL_REPORTED:
            self.learn_labels(session_id, listed(facts, "ancestors"), listed(facts, "labels_added"))

    def learn_labels(self, session_id: str, ancestors: Iterable[str], added: tuple[str, ...]) -> None:
        """Add the labels that came with a call or its outcome, to the session and to each above it."""
        for one_id in (session_id, *ancestors) if added else ():
            if (one := self.approved.get(one_id)) and one.asked:
                asked = replace(one.asked, labels=tuple(sorted({*one.asked.labels, *added})))
                self.approved[one_id] = replace(one, asked=asked)


def _labelled(decision: Record) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the session of a decision, those above it, and the labels that it added to them."""
    return text_of(decision, "session_id"), listed(decision, "ancestors"), listed(decision, "labels_added")


def _asked(facts: Mapping[str, Any]) -> _Asked | None:
    # Empty values are left out, but every session has a duration.
    if "duration" not in facts:
        return None
    return _Asked(
        purpose=str(facts.get("purpose", "")),
        environment=str(facts.get("environment", "")),
        opened_by=str(facts.get("opened_by", "")),
        labels=listed(facts, "labels"),
        terms=tuple(sorted({**object_of(facts, "terms"), **object_of(facts, "term_digests")})),
    )


def compare_records(old: Bundle, new: Bundle, records: Iterable[Record]) -> LogDifference:
    """Decide every recorded call by both bundles; return the differences.

    The records must be in the order in which they were written. Decisions of a bundle's own are taken from the record.
    """
    sessions = _Sessions(bundles={bundle.version: bundle for bundle in (old, new)})
    undecided: Counter[str] = Counter()
    changes: list[CallChange] = []
    decisions = 0
    for record in records:
        if record.get("kind") != "decision":
            sessions.learn(record)
            continue
        decisions += 1
        try:
            was, now = (_answer(bundle, record, sessions) for bundle in (old, new))
        except _UndecidableError as undecidable:
            undecided[str(undecidable)] += 1
            continue
        finally:
            sessions.learn_labels(*_labelled(record))
        if (effect := effect_of(was, now)) is not None:
            changes.append(CallChange(name=_name(record), what=_action(record), effect=effect, was=was, now=now))
    return LogDifference(decisions=decisions, undecided=dict(undecided), changes=tuple(changes))


def _answer(bundle: Bundle, record: Record, sessions: _Sessions) -> Answer:
    basis = text_of(record, "basis")
    if record.get("policies_lifted") or basis == Basis.APPROVAL_REQUIRED.value:
        raise _UndecidableError("a person was asked, and what people answer is not in the policies")
    if basis not in _JUDGED:
        raise _UndecidableError("not decided by the policies")
    if record.get("bundle_version") == bundle.version:
        obligations = record.get("obligations")
        return Answer(
            allowed=record.get("outcome") == "allow",
            basis=basis,
            policies=listed(record, "policies"),
            obligations=_obligations(obligations if isinstance(obligations, list) else ()),
        )
    action = _action(record)
    if action not in bundle.catalogue.tools:
        return Answer(problem="the tool is not in the catalogue")
    if "resource_id" not in record:
        raise _UndecidableError("the resource is not in the log")
    chain = _chain(record, sessions, bundle)
    if any(bundle.unapproved_labels(session) for session in chain):
        return Answer(basis=Basis.LABEL_NOT_APPROVED.value)
    if _reads_unrecorded(bundle, action, chain, sessions):
        raise _UndecidableError("policies read what is not in the log")
    if any(action not in bundle.within_ceiling(session.agent) for session in chain):
        return Answer(problem="above the agent's ceiling")
    return _judgement([_foreseen(bundle, session, record) for session in chain])


def _reads_unrecorded(bundle: Bundle, action: str, chain: list[Session], sessions: _Sessions) -> bool:
    asked = [sessions.approved[session.id].asked for session in chain]
    if any(one and one.terms for one in asked) and _any_reads(_TERMS, bundle, action):
        return True
    if all(asked):
        return False
    return _any_reads(_UNRECORDED_ABOVE if len(chain) > 1 else _UNRECORDED, bundle, action)


def _any_reads(words: re.Pattern[str], bundle: Bundle, action: str) -> bool:
    return any(words.search(policy.text) for policy in bundle.slice(action).policies)


def _terms_json(names: Iterable[str], bundle: Bundle) -> str:
    """Return terms that fit the schema of a bundle if those with these names can fit it."""
    sample = sample_terms(bundle.terms) if bundle.terms else {}
    return json.dumps({name: sample.get(name, 0) for name in names})


def _chain(record: Record, sessions: _Sessions, bundle: Bundle) -> list[Session]:
    """Return the session of a call and those above it, with their directory data.

    The data is that of `bundle`.
    """
    above = listed(record, "ancestors")
    ids = (text_of(record, "session_id"), *above)
    return [_session(session_id, above[index:], record, sessions, bundle) for index, session_id in enumerate(ids)]


def _session(session_id: str, above: tuple[str, ...], record: Record, sessions: _Sessions, bundle: Bundle) -> Session:
    if session_id not in sessions.approved:
        raise _UndecidableError("the session's approval is not in the log")
    approved = sessions.approved[session_id]
    asked = approved.asked or _Asked(
        purpose="",
        environment=str(record.get("environment", "")),
        opened_by=str(record.get("opened_by", "")),
        labels=(),
    )
    return Session(
        id=session_id,
        handle_digest=b"",
        state=SessionState.ACTIVE,
        user=approved.user,
        agent=approved.agent,
        purpose=asked.purpose,
        tool_patterns=(),
        duration=0.0,
        requested_at=0.0,
        deadline=_NEVER,
        tenant=str(record.get("tenant", "")),
        environment=asked.environment,
        opened_by=asked.opened_by,
        labels=asked.labels,
        widening_labels=_widening_labels(approved, bundle, sessions),
        ancestor_ids=above,
        grants=approved.grants,
        entities_json=bundle.directory.capture(approved.user, approved.agent) or "[]",
        terms_json=_terms_json(asked.terms, bundle),
    )


def _widening_labels(approved: _Approved, bundle: Bundle, sessions: _Sessions) -> tuple[str, ...]:
    """Return the labels that widened when a session was approved, as far as `bundle` asks about them."""
    then = sessions.bundles.get(approved.bundle_version)
    if then is not None and approved.asked is not None:
        return tuple(sorted(then.widening_labels(approved.labels, approved.tools)))
    if bundle.widening and (approved.asked is None or not bundle.widening.isdisjoint(approved.asked.labels)):
        raise _UndecidableError("what the session's approver saw is not in the log")
    return ()


def _foreseen(bundle: Bundle, session: Session, record: Record) -> Foreseen:
    resource = (str(record.get("resource_type", "")), str(record["resource_id"]))
    facts = facts_without_arguments(_action(record), resource, str(record.get("caller_id", "")))
    try:
        at = micros_of(text_of(record, "time")) / 1e6
    except ValueError:
        raise _UndecidableError("the time is not in the log") from None
    return bundle.foresee(session, facts, at, mapped=False)


def _judgement(foreseen: Sequence[Foreseen]) -> Answer:
    """Return the answer when all sessions of a chain must be permitted."""
    seen = {one.visibility for one in foreseen}
    if Visibility.NEVER in seen:
        return Answer(basis="by the policies")
    if Visibility.DEPENDS in seen:
        raise _UndecidableError("policies read what is not in the log")
    asked = {obligation for one in foreseen for obligation in one.obligations}
    if len(asked) > MOST_OBLIGATIONS:
        return Answer(basis="by the policies", erring=True)
    return Answer(
        allowed=True, basis="by the policies", obligations=_obligations(obligation_fields(one) for one in asked)
    )


def _obligations(fields: Iterable[Any]) -> tuple[str, ...]:
    """Return obligations, as records hold them, as texts."""
    return tuple(sorted(f"{text_of(one, 'id')} {_parameters(one)}" for one in fields if isinstance(one, dict)))


def _parameters(obligation: Mapping[str, Any]) -> str:
    if "parameters" not in obligation:
        return text_of(obligation, "parameters_digest")
    try:
        return parameters_json(obligation["parameters"])
    except ValueError:
        return ""


def _action(record: Record) -> str:
    return f"{record.get('server', '')}/{record.get('tool', '')}"


def _name(record: Record) -> str:
    return f"{record.get('id', '')} at {record.get('time', '')} ({record.get('user', '')}, {record.get('agent', '')})"
