"""A proxy between a replica and its database that fails as networks do."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from threading import Condition, Event
from typing import Final

from tests.sessions.postgres.tcpproxy import Proxy, without_options

_RENEWAL: Final = b"UPDATE replicas"
_COMMIT: Final = b"COMMIT"
# A slow network passes so many bytes at once, and then rests.
_FEW_BYTES: Final = 32
_REST_SECONDS: Final = 0.002


class Way(Enum):
    """Which way data goes."""

    TO_DATABASE = "to the database"
    TO_REPLICA = "to the replica"


BOTH_WAYS: Final = frozenset(Way)


@dataclass(frozen=True, slots=True)
class Late:
    """An answer that comes late: the one to a statement with `asked`, after one with `before` on the same connection.

    The statement still passes, and the answer so many seconds later; nothing else does, if it `silences`.
    """

    before: bytes
    asked: bytes
    seconds: float
    silences: bool = False


class FaultyProxy(Proxy):
    """A proxy whose faults begin and end while connections are open.

    What is silent is held back, as by a network that sends again and again: when the fault ends, it arrives after all.
    """

    def __init__(self, port: int) -> None:
        self._database = port
        self._changed = Condition()
        self._silent: frozenset[Way] = frozenset()
        self._delay = 0.0
        self._slow = self._cutting = False
        # How many commits it has cut.
        self.cut = 0
        self._late: Late | None = None
        # The connection on which the late answer will come, and the one on which the lease is renewed.
        self._marked: socket.socket | None = None
        self._renewing: socket.socket | None = None
        self._statements: dict[socket.socket, _Statements] = defaultdict(_Statements)
        # Set when the late answer has been asked for.
        self.asked = Event()
        super().__init__(port)

    def silence(self, ways: Iterable[Way] = BOTH_WAYS) -> None:
        """Let nothing pass any more, one way or both."""
        with self._changed:
            self._silent = frozenset(ways)

    def delay(self, seconds: float) -> None:
        """Let everything pass later, each way."""
        self._delay = seconds

    def trickle(self) -> None:
        """Let few bytes pass at a time."""
        self._slow = True

    def pool(self) -> None:
        """Be a pooler: connections lose what they ask for when they are opened, and those that are open end."""
        self._change = without_options
        self.reset()

    def cut_commits(self) -> None:
        """Close each connection on which a commit passes, before its answer does."""
        self._cutting = True

    def expect(self, late: Late) -> None:
        """Have one answer come late."""
        self.asked.clear()
        self._marked, self._late = None, late

    def reset(self, *, renewals: bool = False) -> None:
        """Close all open connections, or the one on which the lease is renewed."""
        for one in [self._renewing] if renewals else self._sockets[:]:
            if one is not None:
                _shut(one)

    def heal(self) -> None:
        """End all faults."""
        self._slow = self._cutting = False
        self._delay, self._late, self._change = 0.0, None, bytes
        with self._changed:
            self._silent = frozenset()
            self._changed.notify_all()

    def close(self) -> None:
        """End it, with all connections."""
        self.heal()
        super().close()

    def _send(self, data: bytes, source: socket.socket, target: socket.socket) -> None:
        late = self._late
        if target.getpeername()[1] == self._database:
            self._to_database(data, source, target)
        elif late is not None and target is self._marked and self.asked.is_set():
            self._late = None
            Event().wait(late.seconds)
            target.sendall(data)
        else:
            self._pass_on(data, target, Way.TO_REPLICA)

    def _to_database(self, data: bytes, source: socket.socket, target: socket.socket) -> None:
        run, late = b"; ".join(self._statements[source].run_by(data)), self._late
        if _RENEWAL in run:
            self._renewing = source
        if late is not None and late.before in run:
            self._marked = source
        if late is not None and source is self._marked and late.asked in run and not self.asked.is_set():
            # First, so that the answer cannot come in time.
            if late.silences:
                self.silence()
            self.asked.set()
            target.sendall(data)
        elif self._cutting and _COMMIT in run:
            # First, so that no answer passes. The database can still read what it was sent.
            _shut(source)
            self.cut += 1
            target.sendall(data)
        else:
            self._pass_on(data, target, Way.TO_DATABASE)

    def _pass_on(self, data: bytes, target: socket.socket, way: Way) -> None:
        with self._changed:
            self._changed.wait_for(lambda: way not in self._silent)
        Event().wait(self._delay)
        while self._slow and data:
            target.sendall(data[:_FEW_BYTES])
            data = data[_FEW_BYTES:]
            Event().wait(_REST_SECONDS)
        target.sendall(data)


class _Statements:
    """What one client of PostgreSQL has prepared: its driver sends a statement often, and names it from then on."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, bytes] = {}
        # How many bytes of a message are still to come.
        self._rest = 0

    def run_by(self, data: bytes) -> Iterator[bytes]:
        """Yield the statements that messages of the client run."""
        data, self._rest = data[self._rest :], max(self._rest - len(data), 0)
        # The first messages of a connection have no kind.
        while data and data[0]:
            end = 1 + int.from_bytes(data[1:5], "big")
            kind, fields = data[:1], data[5:end].split(b"\0")
            data, self._rest = data[end:], max(end - len(data), 0)
            if kind == b"P":
                self._prepared[fields[0]] = fields[1]
            elif kind == b"B":
                yield self._prepared.get(fields[1], b"")
            elif kind == b"Q":
                yield fields[0]


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is closed already.
        return
