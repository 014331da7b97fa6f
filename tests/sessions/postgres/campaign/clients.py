"""The clients of a campaign: each asks at one replica, and opens, narrows and closes sessions there."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event, Lock
from typing import Final

from pdp.limits import DEFAULT_LIMITS
from tests.machinery.servers.notes import READ, WRITE
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.questions import Heard, Known, Question
from tests.sessions.postgres.campaign.replicas import EXACT, SLICED, Replica
from tests.sessions.replicahistory import Kind, Operation, Result

_LIVE: Final = 10
_JUST_CLOSED: Final = 8
_PAUSE_SECONDS: Final = 0.004
# A replica that does not answer is not asked again at once.
_REST_SECONDS: Final = 0.05
# How many of its steps are changes.
_CHANGES: Final = 0.15
_BUDGET: Final = 6
# How many questions come together, and how often; how many are repeated, and how many insist on what was heard.
_AT_ONCE: Final = 64
_TOGETHER: Final = 0.3
# How many calls write: what is decided about these is read at the primary.
_WRITING: Final = 0.1
_REPEATED: Final = 0.3
_INSISTING: Final = 0.2
# What is done with sessions in turn; each client begins with another of them.
_DEEDS: Final = (Kind.REVOKE, Kind.END, Kind.REVOKE, Kind.NARROW, Kind.REVOKE, Kind.LABEL)
_OVER: Final = frozenset(
    {"session_ended", "session_revoked", "session_expired", "session_not_found", "ancestor_denied"}
)


class Population:
    """The sessions that all clients work with. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._live: list[Known] = []
        # Those that are being closed, or were just now: what is answered about them matters most.
        self._closing: deque[Known] = deque(maxlen=_JUST_CLOSED)
        self._waiting: list[Known] = []
        self._heard: dict[str, Heard] = {}

    def few(self) -> bool:
        """Say whether there are fewer sessions than there should be."""
        return len(self._live) + len(self._waiting) < _LIVE

    def wait(self, session: Known) -> None:
        """Add one that waits for approval."""
        with self._lock:
            self._waiting.append(session)

    def open(self, session: Known) -> None:
        """Have one asked about."""
        with self._lock:
            if session in self._waiting:
                self._waiting.remove(session)
                self._live.append(session)

    def close(self, session: Known) -> None:
        """Have one asked about that is being closed, or is over."""
        with self._lock:
            if session in self._live:
                self._live.remove(session)
                self._closing.append(session)

    def hear(self, session: str, heard: Heard) -> None:
        """Let clients know of a change."""
        self._heard[session] = heard

    def heard(self, session: Known) -> Heard | None:
        """Return the last change of a session of which clients have heard."""
        return self._heard.get(session.id)

    def waiting(self, choices: random.Random) -> Known | None:
        """Return one that waits for approval."""
        with self._lock:
            return choices.choice(self._waiting) if self._waiting else None

    def live(self, choices: random.Random) -> Known | None:
        """Return one that was approved, and is not being closed."""
        with self._lock:
            return choices.choice(self._live) if self._live else None

    def any(self, choices: random.Random) -> Known | None:
        """Return one to ask about."""
        with self._lock:
            found = choices.choice((self._live, self._closing))
            return choices.choice(found) if found else None


class Client:
    """A client of one replica, which works until `stopping`."""

    def __init__(
        self,
        number: int,
        at: Replica,
        population: Population,
        note: Callable[[Operation], None],
        stopping: Event,
        choices: random.Random,
    ) -> None:
        self._number, self._at = number, at
        self._population = population
        self._calls = Calls(number, note)
        self._stopping = stopping
        self._random = choices
        self._deeds = 0

    def run(self) -> None:
        """Ask and change."""
        with closing(self._calls):
            while not self._stopping.wait(_PAUSE_SECONDS):
                if self._random.random() < _CHANGES:
                    self._change()
                else:
                    self._ask()

    def _ask(self) -> None:
        if self._random.random() < _TOGETHER:
            found = [self._population.any(self._random) for _ in range(_AT_ONCE)]
            self._rest_after(self._calls.ask_many(self._at, [self._question(one) for one in found if one is not None]))
            return
        session = self._population.any(self._random)
        if session is None:
            return
        question = self._question(session)
        line = self._calls.ask(self._at, question)
        if question.request_id and self._random.random() < _REPEATED:
            # As by a client that has lost the answer.
            self._calls.ask(self._at, question)
        if line.basis in _OVER:
            self._population.close(session)
        self._rest_after([line])

    def _rest_after(self, lines: Sequence[Operation]) -> None:
        if any(line.result is not Result.OK for line in lines):
            self._stopping.wait(_REST_SECONDS)

    def _question(self, session: Known) -> Question:
        return Question(
            session=session,
            tool=WRITE if self._random.random() < _WRITING else READ,
            request_id=self._request_id() if session.budget >= 0 else "",
            heard=self._population.heard(session) if self._random.random() < _INSISTING else None,
        )

    def _change(self) -> None:
        waiting = self._population.waiting(self._random)
        if waiting is not None:
            self._approve(waiting)
        elif self._population.few():
            self._open()
        else:
            self._narrow_or_close()

    def _open(self) -> None:
        parent = self._population.live(self._random) if self._random.random() < 0.25 else None
        if parent is not None and parent.depth >= DEFAULT_LIMITS.delegation_depth:
            parent = None
        seconds = self._random.choice((1.0, 2.0)) if self._random.random() < 0.1 else 3600.0
        budget = _BUDGET if parent is None and self._random.random() < 0.2 else -1
        term = self._random.choice((EXACT, SLICED))
        session = self._calls.request(self._at, seconds=seconds, budget=budget, term=term, parent=parent)
        if session is not None:
            self._population.wait(session)
            # Another client may be the one that approves it, or the first.
            if self._random.random() < 0.7:
                self._approve(session)

    def _approve(self, session: Known) -> None:
        # Whatever comes of it: a session that another has approved or closed is asked about, too.
        line = self._calls.approve(self._at, session)
        if line.result is not Result.UNKNOWN:
            self._population.open(session)

    def _narrow_or_close(self) -> None:
        session = self._population.live(self._random)
        if session is None:
            return
        what = _DEEDS[(self._number + self._deeds) % len(_DEEDS)]
        self._deeds += 1
        if what is Kind.NARROW:
            self._calls.narrow(self._at, session, label=self._random.random() < 0.5)
        elif what is Kind.LABEL:
            self._calls.report(self._at, session)
        else:
            self._population.close(session)
            self._close(what, session)

    def _close(self, what: Kind, session: Known) -> None:
        if what is Kind.END:
            self._calls.end(self._at, session)
            return
        request_id = self._request_id()
        line = self._calls.revoke(self._at, session, request_id=request_id)
        if line.result is Result.UNKNOWN:
            # A lost answer is asked for again.
            self._calls.revoke(self._at, session, request_id=request_id)

    def _request_id(self) -> str:
        return f"{self._random.getrandbits(64):016x}"
