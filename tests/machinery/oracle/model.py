"""The independent oracle: the order in which a call is checked, written anew from the documents.

It remembers no answer, speaks in strings, and imports nothing of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.machinery.oracle.counting import OLDER, Counting, names_in
from tests.machinery.oracle.held import read
from tests.machinery.oracle.judge import JSON, Answer, Tool, mapped, parsed, require_schema, typed
from tests.machinery.oracle.outside import Form, seen
from tests.machinery.oracle.sessions import Session, Time

__all__ = ["Oracle", "Session", "Time"]

OF_STATE = {
    "requested": "session_not_approved",
    "denied": "session_not_approved",
    "ended": "session_ended",
    "expired": "session_expired",
    "revoked": "session_revoked",
}


class Oracle(Counting):
    """What is decided about calls, from the sessions and the bundle of now."""

    def __init__(self, clock: Callable[[], Time]) -> None:
        super().__init__(clock)
        # What results held, by the name of the session at the top.
        self.held: dict[str, dict[Form, str]] = {}

    def call(
        self, name: str, tenant: str, caller: str, server: str, tool: str, arguments: bytes, digest: str, told: bytes
    ) -> Answer:
        """Say what is decided about a call."""
        own, action = self.sessions.get(name), f"{server}/{tool}"
        try:
            facts, _ = typed(self.bundle.facts, (), parsed(told))
        except ValueError:
            return Answer("refused")
        known = self.bundle.tools.get(action)
        if own is None or own.tenant != tenant:
            return Answer("session_not_found")
        chain = (own, *own.parents)
        denied = [(one, Answer(basis)) for one in chain if (basis := self._standing(one))]
        if not denied and (known is None or known.server != server):
            return Answer("unknown_tool")
        if not denied and known and digest != known.digest and (digest or known.digest_required):
            return Answer("tool_changed")
        denied += [(one, Answer(basis)) for one in chain if known and (basis := self._out_of_reach(one, known))]
        if known and not denied:
            try:
                values = parsed(arguments)
                shown, hidden = typed(known.parameters, known.required, values)
                require_schema(known.schema, values)
                resource = mapped(known, values)
            except ValueError:
                return Answer("invalid_arguments")
            context = {"input": shown, "opaque": hidden, "caller": {**facts, "id": caller}}
            names = names_in(self.bundle.policies, (action, known.risk, *known.groups))
            older = [
                (one, Answer("budget_exhausted", resource=resource, advice=(OLDER,)))
                for one in chain
                if self.older(one, names)
            ]
            counts, done = self.counted(own, names)
            answers = [
                (
                    one,
                    self.about(
                        one,
                        action,
                        one.user,
                        resource,
                        context | {"targets": self.targets(one, known, values)} | self.memory(one),
                    ),
                )
                for one in chain
            ]
            denied = [(one, answer) for one, answer in answers if answer.basis != "permit"] or [_all_of(answers)]
            denied = [(one, answer._replace(counts=counts, done=done)) for one, answer in (*older, *denied)]
        first, answer = denied[0]
        if known and answer.basis == "permit":
            short, debits = self.spend(chain, known, values)
            if short is not None:
                first, answer = short, Answer("budget_exhausted")
            else:
                answer = answer._replace(labels=self.label(chain, known.labels), debits=tuple(debits.items()))
                self.count(chain, known)
        if first is not own:
            answer = answer._replace(basis="ancestor_denied", ancestor=first.name, ancestor_basis=answer.basis)
        return answer

    def targets(self, session: Session, tool: Tool, arguments: JSON) -> JSON:
        """Return what a session sees of where the names in a call come from."""
        asked = next(one for one in (session, *session.parents) if not one.delegated)
        (user,) = (one for one in self.bundle.entities if one["uid"] == {"type": "User", "id": session.user})
        held = [one for name in self.bundle.known for one in user["attrs"].get(name, [])]
        known = [one if isinstance(one, str) else one.get("__entity", one)["id"] for one in held]
        results = self.held.get((session, *session.parents)[-1].name, {})
        named = session.terms.get("targets", [])
        return seen(tool.targets, tool.texts, arguments, named, asked.purpose, known, results)

    def read(self, name: str, action: str, arguments: JSON, result: Any) -> None:
        """Take what the result of an allowed call held; all sessions of the tree share it."""
        session, tool = self.sessions[name], self.bundle.tools[action]
        root = (session, *session.parents)[-1].name
        kinds = sorted({kind for one in self.bundle.tools.values() for _, kind in one.targets or () if kind})
        self.held[root] = read(
            self.held.get(root, {}), result, trusted=tool.trusted, issues=tool.issues, kinds=kinds, asked=arguments
        )

    def _standing(self, session: Session) -> str:
        if self.state(session) != "active":
            return OF_STATE[self.state(session)]
        return "label_not_approved" if self.unapproved(session) else ""

    def _out_of_reach(self, session: Session, tool: Tool) -> str:
        action = f"{tool.server}/{tool.name}"
        if action not in session.scope or not self.within_ceiling(session.agent, action):
            return "out_of_scope"
        return "" if session.scope[action] == tool.digest else "tool_changed"


def _all_of(answers: list[tuple[Session, Answer]]) -> tuple[Session, Answer]:
    """Return the first of several allows, with what all of them ask of the gateway."""
    own, answer = answers[0]
    asked = {one for _, each in answers for one in each.obligations}
    if len(asked) > 16:
        return own, Answer("policy_error", resource=answer.resource)
    return own, answer._replace(obligations=tuple(sorted(asked)))
