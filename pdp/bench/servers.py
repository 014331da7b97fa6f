"""The servers under measurement, each in its own process: the empty handler, and this one in several setups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pdp.bench.dialects import ControlDialect, Dialect, FramesDialect, PDPDialect
from pdp.bench.plan import BARE, CONTROL, LASTING_SECONDS
from pdp.bench.processes import cpu_seconds, listening, module_process
from pdp.bench.questions import Workload
from pdp.client import Client

# A handle of the usual size, for a server that does not check it.
_NO_HANDLE = "pdps_" + "x" * 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running server: its address, its process and core if they are known, and its dialect.

    `others` are further processes on its core without which it does not answer. `authorities` is the file of those who
    sign its certificate; None for a server that speaks plain text.
    """

    name: str
    address: str
    pid: int | None
    core: int | None
    dialect: Dialect
    others: tuple[int, ...] = ()
    authorities: Path | None = None

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes; NaN when not available."""
        return sum(map(cpu_seconds, self.others), cpu_seconds(self.pid))


@contextmanager
def empty_handler(workload: Workload, core: int | None) -> Iterator[Target]:
    """Run the control."""
    with module_process("pdp.bench.control", core=core) as process:
        dialect = ControlDialect((_NO_HANDLE,) * len(workload.askers), "")
        yield Target(name=CONTROL, address=listening(process, CONTROL), pid=process.pid, core=core, dialect=dialect)


@contextmanager
def pdp_server(
    name: str,
    workload: Workload,
    folder: Path,
    core: int | None,
    environment: Mapping[str, str],
    *more: str,
    workers: int = 1,
    tls: bool = False,
) -> Iterator[Target]:
    """Run `pdp serve` on the policies in `folder/policies`; open a workload's sessions.

    `more` are further options. By default it is one process that speaks plain text, like the control and all others
    here: the comparison is about the work for a call. With `tls` it is asked by raw frames alone.
    """
    data = data_of(name, folder)
    flags = (f"--server-workers={workers}", "--policies-watch=false", *more)
    with serving(data, folder / "policies", *flags, core=core, environment=environment, tls=tls) as (address, pid):
        yield _opened(name, address, pid, core, workload, data, tls=tls)


def data_of(name: str, folder: Path) -> Path:
    """Return the data folder of the server with a name."""
    return folder / name.replace(" ", "-").replace(",", "")


@contextmanager
def serving(
    data: Path,
    policies: Path,
    *flags: str,
    core: int | None,
    environment: Mapping[str, str] | None = None,
    tls: bool = False,
) -> Iterator[tuple[str, int]]:
    """Run `pdp serve` on a free loopback port, in plain text unless with `tls`; yield address and pid."""
    usual = ["serve", "--server-address=127.0.0.1:0", f"--server-plaintext={'false' if tls else 'true'}"]
    usual += [f"--data-dir={data}", f"--policies-folder={policies}", f"--cache-max-ttl={LASTING_SECONDS}"]
    with module_process("pdp.cli", [*usual, *flags], core=core, environment=environment) as process:
        yield listening(process, "pdp serve"), process.pid


@contextmanager
def bare_server(workload: Workload, folder: Path, core: int | None) -> Iterator[Target]:
    """Run this server without telemetry and record."""
    data = folder / "bare"
    with module_process("pdp.bench.bareserver", [str(folder / "policies"), str(data)], core=core) as process:
        yield _opened(BARE, listening(process, BARE), process.pid, core, workload, data)


def _opened(
    name: str, address: str, pid: int, core: int | None, workload: Workload, data: Path, *, tls: bool = False
) -> Target:
    tokens, authorities = data / "tokens", data / "tls" / "ca.pem" if tls else None
    handles = []
    with (
        Client(address, token_file=tokens / "pep.token", plaintext=not tls, tls=authorities or False) as pep,
        Client(address, token_file=tokens / "approver.token", plaintext=not tls, tls=authorities or False) as approver,
    ):
        for asker in workload.askers:
            opened = pep.request_session(
                user=asker.user,
                agent=asker.agent,
                purpose="benchmark",
                tools=workload.tool_patterns,
                duration=LASTING_SECONDS,
            )
            approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
            handles.append(opened.session_handle)
    token = (tokens / "pep.token").read_text(encoding="ascii").strip()
    dialect = FramesDialect(handles, token) if tls else PDPDialect(handles, token)
    return Target(name=name, address=address, pid=pid, core=core, dialect=dialect, authorities=authorities)
