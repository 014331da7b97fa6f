"""Run a server, and write down every line in both directions: `tap.py FILE COMMAND…`. It changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO


def main() -> None:
    """Stand between until both sides have ended."""
    kept = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what the server does counts
    with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        threading.Thread(target=_carry, args=(server.stdout, sys.stdout.buffer, kept.with_suffix(".out"))).start()
        _carry(sys.stdin.buffer, server.stdin, kept.with_suffix(".in"))
        server.stdin.close()
    os._exit(server.returncode)


def _carry(source: IO[bytes], target: IO[bytes], kept: Path) -> None:
    with kept.open("ab", buffering=0) as file:
        for line in iter(source.readline, b""):
            file.write(line)
            target.write(line)
            target.flush()


if __name__ == "__main__":
    main()
