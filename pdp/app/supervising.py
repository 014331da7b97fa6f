"""Several servers behind one port: their supervisor, built from the settings. Nothing here imports gRPC."""

from __future__ import annotations

import sys
from dataclasses import replace

from pdp.config.settings import Settings
from pdp.errors import ConfigurationError
from pdp.workers.cores import bound, core_of, usable_cores
from pdp.workers.port import SharedPort
from pdp.workers.process import Job, WorkerProcess
from pdp.workers.supervisor import Supervisor

# `-P`: nothing is imported from the working directory.
_WORKER = (sys.executable, "-P", "-m", "pdp.cli.operate.worker")


def supervise(settings: Settings, *, count: int) -> Supervisor:
    """Build the supervisor of `count` server processes on one port. None runs before `Supervisor.start`.

    Raise `ConfigurationError` when the port is not available.
    """
    port = _held("server.address", settings.server.address)
    control_address = settings.control_address
    if not control_address.startswith("unix:"):
        # One process listens there alone; check now whether it can.
        _held("server.control_address", control_address).close()
    server = replace(settings.server, address=port.address, control_address=control_address)
    shared = replace(settings, server=server)
    cores, most = usable_cores(), bound()

    def spawn(number: int) -> WorkerProcess:
        control = number > count
        core = None if control else core_of(number, cores, most)
        job = Job(settings=shared, number=number, core=core, control=control)
        return WorkerProcess(_WORKER, job.written())

    return Supervisor(spawn, count=count, port=port, control=True)


def _held(setting: str, address: str) -> SharedPort:

    try:
        return SharedPort(address)
    except ConfigurationError as error:
        raise ConfigurationError(f"`{setting}`: {error}") from None
