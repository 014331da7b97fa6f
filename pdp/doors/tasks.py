"""One task, one session: doors on one machine that work on the same task share a session.

They meet in a private folder. Each holds a shared lock on the file `members` as long as it lives, so the system itself
forgets one that crashes. The first requests the session, the last one to leave ends it. `handle` is the session's
secret handle, `session.json` says whose session it is.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pdp.client import AsyncClient, NotFoundError, PDPClientError, WrongStateError
from pdp.doors.wish import Wish
from pdp.errors import ConfigurationError
from pdp.foundation.files import lock_file, open_private, replacing
from pdp.foundation.ownership import require_own
from pdp.v1 import session_pb2

_DANGER = "others could read the handle of a session"
_PAUSE_SECONDS = 0.05
_LIVE = (session_pb2.SESSION_STATE_REQUESTED, session_pb2.SESSION_STATE_ACTIVE)


@dataclass(frozen=True, slots=True)
class Joined:
    """The session of a task, when a door joins it, and the link by which a person answers a request for it."""

    handle: str = field(repr=False)
    session: session_pb2.Session
    link: str


class Task:
    """A door's part in one task. `join` it once, then `leave` it.

    `name` is what doors of the same task share; an empty one is shared with none.
    """

    def __init__(self, folder: Path, name: str, wish: Wish) -> None:
        self._alone = not name
        self.folder = folder / (hashlib.sha256(name.encode()).hexdigest()[:32] if name else secrets.token_hex(16))
        self.wish = wish
        self._members: int | None = None

    @property
    def handle_file(self) -> Path:
        """Return the file of the session's handle."""
        return self.folder / "handle"

    @property
    def members_file(self) -> Path:
        """Return the file on which each member holds a lock."""
        return self.folder / "members"

    async def join(self, client: AsyncClient) -> Joined:
        """Return the session of this task, requested now if no door has done so.

        Raise `PDPClientError` when it cannot be requested, and `ConfigurationError` when others could read the folder
        or the task is somebody else's.
        """
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own(self.folder, _DANGER)
        async with self._locked():
            members = open_private(self.members_file)
            try:
                joined = await self._joined(client, left_behind=_lock(members, fcntl.LOCK_EX))
                fcntl.flock(members, fcntl.LOCK_SH)
            except BaseException:
                os.close(members)
                raise
            self._members = members
            return joined

    async def leave(self, client: AsyncClient) -> None:
        """Leave the task; end its session if no other door works on it. Raise `PDPClientError` if that fails."""
        if self._members is None:
            return
        async with self._locked():
            members, self._members = self._members, None
            try:
                if _lock(members, fcntl.LOCK_EX):
                    await self._end(client)
            finally:
                os.close(members)
        if self._alone:
            with suppress(OSError):
                for file in self.folder.iterdir():
                    file.unlink()
                self.folder.rmdir()

    async def _joined(self, client: AsyncClient, *, left_behind: bool) -> Joined:
        if left_behind:
            with suppress(PDPClientError):
                await self._end(client)
        elif (found := await self._found(client)) is not None:
            return found
        wish = self.wish
        opened = await client.request_session(
            user=wish.user,
            agent=wish.agent,
            purpose=wish.purpose,
            tools=wish.tools,
            duration=wish.duration,
            environment=wish.environment,
            terms=wish.terms,
            labels=wish.labels,
        )
        about = {"session_id": opened.session.session_id, "user": wish.user, "agent": wish.agent, "link": opened.link}
        for name, text in (("handle", opened.session_handle), ("session.json", json.dumps(about))):
            with replacing(self.folder / name) as file:
                file.write(text.encode())
        return Joined(opened.session_handle, opened.session, opened.link)

    async def _found(self, client: AsyncClient) -> Joined | None:
        """Return the session that other doors have, if it is not over."""
        try:
            about = json.loads((self.folder / "session.json").read_bytes())
            handle = self.handle_file.read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        if (about["user"], about["agent"]) != (self.wish.user, self.wish.agent):
            raise ConfigurationError(f"the task is one of agent `{about['agent']}` for user `{about['user']}`")
        try:
            session = await client.get_session(about["session_id"])
        except NotFoundError:
            return None
        return Joined(handle, session, about["link"]) if session.state in _LIVE else None

    async def _end(self, client: AsyncClient) -> None:
        try:
            handle = self.handle_file.read_text(encoding="ascii")
        except OSError:
            return
        with suppress(NotFoundError, WrongStateError):
            await client.end_session(handle)
        self.handle_file.unlink(missing_ok=True)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        while (lock := lock_file(self.folder / "lock")) is None:  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            os.close(lock)


def _lock(descriptor: int, kind: int) -> bool:
    """Lock a file unless another process holds a lock that excludes this one; say whether it is locked so now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
