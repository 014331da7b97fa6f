"""A terminal for tests: what a program prints on one of a given size."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def on_terminal(
    program: str, folder: Path, *, columns: int = 60, rows: int = 40, environ: Mapping[str, str] | None = None
) -> str:
    """Return what a Python program prints on a terminal."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # `cat` is a pager that passes everything on.
    environment = {**os.environ, "TERM": "xterm-256color", "PAGER": "cat", **(environ or {})}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=other, stdout=other, stderr=other, cwd=folder, env=environment
    ) as process:
        os.close(other)
        out = bytearray()
        with os.fdopen(main, "rb", buffering=0) as reader, suppress(OSError):  # the end of a terminal is an error
            while chunk := reader.read(65536):
                out += chunk
    assert 0 == process.returncode, out.decode()
    return out.decode().replace("\r\n", "\n")
