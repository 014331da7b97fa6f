"""The soak's own account of its sessions, and the changes that it makes to them while calls go on."""

from __future__ import annotations

import random
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import grpc

from pdp.client import Client
from pdp.client.errors import PDPClientError, WrongStateError
from pdp.testing.bundles import bundle_files, tool
from pdp.v1 import decision_pb2

SERVER, TOOL = "soak", "read_item"
FORBIDDEN = "forbidden"
# The least that the setting accepts. The next minute's purge removes sessions that are over for longer.
KEPT_SECONDS = 60
_GONE_SECONDS = 4 * KEPT_SECONDS
_USERS = tuple(f"user{number}" for number in range(20))

_PERMIT, _FORBID = decision_pb2.BASIS_PERMIT, decision_pb2.BASIS_FORBID
_UNKNOWN = decision_pb2.BASIS_SESSION_NOT_FOUND

Random = random.Random

# The errors of a server on a machine that is busy with other work: no answer, and not a wrong one.
TOO_BUSY = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
)


@dataclass(slots=True)
class Known:
    """One session: its handle, whether it is `live`, `closing` or closed, and the basis of its calls then."""

    handle: str
    session_id: str
    state: str = "live"
    basis: int = _PERMIT
    closed_at: float = 0.0

    def right(self, basis: int, *, before: str, forbidden: bool) -> bool:
        """Say whether a call's `basis` is right.

        `before` is the state of the session when the call was sent.
        """
        allowed = {_FORBID if forbidden else _PERMIT}
        if self.state == before == "live":
            return basis in allowed
        if before == "closed":
            return basis in self._after(time.monotonic() - self.closed_at)
        return basis in allowed | {self.basis}

    def _after(self, seconds: float) -> set[int]:
        """Return the bases that a call can have `seconds` after the end.

        For a while it is the end itself, and then that the session is unknown.
        """
        return ({self.basis} if seconds < _GONE_SECONDS else set()) | (
            {_UNKNOWN} if seconds > KEPT_SECONDS - 5 else set()
        )


@dataclass(slots=True)
class World:
    """All sessions that calls are made in, and counts of the changes."""

    live: list[Known] = field(default_factory=list)
    closed: deque[Known] = field(default_factory=lambda: deque(maxlen=20_000))
    opened: int = 0
    reloads: int = 0
    refused: int = 0

    def pick(self, random: Random) -> Known:
        """Return a live session, or in one of ten cases a closed one."""
        if self.closed and random.random() < 0.1:  # noqa: PLR2004 - see above
            return self.closed[random.randrange(len(self.closed))]
        return random.choice(self.live)


class Keeper:
    """Opens and closes sessions and reloads the bundle, at a steady pace, until it is stopped."""

    def __init__(self, address: str, data: Path, policies: Path, world: World, *, live: int, pace: float) -> None:
        self._pep, self._approver, self._admin = (
            Client(address, token_file=data / "tokens" / f"{role}.token", plaintext=True)
            for role in ("pep", "approver", "admin")
        )
        self._policies, self._world, self._live, self._pace = policies, world, live, pace
        self._random = Random(1)

    def fill(self) -> None:
        """Open the first sessions."""
        while len(self._world.live) < self._live:
            self._open()

    def run(self, stopped: Event, reload_seconds: float) -> None:
        """Open one session and close another repeatedly; `pace` is how many a second."""
        reload_at = time.monotonic() + reload_seconds
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            due += 1 / self._pace
            try:
                if len(self._world.live) <= self._live:
                    self._open()
                self._close(self._world.live[0])
                if time.monotonic() > reload_at:
                    self._reload()
                    reload_at = time.monotonic() + reload_seconds
            except PDPClientError as error:
                if error.code not in TOO_BUSY:
                    raise
                # As with calls, an error is not an answer. The next turn repeats the change.
                self._world.refused += 1

    def close(self) -> None:
        """Close the connections."""
        for client in (self._pep, self._approver, self._admin):
            client.close()

    def _open(self) -> None:
        user = self._random.choice(_USERS)
        opened = self._pep.request_session(user=user, agent="worker", purpose="soak", tools=[f"{SERVER}/*"])
        session = opened.session
        self._approver.approve_session(session.session_id, request_digest=session.request_digest)
        self._world.live.append(Known(opened.session_handle, session.session_id))
        self._world.opened += 1

    def _close(self, known: Known) -> None:
        if known.state == "live":
            revoke = self._world.opened % 3 == 0
            known.basis = decision_pb2.BASIS_SESSION_REVOKED if revoke else decision_pb2.BASIS_SESSION_ENDED
            known.state = "closing"
        # The change without an answer has been made already.
        with suppress(WrongStateError):
            if known.basis == decision_pb2.BASIS_SESSION_REVOKED:
                self._admin.revoke_sessions(session_id=known.session_id, reason="soak")
            else:
                self._pep.end_session(known.handle)
        known.closed_at, known.state = time.monotonic(), "closed"
        self._world.live.remove(known)
        self._world.closed.append(known)

    def _reload(self) -> None:
        # Every second time users are put into another team, which captures all live sessions anew.
        self._world.reloads += 1
        write(self._policies, self._world.reloads)
        self._admin.reload_bundle()


def write(folder: Path, number: int = 0) -> None:
    """Write the bundle with a number; all of them decide alike."""
    users = "".join(f"  {user}: {{attributes: {{team: team{number // 2 % 2}}}}}\n" for user in _USERS)
    files = bundle_files(
        policies={
            SERVER: f"""
@id("{SERVER}/all") permit (principal, action, resource is Server);
@id("{SERVER}/not") forbid (principal, action, resource is Server) when {{ context.input.item like "{FORBIDDEN}*" }};
@id("{SERVER}/number") forbid (principal, action, resource is Server) when {{ context.input.item == "{number}" }};
"""
        },
        tools={SERVER: [tool(TOOL, {"item": {"type": "string"}}, ["item"])]},
        overlays={SERVER: "risk: read_only\n"},
        directory=f'users:\n{users}agents: {{worker: {{ceiling: ["{SERVER}/*"]}}}}',
    )
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            draft = path.with_name(f".{path.name}.draft")
            draft.write_bytes(content)
            draft.replace(path)
