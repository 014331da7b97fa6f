"""Access requests of two server processes on one folder: what one takes, the other shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pdp.client import Client
from pdp.client.errors import WrongStateError
from pdp.clock import SystemClock
from pdp.model import Role
from pdp.sessions.access import Unaskable
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.inprocess import write_folder
from pdp.v1.access_pb2 import ACCESS_STATE_APPROVED, ACCESS_STATE_DENIED, ACCESS_STATE_OPEN, ACCESS_STATE_REVOKED
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.machinery.servers.waitingcalls import bound_call, request_of

ANSWERING = '@id("answering/all") permit (principal, action == Action::"pdp/approve_call", resource);'
# No server listens there.
NOWHERE = "127.0.0.1:1"
ACTION = f"notes/{READ}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that both workers share."""
    shared = tmp_path_factory.mktemp("workers")
    write_folder(shared / "policies", {**notes_bundle(), "answering.cedar": ANSWERING.encode()})
    return shared


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[tuple[Callers, Callers]]:
    """Return the callers of two workers on one folder."""
    with (
        ServerProcess(folder) as one,
        ServerProcess(folder) as other,
        Callers.of(one) as first,
        Callers.of(other) as second,
    ):
        yield first, second


def wait_for_a_person(folder: Path, callers: Callers) -> str:
    """Have a call wait, as a third process would write it; return the id of its request."""
    opened = callers.pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=["notes/*"])
    shown = opened.session
    approved = callers.approver.approve_session(shown.session_id, request_digest=shown.request_digest)
    definition = next(one.definition_digest for one in approved.tools if f"{one.server}/{one.tool}" == ACTION)
    version, now = callers.admin.get_bundle().bundle.version, SystemClock().now()
    call = bound_call(shown.session_id, definition, version, action=ACTION)
    with closing(SQLiteSessionHistory(folder / "data" / "history.sqlite", busy_seconds=PATIENCE)) as history:
        request = request_of(call, now, user="alice", agent="coder", by="pep")
        found = history.access().ask(request, b'{"name": "shopping"}', now)
    assert not isinstance(found, Unaskable)
    return found.id


def test_the_control_process_takes_what_ends_authority(tmp_path: Path) -> None:
    """A no, and the end of a yes, need none of the workers: the client knows no other address that answers."""
    write_folder(tmp_path / "policies", {**notes_bundle(), "answering.cedar": ANSWERING.encode()})
    with ServerProcess(tmp_path, server_workers="2") as server, Callers.of(server) as callers:
        refused, approved = (wait_for_a_person(tmp_path, callers) for _ in range(2))
        digest = callers.approver.get_access_request(approved).request_digest
        callers.approver.approve_call(approved, request_digest=digest)
        token, socket = server.token(Role.APPROVER), f"unix:{tmp_path / 'data' / 'control.sock'}"
        with Client(NOWHERE, control_address=socket, token=token, data_dir=tmp_path / "data") as person:
            denied = person.deny_call(refused, reason="no")
            revoked = person.revoke_access(access_request_id=approved, reason="no longer")

        assert (ACCESS_STATE_DENIED, (approved,)) == (denied.state, revoked)
        assert callers.approver.get_access_request(approved).access_request.state == ACCESS_STATE_REVOKED


def test_a_watch_sees_what_another_worker_wrote(folder: Path, workers: tuple[Callers, Callers]) -> None:
    """A request that a third process opened, and the answer that a second one took."""
    first, second = workers
    watch = second.pep.watch_access_requests()

    waits = wait_for_a_person(folder, first)
    opened = next(watch)
    shown = first.approver.get_access_request(waits)
    first.approver.approve_call(waits, request_digest=shown.request_digest)
    approved = next(watch)

    assert ((waits, ACCESS_STATE_OPEN), (waits, ACCESS_STATE_APPROVED)) == tuple(
        (one.access_request_id, one.state) for one in (opened, approved)
    )
    assert b'{"name": "shopping"}' == shown.arguments_json


def test_a_call_is_answered_once_by_all_workers(folder: Path, workers: tuple[Callers, Callers]) -> None:
    """What one worker has refused, the other does not approve."""
    first, second = workers
    waits = wait_for_a_person(folder, first)
    digest = second.approver.get_access_request(waits).request_digest

    first.approver.deny_call(waits, reason="no")

    with pytest.raises(WrongStateError, match="denied, not open"):
        second.approver.approve_call(waits, request_digest=digest)
    assert second.approver.get_access_request(waits).access_request.state == ACCESS_STATE_DENIED
