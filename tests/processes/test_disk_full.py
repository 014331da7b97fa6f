"""A disk that fills up under the running server, and gets room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.client import Client
from pdp.record import read_records
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.processes.bundle import READ, notes_bundle
from tests.processes.ledger import NOTE
from tests.processes.server_process import PATIENCE, Callers, ServerProcess

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own that holds 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def basis(pep: Client, handle: str) -> str:
    """Ask about a call that the policies permit; return what the answer rests on."""
    answer = pep.authorize(handle, "notes", READ, NOTE)
    assert not answer.error
    return answer.basis


def health(server: ServerProcess) -> tuple[int, int]:
    """Return the health of the server and of its record."""
    with grpc.insecure_channel(server.address) as channel:
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
        ("written", "permit", (SERVING, NOT_SERVING)),
        ("durable", "record_unavailable", (NOT_SERVING, NOT_SERVING)),
        ("async", "permit", (SERVING, NOT_SERVING)),
    ],
)
def test_a_full_disk_is_survived(
    tmp_path: Path, small_disk: Path, durability: str, denied: str, expected: tuple[int, int]
) -> None:
    """While the disk is full, `durable` denies and leaves service, the others show it; then all is as before.

    No restart is needed, and no answer lacks its record.
    """
    write_folder(tmp_path / "policies", notes_bundle())
    record, settings = small_disk / "record", {"record-durability": durability, "record-checkpoint-seconds": "0.2"}
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
