"""The whole service on loopback, assembled as in production: store and record in files, traces sent by OTLP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client, ClientSession
from pdp.config.settings import PolicySettings, ServerSettings, Settings
from pdp.record import read_records
from pdp.telemetry.names import SPAN_DECISION
from pdp.testing.inprocess import write_folder
from pdp.testing.otlp import OTLPReceiver, Value, attributes_of


@contextmanager
def serving(folder: Path, files: Mapping[str, bytes]) -> Iterator[tuple[Client, Client]]:
    """Serve a bundle, with all that the server keeps in a folder; yield clients of the gateway and the approver."""
    write_folder(folder / "policies", files)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0"),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings, development=True)
    app = App(settings)
    app.start()
    tokens = settings.tokens_folder
    try:
        with (
            Client(app.address, token_file=tokens / "pep.token", timeout=60.0, data_dir=settings.data_dir) as pep,
            Client(app.address, token_file=tokens / "approver.token", data_dir=settings.data_dir) as approver,
        ):
            yield pep, approver
    finally:
        app.stop()


def open_session(
    pep: Client,
    approver: Client,
    *,
    user: str,
    agent: str,
    tools: tuple[str, ...],
    purpose: str = "replay",
    terms: Mapping[str, Any] | None = None,
) -> ClientSession:
    """Have a session requested by the gateway and approved by the approver."""
    opened = pep.request_session(user=user, agent=agent, purpose=purpose, tools=tools, terms=terms)
    shown = opened.session
    approver.approve_session(shown.session_id, request_digest=shown.request_digest)
    return pep.attach(opened.session_handle, session_id=shown.session_id)


@contextmanager
def tracing() -> Iterator[OTLPReceiver]:
    """Receive the traces of every server that is built inside; they have all arrived when the server has stopped."""
    with OTLPReceiver() as receiver, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def decision_records(folder: Path, kind: str = "decision") -> list[dict[str, Any]]:
    """Return the records of all decisions, or of another kind, of a service that `serving` ran in a folder."""
    located = read_records(folder / "data" / "record")
    return [record for _, _, record in located if record["kind"] == kind]


def decision_spans(receiver: OTLPReceiver) -> list[dict[str, Value]]:
    """Return the attributes of all spans of decisions that arrived."""
    return [attributes_of(span) for span in receiver.spans if span.name == SPAN_DECISION]
