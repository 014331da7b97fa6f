"""Move all that a store holds to a store of another kind, so that at no moment servers can start on both.

The target gets everything first, but not the table without which no program starts on it. Then the source gives that
table up, durably, and only then the target takes it. Each of these is one transaction, so a process that dies leaves
the source as it was, or neither that can be started, or the target; and the same command finishes what it has begun.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from pdp.clock import Instant, utc_text
from pdp.errors import StoreUnavailableError

Row = Sequence[Any]

# A store without it is started by no program, older ones included; and a server that runs cannot go on without it. It
# is called `meta_aside` meanwhile.
META: Final = "meta"
# The table that says why.
MOVING: Final = "moving"
_ID_BYTES: Final = 10


class Half(StrEnum):
    """The two parts of a store: its sessions, and what calls left behind."""

    SESSIONS = "sessions"
    HISTORY = "history"


class Standing(StrEnum):
    """What a store is in a move."""

    ARRIVING = "arriving"  # it has everything, and waits for the source to be set aside
    ARRIVED = "arrived"  # servers start on it; the move may not be in the record yet
    GONE = "gone"  # set aside: everything is in the other store


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a store notes of a move: its id, what the store is in it, where the other one is, and when it began."""

    id: str
    standing: Standing
    other: str
    at: float

    def refusal(self, place: str) -> str:
        """Return why no server starts on the store at `place`."""
        if self.standing is Standing.GONE:
            return (
                f"the sessions of `{place}` were moved to `{self.other}`, at {utc_text(self.at)}: let `sessions.store` "
                "name that store"
            )
        return f"the move of the sessions of `{self.other}` to `{place}` is not finished: run `pdp store move` again"


class StoreState(NamedTuple):
    """Whether servers can start on a store, and what it notes of a move."""

    live: bool = False
    mark: Mark | None = None


class Table(NamedTuple):
    """One table of a store, and the names of its columns."""

    half: Half
    name: str
    columns: tuple[str, ...]


class Content(Protocol):
    """What a store holds, at one moment."""

    def tables(self) -> tuple[Table, ...]:
        """Return all tables."""
        ...

    def count(self, table: Table) -> int:
        """Return the number of rows of a table."""
        ...

    def rows(self, table: Table) -> Iterator[Sequence[Row]]:
        """Yield the rows of a table, some at a time."""
        ...


class StoreSide(Protocol):
    """A store as the source or the target of a move. Everything raises `StoreUnavailableError`."""

    @property
    def name(self) -> str:
        """Return where it is, without secrets."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep servers away during the `with` block; raise when one uses the store."""
        ...

    def state(self) -> StoreState:
        """Return whether servers can start on it."""
        ...

    def reading(self) -> AbstractContextManager[Content]:
        """Give what it holds, while servers may go on."""
        ...

    def leaving(self, mark: Mark) -> AbstractContextManager[Content]:
        """Give what it holds, and set it aside at the end of the `with` block, unless that raises.

        Nothing is written to it meanwhile. It is set aside durably before this returns.
        """
        ...

    def outwait(self) -> None:
        """Wait until no server answers any longer from its memory of a store that was set aside."""
        ...

    def receive(self, content: Content, mark: Mark, copied: Callable[[str], None]) -> None:
        """Take the content in place of what was moved away, or came only in part; name each table that was copied."""
        ...

    def activate(self) -> None:
        """Let servers start on what was received."""
        ...

    def forget_move(self) -> None:
        """Remove the note of the move that has brought the sessions here: it is recorded."""
        ...


def move(source: StoreSide, target: StoreSide, *, now: Instant, step: Callable[[str], None] = lambda _: None) -> Mark:
    """Move everything, or finish a move that was interrupted; return the target's note of it.

    `step` is told what is done. Raise `StoreUnavailableError` when a server uses one of the stores, when there is
    nothing to move, or when the target is in use.
    """
    with ExitStack() as held:
        for side in (source, target):
            held.enter_context(side.alone())
        mark = required(source, target)
        if mark is None:
            mark = Mark(id=secrets.token_hex(_ID_BYTES), standing=Standing.GONE, other=target.name, at=now.wall_at)
            with source.leaving(mark) as content:
                arriving = Mark(id=mark.id, standing=Standing.ARRIVING, other=source.name, at=now.wall_at)
                target.receive(content, arriving, lambda table: step(f"copied {table}"))
                step("copied everything")
            step(f"set `{source.name}` aside")
        if not target.state().live:
            # Also when it was an earlier run that set it aside: that can have been a moment ago.
            source.outwait()
            target.activate()
        step(f"servers start on `{target.name}`")
        arrived = target.state().mark
    if arrived is None:
        raise StoreUnavailableError(f"`{target.name}` has been changed meanwhile")
    return arrived


def required(source: StoreSide, target: StoreSide) -> Mark | None:
    """Return the note of a move that is to be finished, None for one that is to begin.

    Raise `StoreUnavailableError` when neither can be.
    """
    left, came = source.state(), target.state()
    if left.live and not came.live:
        return None
    if left.live:
        raise StoreUnavailableError(f"there is a session store already: `{target.name}`; remove it, or move to another")
    if left.mark is None:
        raise StoreUnavailableError(f"there is no session store: `{source.name}`")
    if came.mark is None or (came.mark.id, left.mark.standing) != (left.mark.id, Standing.GONE):
        raise StoreUnavailableError(left.mark.refusal(source.name))
    return left.mark
