"""The receiver of telemetry is dead or hangs: nobody waits for it, and no answer is another one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.servers.served import served


@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
def test_while_the_receiver_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool) -> None:
    """All is as before; what could not be sent is dropped and counted (`tests/telemetry/test_receivers.py`)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if not hangs:
            listening.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
        with served(tmp_path) as service:
            during = service.seen(service.open())

    assert during == ROWS["the receiver of telemetry is dead or hangs"].seen
