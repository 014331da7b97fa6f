"""A disk that fills up under the running server, and gets room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.client import Client, ClientSession, PDPClientError
from pdp.record import read_records
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1.session_pb2 import SessionState
from tests.machinery.servers.ledger import NOTE
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@contextmanager
def disk_of(kibibytes: int, folder: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own."""
    folder.mkdir()
    size = f"size={kibibytes}k"
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own that holds 256 KiB."""
    with disk_of(256, tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own that holds 8 MiB."""
    with disk_of(8 * 1024, tmp_path / "disk") as folder:
        yield folder


def basis(pep: Client, handle: str) -> str:
    """Ask about a call that the policies permit; return what the answer rests on."""
    answer = pep.authorize(handle, "notes", READ, NOTE)
    assert not answer.error
    return answer.basis


def health(server: ServerProcess) -> tuple[int, int]:
    """Return the health of the server and of its record."""
    with server.channel() as channel:
        stub = HealthStub(channel)
        names = ("", "pdp.record")
        whole, record = (stub.Check(HealthCheckRequest(service=name), timeout=PATIENCE).status for name in names)
    return whole, record


def fill(file: Path) -> None:
    """Write to a file until the disk is full."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        fill_from(descriptor)
    os.close(descriptor)


def fill_from(descriptor: int) -> None:
    """Write pages until it fails."""
    while True:
        os.write(descriptor, bytes(4096))


@pytest.mark.parametrize(
    ("durability", "denied", "expected"),
    [
        ("written", "record_unavailable", (NOT_SERVING, NOT_SERVING)),
        ("durable", "record_unavailable", (NOT_SERVING, NOT_SERVING)),
        ("async", "permit", (SERVING, NOT_SERVING)),
    ],
)
def test_a_full_disk_is_survived(
    tmp_path: Path, small_disk: Path, durability: str, denied: str, expected: tuple[int, int]
) -> None:
    """While the disk is full, there is no allow but in `async`, and the server says so; then all is as before.

    No restart is needed, and no answer lacks its record.
    """
    write_folder(tmp_path / "policies", notes_bundle())
    settings = {"record-durability": durability, "record-checkpoint-seconds": "0.2", "record-reserve-bytes": "16384"}
    record = small_disk / "record"
    answered: list[str] = []
    with ServerProcess(tmp_path, record_folder=str(record), **settings) as server, Callers.of(server) as callers:
        opened = callers.pep.request_session(user="alice", agent="coder", purpose="notes", tools=("notes/*",))
        session, handle = opened.session, opened.session_handle
        callers.approver.approve_session(session.session_id, request_digest=session.request_digest)
        well = basis(callers.pep, handle), health(server)

        filler = small_disk / "filler"
        fill(filler)

        def degraded() -> bool:
            # What the record's last page still holds is used up first.
            answered.append(basis(callers.pep, handle))
            return health(server) == expected

        wait_until(degraded)
        during = basis(callers.pep, handle)

        filler.unlink()
        wait_until(lambda: health(server) == (SERVING, SERVING))
        after = basis(callers.pep, handle)
        answered += [well[0], during, after]
        assert server.terminate() == 0

    assert well == ("permit", (SERVING, SERVING))
    assert (during, after) == (denied, "permit")
    recorded = [one["basis"] for _, _, one in read_records(record) if one["kind"] == "decision"]
    assert sorted(recorded) == sorted(answered)
    keys = PublicKeys.load([server.record_folder.parent / PUBLIC_KEY_FILE])
    assert verify(record, keys).findings == ()


def opened(callers: Callers, *, approve: bool = True) -> ClientSession:
    """Ask for a session, and have it approved."""
    found = callers.pep.request_session(user="alice", agent="coder", purpose="notes", tools=("notes/*",))
    if approve:
        callers.approver.approve_session(found.session.session_id, request_digest=found.session.request_digest)
    return callers.pep.attach(found.session_handle, session_id=found.session.session_id)


def refusal(work: Callable[[], object]) -> str:
    """Do what must be refused; return the status."""
    with pytest.raises(PDPClientError) as caught:
        work()
    assert caught.value.code is not None
    return str(caught.value.code.name)


def test_authority_ends_on_a_disk_that_is_full_to_the_last_byte(disk: Path) -> None:
    """With store and record on it, nothing is allowed and nothing opened, and all that ends authority is done and kept.

    Not even the end of the process without a chance to tidy up, and a start on the full disk, take any of it back.
    When there is room again, all is as before.
    """
    write_folder(disk / "policies", notes_bundle("first"))
    settings = {"record-reserve-bytes": "262144", "sessions-reserve-bytes": "1048576"}
    with ServerProcess(disk, **settings) as server, Callers.of(server) as callers:
        revoked, ended, narrowed, kept, later = (opened(callers) for _ in range(5))
        denied, waiting = (opened(callers, approve=False) for _ in range(2))
        write_folder(disk / "policies", notes_bundle("second"))
        callers.admin.reload_bundle()
        first = callers.admin.list_bundles()[-1].version
        fill(disk / "filler")

        wait_until(lambda: basis(callers.pep, kept.handle) == "record_unavailable")
        shown = callers.pep.get_session(waiting.id)
        refusals = [
            refusal(lambda: callers.pep.request_session(user="bob", agent="coder", purpose="x", tools=("notes/*",))),
            refusal(lambda: callers.approver.approve_session(waiting.id, request_digest=shown.request_digest)),
        ]
        callers.approver.revoke_sessions(session_id=revoked.id, reason="enough")
        callers.pep.end_session(ended.handle)
        callers.approver.deny_session(denied.id, reason="not now")
        callers.approver.narrow_session(narrowed.id, labels=("suspect",))
        callers.admin.activate_bundle(first, reason="back")
        during = health(server)

    fill(disk / "filler-2")
    with ServerProcess(disk, **settings) as server, Callers.of(server) as callers:
        states = {one.id: callers.approver.get_session(one.id) for one in (revoked, ended, denied, narrowed, kept)}
        active = callers.admin.get_bundle().bundle.version
        # What the killed process had kept for its record is used up first.
        wait_until(lambda: basis(callers.pep, kept.handle) == "record_unavailable")
        callers.approver.revoke_sessions(session_id=later.id, reason="enough")
        after_revoked = basis(callers.pep, later.handle)
        freeze = callers.approver.set_freeze(tenant="default", reason="the disk is full")
        after_frozen = basis(callers.pep, kept.handle)
        for filler in disk.glob("filler*"):
            filler.unlink()
        wait_until(lambda: health(server) == (SERVING, SERVING))
        with closing(SQLiteSessionStore(disk / "data" / "sessions.sqlite", busy_seconds=PATIENCE)) as store:
            store.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)
        fresh = opened(callers)
        after = [basis(callers.pep, one.handle) for one in (revoked, ended, narrowed, kept, later, fresh)]
        assert server.terminate() == 0

    assert (refusals, during) == (["UNAVAILABLE", "UNAVAILABLE"], (NOT_SERVING, NOT_SERVING))
    assert [SessionState.Name(states[one.id].state) for one in (revoked, ended, denied, narrowed, kept)] == [
        f"SESSION_STATE_{state}" for state in ("REVOKED", "ENDED", "DENIED", "ACTIVE", "ACTIVE")
    ]
    assert list(states[narrowed.id].labels) == ["suspect"]
    assert (active, after_revoked, after_frozen) == (first, "session_revoked", "frozen")
    assert after == ["session_revoked", "session_ended", "permit", "permit", "session_revoked", "permit"]
    told = [(one["kind"], one.get("session_id")) for _, _, one in read_records(server.record_folder)]
    for kind, session in (("revoked", revoked), ("ended", ended), ("denied", denied), ("narrowed", narrowed)):
        assert (f"session.{kind}", session.id) in told
    keys = PublicKeys.load([server.record_folder.parent / PUBLIC_KEY_FILE])
    assert verify(server.record_folder, keys).findings == ()
