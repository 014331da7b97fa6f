"""Servers and commands on a database, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pdp.v1 import session_pb2
from tests.machinery.servers.notes import READ
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess

# Where `make replicas-long` installs an earlier release.
OLDER = Path(__file__).parents[3] / ".venv-older"


def older() -> tuple[str, ...]:
    """Return the command line of the earlier program."""
    python = OLDER / "bin" / "python"
    assert python.exists(), f"there is no `{OLDER}`: run `make replicas-long`"
    # It must not find the program that is in the present folder.
    return str(python), "-P", "-m", "pdp.cli"


def start(folder: Path, **settings: str) -> ServerProcess:
    """Start a server on the database."""
    file = str(folder / "postgres")
    return ServerProcess(folder, sessions_store="postgres", sessions_postgres_file=file, **settings)


def open_session(callers: Callers) -> session_pb2.RequestSessionResponse:
    """Request a session over all notes and have it approved."""
    opened = callers.pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=("notes/*",))
    callers.approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    return opened


def basis(callers: Callers, opened: session_pb2.RequestSessionResponse, min_revision: str = "") -> str:
    """Return what the answer about one call rests on, or why there is none."""
    session = callers.pep.attach(opened.session_handle, session_id=opened.session.session_id)
    answer = session.authorize("notes", READ, {"name": "shopping"}, min_revision=min_revision)
    return answer.error or answer.basis


def run(folder: Path, *command: str, store: str = "postgres", replication: str = "none") -> tuple[int, Any]:
    """Run a command of `pdp` on the database; return its exit code, and its JSON or its error."""
    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", *command, "--json"],
        cwd=folder,
        env={
            **{name: text for name, text in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))},
            "PDP_DATA_DIR": "data",
            "PDP_SESSIONS__STORE": store,
            **(
                {"PDP_SESSIONS__POSTGRES_FILE": "postgres", "PDP_SESSIONS__REPLICATION": replication}
                if store == "postgres"
                else {}
            ),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else done.stderr
