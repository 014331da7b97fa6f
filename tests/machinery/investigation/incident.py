"""Make an incident: a record of many sessions, delegations, revocations and calls, written by several workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pdp.clock import utc_text
from pdp.model import Basis, Caller, Decision, Outcome, Role, TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.testing.decisions import a_decision

START_AT = 1_790_000_000.0
SECONDS_BETWEEN = 0.05
SESSION_SECONDS = 900.0
WORKERS = 3

_KEY = b"k" * 32
_NO_PARENT = TraceParent()
_ROTATION = Rotation(bytes=4 * 1024 * 1024)
_BUNDLES = tuple("sha256:" + digit * 64 for digit in "abc")
_PEPS = tuple(Caller(id=f"gateway-{n}", kind="token", roles=frozenset({Role.PEP})) for n in range(4))
_DENIALS = (Basis.FORBID, Basis.DEFAULT_DENY, Basis.OUT_OF_SCOPE)


@dataclass(slots=True, kw_only=True)
class _Session:
    id: str
    user: str
    agent: str
    pep: Caller
    tenant: str
    expires_at: float
    parent: _Session | None = None
    children: list[_Session] = field(default_factory=list)

    @property
    def ancestors(self) -> tuple[str, ...]:
        return (self.parent.id, *self.parent.ancestors) if self.parent else ()


class _Incident:
    """Tells a seeded story, one entry at a time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a story, not a secret
        self._live: list[_Session] = []
        self._count = 0
        self._at = START_AT

    def entries(self, count: int) -> Iterator[Decision | Event]:
        """Yield so many decisions and events in order of time, some at the same moment."""
        made = 0
        while made < count:
            for entry in self._happening():
                if made < count:
                    yield entry
                made += 1

    def _happening(self) -> Iterator[Decision | Event]:
        self._at += self._random.choice((0.0, 1.0, 2.0)) * SECONDS_BETWEEN
        dice = self._random.random()
        if dice < 0.03 or len(self._live) < 10:
            yield from self._opening()
        elif dice < 0.04:
            yield from self._closing()
        elif dice < 0.045:
            yield self._narrowing()
        elif dice < 0.05:
            yield Event(
                kind=EventKind.BUNDLE_ACTIVATED, at=self._at, caller_id="author", facts={"bundle_version": _BUNDLES[0]}
            )
        elif dice < 0.06:
            yield self._unknown_handle()
        else:
            yield self._call()

    def _opening(self) -> Iterator[Event]:
        one, self._count = self._random, self._count + 1
        parent = one.choice(self._live) if self._live and one.random() < 0.2 else None
        session = _Session(
            id=f"ses_{self._count:026d}",
            user=parent.user if parent else f"user-{one.randrange(40)}",
            agent=f"agent-{one.randrange(12)}",
            pep=parent.pep if parent else one.choice(_PEPS),
            tenant=parent.tenant if parent else one.choice(("default", "default", "other")),
            expires_at=self._at + 300.0,
            parent=parent,
        )
        yield self._event(session, "requested", session.pep.id, expires=True)
        if not parent and one.random() < 0.1:
            yield self._event(session, "denied", "approver-0", reason="no")
            return
        if not parent and one.random() < 0.05:
            # Waits for an approval that never comes.
            return
        end = self._at + SESSION_SECONDS
        session.expires_at = min(end, parent.expires_at) if parent else end
        by = parent.id if parent else f"approver-{one.randrange(5)}"
        yield self._event(session, "approved", session.pep.id if parent else by, expires=True, by=by, grants="g1,g2")
        if parent:
            parent.children.append(session)
        self._live.append(session)

    def _closing(self) -> Iterator[Event]:
        session = self._random.choice(self._live)
        kind, by = ("ended", session.pep.id) if self._random.random() < 0.5 else ("revoked", "approver-1")
        for one in self._tree(session):
            if one in self._live:
                self._live.remove(one)
                yield self._event(one, kind, by, reason="over")

    def _tree(self, session: _Session) -> Iterator[_Session]:
        yield session
        for child in session.children:
            yield from self._tree(child)

    def _narrowing(self) -> Event:
        session = self._random.choice(self._live)
        session.expires_at = min(session.expires_at, self._at + 200.0)
        return self._event(session, "narrowed", "approver-2", expires=True)

    def _event(self, session: _Session, kind: str, caller_id: str, *, expires: bool = False, **facts: str) -> Event:
        facts |= {"parent_id": session.parent.id} if session.parent else {}
        facts |= {"expires_at": utc_text(session.expires_at)} if expires else {}
        return Event(
            kind=EventKind(f"session.{kind}"),
            at=self._at,
            caller_id=caller_id,
            session_id=session.id,
            user=session.user,
            agent=session.agent,
            tenant=session.tenant,
            facts=facts,
        )

    def _unknown_handle(self) -> Decision:
        nobody = {"session_id": "", "user": "", "agent": "", "tenant": "", "ancestor_ids": (), "resource_type": ""}
        return self._decision(caller=self._random.choice(_PEPS), basis=Basis.SESSION_NOT_FOUND, **nobody)

    def _call(self) -> Decision:
        session = self._random.choice(self._live)
        if session.expires_at <= self._at:
            self._live.remove(session)
        allowed = session.expires_at > self._at and self._random.random() < 0.85
        return self._decision(
            caller=session.pep,
            outcome=Outcome.ALLOW if allowed else Outcome.DENY,
            basis=Basis.PERMIT if allowed else self._random.choice(_DENIALS),
            session_id=session.id,
            user=session.user,
            agent=session.agent,
            tenant=session.tenant,
            ancestor_ids=session.ancestors,
        )

    def _decision(self, **changes: object) -> Decision:
        one, self._count = self._random, self._count + 1
        known: dict[str, object] = {"outcome": Outcome.DENY, "resource_type": "Repository"} | changes
        return a_decision(
            id=f"dec_{self._count:026d}",
            decided_at=self._at,
            server=f"server-{one.randrange(6)}",
            tool=f"tool-{one.randrange(20)}",
            bundle_version=_BUNDLES[min(int((self._at - START_AT) / 400), 2)],
            resource_id=f"repository-{one.randrange(200)}" if known["resource_type"] else "",
            log_resource=one.random() < 0.9,
            **known,
        )


def write_incident(folder: Path, count: int, *, seed: int = 1) -> float:
    """Write so many records into segments of several workers; return a moment in the middle of the story."""
    incident, one = _Incident(seed), random.Random(seed)  # noqa: S311 - a story, not a secret
    with ExitStack() as opened:
        signer = SigningKey.generate()
        logs = [DecisionLog(folder, key=_KEY, signer=signer, rotation=_ROTATION) for _ in range(WORKERS)]
        for log in logs:
            opened.callback(log.close)
        last_at = START_AT
        for entry in incident.entries(count):
            log = one.choice(logs)
            if isinstance(entry, Decision):
                log.decision(entry, _NO_PARENT)
                last_at = entry.decided_at
            else:
                log.event(entry)
    return last_at - SESSION_SECONDS / 2
