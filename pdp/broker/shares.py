"""How many requests are open, and how much of their answers is held, so that one leaves room for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TypeAlias

from pdp.broker.admitting import shown
from pdp.broker.sending import UpstreamFailedError
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError

# Counts the request that has a place as one of a tenant, once that is known. Raises `OverloadedError`.
OfTenant: TypeAlias = Callable[[str], None]


class Shares:
    """At most `most` requests, and `each` of one presenter or person, by default half. Safe for threads.

    Of one tenant, which can have many presenters, there are at most three quarters.
    """

    def __init__(self, most: int, *, each: int | None = None) -> None:
        self._most, self._each, self._of_tenant = most, each or most // 2, most * 3 // 4
        self._lock = Lock()
        self._open: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()

    @contextmanager
    def taken(self, presenter: Presenter | None) -> Iterator[OfTenant]:
        """Hold a place for a request of a presenter. Raise `OverloadedError` without one."""
        with self.taken_by(shown(presenter)) as of_tenant:
            yield of_tenant

    @contextmanager
    def taken_by(self, whose: str) -> Iterator[OfTenant]:
        """Hold a place for a request of somebody, by name. Raise `OverloadedError` without one."""
        with self._counted(self._open, whose, self._each), ExitStack() as held:
            yield lambda tenant: held.enter_context(self._counted(self._tenants, tenant, self._of_tenant))

    @contextmanager
    def _counted(self, open_: Counter[str], name: str, most: int) -> Iterator[None]:
        with self._lock:
            if open_.total() >= self._most or open_[name] >= most:
                raise OverloadedError("too many requests are open: try again later")
            open_[name] += 1
        try:
            yield
        finally:
            with self._lock:
                open_[name] -= 1
                if not open_[name]:
                    del open_[name]


class Room:
    """What may be held of answers that are handed on whole: `free` bytes of each, and beyond these `most` of all.

    Safe for threads.
    """

    def __init__(self, *, free: int, most: int) -> None:
        self._free, self._most = free, most
        self._lock = Lock()
        self._held = 0

    @contextmanager
    def whole(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Hold a whole body while the block runs. Raise `UpstreamFailedError` when there is no room for it."""
        body, held = bytearray(), 0
        try:
            for piece in pieces:
                body += piece
                more = max(len(body) - self._free, 0) - held
                with self._lock:
                    if self._held + more > self._most:
                        raise UpstreamFailedError("answers more than there is room for beside others")
                    self._held += more
                held += more
            yield bytes(body)
        finally:
            with self._lock:
                self._held -= held
