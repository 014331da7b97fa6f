"""The oracle's model of sessions, written from the documents: what they are, and what becomes of them.

It speaks in strings and imports nothing of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

from tests.machinery.oracle.freezes import Freezes
from tests.machinery.oracle.judge import (
    JSON,
    Answer,
    Bundle,
    Judge,
    Tool,
    Uid,
    entity,
    limits,
    narrows,
    reference,
    terms_of,
)

# Unix seconds, seconds since boot, and which boot.
Time = tuple[float, float, str]

LIVE = ("requested", "active")


@dataclass(kw_only=True, eq=False)
class Session:
    """One session; it is over at `end`, on either clock. `parents` holds its ancestors, nearest first."""

    name: str
    tenant: str
    opened_by: str
    user: str
    agent: str
    patterns: Sequence[str]
    duration: float
    purpose: str = "p"
    # Nobody was asked: it became active because its parent may delegate.
    delegated: bool = False
    end: Time = (0.0, 0.0, "")
    parents: tuple[Session, ...] = ()
    labels: frozenset[str] = frozenset()
    # Those that widened when it was approved.
    widening: frozenset[str] = frozenset()
    attributes: JSON = field(default_factory=dict)
    # Those of the request, then with those that it takes over from its parent.
    terms: JSON = field(default_factory=dict)
    may_delegate: bool = False
    grants: frozenset[str] = frozenset()
    state: str = "requested"
    scope: Mapping[str, str] = field(default_factory=dict)
    # What is used up, by the name of a budget and the minute in which it counts.
    spent: dict[tuple[str, int], Any] = field(default_factory=dict)
    approved: float = 0.0
    # How many calls were allowed under a name, and how many of them failed.
    calls: dict[str, tuple[int, int]] = field(default_factory=dict)
    # It cannot see what results held: it was requested below another one while no policy looked.
    blind: bool = False


class Sessions:
    """All sessions, and the bundle of now. Deeds say whether they happen."""

    def __init__(self, clock: Callable[[], Time]) -> None:
        self._clock = clock
        self._latest = 0.0
        self.sessions: dict[str, Session] = {}
        self.freezes = Freezes()

    def activate(self, bundle: Bundle) -> None:
        """Take another bundle; sessions whose user or agent is gone are revoked."""
        lost = [s for s in self.sessions.values() if not bundle.knows(("User", s.user), ("Agent", s.agent))]
        self._close(lost, "revoked")
        self.bundle = bundle
        self._judge = Judge(bundle)

    def state(self, session: Session) -> str:
        """Return where a session stands now."""
        wall, boot, boot_id = self._now()
        astray = self._latest - self._clock()[0] > 600.0  # then the wall clock tells nothing of another boot
        passed = wall >= session.end[0] or (boot >= session.end[1] if boot_id == session.end[2] else astray)
        return "expired" if session.state in LIVE and passed else session.state

    def frozen(self, tenant: str) -> bool:
        """Say whether nothing may be called, asked for or approved in a tenant."""
        return self.freezes.hold(tenant)

    def freeze(self, tenant: str, by: str) -> bool:
        """Stop a tenant, or `all`."""
        self.freezes.add(tenant, by)
        return self._written()

    def lift(self, tenant: str, by: str) -> bool:
        """Want a freeze lifted."""
        return self.freezes.lift(tenant, by, self._now()[0]) and self._written()

    def request(self, session: Session, caller: str, parent: str = "") -> bool:
        """Ask for a session; it becomes active at once where its parent may delegate."""
        above = self.sessions.get(parent)
        session.parents = (above, *above.parents) if above else ()
        above_it = frozenset[str]().union(*(one.labels for one in session.parents))
        # What widens is seen by an approver, or is not given.
        unseen = (session.labels - above_it) & self.bundle.widening if above else frozenset()
        session.labels |= above_it
        session.end = self._after(self.bundle.request_seconds)
        scope = self.expansion(session)
        if not (
            self.bundle.knows(("User", session.user), ("Agent", session.agent))
            and all(any(fnmatchcase(action, pattern) for action in scope) for pattern in session.patterns)
            and (above is None or (above.tenant, above.opened_by) == (session.tenant, caller))
            and len(session.parents) <= 3
            and not self.frozen(session.tenant)
            and 0 < session.duration <= 28800
            and not unseen
            and self._binds(session, above)
            and all(self.state(one) == "active" and not self.unapproved(one) for one in session.parents)
            and self._permits("request", session, session.user, caller, ())
        ):
            return False
        delegated = above is not None and above.may_delegate and above.user == session.user
        if delegated and self._permits("delegate", session, session.user, caller, ()):
            session.delegated = True
            self._begin(session, scope, ())
        self.sessions[session.name] = session
        return self._written()

    def approve(self, name: str, shown: Mapping[str, str] | None, grants: Sequence[str], caller: str) -> bool:
        """Approve a session, if what was shown is still what it would be given."""
        session = self.sessions[name]
        if (
            self.state(session) != "requested"
            or self.frozen(session.tenant)
            or any(self.state(one) != "active" or self.unapproved(one) for one in session.parents)
            or self.shown(session) != shown
            or not self._permits("approve", session, caller, caller, grants)
        ):
            return False
        self._begin(session, self.expansion(session), grants)
        return self._written()

    def deny(self, name: str) -> bool:
        """Refuse a session that waits."""
        session = self.sessions[name]
        return session.state == "requested" and self._may_live(session) and self._close([session], "denied")

    def end(self, name: str) -> bool:
        """End a session and all below it."""
        session = self.sessions[name]
        return self._may_live(session) and self._close(self._with_all_below([session]), "ended")

    def revoke(self, kind: str, value: str, tenant: str) -> bool:
        """Revoke the session of a name, or the live ones of a user, agent or tenant, and all below them."""
        of = "name" if kind == "session" else kind
        named = [s for s in self.sessions.values() if s.tenant == tenant and getattr(s, of) == value]
        chosen = named if of == "name" else list(filter(self._may_live, named))
        return self._close(self._with_all_below(chosen), "revoked")

    def narrow(self, name: str, patterns: Sequence[str], expires_at: float | None, labels: Collection[str]) -> bool:
        """Take tools and time from an active session, and add labels."""
        session = self.sessions[name]
        live = session.state == "active" and self._may_live(session)
        if not live or (frozenset(labels) - session.labels) & self.bundle.widening:
            return False
        before = (session.scope, session.end, session.labels)
        if patterns:
            session.scope = {a: d for a, d in session.scope.items() if any(fnmatchcase(a, p) for p in patterns)}
        if expires_at is not None:
            session.end = _first(self._after(expires_at - self._now()[0]), session.end)
        session.labels |= frozenset(labels)
        return before == (session.scope, session.end, session.labels) or self._written()

    def shown(self, session: Session) -> dict[str, str]:
        """Return what an approver is shown: the tools with their digests and groups, and which labels widen."""
        known = self.bundle.tools
        tools = {a: f"{one} {known[a].risk} {known[a].groups}" for a, one in self.expansion(session).items()}
        return tools | dict.fromkeys(self.may_widen(session, tools), "widens")

    def unapproved(self, session: Session) -> frozenset[str]:
        """Return the labels that may open something now and that no approver saw as such."""
        return session.labels & self.bundle.widening - session.widening

    def label(self, chain: Sequence[Session], labels: Collection[str]) -> tuple[str, ...]:
        """Add the labels of a call to its session and all above it; return those that were new to one of them."""
        added = sorted({label for session in chain for label in labels if label not in session.labels})
        for session in chain:
            session.labels |= frozenset(labels)
        if added:
            self._written()
        return tuple(added)

    def spend(self, chain: Sequence[Session], tool: Tool, values: JSON) -> tuple[Session | None, dict[str, int | str]]:
        """Take what a call costs its session and all above it, or nothing when one of them has too little.

        Return that one, and what its own session has used up of each budget.
        """
        due = self.costs(chain, tool, values)
        for session, _, cost, after, most in due:
            if cost < 0 or after > most or after * 10_000 >= 2**63:
                return session, {}
        for session, place, _, after, _ in due:
            session.spent[place] = after
        own = {place[0]: after for session, place, _, after, _ in due if session is chain[0]}
        return None, {name: _amount(name, own[name]) for name in sorted(own)}

    def costs(self, chain: Sequence[Session], tool: Tool, values: JSON) -> list[tuple[Any, ...]]:
        """Return what a call would take of each budget in its chain."""
        return [(s, *one) for s in chain for name in s.terms for one in self._due(s, name, tool, values)]

    def left(self, session: Session) -> dict[str, str]:
        """Return what is left of each budget of a session that waits or is active."""
        names = [name for name in session.terms if limits(name) and self.state(session) in LIVE]
        used = {name: session.spent.get((name, self._minute(name)), 0) for name in names}
        return {name: str(_amount(name, session.terms[name] - used[name])) for name in names}

    def _due(self, session: Session, name: str, tool: Tool, values: JSON) -> Iterator[tuple[Any, ...]]:
        group = name.removeprefix("max_calls_of_")
        counted = name in ("max_calls", "max_calls_per_minute") or (
            name != group and group in (tool.risk, *tool.groups)
        )
        if counted or (name == "max_sum" and tool.sums):
            cost, place = 1 if counted else values[tool.sums], (name, self._minute(name))
            yield place, cost, session.spent.get(place, 0) + cost, session.terms[name]

    def _minute(self, name: str) -> int:
        return int(self._now()[0]) // 60 if name == "max_calls_per_minute" else 0

    def may_widen(self, session: Session, scope: Iterable[str]) -> frozenset[str]:
        """Return the widening labels that a session has, or that calls of its tools can add."""
        added = frozenset(label for action in scope for label in self.bundle.tools[action].labels)
        return (session.labels | added) & self.bundle.widening

    def expansion(self, session: Session) -> dict[str, str]:
        """Return the tools that a session would be given now, with their digests."""
        return {
            action: tool.digest
            for action, tool in self.bundle.tools.items()
            if any(fnmatchcase(action, pattern) for pattern in session.patterns)
            and self.within_ceiling(session.agent, action)
            and all(parent.scope.get(action) == tool.digest for parent in session.parents)
        }

    def within_ceiling(self, agent: str, action: str) -> bool:
        """Say whether an agent may ever have a tool."""
        return any(fnmatchcase(action, pattern) for pattern in self.bundle.ceilings.get(agent, ()))

    def _permits(self, deed: str, session: Session, who: str, caller: str, grants: Sequence[str]) -> bool:
        scope = self.expansion(session)
        context = {
            "user": reference("User", session.user),
            "caller": {"id": caller},
            "grants": [reference("Grant", grant) for grant in grants],
            "tools": list(scope),
            "risks": [self.bundle.tools[action].risk for action in scope],
            "duration": int(session.duration),
            "may_delegate": session.may_delegate,
        }
        answer = self.about(session, f"pdp/{deed}_session", who, ("Session", session.name), context)
        return answer.basis == "permit"

    def about(self, session: Session, action: str, who: str, resource: Uid, context: JSON) -> Answer:
        """Ask the policies about one action in one session."""
        facts: JSON = {
            "purpose": session.purpose,
            "tenant": session.tenant,
            "environment": "",
            "opened_by": session.opened_by,
        }
        facts |= {"depth": len(session.parents), "labels": list(session.labels)}
        try:
            terms = terms_of(self.bundle, session.terms)
        except ValueError:
            return Answer("policy_error", resource=resource)
        facts |= {} if self.bundle.terms is None else {"terms": terms}
        grants = [("Grant", grant) for grant in session.grants]
        (user,) = (one for one in self.bundle.entities if one["uid"] == {"type": "User", "id": session.user})
        user = {**user, "attrs": {**user["attrs"], **session.attributes}}
        made = [user, entity(("Session", session.name), facts, grants), *map(entity, grants)]
        context = {**context, "agent": reference("Agent", session.agent)}
        context |= {} if action.startswith("pdp/") else {"session": reference("Session", session.name)}
        return self._judge.ask(action, who, resource, context, made, self._clock()[0])

    def _binds(self, session: Session, above: Session | None) -> bool:
        """Give a session its terms and those of its parent; say whether they fit and are none wider."""
        inherited = above.terms if above else {}
        session.terms = {**inherited, **session.terms}
        try:
            terms_of(self.bundle, inherited if above else session.terms)
            terms_of(self.bundle, session.terms)
        except ValueError:
            return False
        numbers = (value for name, value in session.terms.items() if limits(name))
        return all(value >= 0 for value in numbers) and (above is None or narrows(session.terms, inherited))

    def _begin(self, session: Session, scope: dict[str, str], grants: Sequence[str]) -> None:
        session.state, session.scope, session.grants = "active", scope, frozenset(grants)
        session.widening, session.approved = self.may_widen(session, scope), self._now()[0]
        session.end = reduce(_first, (parent.end for parent in session.parents), self._after(session.duration))

    def _with_all_below(self, sessions: Sequence[Session]) -> list[Session]:
        return [s for s in self.sessions.values() if any(one in (s, *s.parents) for one in sessions)]

    def _close(self, sessions: Iterable[Session], state: str) -> bool:
        for session in list(filter(self._may_live, sessions)):
            session.state = state
        return self._written()

    def _may_live(self, session: Session) -> bool:
        # One that is over by the boot clock alone may come back after a reboot: what is said now must hold then.
        return session.state in LIVE and self._now()[0] < session.end[0]

    def _now(self) -> Time:
        # What was once written down, the wall clock cannot take back.
        wall, boot, boot_id = self._clock()
        return max(wall, self._latest), boot, boot_id

    def _after(self, seconds: float) -> Time:
        wall, boot, boot_id = self._now()
        return wall + seconds, boot + seconds, boot_id

    def _written(self) -> bool:
        self._latest = self._now()[0]
        return True


def _first(present: Time, other: Time) -> Time:
    """Return what passes when either does; `present` is of this boot, and the clock of another boot tells nothing."""
    return min(present[0], other[0]), min(present[1], other[1]) if present[2] == other[2] else present[1], present[2]


def _amount(name: str, value: Any) -> int | str:
    return f"{value:.4f}" if name == "max_sum" else int(value)
