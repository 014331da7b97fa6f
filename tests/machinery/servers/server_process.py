"""The server as a process of its own, started by its command like in production."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from pdp.client import Client
from pdp.client.connection import Connection
from pdp.model import Role
from tests.machinery.servers import transports

# Long enough for a busy machine; nothing waits for it to pass.
PATIENCE = 60.0
# For a start, which takes many seconds of a core: several that start at once on a busy machine take minutes.
_STARTING_SECONDS = 200.0

# How this version is run.
THIS_PROGRAM = (sys.executable, "-m", "pdp.cli")

_LISTENING = "listening on "


class ServerProcess:
    """A server on a folder, which holds `policies` and keeps `data`. It listens once this returns.

    Several may share one folder, and one may be started after the other on it. What it logs goes to `log`, for people.
    `program` is the command line of its version, and `through` a command that runs the server's.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        /,
        *,
        program: Sequence[str] = THIS_PROGRAM,
        through: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.folder, self._data = folder, folder / "data"
        self.log = folder / "server.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*through, *_command(folder, settings, program)],
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment() | dict(environment or {}),
            )
        try:
            self.address = self._listening()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @classmethod
    def refused(
        cls, folder: Path, /, *, program: Sequence[str] = THIS_PROGRAM, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command of a server that cannot start, to its end."""
        return subprocess.run(
            _command(folder, settings, program),
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_STARTING_SECONDS,
        )

    @property
    def record_folder(self) -> Path:
        """Return the folder of the decision logs."""
        return self._data / "record"

    @property
    def store(self) -> Path:
        """Return the file of the session store."""
        return self._data / "sessions.sqlite"

    def client(self, role: Role, **more: Any) -> Client:
        """Return a client that speaks as a role."""
        options = {"timeout": PATIENCE, "management_timeout": PATIENCE, "data_dir": self._data, **more}
        return Client(self.address, token=self.token(role), **options)

    def connection(self) -> Connection:
        """Return a connection without a token."""
        return Connection.to(self.address, data_dir=self._data)

    def channel(self) -> Any:
        """Return a bare channel."""
        return self.connection().open(grpc)

    def token(self, role: Role) -> str:
        """Return the token of a role's caller."""
        return (self._data / "tokens" / f"{role.value}.token").read_text(encoding="ascii").strip()

    @property
    def pid(self) -> int:
        """Return the id of the process: the server's, or that of the parent of its workers."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        return self._wait()

    def kill(self) -> None:
        """End the process at once, without a chance to tidy up; twice is harmless."""
        self._process.kill()
        self._wait()

    def terminate(self) -> int:
        """Ask the process to end, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        code = self._process.wait(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def _listening(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _STARTING_SECONDS)
        line = self._process.stdout.readline().decode() if ready else ""
        assert line.startswith(_LISTENING), self.log.read_text()
        return line.removeprefix(_LISTENING).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """A client for each caller that a test needs, all of one server."""

    pep: Client
    approver: Client
    admin: Client

    @classmethod
    def of(cls, server: ServerProcess, **more: Any) -> Self:
        """Return clients of a server; `more` are options of `Client`."""
        return cls(
            pep=server.client(Role.PEP, **more),
            approver=server.client(Role.APPROVER, **more),
            admin=server.client(Role.ADMIN, **more),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self.pep, self.approver, self.admin):
            client.close()


def _command(folder: Path, settings: Mapping[str, str], program: Sequence[str]) -> list[str]:
    flags = {
        "data-dir": str(folder / "data"),
        "policies-folder": str(folder / "policies"),
        "policies-watch": "false",
        "server-address": "127.0.0.1:0",
        "server-workers": "1",
        **{name.replace("_", "-"): value for name, value in settings.items()},
    }
    return [*program, "serve", *(f"--{name}={value}" for name, value in flags.items())]


def _environment() -> dict[str, str]:
    # What the tester has set for a server of their own must not reach these.
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))}
    return clean | transports.environment()
