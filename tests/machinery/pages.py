"""The commands of pages: which there are, and how they are run as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.machinery.ports import free_port

_BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n\n)?```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Some pages have thirty commands, each a process of its own. On a busy machine that takes minutes, and never this long.
PAGE_SECONDS = 900
ONE_WORKER = "PDP_SERVER__WORKERS"
# These set up an environment of their own and run everything again.
ELSEWHERE = ("make demo", "make .venv/ready", "make dist")


class Block(NamedTuple):
    """A fenced block: what its opening line says, its text, and why it is not run where a comment above says so."""

    kind: str
    text: str
    not_run: str


def all_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(kind.strip(), text, not_run) for not_run, kind, text in found]


def blocks(page: Path, kind: str) -> list[str]:
    """Return the text of a page's blocks whose opening line says `kind`, but for those that are not run."""
    return [block.text for block in all_blocks(page) if block.kind == kind and not block.not_run]


def surroundings(place: Path, programs: Path) -> dict[str, str]:
    """Return an environment with the programs of a folder, and a server's address that is free.

    A server there is one process: each worker more would compile the same bundle once more.
    """
    address = f"127.0.0.1:{free_port()}"
    paths = os.pathsep.join([str(programs), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))}
    server = {"PDP_SERVER__ADDRESS": address, "PDP_ADDRESS": address, ONE_WORKER: "1"}
    return {**clean, "PATH": paths, "TMPDIR": str(place), **server}


@contextmanager
def served(command: str, place: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run the command of a `sh serve` block while the `with` block runs."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening on ")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


def run(script: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the lines of some blocks as one script that stops at the first failure."""
    lines = [line for line in script.splitlines() if line not in ELSEWHERE]
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PAGE_SECONDS,
    )
