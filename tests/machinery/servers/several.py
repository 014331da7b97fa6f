"""What tests ask of a server with several workers."""

from __future__ import annotations

import re

from pdp.client import Client, ClientSession
from pdp.record import read_records
from pdp.v1.session_pb2 import RequestSessionResponse
from tests.machinery.servers.server_process import Callers, ServerProcess


def opened_by(callers: Callers) -> RequestSessionResponse:
    """Request a session and have it approved."""
    opened = callers.pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=("notes/*",))
    callers.approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    return opened


def seen_by(client: Client, opened: RequestSessionResponse) -> ClientSession:
    """Return a session as one gateway holds it."""
    return client.attach(opened.session_handle, session_id=opened.session.session_id)


def workers_of(server: ServerProcess) -> dict[int, int]:
    """Return the latest process of each worker, as the log has it."""
    found = re.findall(r"worker (\d+) \(process (\d+)\) serves", server.log.read_text())
    return {int(number): int(process) for number, process in found}


def chains_of(server: ServerProcess) -> dict[str, str]:
    """Return which chain of the record holds each decision: each worker writes one of its own."""
    return {
        one.record["id"]: one.file.name.split("-")[1]
        for one in read_records(server.record_folder)
        if one.record["kind"] == "decision"
    }
