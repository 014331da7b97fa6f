"""The one port of all workers, bound before they start, so that it is theirs alone and stays the same."""

from __future__ import annotations

import errno
import socket

from pdp.errors import CannotListenError

# A name can resolve to addresses of a kind that this machine does not have.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class SharedPort:
    """Holds `host:port` (port 0: any free one) for workers of the same user, which listen there with `SO_REUSEPORT`.

    The sockets here never listen, so they get no connections. Raise `CannotListenError` when another program
    listens there: a second server on a shared port would silently take half of the calls.
    """

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._held: list[socket.socket] = []
        try:
            self._hold()
        except OSError:
            self.close()
            raise CannotListenError(f"cannot listen on `{address}`: is it in use, or not allowed?") from None

    @property
    def address(self) -> str:
        """Return the address with the actual port."""
        return f"{self._host}:{self._port}"

    def close(self) -> None:
        """Release the port. Calling it twice is harmless."""
        for held in self._held:
            held.close()

    def _hold(self) -> None:
        host, missing = self._host.strip("[]"), OSError(errno.EADDRNOTAVAIL, "no address")
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                self._held.append(_bound(family, (address[0], self._port, *address[2:])))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = error
            else:
                self._port = self._held[-1].getsockname()[1]
        if not self._held:
            raise missing


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    try:
        return _tried(family, address, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        # Closing connections of a previous server are no reason to wait for a minute.
        return _tried(family, address, reuse=True)


def _tried(family: int, address: tuple[object, ...], *, reuse: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        made.bind(address)
        # INVARIANT: shared only after it was bound exclusively, so that it never joins a port that others share.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        made.close()
        raise
    return made
