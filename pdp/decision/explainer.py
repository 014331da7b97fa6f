"""Explain a call: what the decision would be and why, condition by condition. Decides nothing itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from pdp.clock import Deadline
from pdp.decision.budgets import foreseen
from pdp.decision.counts import SeenCounts, never_called, seen_counts
from pdp.decision.explanation import Explanation, SessionExplanation
from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.ruling import call_facts, caller_facts, deny, of_chain, of_this_call, seen_targets
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.values import names_in_results
from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError, NotFoundError
from pdp.foundation.ids import handle_digest
from pdp.foundation.jsontext import parse_object
from pdp.foundation.lrucache import LRUCache
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, Call, Caller, CallRequest, Counted, Ruling, Scope, Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.policy.conditions import PolicyResult, Probes
from pdp.policy.counting import NOTHING
from pdp.policy.policysource import PolicySource
from pdp.policy.provenance import UNSEEN, FindNames, found_nowhere
from pdp.policy.question import Facts
from pdp.policy.terms import canonical_terms
from pdp.sessions.historycontract import SessionHistory

# Splitting a policy takes a third of a millisecond of processor time, which decisions need too.
_MOST_POLICIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SupposedSession:
    """A hypothetical session. It reaches every tool within the agent's ceiling."""

    user: str
    agent: str
    grants: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    purpose: str = ""
    environment: str = ""
    user_attributes_json: bytes = field(default=b"", repr=False)
    terms_json: bytes = field(default=b"", repr=False)


class CallExplainer:
    """Explains calls on snapshots: bundle, sessions and time are given. Safe for threads.

    `kept` is the number of actions whose pieces of policies are kept; they take a few times as much memory as the
    policies.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, kept: int = 16) -> None:
        self._limits = limits
        self._probes: LRUCache[Probes] = LRUCache(kept)

    def explain(
        self,
        snapshot: Snapshot,
        call: Call,
        caller_id: str,
        find: FindNames = found_nowhere,
        counted: tuple[Counted, ...] = (),
        unknown: Ruling | None = None,
    ) -> Explanation:
        """Explain a call on a snapshot that holds at least one session.

        `find` finds names in results, see `decision.values`; `counted` is what each session sees of its earlier calls,
        by default none, and `unknown` the deny for a count that is not known. Raise `InvalidRequestError` for facts
        that the bundle does not declare, and what `find` raises.
        """
        facts = caller_facts(snapshot.bundle, call, self._limits)
        passed = gate(snapshot, call)
        refused = passed if isinstance(passed, Refusal) else None
        explained = partial(
            Explanation,
            action=call.action,
            bundle_version=snapshot.bundle.version,
            explained_at=snapshot.wall_at,
            refusal=refused.words if refused else "",
        )
        tool = snapshot.bundle.catalogue.tools.get(call.action)
        if tool is None:
            return explained(ruling=refused.ruling if refused else deny(Basis.UNKNOWN_TOOL), sessions=())
        try:
            seen = call_facts(
                tool, call, caller_id, facts, self._limits, seen_targets(snapshot.bundle, snapshot.chain, tool, find)
            )
        except (InvalidJSONError, InvalidArgumentsError) as error:
            problem = str(error)
            ruling = refused.ruling if refused else deny(Basis.INVALID_ARGUMENTS, problem)
            return explained(ruling=ruling, sessions=(), problem=problem)
        bundle, chain, at = snapshot.bundle, snapshot.chain, snapshot.wall_at
        if names := bundle.slice(call.action).counted:
            seen = replace(seen, counted=counted or never_called(snapshot, names))
        sides = tuple(
            self._side(bundle, session, seen.seen_in(place), at, seen.counted[place] if seen.counted else None)
            for place, session in enumerate(chain)
        )
        would = of_chain(chain, [side.ruling for side in sides])
        ruling = refused.ruling if refused else of_this_call(unknown or would, chain, tool, seen)
        opaque = tuple(seen.context["opaque"])
        targets = bundle.provenances.each(chain, tool, parse_object(call.arguments_json, self._limits), find)
        return explained(ruling=ruling, sessions=sides, resource=seen.resource, opaque=opaque, targets=targets)

    def results(
        self, bundle: Bundle, session: Session, facts: Facts, at: float, policies: tuple[PolicySource, ...] = ()
    ) -> tuple[PolicyResult, ...]:
        """Return the result of each policy for the question of `judge`.

        Empty when the facts do not fit the schema. `policies` are those to evaluate, by default all.
        """
        policies = policies or bundle.slice(facts.action).policies
        # The key is the policies, not the bundle's version: tests change policies and keep the version.
        key = (facts.action, policies)
        probes = self._probes.get(key) or self._probes.keep(key, Probes(policies))
        return probes.results(bundle, session, facts, at) or ()

    def _side(
        self, bundle: Bundle, session: Session, facts: Facts, at: float, counted: Counted | None
    ) -> SessionExplanation:
        ruling, policies = bundle.judge(session, facts, at), bundle.slice(facts.action).policies
        chosen = _chosen(policies, ruling)
        return SessionExplanation(
            session=session,
            ruling=ruling,
            counted=counted,
            policies=self.results(bundle, session, facts, at, chosen),
            left_out=len(policies) - len(chosen),
        )


class Explainer:
    """Explains calls of sessions in the store, and of hypothetical sessions, by the active bundle.

    Nothing is decided or remembered; each explanation is reported as an event. Safe for threads. Every method raises
    `StoreUnavailableError` and `BundleUnavailableError` when it cannot answer.
    """

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        history: SessionHistory,
        observer: Observer,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._snapshots = snapshots
        self._history = history
        self._observer = observer
        self._limits = limits
        self._calls = CallExplainer(limits)

    def explain(
        self, session_id: str, call: Call, caller: Caller, *, made_by: str = "", at: float | None = None
    ) -> Explanation:
        """Explain a call in the session with a public id.

        With the session's handle the call's targets are compared with what results held, and without it they are not.
        The caller is `made_by`, by default the one that opened the session; the time is `at` (unix seconds), by default
        now; what the session has called is always that of now. Raise `NotFoundError`, and `InvalidRequestError` for
        facts that the bundle does not declare.
        """
        snapshot = self._snapshots.of_session(session_id, caller)
        if not snapshot.chain:
            raise NotFoundError(f"no such session: `{session_id}`")
        return self._explained(snapshot, call, caller, made_by or snapshot.chain[0].opened_by, at)

    def suppose(
        self, supposed: SupposedSession, call: Call, caller: Caller, *, made_by: str, at: float | None = None
    ) -> Explanation:
        """Explain a call in a hypothetical session.

        Raise `InvalidRequestError` for a user or an agent that is not in the directory, and as `explain` does.
        """
        snapshot = self._snapshots.of_session("", caller)
        session = supposed_session(supposed, snapshot.bundle, self._limits, opened_by=made_by, tenant=caller.tenant)
        return self._explained(replace(snapshot, chain=(session,)), call, caller, made_by, at)

    def _explained(self, snapshot: Snapshot, call: Call, caller: Caller, made_by: str, at: float | None) -> Explanation:
        own = snapshot.chain[0]
        known = handle_digest(call.session_handle) == own.handle_digest
        find = names_in_results(self._history, snapshot.chain, call.session_handle) if known else found_nowhere
        counts, moved = self._counts(snapshot, call, caller), snapshot if at is None else snapshot.moved_to(at)
        counted, unknown = (counts.counted, counts.unknown) if counts else ((), None)
        explanation = self._calls.explain(moved, call, made_by, find, counted, unknown)
        # A supposed session has no handle, and has read nothing.
        if own.handle_digest and not known and any(one.provenance == UNSEEN for one in explanation.targets):
            kept = self._history.values().count(snapshot.chain[-1].id)
            explanation = replace(explanation, values_not_compared=kept)
        if explanation.ruling.allowed and at is None:
            # What was left of a budget at another time is not known.
            refused = foreseen(snapshot, CallRequest(call=call), self._limits, self._history)
            explanation = replace(explanation, ruling=refused) if refused else explanation
        facts = {
            "action": explanation.action,
            "basis": explanation.ruling.basis.value,
            "bundle_version": explanation.bundle_version,
        }
        event = Event.of_session(
            EventKind.CALL_EXPLAINED, snapshot.chain[0], at=snapshot.wall_at, caller_id=caller.id, facts=facts
        )
        self._observer.event(event)
        return explanation

    def _counts(self, snapshot: Snapshot, call: Call, caller: Caller) -> SeenCounts | None:
        """Return the counts that the policies would see; None where they see none."""
        bundle = snapshot.bundle
        names = bundle.slice(call.action).counted if call.action in bundle.catalogue.tools else NOTHING
        # A supposed session has called nothing.
        if not (names and snapshot.chain[0].handle_digest):
            return None
        return seen_counts(snapshot, CallRequest(call=call), caller, names, self._history)


def supposed_session(
    supposed: SupposedSession, bundle: Bundle, limits: Limits, *, opened_by: str, tenant: str
) -> Session:
    """Return an active session that reaches every tool of the catalogue, never ends and is not stored."""
    for kind, name in (("User", supposed.user), ("Agent", supposed.agent)):
        if (kind, name) not in bundle.directory.entities:
            raise InvalidRequestError(f"supposed.{kind.lower()}", f"`{name}` is not in the directory")
    tools = {action: tool.approval_digest for action, tool in bundle.catalogue.tools.items()}
    return Session(
        id="ses_supposed",
        handle_digest=b"",
        state=SessionState.ACTIVE,
        user=supposed.user,
        agent=supposed.agent,
        purpose=supposed.purpose,
        tool_patterns=(),
        duration=inf,
        requested_at=0.0,
        deadline=Deadline(wall_at=inf, boot_at=inf, boot_id=""),
        tenant=tenant,
        environment=supposed.environment,
        opened_by=opened_by,
        scope=Scope(id="", tools=tools),
        grants=supposed.grants,
        labels=supposed.labels,
        widening_labels=tuple(bundle.widening.intersection(supposed.labels)),
        entities_json=bundle.directory.capture(supposed.user, supposed.agent) or "[]",
        user_attributes_json=_attributes(supposed, limits),
        terms_json=_terms(supposed, bundle, limits),
    )


def _attributes(supposed: SupposedSession, limits: Limits) -> str:
    try:
        return json.dumps(parse_object(supposed.user_attributes_json, limits))
    except InvalidJSONError as error:
        raise InvalidRequestError("supposed.user_attributes_json", str(error)) from None
    except TypeError:
        raise InvalidRequestError("supposed.user_attributes_json", "numbers must be integers") from None


def _terms(supposed: SupposedSession, bundle: Bundle, limits: Limits) -> str:
    try:
        return canonical_terms(bundle.terms, parse_object(supposed.terms_json, limits))
    except (InvalidJSONError, InvalidArgumentsError) as error:
        raise InvalidRequestError("supposed.terms_json", str(error)) from None


def _chosen(policies: tuple[PolicySource, ...], ruling: Ruling) -> tuple[PolicySource, ...]:
    """Return the policies to evaluate: all; of very many, the decisive ones, then permits first."""
    if len(policies) <= _MOST_POLICIES:
        return policies
    rests_on = {*ruling.policies, *ruling.errors}
    indexes = range(len(policies))
    first = sorted(indexes, key=lambda at: (policies[at].id not in rests_on, policies[at].effect != "permit", at))
    return tuple(policies[at] for at in sorted(first[:_MOST_POLICIES]))
