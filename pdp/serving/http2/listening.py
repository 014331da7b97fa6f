"""Sockets that listen at the address of a listener, as gRPC opens them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pdp.errors import CannotListenError
from pdp.foundation.loopback import host_and_port
from pdp.serving.listener import Listener

_BACKLOG = 1024
_UNIX_PORT = 1
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def listening(listener: Listener, *, share_port: bool) -> tuple[list[socket.socket], int]:
    """Return sockets that listen, and their port: 1 for a Unix socket. Raise `CannotListenError` when it cannot.

    A name stands for all of its addresses, on one port. `share_port` lets other processes listen on it too.
    """
    opened: list[socket.socket] = []
    try:
        if listener.socket is not None:
            opened.append(_unix(listener.socket))
            return opened, _UNIX_PORT
        for family, address in _addresses(listener):
            port = opened[0].getsockname()[1] if opened else 0
            try:
                opened.append(_internet(family, address, port, share_port=share_port))
            except OSError as error:
                # A name can have addresses that this machine does not have, such as `::1` without IPv6.
                if error.errno not in _NOT_HERE:
                    raise
        if not opened:
            raise OSError(errno.EADDRNOTAVAIL, "no address of it is one of this machine")
    except OSError:
        for sock in opened:
            sock.close()
        raise CannotListenError(f"cannot listen on `{listener.address}`: is it in use, or not allowed?") from None
    return opened, opened[0].getsockname()[1]


def _addresses(listener: Listener) -> Iterator[tuple[int, tuple[str, int]]]:
    host, port = host_and_port(listener.address) or ("", 0)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    yield from dict.fromkeys((family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found)


def _internet(family: int, address: tuple[str, int], port: int, *, share_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address[0], port or address[1]))
        return _listens(sock)
    except OSError:
        sock.close()
        raise


def _unix(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        # One that a killed server has left; whoever has it open goes on without the name.
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A socket must never be open to others, not even for the moment between its creation and a chmod.
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        return _listens(sock)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)


def _listens(sock: socket.socket) -> socket.socket:
    sock.listen(_BACKLOG)
    sock.settimeout(0.0)
    return sock
