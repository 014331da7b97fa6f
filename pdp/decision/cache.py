"""What is remembered for a limited time: rulings of the policies, and request ids.

Nothing is ever invalidated: the key of an answer holds everything that can change it, and its end is absolute.
Everything is bounded in bytes, since agents and callers write what is remembered.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import fields
from operator import attrgetter
from sys import getsizeof
from typing import NamedTuple

from pdp.clock import Deadline, Instant
from pdp.errors import RequestIdConflictError
from pdp.foundation.lrucache import LRUCache
from pdp.model import Call, Caller, Matter, Outcome, Ruling, Session

Key = tuple[object, ...]

# A key holds texts up to this many bytes unchanged; an agent's texts must not fill the memory.
_LONGEST_IN_KEY = 1024
# The bytes of a ruling with its key, its end and its entry in the table, without texts; and of a session in a key.
_RULING_BYTES, _SESSION_BYTES = 768, 256
MOST_RULING_BYTES = 64 * 1024 * 1024
_values_of = attrgetter(*(field.name for field in fields(Matter)))


def call_key(
    bundle_version: str, chain: tuple[Session, ...], call: Call, caller: Caller, place_in_time: tuple[int, ...]
) -> Key:
    """Return the key of a ruling by the bytes of the call.

    It holds every input of the policies, or what determines it. INVARIANT: a tuple of `str`, `bytes`, `int` and tuples
    of them. The bytes of arguments and facts determine their values; id and epoch of a session determine its content;
    `place_in_time` is all that policies can see of the time. So it determines what a decision is about, too.
    """
    return (
        "call",
        bundle_version,
        _sessions(chain),
        place_in_time,
        caller.id,
        call.server,
        call.tool,
        _content(call.arguments_json),
        _content(call.facts_json),
    )


def read_key(
    bundle_version: str, chain: tuple[Session, ...], call: Call, read: bytes, place_in_time: tuple[int, ...]
) -> Key:
    """Return the key of a ruling by what policies can read of the call: `read`, a canonical text.

    It has the INVARIANT of `call_key`, and never equals a key of that kind.
    """
    return ("read", bundle_version, _sessions(chain), place_in_time, call.server, call.tool, _content(read))


def _sessions(chain: tuple[Session, ...]) -> tuple[tuple[str, int], ...]:
    return tuple([(session.id, session.epoch) for session in chain])


def _content(text: bytes) -> bytes | tuple[bytes]:
    """Return a text for a key: itself, or its SHA-256 in a tuple when it is long; the two never collide."""
    return text if len(text) <= _LONGEST_IN_KEY else (hashlib.sha256(text).digest(),)


class Remembered(NamedTuple):
    """A ruling, the time at which it ends, and its size in bytes with its key.

    `matter` is what the decisions are about; None under a key of `read_key`, which different calls share.
    """

    ruling: Ruling
    end: Deadline
    weight: int
    matter: Matter | None


class DecisionCache:
    """A bounded store of rulings, each with an absolute end. `size` 0 remembers nothing.

    It holds at most `size` rulings, and at most 64 MiB of them.
    """

    def __init__(self, *, size: int = 65536, max_ttl: float = 300.0) -> None:
        self.max_ttl = max_ttl
        self._entries: LRUCache[Remembered] = LRUCache(size, most_bytes=MOST_RULING_BYTES, weigh=attrgetter("weight"))
        self._size = size

    def get(self, key: Key, now: Instant) -> Remembered | None:
        """Return the ruling under a key with its end; None without one or after its end."""
        entry = self._entries.get(key)
        return None if entry is None or entry.end.passed(now) else entry

    def put(self, key: Key, ruling: Ruling, end: Deadline, now: Instant, matter: Matter | None = None) -> None:
        """Remember a ruling until an end, at most `max_ttl` seconds from now.

        Under a key of `call_key` also what the decisions are about.
        """
        if self._size:
            until = Deadline.after(now, self.max_ttl).earliest(end)
            self._entries.keep(key, Remembered(ruling, until, _weight(key, ruling, matter), matter))

    def clear(self) -> None:
        """Forget everything. Answers are correct without it."""
        self._entries.clear()


def _weight(key: Key, ruling: Ruling, matter: Matter | None) -> int:
    weight = _RULING_BYTES + getsizeof(ruling.resource_id) + getsizeof(ruling.policies)
    weight += getsizeof(ruling.obligations) + getsizeof(ruling.advice)
    for part in key:
        weight += getsizeof(part)
        if type(part) is tuple:
            weight += _SESSION_BYTES * len(part)
    for _, text in ruling.logged_arguments:
        weight += getsizeof(text)
    if matter is not None:
        weight += getsizeof(matter) + sum(map(getsizeof, _values_of(matter)))
    return weight


class _Claim(NamedTuple):
    """The call of a request id, and the decision id that a later try shares if its outcome is the same."""

    asked: bytes
    outcome: Outcome | None
    decision_id: str
    at: Instant


class RequestMemory:
    """Remembers which call a request id was used for, so that a retry gets the decision id of the first try.

    It keeps only a digest of a call, so an entry takes less than 1 KiB whatever an agent sends.
    """

    def __init__(self, *, size: int = 10000, ttl: float = 300.0) -> None:
        self._size, self._ttl = size, ttl
        # The least recently used first. `LRUCache` weighs what it keeps, and takes longer for it.
        self._claims: OrderedDict[tuple[str, str, str], _Claim] = OrderedDict()
        self._lock = threading.Lock()

    def claim(
        self, caller: Caller, request_id: str, call: Call, fresh_id: str, outcome: Outcome | None, now: Instant
    ) -> str:
        """Return the decision id of the last try under this request id if it had the same outcome.

        Otherwise return `fresh_id`; always for an outcome of None, and then no other try shares the id.
        Raise `RequestIdConflictError` when the request id was used for another call.
        """
        key, asked = _owned(caller, request_id), _asked(call)
        with self._lock:
            last = self._claims.get(key)
            if last is not None:
                self._claims.move_to_end(key)
                # Most ids come once: the end is worked out for those that come again.
                if not Deadline.after(last.at, self._ttl).passed(now):
                    if last.asked != asked:
                        raise RequestIdConflictError("the request id was used for another call; use a fresh one")
                    if outcome is None:
                        return fresh_id
                    if last.outcome is outcome:
                        return last.decision_id
            self._claims[key] = _Claim(asked, outcome, fresh_id, now)
            if len(self._claims) > self._size:
                self._claims.popitem(last=False)
        return fresh_id

    def part(self, caller: Caller, request_id: str) -> None:
        """Let no later try share the decision id, since its answer differs from the claimed outcome."""
        key = _owned(caller, request_id)
        with self._lock:
            last = self._claims.get(key)
            if last is not None:
                self._claims[key] = last._replace(outcome=None)


def _owned(caller: Caller, request_id: str) -> tuple[str, str, str]:
    """Return a request id as one of its caller and tenant: nobody else can use it up."""
    return caller.tenant, caller.id, request_id


def _asked(call: Call) -> bytes:
    """Return the SHA-256 of all fields of a call: neither the agent's text nor a secret is kept."""
    handle, server, tool, stated = call.session_handle, call.server, call.tool, call.definition_digest
    # The lengths separate the fields.
    lengths = f"{len(handle)} {len(server)} {len(tool)} {len(stated)} {len(call.arguments_json)} "
    texts = f"{lengths}{handle}{server}{tool}{stated}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(texts + call.arguments_json + call.facts_json).digest()
