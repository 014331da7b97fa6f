"""Answers `WatchSessions`: tells all who follow sessions what has changed, on one thread for all of them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pdp.clock import Clock
from pdp.errors import OverloadedError, PDPError, UnavailableError
from pdp.foundation.repeating import Repeater
from pdp.limits import Limits
from pdp.model import Caller, Head
from pdp.registry.following import MOST_CHANGES, Followed, Following
from pdp.registry.seeing import sees
from pdp.server.fields import optional_id, seconds_of
from pdp.server.messages import session_change
from pdp.server.revisions import optional_revision, revision_text
from pdp.serving.watches import Watch
from pdp.sessions.freezes import Freeze, freeze_of
from pdp.v1 import session_pb2 as sessions

_LOG = logging.getLogger("pdp.server")

# The longest time between a change and its message, and between two messages of a watch that asks for no other, in
# seconds.
_LOOK_SECONDS, _SIGN_OF_LIFE_SECONDS = 0.25, 15.0
# Watches that begin with the past in one look: each can read the store.
_MOST_CATCHING_UP = 50

_Change = sessions.SessionChange


@dataclass(eq=False, slots=True, kw_only=True)
class _Follower:
    """One watch, and what it has not been told yet."""

    watch: Watch
    since: Head | None
    session_id: str
    # The longest time between two messages, in seconds.
    heartbeat: float
    began: bool = False
    reset: bool = False
    pending: dict[str, _Change] = field(default_factory=dict)
    # What it was told last.
    bundle_version: str = ""
    frozen: tuple[str, ...] = ()
    sent_at: float = 0.0

    def take(self, changes: Mapping[str, _Change]) -> None:
        """Add changes; too many become one word."""
        if self.session_id:
            changes = {self.session_id: changes[self.session_id]} if self.session_id in changes else {}
        self.pending.update(changes)
        if len(self.pending) > MOST_CHANGES:
            self.pending.clear()
            self.reset = True


class SessionFollowers:
    """The open watches of sessions. Safe for threads; `start` it before the first, and `stop` it."""

    def __init__(self, following: Following, clock: Clock, limits: Limits, *, every: float) -> None:
        self._following = following
        self._clock = clock
        self._alive = min(_SIGN_OF_LIFE_SECONDS, limits.stream_idle_seconds / 3)
        self._patience = limits.stream_idle_seconds
        self._arrived: list[_Follower] = []
        self._arriving = threading.Lock()
        # INVARIANT: only the thread of `look` uses the rest.
        self._followers: list[_Follower] = []
        self._seen, self._bundle_version = Head(revision=0, tag=""), ""
        self._freezes: tuple[Freeze, ...] = ()
        # All that was acknowledged until then is in what was seen, by the boot clock.
        self._known_at = 0.0
        self._behind = False
        self._looks = Repeater("following", self.look_carefully, every=min(every, _LOOK_SECONDS))

    def __len__(self) -> int:
        """Return how many watches are open."""
        return len(self._followers) + len(self._arrived)

    def add(self, request: sessions.WatchSessionsRequest, watch: Watch) -> None:
        """Begin a watch. Never waits. Raise `InvalidRequestError`."""
        heartbeat = self._alive
        if request.HasField("heartbeat"):
            heartbeat = min(heartbeat, max(_LOOK_SECONDS, seconds_of("heartbeat", request.heartbeat)))
        follower = _Follower(
            watch=watch,
            since=optional_revision("since_revision", request.since_revision),
            session_id=optional_id("session_id", request.session_id),
            heartbeat=heartbeat,
        )
        with self._arriving:
            self._arrived.append(follower)

    def start(self) -> None:
        """Begin to look for changes."""
        self._looks.start()

    def stop(self) -> None:
        """End all watches."""
        self._looks.stop()
        for follower in (*self._followers, *self._arrived):
            follower.watch.end(UnavailableError("the server stops"))
            follower.watch.close()
        self._followers, self._arrived = [], []

    def look(self) -> None:
        """Look for changes, and tell each follower those that it may see."""
        self._let_go()
        if not (self._arrived or self._followers):
            return
        known_at = self._following.known_at()
        if not self._followers:
            self._catch_up()
        elif self._following.head() != self._seen:
            self._spread(self._following.since(self._seen))
        self._known_at, self._behind = known_at, False
        with self._arriving:
            arrived, self._arrived = deque(self._arrived), []
        self._begin(arrived)
        self._tell_all()

    def look_carefully(self) -> None:
        """Look, or tell each follower how old what it was told is by now. Never raises."""
        try:
            self._look_or_tell_the_age()
        except Exception:  # noqa: BLE001 - the thread must go on
            _LOG.exception("those who follow sessions could not be told of changes")

    def _look_or_tell_the_age(self) -> None:
        try:
            self.look()
        except PDPError as error:
            self._turn_away(error)
            if not self._behind:
                _LOG.warning("those who follow sessions are not told of changes now: %s", error)
            self._behind = True
            self._tell_all()

    def _turn_away(self, error: PDPError) -> None:
        """Refuse the watches that have arrived: they cannot begin."""
        with self._arriving:
            arrived, self._arrived = self._arrived, []
        for follower in arrived:
            follower.watch.end(error)
            follower.watch.close()

    def _let_go(self) -> None:
        for follower in self._followers:
            if follower.watch.over:
                follower.watch.close()
        self._followers = [one for one in self._followers if not one.watch.over]

    def _catch_up(self) -> None:
        """Begin anew: what has changed until now is told to none."""
        latest = self._following.head()
        changes = self._following.since(latest)
        if changes is None:
            raise UnavailableError("sessions change too fast")
        self._take(changes)

    def _spread(self, changes: Followed | None) -> None:
        if changes is None:
            for follower in self._followers:
                self._reread(follower)
            self._catch_up()
            return
        self._take(changes)
        visible = _Visible(changes)
        for follower in self._followers:
            follower.take(visible.to(follower.watch.caller))

    def _take(self, changes: Followed) -> None:
        self._seen, self._bundle_version, self._freezes = changes.head, changes.bundle_version, changes.freezes

    def _begin(self, arrived: deque[_Follower]) -> None:
        """Take in watches that have arrived; what they have missed is told first."""
        catching_up = 0
        try:
            while arrived:
                follower = arrived[0]
                if follower.session_id or follower.since not in (None, self._seen):
                    if catching_up == _MOST_CATCHING_UP:
                        return
                    catching_up += 1
                    self._tell_missed(follower)
                self._followers.append(arrived.popleft())
        finally:
            # Also after an error: who has arrived is told of it, or begins later.
            with self._arriving:
                self._arrived = [*arrived, *self._arrived]

    def _tell_missed(self, follower: _Follower) -> None:
        missed = None if follower.session_id or follower.since is None else self._following.since(follower.since)
        if missed is None:
            self._reread(follower)
        else:
            follower.take(_Visible(missed).to(follower.watch.caller))

    def _reread(self, follower: _Follower) -> None:
        """Have a follower read anew; one of a single session is told how that is now."""
        if not follower.session_id:
            follower.reset = True
            follower.pending.clear()
        elif (found := self._following.one(follower.session_id)) and sees(follower.watch.caller, found[0]):
            follower.pending[found[0].id] = session_change(*found)

    def _tell_all(self) -> None:
        now = self._clock.now().boot_at
        for follower in self._followers:
            self._tell(follower, now)

    def _tell(self, follower: _Follower, now: float) -> None:
        watch = follower.watch
        if not watch.idle:
            if now - follower.sent_at >= self._patience:
                watch.end(OverloadedError("the client does not read (limit `stream_idle_seconds`)"))
            return
        told, now_so = (follower.bundle_version, follower.frozen), (self._bundle_version, self._frozen(watch.caller))
        news = follower.pending or follower.reset or told != now_so
        # The next look would be too late.
        due = now - follower.sent_at > follower.heartbeat - _LOOK_SECONDS
        if (news or due or not follower.began) and not watch.over:
            message = sessions.WatchSessionsResponse(
                changes=follower.pending.values(),
                revision=revision_text(self._seen),
                reset=follower.reset,
                bundle_version=now_so[0],
                frozen_tenants=now_so[1],
            )
            message.age.FromMicroseconds(round(max(0.0, now - self._known_at) * 1e6))
            watch.send(message)
            follower.began, follower.reset, follower.sent_at = True, False, now
            follower.bundle_version, follower.frozen = now_so
            follower.pending.clear()

    def _frozen(self, caller: Caller) -> tuple[str, ...]:
        """Return the tenants that are frozen, of those in which a caller may see sessions."""
        if not self._freezes:
            return ()
        return tuple(sorted(one for one in caller.tenants if freeze_of(one, self._freezes) is not None))


class _Visible:
    """The changes that each caller may see, found once for all of its watches."""

    def __init__(self, changes: Followed) -> None:
        self._changes = changes
        self._messages = {session.id: session_change(session, state) for session, state in changes.sessions}
        self._found: dict[Caller, Mapping[str, _Change]] = {}

    def to(self, caller: Caller) -> Mapping[str, _Change]:
        """Return the changes of sessions that a caller may see, by id."""
        if caller not in self._found:
            self._found[caller] = {
                session.id: self._messages[session.id] for session, _ in self._changes.sessions if sees(caller, session)
            }
        return self._found[caller]
