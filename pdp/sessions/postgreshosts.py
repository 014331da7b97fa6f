"""Look up the hosts of a database in a time that is known: the resolver of the system has no limit that can be set."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from pdp.foundation.loopback import is_address


class Hosts:
    """Looks hosts up for the connections of a process to one database. Safe for threads.

    However many wait for a host, one thread asks for it. A resolver that hangs keeps that one, and no one else.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        # What is asked for now, by host.
        self._asked: dict[str, Future[tuple[str, ...]]] = {}

    def placed(self, given: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return the parameters of a connection with the addresses of its hosts, for which it waits so many seconds.

        A host with several addresses is there once for each, and one that is not found is left out. Raise `OSError` or
        `UnicodeError` when none is found, `TimeoutError` when that takes too long.
        """
        hosts, ports = (str(given.get(name) or "").split(",") for name in ("host", "port"))
        if given.get("hostaddr") or len(ports) not in (1, len(hosts)) or not any(map(_is_name, hosts)):
            return dict(given)
        ends_at = time.monotonic() + seconds
        asked = [self._ask(host) if _is_name(host) else None for host in hosts]
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
                found += [(host, address, port) for address in addresses]
        if not found and problem is not None:
            raise problem
        columns = map(",".join, zip(*found, strict=True))
        return {**given, **dict(zip(("host", "hostaddr", "port"), columns, strict=True))}

    def _ask(self, host: str) -> Future[tuple[str, ...]]:
        with self._lock:
            if (asked := self._asked.get(host)) is not None:
                return asked
            asked = self._asked[host] = Future()
        Thread(target=self._look_up, args=(host, asked), name="pdp-resolve", daemon=True).start()
        return asked

    def _look_up(self, host: str, asked: Future[tuple[str, ...]]) -> None:
        try:
            found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
            asked.set_result(tuple(dict.fromkeys(str(where[0]) for *_, where in found)))
        except (OSError, UnicodeError) as error:
            asked.set_exception(error)
        finally:
            # Who asks later asks anew: another server can have the name by then.
            with self._lock:
                del self._asked[host]


def _is_name(host: str) -> bool:
    """Say whether a host must be looked up: no address, and not the folder of a socket."""
    return not (host == "" or host.startswith(("/", "@")) or is_address(host))
