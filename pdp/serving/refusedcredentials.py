"""Log why credentials are refused, and from which address, at a rate that a person can read."""

from __future__ import annotations

import logging
import re
import threading

from pdp.clock import Clock
from pdp.serving.status import Refusal
from pdp.serving.transport import Context

_LOG = logging.getLogger("pdp.server")

_LINES = 10
_SECONDS = 60.0
# As gRPC writes them: `ipv4:127.0.0.1:50151`, `ipv6:%5B::1%5D:50151`.
_INTERNET = re.compile(r"ipv[46]:(?:%5B|\[)?([0-9a-fA-F.:]+?)(?:%25[^%\]]*|%[^5\]][^\]]*)?(?:%5D|\])?:\d+")


class RefusedCredentials:
    """A log of refused credentials: at most ten lines a minute for each kind, and how many were left out.

    Each kind has its own lines, so that a flood of unknown tokens does not hide why a certificate is refused.
    Safe for threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._allowances: dict[str, _Allowance] = {}

    def tell(self, rpc: str, refusal: Refusal, peer: str) -> None:
        """Log a refusal when a credential was refused and the kind has a line left."""
        if not refusal.credential:
            return
        with self._lock:
            allowance = self._allowances.setdefault(refusal.credential, _Allowance())
            left_out = allowance.another(self._clock.now().boot_at)
        if left_out is not None:
            more = f"; {left_out} more were refused since the previous line" if left_out else ""
            _LOG.warning("%s was refused: %s (%s, from %s)%s", refusal.credential, refusal.reason, rpc, peer, more)


class _Allowance:
    """The lines of this minute, and how many refusals came since the last one."""

    def __init__(self) -> None:
        self._began_at = 0.0
        self._lines = 0
        self._left_out = 0

    def another(self, now: float) -> int | None:
        """Return how many were left out before this refusal; None when it is left out too."""
        if now - self._began_at >= _SECONDS:
            self._began_at, self._lines = now, 0
        if self._lines >= _LINES:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        self._lines += 1
        return left_out


def peer_address(context: Context) -> str:
    """Return the peer's address without its port: `10.0.0.7`, `::1`; `unix` for a socket."""
    peer = context.peer()
    match = _INTERNET.fullmatch(peer)
    return match[1] if match else peer.partition(":")[0]
