"""The server is killed and another process takes its port: clients give nothing away, and believe nothing."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pdp.client import Client
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.machinery.credentials.authority import Authority
from tests.machinery.servers.ledger import NOTE
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, ServerProcess


class Impostor:
    """Listens where the server did, in plain text or with a certificate of its own, and keeps every byte it is sent.

    It answers with what an HTTP/2 server says first, so that a client which believes it goes on.
    """

    def __init__(self, address: str, certificate: tuple[Path, Path] | None) -> None:
        self.seen = b""
        self.visits = 0
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
            self._context.set_alpn_protocols(["h2"])
        self._listening = _taken(address)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        # Only this wakes a thread that waits for somebody.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(PATIENCE)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                self.visits += 1
                with plain, suppress(OSError):
                    self._talk(plain)

    def _talk(self, plain: socket.socket) -> None:
        plain.settimeout(2.0)
        speaking = self._context.wrap_socket(plain, server_side=True) if self._context else plain
        with suppress(OSError):
            # An empty SETTINGS frame.
            speaking.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while received := speaking.recv(65536):
            self.seen += received


def _taken(address: str) -> socket.socket:
    """Listen where the server did, as soon as the last of its workers has let go."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_server((host, int(port)))
        except OSError:
            if time.monotonic() > deadline:
                raise
            # Without a pause this takes a core from the workers that it waits for.
            time.sleep(0.01)


@contextmanager
def impostor(address: str, certificate: tuple[Path, Path] | None) -> Iterator[Impostor]:
    """Run an impostor while the `with` block runs."""
    there = Impostor(address, certificate)
    try:
        yield there
    finally:
        there.close()


@pytest.mark.parametrize("kind", ["plain text", "a certificate of its own"])
def test_an_impostor_gets_nothing_and_fools_nobody(tmp_path: Path, kind: str) -> None:
    """Two workers with the defaults of the quick start: the same client sends the impostor no token and no handle.

    Its questions about calls are denied, its other calls are errors, and new clients fare the same.
    """
    write_folder(tmp_path / "policies", notes_bundle())
    own = Authority("impostor").identity("localhost", dns=("localhost",)).write(tmp_path, "impostor")
    with ServerProcess(tmp_path, server_workers="2") as server, server.client(Role.PEP, timeout=2.0) as pep:
        with server.client(Role.APPROVER) as approver:
            opened = pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=("notes/*",))
            approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        # On a busy machine an answer can come later than this client waits.
        wait_until(lambda: pep.authorize(opened.session_handle, "notes", READ, NOTE).allowed)
        token = server.token(Role.PEP)
        server.kill()

        with impostor(server.address, own if kind != "plain text" else None) as there:
            with server.client(Role.PEP, timeout=2.0) as fresh:
                answers = [client.authorize(opened.session_handle, "notes", READ, NOTE) for client in (pep, fresh) * 3]
                with pep.stream() as stream:
                    answers.append(stream.authorize(opened.session_handle, "notes", READ, NOTE))
            visits, seen = there.visits, there.seen

    assert {(False, "error")} == {(answer.allowed, answer.basis) for answer in answers}
    # It was asked, and what it was told is no secret.
    assert visits
    assert not any(secret.encode() in seen for secret in (token, opened.session_handle))
    if kind == "plain text":
        assert seen.startswith(b"\x16\x03")


def test_the_attack_works_in_plain_text(tmp_path: Path) -> None:
    """Why plain text needs a word of its own: the same client gives token and handle to whoever takes the port."""
    write_folder(tmp_path / "policies", notes_bundle())
    with ServerProcess(tmp_path, server_plaintext="true") as server:
        token = server.token(Role.PEP)
        with Client(server.address, token=token, plaintext=True, timeout=2.0) as pep:
            pep.authorize("pdps_of_nobody", "notes", READ, NOTE)
            server.kill()
            with impostor(server.address, None) as there:
                for _ in range(20):
                    pep.authorize("pdps_of_nobody", "notes", READ, NOTE)
                    if b"pdps_of_nobody" in there.seen:
                        break

    assert b"pdps_of_nobody" in there.seen
