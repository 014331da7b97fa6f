"""Questions to the policies: the facts of a call or of a session's step, and the question made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pdp.model import Counted, Session, Targets
from pdp.policy.directory import Uid
from pdp.policy.view import EVERYTHING, View
from pdp.quickvalues import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that the policies of one action decide about, without what each session adds.

    `context` is in Cedar's JSON. For a call, `resource` is what it is mapped to, and the principal is the session's
    user. For a step of the session itself, the principal is `speaker`, the user who asks for it and is also in
    `speaker_groups`, and the resource is the session. `logged` is not part of the question: it holds the arguments that
    the bundle allows to be recorded, each as name and JSON text. `targets` holds `context.targets` for each session of
    the chain, which may differ; it is empty where no policy of the action can see it. `counted` holds what each of them
    sees of its earlier calls, alike.
    """

    action: str
    context: Mapping[str, Any] = field(repr=False)
    resource: Uid = field(default=("", ""), repr=False)
    speaker: str = ""
    speaker_groups: tuple[str, ...] = ()
    logged: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    targets: tuple[Targets, ...] = ()
    counted: tuple[Counted, ...] = ()

    def seen_in(self, place: int) -> Facts:
        """Return the facts that the policies see for the session at a place of the chain."""
        if not (self.targets or self.counted):
            return self
        targets = {"targets": self.targets[place].cedar()} if self.targets else {}
        counted = self.counted[place].cedar() if self.counted else {}
        return replace(self, context={**self.context, **targets, **counted})


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to the engine. `context` is what policies can see of the context, or more, in Cedar's JSON."""

    user: str
    agent: str
    session_id: str
    resource: Uid
    context: Mapping[str, Any] = field(repr=False)


def question_of(session: Session, facts: Facts, at: float, view: View = EVERYTHING) -> Question:
    """Return the question about one session and facts, at a time in unix seconds.

    What is not seen in `view` may be left out of the context.
    """
    context = dict(facts.context)
    if view.sees("agent"):
        context["agent"] = reference("Agent", session.agent)
    if view.sees("now"):
        context["now"] = datetime_value(at)
    if view.sees("session") and not facts.speaker:
        context["session"] = reference("Session", session.id)
    return Question(
        user=facts.speaker or session.user,
        agent=session.agent,
        session_id=session.id,
        resource=("Session", session.id) if facts.speaker else facts.resource,
        context=context,
    )


def reference(kind: str, name: str) -> dict[str, dict[str, str]]:
    """Return a reference to an entity in Cedar's JSON, as a context holds it."""
    return {"__entity": {"type": kind, "id": name}}


def datetime_value(wall_at: float) -> dict[str, Any]:
    """Return unix seconds as a datetime in Cedar's JSON, to the millisecond."""
    text = datetime.fromtimestamp(wall_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"__extn": {"fn": "datetime", "arg": text}}
