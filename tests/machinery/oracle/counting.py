"""How often sessions have called what: written anew from the page for authors of policies.

It shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tests.machinery.oracle.judge import JSON, Bundle, Tool
from tests.machinery.oracle.sessions import Session, Sessions

OLDER = "the session is older than a rule that counts its calls: ask for a new session"


class Names(NamedTuple):
    """The names whose count some policies read, and those that they want to be done."""

    counts: Sequence[str]
    done: Sequence[str]

    def both(self) -> frozenset[str]:
        """Return all of them."""
        return frozenset(self.counts) | frozenset(self.done)


@cache
def names_in(policies: str, action: tuple[str, ...] = ()) -> Names:
    """Return the names in policies: of those for an action, given as its own name and its groups, or of all."""
    counts, done = set(), set()
    for policy in re.split(r"(?=@id\()", policies):
        scope = re.search(r"\b(?:permit|forbid)\s*\((.*?)\)", policy, re.DOTALL)
        named = re.findall(r'Action::"([^"]+)"', scope[1]) if scope else []
        if action and named and not set(named) & set(action):
            continue
        counts |= {one or other for one, other in re.findall(r'context\.counts(?:\["([^"]+)"\]|\.(\w+))', policy)}
        for inside in re.findall(r"context\.done\.contains(?:Any|All)?\(([^)]*)\)", policy):
            done |= set(re.findall(r'"([^"]+)"', inside))
    return Names(tuple(sorted(counts)), tuple(sorted(done)))


class Counting(Sessions):
    """The sessions, with what they have called."""

    since: Mapping[str, float] = {}

    def activate(self, bundle: Bundle) -> None:
        """Take another bundle; what the one before it counts goes on."""
        super().activate(bundle)
        self.since = {name: self.since.get(name, self._latest) for name in names_in(bundle.policies).both()}

    def older(self, session: Session, names: Names) -> bool:
        """Say whether a session may have made calls that were not counted."""
        return any(session.approved <= self.since[name] for name in names.both())

    def counted(
        self, session: Session, names: Names, itself: Collection[str] = ()
    ) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
        """Return the counts that a session sees, and what is done; a retry does not see `itself`, counted before."""
        made = {name: session.calls.get(name, (0, 0)) for name in names.both()}
        made |= {name: (max(made[name][0] - 1, 0), made[name][1]) for name in names.both() & set(itself)}
        return (
            tuple((name, made[name][0]) for name in names.counts),
            tuple(name for name in names.done if made[name][0] > made[name][1]),
        )

    def memory(self, session: Session, itself: Collection[str] = ()) -> JSON:
        """Return what policies see of it in the context, which has neither where no policy of the bundle reads it."""
        names = names_in(self.bundle.policies)
        counts, done = self.counted(session, names, itself)
        return ({"counts": dict(counts)} if names.counts else {}) | ({"done": list(done)} if names.done else {})

    def counted_as(self, tool: Tool) -> frozenset[str]:
        """Return the names under which calls of a tool are counted."""
        return names_in(self.bundle.policies).both() & {f"{tool.server}/{tool.name}", tool.risk, *tool.groups}

    def count(self, chain: Sequence[Session], tool: Tool) -> None:
        """Count an allowed call in its session and all above it."""
        for session in chain:
            for name in self.counted_as(tool):
                made, failed = session.calls.get(name, (0, 0))
                session.calls[name] = made + 1, failed

    def fail(self, name: str, names: Collection[str]) -> None:
        """Take the report that a call failed which was counted under some names."""
        session = self.sessions[name]
        for one in (session, *session.parents):
            for counted in names:
                made, failed = one.calls[counted]
                one.calls[counted] = made, failed + 1
