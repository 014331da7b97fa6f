"""The threads of a server with everything on are those of the map's table, and end with it."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pdp
from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.config.settings import (
    JWTSettings,
    MessageSettings,
    PolicySettings,
    RecordSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)
from pdp.serving.transports import GRPC
from pdp.testing.inprocess import write_folder
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, Issuer
from tests.machinery.ports import free_port
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.transports import chosen

PACKAGE = Path(pdp.__file__).parent
PATIENCE = 30.0
# Threads of the table that may be there at any moment, and are soon over.
SOON_OVER = {"pdp-telemetry-end", "pdp-resolve", "pdp-child-end", "pdp-large-stack"}
# Threads of the table that one server, just started, does not have.
ELSEWHERE = {
    "MainThread",  # of every process
    "pdp-policy-poll",  # a bundle comes from a folder or from a URL
    "pdp-lease",  # of servers on PostgreSQL
    "pdp-record-heads",  # the same
    "pdp-replicas",  # the same
    "pdp-prepare",  # the same
    "pdp-steps",  # the same
    "pdp-failover",  # the same
    "pdp-slices",  # the same
    "pdp-completing",  # the same
    "pdp-supervisor",
    "pdp-peers",
    "pdp-alive",  # of workers
    "pdp-answers",  # of clients
    "pdp-interrupted",  # the same
    "pdp-stream",  # the same
    "pdp-first-message",  # the same
    "pdp-embedded",  # of doors
    "pdp-store-look",  # once the loop has answered a call
    "pdp-catch-up",  # of servers that are behind
    "pdp-loop" if chosen() == GRPC else "Thread-<n> (_serve)",  # of the other transport
}


def rows() -> Iterator[str]:
    """Yield the name of each thread in the table of the map, with `<...>` for what is put in."""
    table = (PACKAGE / "README.md").read_text(encoding="utf-8").partition("\n| thread |")[2].partition("\n\n")[0]
    yield from (match[1] for row in table.splitlines()[2:] if (match := re.match(r"\| `([^`]+)` \|", row)))


def row_of(name: str) -> str:
    """Return the row of a thread, if there is a choice the plainest; empty without one."""
    fitting = [row for row in rows() if re.fullmatch(re.sub("<[a-z]+>", "[a-z0-9_ -]+", re.escape(row)), name)]
    return min(fitting, key=lambda row: row.count("<"), default="")


def everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings with which a server has all the threads that it can have at once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    write_folder(folder / "policies", notes_bundle())
    (folder / "keys.json").write_bytes(Issuer().jwks())
    (folder / "on-call.url").write_text("https://example.org/", encoding="utf-8")
    (folder / "on-call.url").chmod(0o600)
    (folder / "receivers.yaml").write_text("on-call: {form: chat, url_file: on-call.url}", encoding="utf-8")
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0", control_address=f"unix:{folder / 'control'}"),
        jwt=JWTSettings(issuer=ISSUER, audience=AUDIENCE, keys_file=str(folder / "keys.json")),
        policies=PolicySettings(folder=str(folder / "policies")),
        record=RecordSettings(durability="async"),
        messages=MessageSettings(receivers_file=str(folder / "receivers.yaml")),
        telemetry=TelemetrySettings(exporter="otlp", prometheus_address=f"127.0.0.1:{free_port()}"),
    )
    prepare(settings)
    return settings


def test_the_table_has_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread of a server has a row, each row a thread, and `stop` ends them all."""
    before = set(threading.enumerate())
    app = App(everything(tmp_path, monkeypatch))
    app.start()
    running = set(threading.enumerate()) - before
    app.stop()
    for thread in running:
        thread.join(PATIENCE)

    assert [thread.name for thread in running if not row_of(thread.name)] == []
    assert set(rows()) - ELSEWHERE - SOON_OVER == {row_of(thread.name) for thread in running} - SOON_OVER
    assert [thread.name for thread in running if thread.is_alive()] == []


def test_every_thread_has_a_name() -> None:
    """A thread without one could be anybody's."""
    calls = [
        (path.relative_to(PACKAGE), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        if "Thread(" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Thread", "threading.Thread")
    ]

    assert [f"{path}:{node.lineno}" for path, node in calls if "name" not in {one.arg for one in node.keywords}] == []
