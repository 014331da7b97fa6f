"""Keep access requests in the database of a history; a part of it, on the same connection.

An answer and a use must survive the sudden end of the machine, unlike the rest of the history: a no that was lost could
be asked again, and a use that was lost could be made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from pdp.clock import Deadline, Instant
from pdp.errors import NotFoundError, StoreUnavailableError
from pdp.foundation.sealing import Sealed, sealed, unsealed
from pdp.model import Ask
from pdp.sessions import access
from pdp.sessions.access import AccessFilter, AccessRequest, AccessState, BoundCall, Unaskable, Use
from pdp.sessions.historycontract import RETRY_SECONDS
from pdp.sessions.outbox import Untold, request_event, request_expiry
from pdp.sessions.sql import Statements, required
from pdp.sessions.sqloutbox import SQLOutbox
from pdp.sessions.sqlwrites import SQLWrites
from pdp.sessions.writes import Write

T = TypeVar("T")

_ROWS_OF_A_STEP: Final = 500


class SQLAccessRequests:
    """The `AccessRequests` of a history in a file.

    `reading` answers, `writing` makes a durable transaction, and `spending` one that leaves the reserve of the disk
    alone. `wipe` takes what was removed out of the log of the file too, as far as others let it happen. With `tells` it
    has events for receivers outside; `turns` is as in `SQLOutbox`. `noted` is told of each request that was answered,
    in the transaction that did so or found it done. `taken` is told in its transaction of the moment of each use, and
    `may_lack` says whether the database may lack what was used at one. `by_expiry` names an index to the engine, where
    its planner needs that.
    """

    def __init__(
        self,
        connection: Statements,
        *,
        reading: Callable[[], AbstractContextManager[None]],
        writing: Callable[[], AbstractContextManager[None]],
        spending: Callable[[], AbstractContextManager[None]],
        wipe: Callable[[], None],
        noted: Callable[[Collection[str]], None],
        taken: Callable[[float], None],
        may_lack: Callable[[float], bool],
        tells: bool,
        turns: str = "",
        by_expiry: str = "",
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._writing = writing
        self._spending = spending
        self._wipe = wipe
        self._noted = noted
        self._taken = taken
        self._may_lack = may_lack
        self._outbox = SQLOutbox(connection, tells=tells, counter="access_revision", turns=turns)
        self._writes = SQLWrites(connection)
        self._expired = _EXPIRED.format(by_expiry)

    def ask(self, request: AccessRequest, arguments: bytes, now: Instant) -> AccessRequest | Unaskable:
        """Open a request, or return the one that is found."""
        with self._spending():
            of_caller = self._count_open(request, now)
            found = access.opening(self._of_tree(request.tree_id, now), of_caller, request, now)
            if found.answer is not None:
                return found.answer
            for one in found.replaced:
                self._write(one, None)
            opened = self._write(request, sealed(arguments, request.id))
        if found.replaced:
            self._wipe()
        return opened

    def usable(self, call: BoundCall, retry_digest: bytes, now: Instant) -> bool:
        """Say whether `use` would find an approval now."""
        with self._reading():
            if self._retried(call, retry_digest, now) is not None:
                return True
            return access.usable(self._of_session(call.session_id, now), call, now) is not None

    def use(self, call: BoundCall, retry_digest: bytes, now: Instant, decision_id: str = "") -> Use | None:
        """Use an approval that covers a call, once."""
        # Most calls that need an approval have none yet, and a durable transaction waits for the disk.
        if not self.usable(call, retry_digest, now):
            return None
        with self._spending():
            if (retried := self._retried(call, retry_digest, now)) is not None:
                self._taken(retried.used_at)
                self._connection.execute(_JOIN, (retry_digest,))
                return retried
            found = access.usable(self._of_session(call.session_id, now), call, now)
            if found is None:
                return None
            self._taken(now.wall_at)
            after = self._write(access.used(found), None)
            if retry_digest:
                self._connection.execute(
                    _SIGN, (retry_digest, after.id, now.wall_at, decision_id, now.boot_at, now.boot_id)
                )
        return Use(after, retry_digest, now.wall_at, decision_id)

    def give_back(self, use: Use) -> None:
        """Take back a use, unless another try of the same call counts on it."""
        with self._writing():
            if self._may_lack(use.used_at):
                return
            if use.retry_digest:
                tries = self._connection.execute(_LEAVE, (use.retry_digest, use.request.id, use.used_at)).get
                # Another use can have replaced one that is old.
                if tries is None or tries > 0:
                    return
                self._connection.execute(_TEAR, (use.retry_digest,))
            if (stored := self._one(use.request.id)) is not None:
                self._write(access.given_back(stored), None)

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the id of the request whose answer is remembered; None when none is."""
        with self._reading():
            found = self._writes.find(write, wall_at=wall_at)
        if found is not None:
            self._outwait(found)
        return found

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when all that was read is acknowledged."""
        self._outwait(found)

    def answer(
        self, request_id: str, change: Callable[[AccessRequest], AccessRequest], *, write: Write | None = None
    ) -> AccessRequest:
        """Replace a request by its successor."""
        return self._answered(lambda made: self._answer(request_id, change, write, made))

    def answer_all(
        self,
        request_ids: Collection[str],
        change: Callable[[AccessRequest], AccessRequest],
        *,
        write: Write | None = None,
    ) -> tuple[AccessRequest, ...]:
        """Replace some requests by their successors, all at once."""
        return self._answered(lambda made: self._answer_all(request_ids, change, write, made))

    def get(self, request_id: str) -> AccessRequest | None:
        """Return a request."""
        with self._reading():
            return self._one(request_id)

    def arguments(self, request_id: str, now: Instant) -> bytes | None:
        """Return the arguments of a request that is open now."""
        with self._reading():
            request = self._one(request_id)
            kept = self._sealed(request_id)
        if request is None or kept is None or not access.is_open(request, now):
            return None
        try:
            return unsealed(kept, request_id)
        except ValueError:
            raise StoreUnavailableError("the arguments of an access request were changed in the file") from None

    def select(
        self, which: AccessFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[AccessRequest, ...]:
        """Return matching requests, newest first."""
        conditions, values = _where(which)
        if before is not None:
            conditions.append("(asked_at, id) < (?, ?)")
            values += before
        return self._listed(conditions, "asked_at DESC, id DESC", [*values, limit])

    def changed(self, which: AccessFilter, *, after: int, limit: int) -> tuple[AccessRequest, ...]:
        """Return matching requests with a higher revision, by revision."""
        conditions, values = _where(which)
        return self._listed([*conditions, "revision > ?"], "revision", [*values, after, limit])

    def revision(self) -> int:
        """Return the latest revision."""
        with self._reading():
            return int(
                required(self._connection.execute("SELECT revision FROM access_revision").get, "access_revision")
            )

    def expire(self, now: Instant) -> int:
        """Remove the arguments of requests that are no longer open, and what tells retries of old uses."""
        with self._writing():
            self._connection.execute(_FORGET_USES, (now.wall_at - RETRY_SECONDS,))
            self._connection.execute(_UNSEAL, (now.wall_at, now.boot_id, now.boot_at))
            removed = self._connection.changes()
        if removed:
            self._wipe()
        return removed

    def forget(self, *, ended_before: float) -> int:
        """Remove the requests of sessions that were over before a time, in steps, between which others write."""
        total, removed = 0, _ROWS_OF_A_STEP
        while removed == _ROWS_OF_A_STEP:
            with self._writing():
                self._connection.execute(_FORGET, (ended_before, _ROWS_OF_A_STEP))
                removed = self._connection.changes()
            total += removed
        if total:
            self._wipe()
        return total

    def untold(self, *, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        with self._reading():
            return self._outbox.untold(limit)

    def forget_told(self, told: Untold, *, turn: str = "") -> None:
        """Remove events that were passed on."""
        with self._writing():
            self._outbox.forget(told, turn)

    def note_expired(self, *, wall_at: float, limit: int) -> int:
        """Write the events of what has expired."""
        with self._reading():
            if not self._connection.execute(self._expired, (wall_at, 1)).fetchall():
                return 0
        with self._spending():
            rows: list[tuple[Any, ...]] = self._connection.execute(self._expired, (wall_at, limit)).fetchall()
            due = [_request(*row) for row in rows]
            self._connection.executemany(_NOTE_EXPIRY, [(request.id,) for request in due])
            self._outbox.add(map(request_expiry, due))
            return len(due)

    def _outwait(self, found: Collection[str] = ()) -> None:
        # What was read can be of a commit that is not safe: one that comes later makes it so.
        with self._writing():
            self._noted(found)

    def _answered(self, answer: Callable[[list[AccessRequest]], T]) -> T:
        # What a first try has written. It may stand, although it is not known to.
        made: list[AccessRequest] = []
        try:
            after = answer(made)
        except StoreUnavailableError:
            if not self._outbox.tells:
                raise
            # A no counts, although nothing can be told of it.
            with self._outbox.sparing():
                after = answer(made)
        self._wipe()
        return after

    def _answer(
        self,
        request_id: str,
        change: Callable[[AccessRequest], AccessRequest],
        write: Write | None,
        made: list[AccessRequest],
    ) -> AccessRequest:
        with self._writing():
            stored = self._one(request_id)
            if stored is None:
                raise NotFoundError(f"no such access request: `{request_id}`")
            if stored not in made:
                successor = change(stored)
                self._writes.remember(write, (request_id,), wall_at=successor.answered_at)
                stored = self._replace(successor)
                made.append(stored)
            self._noted((request_id,))
            return stored

    def _answer_all(
        self,
        request_ids: Collection[str],
        change: Callable[[AccessRequest], AccessRequest],
        write: Write | None,
        made: list[AccessRequest],
    ) -> tuple[AccessRequest, ...]:
        with self._writing():
            stored = [found for one in request_ids if (found := self._one(one)) is not None]
            # All of them were written together, or none.
            after = tuple(one for one in stored if one in made)
            successors = () if after else access.answered(stored, change)
            if successors:
                names = tuple(one.id for one in successors)
                self._writes.remember(write, names, wall_at=successors[0].answered_at)
                after = tuple([self._replace(one) for one in successors])
                made += after
            # What is found done is acknowledged as well, and whoever has done it may have noted nothing.
            self._noted(request_ids)
            return after

    def _replace(self, successor: AccessRequest) -> AccessRequest:
        kept = self._sealed(successor.id) if successor.state is AccessState.OPEN else None
        return self._write(successor, kept)

    def _of_session(self, session_id: str, now: Instant) -> list[AccessRequest]:
        """Return the approvals of a session that may be used."""
        rows: list[tuple[Any, ...]] = self._connection.execute(_OF_SESSION, (session_id, now.wall_at)).fetchall()
        return [_request(*row) for row in rows]

    def _of_tree(self, tree_id: str, now: Instant) -> list[AccessRequest]:
        """Return the requests of a tree of sessions that can matter: noes, and what has neither ended nor expired."""
        rows: list[tuple[Any, ...]] = self._connection.execute(_OF_TREE, (tree_id, now.wall_at)).fetchall()
        return [_request(*row) for row in rows]

    def _count_open(self, request: AccessRequest, now: Instant) -> int:
        values = (request.tenant, request.asked_by, now.wall_at, now.boot_id, now.boot_at)
        return int(self._connection.execute(_COUNT_OPEN, values).get)

    def _retried(self, call: BoundCall, retry_digest: bytes, now: Instant) -> Use | None:
        if not retry_digest:
            return None
        before = (now.wall_at - RETRY_SECONDS, now.boot_id, now.boot_at - RETRY_SECONDS)
        row = self._connection.execute(_RECEIPT, (retry_digest, *before)).fetchone()
        request = self._one(str(row[0])) if row else None
        if row is None or request is None or not access.counts_for(request, call):
            return None
        return Use(request, retry_digest, float(row[1]), str(row[2]))

    def _one(self, request_id: str) -> AccessRequest | None:
        return request_on(self._connection, request_id)

    def _listed(self, conditions: Iterable[str], order: str, values: list[Any]) -> tuple[AccessRequest, ...]:
        where = " AND ".join(("TRUE", *conditions))
        # Only our own words are in the text.
        query = f"SELECT revision, content FROM access WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        with self._reading():
            rows: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return tuple(_request(*row) for row in rows)

    def _sealed(self, request_id: str) -> Sealed | None:
        row = self._connection.execute("SELECT key, sealed FROM access WHERE id = ?", (request_id,)).fetchone()
        return None if row is None or row[0] is None else Sealed(bytes(row[0]), bytes(row[1]))

    def _write(self, request: AccessRequest, kept: Sealed | None) -> AccessRequest:
        revision = required(self._connection.execute(_NEXT_REVISION).get, "access_revision")
        after = replace(request, revision=int(revision))
        if self._outbox.tells:
            before: str | None = self._connection.execute("SELECT state FROM access WHERE id = ?", (request.id,)).get
            self._outbox.add([request_event(AccessState(before) if before else None, after)])
        self._connection.execute(_WRITE, (*_row(after, kept), int(not self._outbox.tells)))
        return after


def request_on(connection: Statements, request_id: str) -> AccessRequest | None:
    """Return a request as it is stored; None when there is none."""
    row = connection.execute("SELECT revision, content FROM access WHERE id = ?", (request_id,)).fetchone()
    return None if row is None else _request(*row)


def _where(which: AccessFilter) -> tuple[list[str], list[Any]]:
    named = {name: getattr(which, name) for name in ("tenant", "session_id", "user", "asked_by")}
    equal = {name: value for name, value in named.items() if value}
    # In quotes: `user` is a word of SQL.
    conditions, found = [f'"{name}" = ?' for name in equal], [*equal.values()]
    if which.states:
        # An expression keeps the index by state out: only those that have not ended are few enough to be sorted.
        state = "state" if which.ends_after else "state || ''"
        conditions.append(f"{state} IN ({', '.join('?' * len(which.states))})")
        found += sorted(state.value for state in which.states)
    if which.ends_after:
        conditions.append("wall_at > ?")
        found.append(which.ends_after)
    return conditions, found


def _row(request: AccessRequest, kept: Sealed | None) -> tuple[Any, ...]:
    deadline = request.deadline
    return (
        request.id,
        request.revision,
        request.state.value,
        request.tenant,
        request.user,
        request.asked_by,
        request.call.session_id,
        request.asked_at,
        deadline.wall_at,
        deadline.boot_at,
        deadline.boot_id,
        request.ends_at,
        json.dumps(_content(request), separators=(",", ":")),
        *((kept.key, kept.text) if kept else (None, None)),
        request.tree_id,
    )


# By reflection, so that a new field cannot be forgotten here.
_REQUEST: Final = tuple(one.name for one in fields(AccessRequest) if one.name not in ("call", "revision"))
_CALL: Final = tuple(one.name for one in fields(BoundCall))
_DEADLINE: Final = tuple(one.name for one in fields(Deadline))


def _content(request: AccessRequest) -> dict[str, Any]:
    call = {name: getattr(request.call, name) for name in _CALL}
    call |= {"digest": request.call.digest.hex(), "names": request.call.names.hex()}
    call["targets"] = sorted(one.hex() for one in request.call.targets)
    found = {name: getattr(request, name) for name in _REQUEST}
    deadline = {name: getattr(request.deadline, name) for name in _DEADLINE}
    return {**found, "state": request.state.value, "deadline": deadline, "call": call}


def _request(revision: int, content: str) -> AccessRequest:
    try:
        found = json.loads(content)
        call = found.pop("call")
        call |= {"digest": bytes.fromhex(call["digest"]), "names": bytes.fromhex(call["names"])}
        call["targets"] = frozenset(map(bytes.fromhex, call["targets"]))
        call["asks"] = tuple(Ask(*one) for one in call["asks"])
        found["state"] = AccessState(found["state"])
        found["deadline"] = Deadline(**found["deadline"])
        found |= {name: tuple(found[name]) for name in ("ancestor_ids", "provenance", "links")}
        return AccessRequest(call=BoundCall(**call), revision=revision, **found)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnavailableError("an access request in the session history is damaged") from error


_NEXT_REVISION: Final = "UPDATE access_revision SET revision = revision + 1 RETURNING revision"
_WRITE: Final = """
INSERT INTO access VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
  revision = excluded.revision, state = excluded.state, wall_at = excluded.wall_at, boot_at = excluded.boot_at,
  boot_id = excluded.boot_id, content = excluded.content, key = excluded.key, sealed = excluded.sealed
"""
_OF_SESSION: Final = """
SELECT revision, content FROM access WHERE session_id = ? AND state = 'approved' AND wall_at > ? ORDER BY asked_at, id
"""
_OF_TREE: Final = """
SELECT revision, content FROM access
WHERE tree_id = ? AND (state = 'denied' OR (state IN ('open', 'approved') AND wall_at > ?))
ORDER BY asked_at, id
"""
_COUNT_OPEN: Final = """
SELECT count(*) FROM access
WHERE state = 'open' AND tenant = ? AND asked_by = ? AND wall_at > ? AND NOT (boot_id = ? AND boot_at <= ?)
"""
_UNSEAL: Final = """
UPDATE access SET key = NULL, sealed = NULL
WHERE key IS NOT NULL AND (state != 'open' OR wall_at <= ? OR (boot_id = ? AND boot_at <= ?))
"""
# The braces are filled with what names the index of those whose expiry was not noted, where the planner needs it.
_EXPIRED: Final = """
SELECT revision, content FROM access {}
WHERE expiry_noted = 0 AND state IN ('open', 'approved') AND wall_at <= ? ORDER BY wall_at, id LIMIT ?
"""
_NOTE_EXPIRY: Final = "UPDATE access SET expiry_noted = 1 WHERE id = ?"
_FORGET: Final = "DELETE FROM access WHERE id IN (SELECT id FROM access WHERE ends_at < ? LIMIT ?)"
_RECEIPT: Final = """
SELECT request_id, used_at, decision_id FROM access_uses
WHERE retry_digest = ? AND used_at > ? AND NOT (boot_id = ? AND boot_at <= ?)
"""
_JOIN: Final = "UPDATE access_uses SET tries = tries + 1 WHERE retry_digest = ?"
_SIGN: Final = """
INSERT INTO access_uses VALUES (?, ?, ?, 1, ?, ?, ?)
ON CONFLICT (retry_digest) DO UPDATE SET
  request_id = excluded.request_id, used_at = excluded.used_at, tries = excluded.tries,
  decision_id = excluded.decision_id, boot_at = excluded.boot_at, boot_id = excluded.boot_id
"""
_LEAVE: Final = """
UPDATE access_uses SET tries = tries - 1 WHERE retry_digest = ? AND request_id = ? AND used_at = ? RETURNING tries
"""
_TEAR: Final = "DELETE FROM access_uses WHERE retry_digest = ?"
_FORGET_USES: Final = "DELETE FROM access_uses WHERE used_at <= ?"
