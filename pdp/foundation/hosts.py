"""Look up hosts in a time that is known: the resolver of the system has no limit that can be set."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, Final

from pdp.foundation.loopback import is_address

# Each look-up that is under way is a thread. A host that is not asked for yet is then not looked up.
_MOST: Final = 128


class Hosts:
    """Looks hosts up for the connections of a process. Safe for threads.

    However many wait for a host, one thread asks for it. A resolver that hangs keeps that one, and no one else. At most
    `most` hosts are asked for at once.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._lock = most, Lock()
        # What is asked for now, by host.
        self._asked: dict[str, Future[tuple[str, ...]]] = {}

    def placed(self, given: Mapping[str, Any], seconds: float, *, most: int | None = None) -> dict[str, Any]:
        """Return the parameters of a connection to PostgreSQL with the addresses of its hosts.

        It waits so many seconds for them. A host with several addresses is there once for each, up to `most`, and one
        that is not found is left out. Raise `OSError` or `UnicodeError` when none is found, `TimeoutError` when that
        takes too long.
        """
        hosts, ports = (str(given.get(name) or "").split(",") for name in ("host", "port"))
        if given.get("hostaddr") or len(ports) not in (1, len(hosts)) or not any(map(_is_name, hosts)):
            return dict(given)
        ends_at = time.monotonic() + seconds
        asked = [self.ask(host) if _is_name(host) else None for host in hosts]
        found: list[tuple[str, str, str]] = []
        problem: OSError | UnicodeError | None = None
        for host, port, one in zip(hosts, ports if len(ports) > 1 else ports * len(hosts), asked, strict=True):
            try:
                addresses = (
                    one.result(max(ends_at - time.monotonic(), 0.0)) if one else (host if is_address(host) else "",)
                )
            except (OSError, UnicodeError) as error:
                problem = error
            else:
                found += [(host, address, port) for address in addresses[:most]]
        if not found and problem is not None:
            raise problem
        columns = map(",".join, zip(*found, strict=True))
        return {**given, **dict(zip(("host", "hostaddr", "port"), columns, strict=True))}

    def ask(self, host: str) -> Future[tuple[str, ...]]:
        """Ask for the addresses of a host, each once; it raises `OSError` or `UnicodeError` where there is none.

        It raises `TimeoutError` when too many hosts are asked for.
        """
        asked: Future[tuple[str, ...]] = Future()
        with self._lock:
            if (running := self._asked.get(host)) is not None:
                return running
            if len(self._asked) >= self._most:
                asked.set_exception(TimeoutError())
                return asked
            self._asked[host] = asked
        try:
            Thread(target=self._look_up, args=(host, asked), name="pdp-resolve", daemon=True).start()
        except RuntimeError:
            # The system has no room for another thread.
            self._over(host)
            asked.set_exception(TimeoutError())
        return asked

    def _look_up(self, host: str, asked: Future[tuple[str, ...]]) -> None:
        try:
            found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
            asked.set_result(tuple(dict.fromkeys(str(where[0]) for *_, where in found)))
        except (OSError, UnicodeError) as error:
            asked.set_exception(error)
        finally:
            self._over(host)

    def _over(self, host: str) -> None:
        # Who asks later asks anew: another server can have the name by then.
        with self._lock:
            del self._asked[host]


# One for all that has none of its own: so is the resolver of the system.
SHARED: Final = Hosts()


def _is_name(host: str) -> bool:
    """Say whether a host must be looked up: no address, and not the folder of a socket."""
    return not (host == "" or host.startswith(("/", "@")) or is_address(host))
