"""Explain a call: what would be decided about it and why, condition by condition. Decides nothing itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from pdp.clock import Clock, Deadline, Instant, no_earlier
from pdp.decision.cache import BoundedCache
from pdp.decision.explanation import Explanation, SessionExplanation
from pdp.decision.gate import Snapshot, deny, gate
from pdp.decision.gatewords import gate_words
from pdp.decision.ruling import CallFacts, call_facts, caller_facts, of_this_call, question_of, rule_chain
from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError, NotFoundError
from pdp.foundation.jsontext import parse_object
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, Call, Caller, Ruling, Scope, Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.policy.conditions import PolicyResult, Probes
from pdp.policy.engine import PolicySource, Question, Slice, SliceEntities
from pdp.sessions.store import SessionReader

# Taking a policy apart takes a third of a millisecond, on a processor that decisions want too.
_MOST_POLICIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SupposedSession:
    """A session that nobody opened: what it would be like. It reaches every tool within the agent's ceiling."""

    user: str
    agent: str
    grants: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    purpose: str = ""
    environment: str = ""
    user_attributes_json: bytes = field(default=b"", repr=False)


class CallExplainer:
    """Explains calls on snapshots: bundle, sessions and time are given. Safe to use from many threads.

    `kept` is for how many actions the pieces of policies are kept; they take some times as much as the policies.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, kept: int = 16) -> None:
        self._limits = limits
        self._probes: BoundedCache[Probes] = BoundedCache(kept)

    def explain(self, snapshot: Snapshot, call: Call, caller_id: str) -> Explanation:
        """Explain a call on a snapshot that holds at least one session.

        Raise `InvalidRequestError` for facts that the bundle does not declare.
        """
        facts = caller_facts(snapshot.bundle, call, self._limits)
        refused = gate(snapshot, call)
        refusal = gate_words(snapshot, call, refused) if refused else ""
        explained = partial(
            Explanation,
            action=call.action,
            bundle_version=snapshot.bundle.version,
            explained_at=snapshot.wall_at,
            refusal=refusal,
        )
        tool = snapshot.bundle.catalogue.tools.get(call.action)
        if tool is None:
            return explained(ruling=refused or deny(Basis.UNKNOWN_TOOL), sessions=())
        try:
            seen = call_facts(tool, call, caller_id, facts, self._limits)
        except (InvalidJSONError, InvalidArgumentsError) as error:
            problem = str(error)
            ruling = refused or deny(Basis.INVALID_ARGUMENTS, problem)
            return explained(ruling=ruling, sessions=(), problem=problem)
        sides = {one.id: self._side(snapshot, one, seen, call.action) for one in snapshot.chain}
        answer = refused or of_this_call(rule_chain(snapshot.chain, lambda one: sides[one.id].ruling), tool, seen)
        opaque = tuple(seen.context["opaque"])
        return explained(ruling=answer, sessions=tuple(sides.values()), resource=seen.resource, opaque=opaque)

    def results(
        self, bundle: Bundle, action: str, question: Question, beside: SliceEntities
    ) -> tuple[PolicyResult, ...]:
        """Return what each policy of an action's slice is worth; nothing when the question does not fit the schema."""
        return self._results(bundle.slice(action), bundle.slice(action).policies, question, beside)

    def _results(
        self, asked: Slice, policies: tuple[PolicySource, ...], question: Question, beside: SliceEntities
    ) -> tuple[PolicyResult, ...]:
        # By what the policies are, not by the bundle's version: tests change some and leave the version as it is.
        probes = self._probes.get_or_make((asked.action, policies), lambda: Probes(policies))
        return probes.results(asked, question, beside) or ()

    def _side(self, snapshot: Snapshot, session: Session, facts: CallFacts, action: str) -> SessionExplanation:
        explained = partial(SessionExplanation, session=session)
        question, asked = question_of(session, facts, snapshot.wall_at), snapshot.bundle.slice(action)
        try:
            beside = asked.beside(snapshot.bundle.session_entities(session))
        except ValueError:
            ruling = deny(Basis.POLICY_ERROR, "the session's entities do not fit the schema")
            return explained(ruling=ruling, policies=())
        ruling = asked.ask(question, beside)
        chosen = _chosen(asked.policies, ruling)
        return explained(
            ruling=ruling,
            policies=self._results(asked, chosen, question, beside),
            left_out=len(asked.policies) - len(chosen),
        )


class Explainer:
    """Explains calls of sessions in the store, and of sessions that nobody opened, by the active bundle.

    `bundle` returns the active bundle. Nothing is decided or remembered; that somebody asked is an event. Safe to use
    from many threads. Every method raises `StoreUnavailableError` and `BundleUnavailableError` when it cannot answer.
    """

    def __init__(
        self,
        *,
        sessions: SessionReader,
        bundle: Callable[[], Bundle],
        clock: Clock,
        observer: Observer,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._sessions = sessions
        self._bundle = bundle
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._calls = CallExplainer(limits)

    def explain(
        self, session_id: str, call: Call, caller: Caller, *, made_by: str = "", at: float | None = None
    ) -> Explanation:
        """Explain a call in a session, which is named by its public id; the call's handle does not count.

        The call is taken to be made by `made_by`, or else by who opened the session, and at `at` (unix seconds), or
        else now. Raise `NotFoundError`, and `InvalidRequestError` for facts that the bundle does not declare.
        """
        chain = self._sessions.get(session_id)
        if not chain or chain[0].tenant != caller.tenant:
            raise NotFoundError(f"no session `{session_id}`")
        return self._explained(chain, call, caller, made_by or chain[0].opened_by, at)

    def suppose(
        self, supposed: SupposedSession, call: Call, caller: Caller, *, made_by: str, at: float | None = None
    ) -> Explanation:
        """Explain a call as if there were a session for it.

        Raise `InvalidRequestError` for a user or an agent that is not in the directory, and as `explain` does.
        """
        session = supposed_session(supposed, self._bundle(), self._limits, opened_by=made_by, tenant=caller.tenant)
        return self._explained((session,), call, caller, made_by, at)

    def _explained(
        self, chain: tuple[Session, ...], call: Call, caller: Caller, made_by: str, at: float | None
    ) -> Explanation:
        now = self._clock.now()
        then = no_earlier(now, self._sessions.high_water_at()) if at is None else _moved(now, at)
        snapshot = Snapshot(bundle=self._bundle(), chain=chain, now=then, wall_at=now.wall_at if at is None else at)
        explanation = self._calls.explain(snapshot, call, made_by)
        self._tell(explanation, chain[0], caller, now)
        return explanation

    def _tell(self, explanation: Explanation, session: Session, caller: Caller, now: Instant) -> None:
        facts = {
            "action": explanation.action,
            "basis": explanation.ruling.basis.value,
            "bundle_version": explanation.bundle_version,
        }
        self._observer.event(
            Event(
                kind=EventKind.CALL_EXPLAINED,
                at=now.wall_at,
                caller_id=caller.id,
                session_id=session.id,
                user=session.user,
                agent=session.agent,
                tenant=caller.tenant,
                facts=facts,
            )
        )


def supposed_session(
    supposed: SupposedSession, bundle: Bundle, limits: Limits, *, opened_by: str, tenant: str
) -> Session:
    """Return an active session that reaches every tool of the catalogue, has no end and is stored nowhere."""
    for kind, name in (("User", supposed.user), ("Agent", supposed.agent)):
        if (kind, name) not in bundle.directory.entities:
            raise InvalidRequestError(f"supposed.{kind.lower()}", f"`{name}` is not in the directory")
    tools = {action: tool.definition_digest for action, tool in bundle.catalogue.tools.items()}
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
        attributes_json=_attributes(supposed, limits),
    )


def _attributes(supposed: SupposedSession, limits: Limits) -> str:
    try:
        return json.dumps(parse_object(supposed.user_attributes_json, limits))
    except InvalidJSONError as error:
        raise InvalidRequestError("supposed.user_attributes_json", str(error)) from None
    except TypeError:
        raise InvalidRequestError("supposed.user_attributes_json", "numbers must be integers") from None


def _chosen(policies: tuple[PolicySource, ...], ruling: Ruling) -> tuple[PolicySource, ...]:
    """Return the policies to look at: all, or of very many those that decided, and then permits before forbids."""
    if len(policies) <= _MOST_POLICIES:
        return policies
    rests_on = {*ruling.policies, *ruling.errors}
    places = range(len(policies))
    first = sorted(places, key=lambda at: (policies[at].id not in rests_on, policies[at].effect != "permit", at))
    return tuple(policies[at] for at in sorted(first[:_MOST_POLICIES]))


def _moved(now: Instant, at: float) -> Instant:
    # Both clocks move together, as if one had waited, or asked earlier.
    return replace(now, wall_at=at, boot_at=now.boot_at + at - now.wall_at)
