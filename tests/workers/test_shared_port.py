"""The port that workers share: nobody else's, and the same for all of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pdp.errors import CannotListenError
from pdp.workers.port import SharedPort


@pytest.fixture
def port() -> Iterator[SharedPort]:
    """Return a shared port on loopback."""
    with closing(SharedPort("127.0.0.1:0")) as held:
        yield held


def listening(address: str, *, shared: bool) -> socket.socket:
    """Listen as gRPC does: with `SO_REUSEADDR`, and with `SO_REUSEPORT` when the port is shared."""
    host, _, port = address.rpartition(":")
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        made.bind((host, int(port)))
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


def test_workers_share_it_and_take_all_connections(port: SharedPort) -> None:
    """Workers listen side by side, and no connection comes to whoever holds the port."""
    with listening(port.address, shared=True) as one, listening(port.address, shared=True) as other:
        for _ in range(50):
            with socket.create_connection(one.getsockname()):
                pass
        accepted = 0
        for listener in (one, other):
            listener.settimeout(0)
            for _ in range(50):
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    break
                accepted += 1

    assert 50 == accepted


def test_a_server_alone_cannot_listen_there(port: SharedPort) -> None:
    """While the port is held, a server that does not share cannot have it, even when no worker lives."""
    with pytest.raises(OSError, match="in use"):
        listening(port.address, shared=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_another_supervisor_cannot_have_it(port: SharedPort, workers: int) -> None:
    """A second server with workers is refused, whether the first one's workers listen already or not."""
    listeners = [listening(port.address, shared=True) for _ in range(workers)]
    try:
        with pytest.raises(
            CannotListenError, match=f"^cannot listen on `{port.address}`: is it in use, or not allowed"
        ):
            SharedPort(port.address)
    finally:
        for listener in listeners:
            listener.close()


def test_a_port_in_use_is_refused() -> None:
    """A port on which a server listens alone is not shared."""
    with listening("127.0.0.1:0", shared=False) as alone:
        address = f"127.0.0.1:{alone.getsockname()[1]}"

        with pytest.raises(CannotListenError, match=f"^cannot listen on `{address}`"):
            SharedPort(address)


def test_a_restart_need_not_wait() -> None:
    """What the system still remembers of connections that a server closed keeps nobody from listening again."""
    with closing(SharedPort("127.0.0.1:0")) as first:
        address = first.address
        with listening(address, shared=True) as worker, socket.create_connection(worker.getsockname()) as client:
            worker.accept()[0].close()
            assert b"" == client.recv(1)

    with closing(SharedPort(address)) as second:
        assert address == second.address


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_names_keep_their_spelling(host: str) -> None:
    """The address is shown as it was written, with the port that was chosen."""
    with closing(SharedPort(f"{host}:0")) as held:
        name, _, port = held.address.rpartition(":")

    assert host == name
    assert int(port) > 0


def test_an_address_of_another_machine_is_refused() -> None:
    """An address that this machine does not have is told like any other that cannot be had."""
    with pytest.raises(CannotListenError, match=r"^cannot listen on `192\.0\.2\.1:1`"):
        SharedPort("192.0.2.1:1")
