"""Keep access requests in memory, beside the rest of a history in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

from pdp.clock import Deadline, Instant
from pdp.errors import NotFoundError
from pdp.sessions import access
from pdp.sessions.access import AccessFilter, AccessRequest, AccessState, BoundCall, Unaskable, Use
from pdp.sessions.historycontract import RETRY_SECONDS
from pdp.sessions.memoryoutbox import MemoryOutbox
from pdp.sessions.memorywrites import MemoryWrites
from pdp.sessions.outbox import Untold, request_event, request_expiry
from pdp.sessions.writes import Write


class _Receipt(NamedTuple):
    """The use of an approval that tells its retries until `end`, and how many tries count on it."""

    request_id: str
    used_at: float
    end: Deadline
    tries: int
    decision_id: str


class MemoryAccessRequests:
    """The `AccessRequests` of a history in memory, under its lock. `require_open` raises when the history is closed.

    Of more than `most` requests the oldest is forgotten, also a no: then a person may be asked again. With `tells` it
    has events for receivers outside.
    """

    def __init__(
        self,
        lock: Lock,
        require_open: Callable[[], None],
        *,
        most: int,
        tells: bool = False,
        writes: MemoryWrites | None = None,
    ) -> None:
        self._lock = lock
        self._require_open = require_open
        self._most = most
        self._requests: dict[str, AccessRequest] = {}
        # By its session, and by the root of its tree.
        self._by_session: dict[str, dict[str, None]] = {}
        self._arguments: dict[str, bytes] = {}
        self._receipts: dict[bytes, _Receipt] = {}
        self._revision = 0
        self._outbox = MemoryOutbox(tells=tells)
        self._writes = writes or MemoryWrites()
        # Of those asked while it told, the live ones whose expiry was not noted.
        self._unexpired: dict[str, None] = {}

    def ask(self, request: AccessRequest, arguments: bytes, now: Instant) -> AccessRequest | Unaskable:
        """Open a request, or return the one that is found."""
        with self._answering():
            self._expire(now)
            # Only what is open has arguments.
            open_now = [self._requests[name] for name in self._arguments]
            of_caller = sum((one.tenant, one.asked_by) == (request.tenant, request.asked_by) for one in open_now)
            found = access.opening(self._of_session(request.tree_id), of_caller, request, now)
            if found.answer is not None:
                return found.answer
            for one in found.replaced:
                self._write(one)
                self._arguments.pop(one.id, None)
            self._arguments[request.id] = arguments
            opened = self._write(request)
            self._keep_few()
            return opened

    def usable(self, call: BoundCall, retry_digest: bytes, now: Instant) -> bool:
        """Say whether `use` would find an approval now."""
        with self._answering():
            retried = self._retried(call, retry_digest, now)
            return retried is not None or access.usable(self._of_session(call.session_id), call, now) is not None

    def use(self, call: BoundCall, retry_digest: bytes, now: Instant, decision_id: str = "") -> Use | None:
        """Use an approval that covers a call, once."""
        with self._answering():
            if (retried := self._retried(call, retry_digest, now)) is not None:
                receipt = self._receipts[retry_digest]
                self._receipts[retry_digest] = receipt._replace(tries=receipt.tries + 1)
                return retried
            found = access.usable(self._of_session(call.session_id), call, now)
            if found is None:
                return None
            after = self._write(access.used(found))
            if retry_digest:
                # To the end of the table: what is at its front is oldest.
                self._receipts.pop(retry_digest, None)
                self._receipts[retry_digest] = _Receipt(
                    after.id, now.wall_at, Deadline.after(now, RETRY_SECONDS), 1, decision_id
                )
                if len(self._receipts) > self._most:
                    del self._receipts[next(iter(self._receipts))]
            return Use(after, retry_digest, now.wall_at, decision_id)

    def give_back(self, use: Use) -> None:
        """Take back a use, unless another try of the same call counts on it."""
        with self._answering():
            if use.retry_digest and not self._leave(use):
                return
            if (stored := self._requests.get(use.request.id)) is not None:
                self._write(access.given_back(stored))

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the id of the request whose answer is remembered; None when none is."""
        with self._answering():
            return self._writes.find(write, wall_at=wall_at)

    def outwait(self, found: Sequence[str] = ()) -> None:  # noqa: ARG002 - nothing is noted
        """Return at once: nothing is read that is not acknowledged."""
        with self._answering():
            pass

    def answer(
        self, request_id: str, change: Callable[[AccessRequest], AccessRequest], *, write: Write | None = None
    ) -> AccessRequest:
        """Replace a request by its successor."""
        with self._answering():
            if request_id not in self._requests:
                raise NotFoundError(f"no such access request: `{request_id}`")
            successor = change(self._requests[request_id])
            self._writes.require_new(write, wall_at=successor.answered_at)
            after = self._replace(successor)
            self._writes.remember(write, (request_id,), wall_at=after.answered_at)
            return after

    def answer_all(
        self,
        request_ids: Collection[str],
        change: Callable[[AccessRequest], AccessRequest],
        *,
        write: Write | None = None,
    ) -> tuple[AccessRequest, ...]:
        """Replace some requests by their successors, all at once."""
        with self._answering():
            stored = [self._requests[one] for one in request_ids if one in self._requests]
            successors = access.answered(stored, change)
            if not successors:
                return ()
            at = successors[0].answered_at
            self._writes.require_new(write, wall_at=at)
            self._writes.remember(write, tuple(one.id for one in successors), wall_at=at)
            return tuple([self._replace(one) for one in successors])

    def get(self, request_id: str) -> AccessRequest | None:
        """Return a request."""
        with self._answering():
            return self._requests.get(request_id)

    def arguments(self, request_id: str, now: Instant) -> bytes | None:
        """Return the arguments of a request that is open now."""
        with self._answering():
            request = self._requests.get(request_id)
            return self._arguments.get(request_id) if request and access.is_open(request, now) else None

    def select(
        self, which: AccessFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[AccessRequest, ...]:
        """Return matching requests, newest first."""
        with self._answering():
            found = sorted(self._requests.values(), key=lambda one: (one.asked_at, one.id), reverse=True)
            matching = [
                one for one in found if which.matches(one) and (before is None or (one.asked_at, one.id) < before)
            ]
            return tuple(matching[:limit])

    def changed(self, which: AccessFilter, *, after: int, limit: int) -> tuple[AccessRequest, ...]:
        """Return matching requests with a higher revision, by revision."""
        with self._answering():
            found = [one for one in self._requests.values() if one.revision > after and which.matches(one)]
            return tuple(sorted(found, key=lambda one: one.revision)[:limit])

    def revision(self) -> int:
        """Return the latest revision."""
        with self._answering():
            return self._revision

    def expire(self, now: Instant) -> int:
        """Remove the arguments of requests that are no longer open, and what tells retries of old uses."""
        with self._answering():
            for digest in [key for key, one in self._receipts.items() if one.end.passed(now)]:
                del self._receipts[digest]
            return self._expire(now)

    def forget(self, *, ended_before: float) -> int:
        """Remove the requests of sessions that were over before a time."""
        with self._answering():
            over = [one.id for one in self._requests.values() if one.ends_at < ended_before]
            for name in over:
                self._drop(name)
            return len(over)

    def untold(self, *, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        with self._answering():
            return self._outbox.untold(limit)

    def forget_told(self, told: Untold, *, turn: str = "") -> None:  # noqa: ARG002 - there is one sender
        """Remove events that were passed on."""
        with self._answering():
            self._outbox.forget(told)

    def note_expired(self, *, wall_at: float, limit: int) -> int:
        """Write the events of what has expired."""
        with self._answering():
            live = (self._requests[name] for name in self._unexpired)
            found = sorted((one.deadline.wall_at, one.id) for one in live if one.deadline.wall_at <= wall_at)
            due = [name for _, name in found[:limit]]
            for name in due:
                del self._unexpired[name]
            self._outbox.add(request_expiry(self._requests[name]) for name in due)
            return len(due)

    def clear(self) -> None:
        """Forget everything; the caller holds the lock."""
        self._unexpired.clear()
        self._requests.clear()
        self._by_session.clear()
        self._arguments.clear()
        self._receipts.clear()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock:
            self._require_open()
            yield

    def _expire(self, now: Instant) -> int:
        over = [name for name in self._arguments if not access.is_open(self._requests[name], now)]
        for name in over:
            del self._arguments[name]
        return len(over)

    def _of_session(self, session_id: str) -> list[AccessRequest]:
        """Return the requests of a session; of a root, those of its tree."""
        return [self._requests[name] for name in self._by_session.get(session_id, ())]

    def _retried(self, call: BoundCall, retry_digest: bytes, now: Instant) -> Use | None:
        receipt = self._receipts.get(retry_digest)
        if receipt is None or receipt.end.passed(now):
            return None
        request = self._requests.get(receipt.request_id)
        if request is None or not access.counts_for(request, call):
            return None
        return Use(request, retry_digest, receipt.used_at, receipt.decision_id)

    def _leave(self, use: Use) -> bool:
        """Let one try less count on a use; say whether it was the last one."""
        receipt = self._receipts.get(use.retry_digest)
        # Another use can have replaced one that is old.
        if receipt is None or (receipt.request_id, receipt.used_at) != (use.request.id, use.used_at):
            return False
        if receipt.tries > 1:
            self._receipts[use.retry_digest] = receipt._replace(tries=receipt.tries - 1)
            return False
        del self._receipts[use.retry_digest]
        return True

    def _replace(self, successor: AccessRequest) -> AccessRequest:
        after = self._write(successor)
        if after.state is not AccessState.OPEN:
            self._arguments.pop(after.id, None)
        return after

    def _write(self, request: AccessRequest) -> AccessRequest:
        self._revision += 1
        before = self._requests.get(request.id)
        after = self._requests[request.id] = replace(request, revision=self._revision)
        if self._outbox.tells:
            self._tell(before, after)
        for session_id in {request.call.session_id, request.tree_id}:
            self._by_session.setdefault(session_id, {})[request.id] = None
        return after

    def _tell(self, before: AccessRequest | None, after: AccessRequest) -> None:
        self._outbox.add([request_event(before.state if before else None, after)])
        if after.state not in (AccessState.OPEN, AccessState.APPROVED):
            self._unexpired.pop(after.id, None)
        elif before is None:
            self._unexpired[after.id] = None

    def _keep_few(self) -> None:
        if len(self._requests) > self._most:
            self._drop(next(iter(self._requests)))

    def _drop(self, name: str) -> None:
        request = self._requests.pop(name)
        self._unexpired.pop(name, None)
        self._arguments.pop(name, None)
        for session_id in {request.call.session_id, request.tree_id}:
            of_session = self._by_session[session_id]
            del of_session[name]
            if not of_session:
                del self._by_session[session_id]
