"""The independent oracle: the order in which a call is checked, written anew from the documents.

It remembers no answer, speaks in strings, and imports nothing of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.machinery.oracle.counting import OLDER, Counting, Names, names_in
from tests.machinery.oracle.held import read
from tests.machinery.oracle.judge import JSON, Answer, Ask, Tool, Uid, mapped, parsed, require_schema, typed
from tests.machinery.oracle.outside import Form, named_outside, seen
from tests.machinery.oracle.people import (
    RETRY_SECONDS,
    People,
    Try,
    Wanted,
    after,
    bound,
    keys,
    over,
    run_of,
    soonest,
)
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
        self.people = People()
        # Which tries were charged for, and when.
        self._charged: dict[Try, Time] = {}

    def request(self, session: Session, caller: str, parent: str = "") -> bool:
        """Ask for a session; it becomes active at once where its parent may delegate."""
        above = self.sessions.get(parent)
        session.blind = above is not None and (above.blind or not self.looks_at_results())
        return super().request(session, caller, parent)

    def looks_at_results(self) -> bool:
        """Say whether a policy sees where names come from."""
        return "context.targets" in self.bundle.policies

    def call(
        self,
        name: str,
        tenant: str,
        caller: str,
        server: str,
        tool: str,
        arguments: bytes,
        digest: str,
        told: bytes,
        *,
        request_id: str = "",
        sees_results: bool = True,
    ) -> Answer:
        """Say what is decided about a call, which a gateway can try again under the same `request_id`."""
        own, action = self.sessions.get(name), f"{server}/{tool}"
        try:
            facts, _ = typed(self.bundle.facts, (), parsed(told))
        except ValueError:
            return Answer("refused")
        known = self.bundle.tools.get(action)
        if own is None or own.tenant != tenant:
            return Answer("session_not_found")
        chain = (own, *own.parents)
        denied = [(own, Answer("frozen"))] if self.frozen(tenant) else []
        denied += [(one, Answer(basis)) for one in chain if (basis := self._standing(one))]
        if not denied and (basis := _unfit(known, server, digest)):
            return Answer(basis)
        denied += [(one, Answer(basis)) for one in chain if known and (basis := self._out_of_reach(one, known))]
        if not denied and known and not sees_results and self._is_reported(known):
            denied = [(own, Answer("result_unseen"))]
        if denied or known is None:
            return _seen_below(own, *denied[0])
        try:
            values = parsed(arguments)
            shown, hidden = typed(known.parameters, known.required, values)
            require_schema(known.schema, values)
            resource = mapped(known, values)
        except ValueError:
            return Answer("invalid_arguments")
        context = {"input": shown, "opaque": hidden, "caller": {**facts, "id": caller}}
        made = (tenant, caller, request_id, name, server, tool, digest, arguments, told) if request_id else None
        return self._judged(chain, (tenant, caller), known, values, resource, context, made)

    def _is_reported(self, tool: Tool) -> bool:
        """Say whether only a report can say what a call of a tool brings."""
        done = set(names_in(self.bundle.policies).done) & self.counted_as(tool)
        return self.looks_at_results() or bool(done) or bool(self.bundle.reported - set(tool.labels))

    def _judged(
        self,
        chain: tuple[Session, ...],
        gateway: tuple[str, str],
        tool: Tool,
        values: JSON,
        resource: Uid,
        context: JSON,
        made: Try,
    ) -> Answer:
        own, action = chain[0], f"{tool.server}/{tool.name}"
        names = names_in(self.bundle.policies, (action, tool.risk, *tool.groups))
        itself = self.counted_as(tool) if self._is_charged(made) else frozenset[str]()
        counts, done = self.counted(own, names, itself)
        for one in chain:
            if self.older(one, names):
                unknown = Answer("budget_exhausted", resource=resource, advice=(OLDER,), counts=counts, done=done)
                return _seen_below(own, one, unknown)
        answers = []
        for one in chain:
            facts = context | {"targets": self.targets(one, tool, values, blind=own.blind)} | self.memory(one, itself)
            answer = self.about(one, action, one.user, resource, facts)
            answers.append((one, answer._replace(counts=counts, done=done)))
        held = [(one, answer.otherwise or answer) for one, answer in answers]
        # A deny that nobody can lift counts first.
        denied = [pair for pair, (_, left) in zip(answers, held, strict=True) if left.basis != "permit"]
        first, answer = (denied or [_all_of(held)])[0]
        if answer.basis != "permit":
            return _seen_below(own, first, answer._replace(counts=counts, done=done))
        asking = [one for _, one in answers if one.asks]
        asks = {ask for one in asking for ask in one.asks}
        wanted = self._wanted(chain, gateway, tool, values, asks, made)
        if asks and not self.people.approved(self._now(), wanted):
            end = soonest(self._now(), [one.end for one in chain])
            waits = _waiting(asking, self.people.ask(self._now(), wanted, end), resource)
            return waits._replace(counts=counts, done=done)
        short, debits = self._charge(chain, tool, values, names, made)
        if short is not None:
            return _seen_below(own, short, Answer("budget_exhausted"))
        return answer._replace(
            counts=counts,
            done=done,
            labels=self.label(chain, tool.labels),
            debits=tuple(debits.items()),
            lifted=tuple(sorted({ask[1] for ask in asks})),
            question=self.people.use(self._now(), wanted) if asks else "",
        )

    def _is_charged(self, made: Try) -> bool:
        """Say whether a call is a retry of one that has taken its share of budgets and is counted."""
        return made in self._charged and not over(self._charged[made], self._now())

    def _charge(
        self, chain: tuple[Session, ...], tool: Tool, values: JSON, names: Names, made: Try
    ) -> tuple[Session | None, JSON]:
        """Take what a call costs and count it, once for all its tries; return what `spend` returns."""
        if self._is_charged(made):
            return None, {}
        short, debits = self.spend(chain, tool, values)
        if short is None:
            self.count(chain, tool)
            if made and (names.both() or self.counted_as(tool) or self.costs(chain, tool, values)):
                self._charged[made] = after(self._now(), RETRY_SECONDS)
        return short, debits

    def _wanted(
        self,
        chain: tuple[Session, ...],
        gateway: tuple[str, str],
        tool: Tool,
        values: JSON,
        asks: set[Ask],
        made: Try,
    ) -> Wanted:
        action, outside = f"{tool.server}/{tool.name}", named_outside(tool.targets, tool.texts, values)
        return Wanted(
            gateway=gateway,
            session=chain[0].name,
            root=chain[-1].name,
            tool=(action, tool.digest),
            call=bound(action, tool.digest, values),
            bundle=self.bundle,
            asks=frozenset(asks),
            keys=frozenset(keys(values)),
            outside=outside or frozenset(),
            run=run_of(tool, sorted(asks), outside) if asks else 0,
            made=made,
        )

    def answer(self, name: str, word: str, calls: int = 1) -> bool:
        """Answer a question, as a person, a yes for so many calls; say whether it counts."""
        (question,) = (one for one in self.people.questions if one.name == name)
        session = self.sessions[question.about.session]
        if word == "yes" and self.frozen(session.tenant):
            return False
        end = soonest(self._now(), [one.end for one in (session, *session.parents)])
        return self.people.answer(self._now(), name, word, end, calls)

    def targets(self, session: Session, tool: Tool, arguments: JSON, *, blind: bool) -> JSON:
        """Return what a session sees of where the names in a call come from; `blind` is the one that calls."""
        asked = next(one for one in (session, *session.parents) if not one.delegated)
        (user,) = (one for one in self.bundle.entities if one["uid"] == {"type": "User", "id": session.user})
        held = [one for name in self.bundle.known for one in user["attrs"].get(name, [])]
        known = [one if isinstance(one, str) else one.get("__entity", one)["id"] for one in held]
        results = {} if blind else self.held.get((session, *session.parents)[-1].name, {})
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


def _unfit(tool: Tool | None, server: str, digest: str) -> str:
    """Return what is wrong with the tool that a call names, or nothing."""
    if tool is None or tool.server != server:
        return "unknown_tool"
    return "tool_changed" if digest != tool.digest and (digest or tool.digest_required) else ""


def _seen_below(own: Session, first: Session, answer: Answer) -> Answer:
    """Return a deny as the session of the call sees it."""
    if first is own:
        return answer
    return answer._replace(basis="ancestor_denied", ancestor=first.name, ancestor_basis=answer.basis)


def _waiting(asking: list[Answer], question: str, resource: Uid) -> Answer:
    """Return the deny of a call that waits for a person, or that none is asked about."""
    policies = tuple(sorted({ask[1] for one in asking for ask in one.asks}))
    advice = [line for one in asking for line in one.advice]
    if question.startswith("unasked"):
        return Answer("forbid", policies, resource=resource, advice=tuple(dict.fromkeys([question, *advice]))[:8])
    lines = tuple(dict.fromkeys(advice))[:8]
    return Answer("approval_required", policies, resource=resource, advice=lines, question=question)


def _all_of(answers: list[tuple[Session, Answer]]) -> tuple[Session, Answer]:
    """Return the first of several allows, with what all of them ask of the gateway."""
    own, answer = answers[0]
    asked = {one for _, each in answers for one in each.obligations}
    if len(asked) > 16:
        return own, answer._replace(basis="policy_error", policies=(), obligations=())
    return own, answer._replace(obligations=tuple(sorted(asked)))
