"""An MCP server that misbehaves: `oddserver.py FILE WAY`; what it has to say to the test it writes into the file."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.doors.mcp.toolserver import ToolServer

TOLD = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%s"}}\n'


def write(line: bytes) -> None:
    """Write to the client."""
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def serve(kept: Path) -> None:
    """Serve as the usual server does."""
    server = ToolServer()
    for line in iter(sys.stdin.buffer.readline, b""):
        with kept.open("ab") as file:
            file.write(line)
        for out in server.take(line.rstrip(b"\n")):
            write(out + b"\n")


def stubborn(kept: Path) -> None:
    """Neither the end of stdin nor a signal ends it."""
    signal.signal(signal.SIGTERM, lambda *_: kept.open("ab").write(b"SIGTERM\n"))
    with kept.open("ab") as file:
        file.write(b"%d\n" % os.getpid())
    serve(kept)
    while True:
        time.sleep(60)


def obedient(kept: Path) -> None:
    """The end of stdin does not end it, a signal does."""
    with kept.open("ab") as file:
        file.write(b"%d\n" % os.getpid())
    serve(kept)
    while True:
        time.sleep(60)


def dies(kept: Path) -> None:
    """It ends when a tool is called."""
    server = ToolServer()
    for line in iter(sys.stdin.buffer.readline, b""):
        with kept.open("ab") as file:
            file.write(line)
        if b"tools/call" in line:
            sys.exit(7)
        for out in server.take(line.rstrip(b"\n")):
            write(out + b"\n")


def answers_at_the_end(kept: Path) -> None:
    """It answers a ping when stdin ends, with more than a pipe holds."""
    for line in iter(sys.stdin.buffer.readline, b""):
        message = json.loads(line)
        with kept.open("ab") as file:
            file.write(line)
    write(ToolServer.answer(message, {"text": "x" * 300_000}) + b"\n")


def floods(kept: Path) -> None:
    """It tells without end, and the file says how much; meanwhile it serves."""

    def tell() -> None:
        for number in range(1, 1_000_000):
            write(TOLD % (b"x" * 100_000))
            kept.write_text(str(number), encoding="ascii")

    threading.Thread(target=tell, daemon=True).start()
    for _ in iter(sys.stdin.buffer.readline, b""):
        pass


def endless(kept: Path) -> None:
    """It writes one line without end."""
    for number in range(1, 1_000_000):
        write(b"x" * 1_000_000)
        kept.write_text(str(number), encoding="ascii")


def deaf(kept: Path) -> None:
    """It reads nothing."""
    kept.write_text("started", encoding="ascii")
    while True:
        time.sleep(60)


def nosy(kept: Path) -> None:
    """It writes down its environment and its open files."""
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            found[one.name] = str(one.readlink())
    kept.write_text(json.dumps({"environment": dict(os.environ), "files": found}), encoding="utf-8")
    serve(kept.with_suffix(".lines"))


WAYS: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (stubborn, obedient, dies, answers_at_the_end, floods, endless, deaf, nosy)
}

if __name__ == "__main__":
    WAYS[sys.argv[2]](Path(sys.argv[1]))
