"""Write the client for threads, `pdp/client/sync`, from the one for asyncio, `pdp/client/aio`: `make client`.

`WORDS` holds every difference between the two. What each does in its own way is written by hand, by the same names:
`pdp/client/tasks.py` and `pdp/client/threads.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "pdp" / "client" / "aio"
TARGET = ROOT / "pdp" / "client" / "sync"

WORDS = (
    (r" *Make it where the event loop runs\.\n", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bgrpc\.aio\b", "grpc"),
    (r"\bpdp\.client\.aio\b", "pdp.client.sync"),
    (r"\b(tasks|asyncio)\b", "threads"),
    (r"\bTasks\b", "Threads"),
)


def generated() -> Mapping[str, str]:
    """Return each module of the client for threads, by the name of its file."""
    return {path.name: _formatted(_header(path) + _threaded(path.read_text("utf-8"))) for path in SOURCE.glob("*.py")}


def _threaded(source: str) -> str:
    for ours, theirs in WORDS:
        source = re.sub(ours, theirs, source)
    return source


def _header(path: Path) -> str:
    return f"# Generated from {path.relative_to(ROOT).as_posix()} by `make client`; never edited.\n\n"


def _formatted(source: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "-"]
    done = subprocess.run(command, input=source.encode(), capture_output=True, cwd=ROOT, check=True, timeout=60)
    return done.stdout.decode()


def main() -> None:
    """Replace what was generated before."""
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.py"):
        old.unlink()
    for name, text in generated().items():
        (TARGET / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
