"""A policy folder, `pdp serve` in a process of its own, and other commands in this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.testing.bundles import bundle_files, tool, with_terms
from tests.machinery.servers import transports

DEADLINE_SECONDS = 60.0

DIRECTORY = """
users: {alice: {}, bob: {}, approver: {}}
agents: {coder: {ceiling: ["files/*"]}}
"""
OVERLAY = """
tools:
  read: {risk: read_only}
  write: {risk: mutating}
"""
POLICIES = {
    "files": """
@id("files/read")
permit (principal, action in Action::"read_only", resource) when { context.agent == Agent::"coder" };

@id("files/write-when-granted")
permit (principal, action == Action::"files/write", resource) when { context.session in Grant::"writing" };
"""
}


class Server(NamedTuple):
    """A server that runs in a process of its own, in `folder`."""

    process: subprocess.Popen[str]
    address: str
    folder: Path


def write_bundle(folder: Path, **changed: object) -> Path:
    """Write a policy folder with one tool server, `files`, that has `read` and `write`."""
    parts: dict[str, object] = {
        "policies": POLICIES,
        "tools": {"files": [tool("read", {"path": {"type": "string"}}, ["path"]), tool("write")]},
        "overlays": {"files": OVERLAY},
        "directory": DIRECTORY,
        "labels": ("tainted",),
        "schema": with_terms("ticket?: String, max_sum?: decimal, targets?: Set<String>, urgent?: Bool"),
    }
    for name, content in bundle_files(**(parts | changed)).items():  # type: ignore[arg-type] # parts by name
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of ours and without telemetry."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))}
    return clean | transports.environment()


def run_here(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, in this process, and with no other settings of ours in the environment."""
    others = dict.fromkeys(os.environ.keys() - clean_environment().keys())
    with chdir(folder):
        done = CliRunner().invoke(root, words, env=others | environ, prog_name="pdp")
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def start_server(folder: Path, *flags: str) -> Server:
    """Start `pdp serve` in a folder, as one process, and wait until it listens."""
    alone = ("--server-address", "127.0.0.1:0", "--server-workers", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "pdp.cli", "serve", *alone, *flags],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    # A server that says nothing is ended, and then its output has an end.
    watchdog = threading.Timer(DEADLINE_SECONDS, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    match = re.fullmatch(r"listening on (127\.0\.0\.1:[1-9]\d*)\n", line)
    if match is None:
        process.kill()
        pytest.fail(f"the server does not listen: {line} {process.communicate()}")
    return Server(process, match[1], folder)


def stop_server(server: Server) -> tuple[int, str, str]:
    """Ask a server to stop; return its exit code and what else it wrote to stdout and stderr."""
    server.process.terminate()
    try:
        out, err = server.process.communicate(timeout=DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.communicate()
        raise
    return server.process.returncode, out, err
