"""`pdp mcp` as an MCP client starts it: a process with pipes, before a small tool server."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.doors.commands import PDP, PDP_THAT_WAITS
from tests.machinery.servers.server_process import PATIENCE

TOOL_SERVER = Path(__file__).parent / "toolserver.py"
_ROOT = Path(__file__).parents[3]


def run_pdp(command: str) -> str:
    """Run a command as it was told to a person, such as `pdp session show ses_…`; return what it prints."""
    name, *words = shlex.split(command)
    assert name == "pdp"
    done = subprocess.run(
        [*PDP, *words], env=environment(), cwd=_ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment without what is set for this product."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}


class DoorProcess:
    """One proxy, and the client that started it. `lines` are what its tool server got."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self._got = folder / "lines"
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *PDP_THAT_WAITS,
                    "mcp",
                    *options,
                    "--server",
                    "files",
                    "--",
                    sys.executable,
                    str(TOOL_SERVER),
                    str(self._got),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                cwd=_ROOT,
            )
        self._seen: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._number = 0
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        greeting = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "small", "version": "1"},
        }
        self.ask("initialize", greeting)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def ran(self) -> list[str]:
        """Return the names of the tools that ran, in order."""
        said = map(json.loads, self._got.read_bytes().splitlines()) if self._got.exists() else ()
        return [one["params"]["name"] for one in said if one.get("method") == "tools/call"]

    def say(self, message: dict[str, Any]) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Make a request, and return its answer."""
        self._number += 1
        self.say({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}})
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            answer = self._seen.get(timeout=left)
            if answer.get("id") == self._number:
                return answer.get("result", answer.get("error"))
        raise AssertionError("no answer")

    def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool; return the text of its result."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        text: str = result["content"][0]["text"]
        return text

    def asked_of_person(self) -> str:
        """Return the command that a person is told to run before any tool may be called."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            text = self.call("read", path="a")
            if found := re.search(r"`(pdp session approve [^`]*)`", text):
                return found.group(1)
            assert "does not answer" in text or "not answered" in text, text
        raise AssertionError("nobody is asked")

    def until(self, tool: str, said: str) -> str:
        """Call a tool until its result says something; return the text."""
        end = time.monotonic() + PATIENCE
        while said not in (text := self.call(tool, path="a")):
            assert time.monotonic() < end, text
            time.sleep(0.1)
        return text

    def end(self) -> int:
        """Close the door as a client does; return the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End the process, and no other, at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._seen.put(json.loads(line))
