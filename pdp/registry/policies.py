"""Ask the policies about steps of a session, and about approvals of calls in it. Every answer is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pdp.clock import Clock
from pdp.errors import InvalidRequestError, PermissionDeniedError
from pdp.foundation.ids import decision_ids
from pdp.limits import MOST_POLICIES
from pdp.model import Caller, Ruling, Scope, Session
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import MISFIT, Bundle
from pdp.policy.question import Facts, reference
from pdp.policy.schema import REQUEST_SESSION
from pdp.registry.events import presence, request_facts, terms, vouched
from pdp.registry.usergroups import groups_shown


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingCall:
    """A call that waits for a person, as policies about its approval see it.

    `provenance` is where the names of its targets come from, as its session sees them. `questions` are what its
    approver is asked, and `calls` is how many calls the approval is for.
    """

    action: str
    risk: str
    groups: tuple[str, ...]
    provenance: tuple[str, ...]
    questions: tuple[str, ...] = ()
    calls: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuestion:
    """A question about a session. `speaker` is the principal: the user who asks or approves.

    `asked_at` (unix seconds) is when the request arrived; its records are ordered by it.
    `call` is the call that the approval is about, if it is about one; `about` holds facts of the event about that call.
    `trace` holds the facts of the event that link the answer to the caller's trace.
    """

    action: str
    session: Session
    scope: Scope
    caller: Caller
    speaker: str
    asked_at: float
    grants: tuple[str, ...] = ()
    call: WaitingCall | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)


class SessionPolicies:
    """Asks the policies about sessions and reports each refusal to the observer. Safe for threads.

    When they permit, the caller reports the returned event once the change is stored: a record written earlier could
    name a session that was never created.
    """

    def __init__(self, *, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._new_id = decision_ids()

    def require(self, bundle: Bundle, asked: SessionQuestion) -> Event:
        """Return the event to report; raise `PermissionDeniedError` naming the policies that refuse."""
        ruling, decided = self.ask(bundle, asked)
        if not ruling.allowed:
            self._observer.event(decided)
            names = ", ".join(ruling.policies or ruling.errors)
            raise PermissionDeniedError(
                f"the policies refuse `{asked.action}`: {ruling.basis.value}"
                + f" ({names})" * bool(names)
                + _unknown_speaker(bundle, asked)
            )
        return decided

    def ask(self, bundle: Bundle, asked: SessionQuestion) -> tuple[Ruling, Event]:
        """Return the ruling and the event to report; a question that does not fit is a deny.

        Raise `InvalidRequestError` when the attributes that a requester vouched for do not fit the schema.
        """
        ruling = _ruling(bundle, asked, self._clock.now().wall_at)
        return ruling, self._decided(bundle, asked, ruling)

    def _decided(self, bundle: Bundle, asked: SessionQuestion, ruling: Ruling) -> Event:
        session = asked.session
        # A refused request creates no session, so its event names none.
        known = ruling.allowed or asked.action != REQUEST_SESSION
        said = {
            "action": asked.action,
            "basis": ruling.basis.value,
            "bundle_version": bundle.version,
            "decision_id": self._new_id(),
            "outcome": ruling.outcome.value,
            "principal": asked.speaker,
            **presence(asked.caller),
        }
        lists = {
            "errors": ruling.errors[:MOST_POLICIES],
            "grants": tuple(sorted(set(asked.grants))),
            "policies": ruling.policies[:MOST_POLICIES],
            "tools": tuple(sorted(asked.scope.tools)),
        }
        found = {"errors": ruling.errors, "policies": ruling.policies}
        more = {f"{name}_left_out": str(len(ids) - MOST_POLICIES) for name, ids in found.items() if ids[MOST_POLICIES:]}
        facts, listed = request_facts(session)
        event = Event.of_session(
            EventKind.SESSION_DECIDED,
            session,
            at=asked.asked_at,
            caller_id=asked.caller.id,
            facts={**facts, **said, **more, **asked.about, **asked.trace},
            lists={**listed, **{name: values for name, values in lists.items() if values}},
            attributes=vouched(session),
            terms=terms(session),
        )
        return event if known else replace(event, session_id="")


def _ruling(bundle: Bundle, asked: SessionQuestion, at: float) -> Ruling:
    groups = groups_shown(asked.caller, asked.speaker, bundle)
    facts = Facts(
        action=asked.action, context=_context(bundle, asked, at), speaker=asked.speaker, speaker_groups=groups or ()
    )
    ruling = bundle.judge(asked.session, facts, at)
    if ruling == MISFIT and asked.action == REQUEST_SESSION:
        raise InvalidRequestError("user_attributes_json", "does not fit the schema of the bundle")
    return ruling


def _unknown_speaker(bundle: Bundle, asked: SessionQuestion) -> str:
    """Return what to say of a speaker whom the bundle puts in no group, because it does not know them."""
    groups = groups_shown(asked.caller, asked.speaker, bundle)
    if groups is None:
        known = ("User", asked.speaker) in bundle.directory.entities
        return "" if known else f"; `{asked.speaker}` is not a user of the bundle's directory"
    return "" if groups else "; the token names no user group of the bundle"


def _context(bundle: Bundle, asked: SessionQuestion, at: float) -> dict[str, Any]:
    session, tools, caller = asked.session, bundle.catalogue.tools, asked.caller
    context = {
        "user": reference("User", session.user),
        "caller": {"id": caller.id},
        "grants": [reference("Grant", grant) for grant in sorted(set(asked.grants))],
        "tools": sorted(asked.scope.tools),
        "risks": sorted({tools[name].risk for name in asked.scope.tools if name in tools}),
        "duration": int(session.duration),
        "may_delegate": session.may_delegate,
    }
    if asked.call is not None:
        context |= _waiting(asked.call)
    if caller.authenticated_at:
        context["authenticated_ago"] = int(max(0.0, at - caller.authenticated_at))
    return context


def _waiting(call: WaitingCall) -> dict[str, Any]:
    return {
        "action": call.action,
        "risk": call.risk,
        "groups": sorted(call.groups),
        "provenance": sorted(call.provenance),
        "questions": sorted(set(call.questions)),
        "calls": call.calls,
    }
