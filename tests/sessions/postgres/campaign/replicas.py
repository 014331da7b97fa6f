"""The replicas of a campaign: server processes of machines of their own, each with proxies before the database."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.model import Role
from pdp.policy.contents import version_of
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.notes import DIRECTORY, EVERYTHING, READ, WRITE
from tests.machinery.servers.server_process import PATIENCE, THIS_PROGRAM, ServerProcess
from tests.sessions.postgres.campaign.faultyproxy import FaultyProxy
from tests.sessions.postgres.campaign.machines import Disk, WallClock, can_mount
from tests.sessions.postgres.postgrescluster import Cluster
from tests.sessions.postgres.postgresserver import PostgresServer

LEASE_SECONDS: Final = 0.6
# What forbids writing.
SUSPECT: Final = "suspect"
# The terms of budgets: both limit all calls, and servers take one of the two in slices.
EXACT: Final = "max_calls"
SLICED: Final = "max_calls_of_destructive"

_SUSPECTS = f"""
@id("guardrails/suspects-{{number}}")
forbid (principal, action == Action::"notes/{WRITE}", resource)
when {{{{ context.session.labels.contains("{SUSPECT}") }}}};
"""


class Replica:
    """A server process with a folder, and a proxy of its own before each server of the database.

    It can be stopped, killed and started again. `program` is the command line of its version. Its wall clock can be
    set, and it has a disk of its own where that is possible.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        servers: Sequence[PostgresServer],
        database: str,
        *,
        replication: str,
        program: Sequence[str] = THIS_PROGRAM,
    ) -> None:
        self.program = program
        self.number, self._folder, self._replication = number, folder, replication
        # In the order of the servers.
        self.proxies = [FaultyProxy(server.port) for server in servers]
        self.clock = WallClock(folder)
        self.disk = Disk(folder / "data") if can_mount() else None
        self.write_bundle(0)
        file = folder / "postgres"
        file.touch(mode=0o600)
        file.write_text(conninfo_of([proxy.port for proxy in self.proxies], database), encoding="utf-8")
        # How often it was started: each time, it listens elsewhere.
        self.started = 0
        self._process: ServerProcess | None = None

    def write_bundle(self, number: int) -> str:
        """Write a bundle into its folder, which says the same under another version; return that."""
        files = _bundle(number)
        write_folder(self._folder / "policies", files)
        return version_of(files)

    @property
    def name(self) -> str:
        """Return its name in its record."""
        return f"replica-{self.number}"

    @property
    def process(self) -> ServerProcess:
        """Return its process."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it; it listens once this returns."""
        self._process = ServerProcess(self._folder, self.clock.environment, program=self.program, **self._settings())
        self.started += 1

    def refused(self) -> str:
        """Start it where it cannot; return what it says."""
        return ServerProcess.refused(self._folder, program=self.program, **self._settings()).stderr

    def replace(self, program: Sequence[str]) -> None:
        """End it as operators do, and start another version of the program in its place."""
        assert self.process.terminate() == 0
        self.program = program
        self.start()

    def stop(self) -> None:
        """Stop it for now: it does nothing until it goes on."""
        self.process.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, which also ends one that is stopped."""
        self.process.kill()

    def close(self) -> None:
        """Kill it, and end its proxies."""
        self.kill()
        for proxy in self.proxies:
            proxy.close()
        if self.disk is not None:
            self.disk.close()

    def records(self) -> bool:
        """Say whether it can write its record, by its own account."""
        with self.channel() as channel:
            found = HealthStub(channel).Check(HealthCheckRequest(service="pdp.record"), timeout=PATIENCE)
        return bool(found.status == HealthCheckResponse.SERVING)

    def _settings(self) -> dict[str, str]:
        return {
            "sessions_store": "postgres",
            "sessions_postgres_file": str(self._folder / "postgres"),
            "sessions_lease_seconds": str(LEASE_SECONDS),
            "sessions_replication": self._replication,
            "record_replica": self.name,
            # After each, the server notes in the database how far its record reaches.
            "record_checkpoint_seconds": "1",
            "record_reserve_bytes": "262144",
        }

    def channel(self) -> Any:
        """Return a channel to the present process."""
        return self.process.channel()

    def authorization(self, role: Role) -> tuple[tuple[str, str], ...]:
        """Return the metadata that says who calls."""
        return (("authorization", f"Bearer {self.process.token(role)}"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a campaign takes place: replicas on a database of a cluster, and how that fails over."""

    replicas: Sequence[Replica]
    cluster: Cluster
    database: str
    replication: str

    @property
    def disks(self) -> bool:
        """Say whether replicas have disks of their own."""
        return all(replica.disk is not None for replica in self.replicas)

    def before_primary(self, replica: Replica) -> FaultyProxy:
        """Return the proxy between a replica and the present primary."""
        return replica.proxies[self.cluster.servers.index(self.cluster.primary)]


def conninfo_of(ports: Sequence[int], database: str) -> str:
    """Return the connection string of a database, by way of these ports."""
    hosts = ",".join("127.0.0.1" for _ in ports)
    # So that a proxy can read what passes.
    unencrypted = "sslmode=disable gssencmode=disable"
    return f"host={hosts} port={','.join(map(str, ports))} user=pdp dbname={database} {unencrypted}"


def started(
    folder: Path,
    servers: Sequence[PostgresServer],
    database: str,
    count: int,
    *,
    replication: str = "none",
    program: Sequence[str] = THIS_PROGRAM,
) -> Sequence[Replica]:
    """Start replicas on a new database, whose primary is the first of the servers."""
    with servers[0].connect() as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    replicas = []
    for number in range(count):
        (folder / str(number)).mkdir()
        made = Replica(number, folder / str(number), servers, database, replication=replication, program=program)
        replicas.append(made)
    # The first one makes the tables.
    replicas[0].start()
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(Replica.start, replicas[1:]):
            pass
    return replicas


def _bundle(number: int) -> dict[str, bytes]:
    properties = {"name": {"type": "string"}}
    return bundle_files(
        policies={"notes": EVERYTHING, "guardrails": _SUSPECTS.format(number=number)},
        tools={"notes": [tool(READ, properties, ["name"]), tool(WRITE, properties, ["name"])]},
        directory=DIRECTORY,
        schema=with_terms(f'{EXACT}?: Long, @slices("3") {SLICED}?: Long'),
        labels=(SUSPECT,),
    )
