"""The replicas of a campaign: server processes of machines of their own, each with a proxy before the database."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from pdp.model import Role
from pdp.policy.contents import version_of
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.notes import DIRECTORY, EVERYTHING, READ, WRITE
from tests.machinery.servers.server_process import ServerProcess
from tests.sessions.postgres.campaign.faultyproxy import FaultyProxy
from tests.sessions.postgres.postgresserver import PostgresServer

LEASE_SECONDS: Final = 0.6
# What forbids writing.
SUSPECT: Final = "suspect"

_SUSPECTS = f"""
@id("guardrails/suspects-{{number}}")
forbid (principal, action == Action::"notes/{WRITE}", resource)
when {{{{ context.session.labels.contains("{SUSPECT}") }}}};
"""


class Replica:
    """A server process with a folder, and a proxy of its own before each server of the database.

    It can be stopped, killed and started again.
    """

    def __init__(
        self, number: int, folder: Path, servers: Sequence[PostgresServer], database: str, replication: str
    ) -> None:
        self.number, self._folder, self._replication = number, folder, replication
        self.proxies = [FaultyProxy(server.port) for server in servers]
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
    def proxy(self) -> FaultyProxy:
        """Return its proxy before the first server of the database."""
        return self.proxies[0]

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
        self._process = ServerProcess(
            self._folder,
            sessions_store="postgres",
            sessions_postgres_file=str(self._folder / "postgres"),
            sessions_lease_seconds=str(LEASE_SECONDS),
            sessions_replication=self._replication,
            record_replica=self.name,
            # After each, the server notes in the database how far its record reaches.
            record_checkpoint_seconds="1",
        )
        self.started += 1

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

    def channel(self) -> Any:
        """Return a channel to the present process."""
        return self.process.channel()

    def authorization(self, role: Role) -> tuple[tuple[str, str], ...]:
        """Return the metadata that says who calls."""
        return (("authorization", f"Bearer {self.process.token(role)}"),)


def conninfo_of(ports: Sequence[int], database: str) -> str:
    """Return the connection string of a database, by way of these ports."""
    hosts = ",".join("127.0.0.1" for _ in ports)
    return f"host={hosts} port={','.join(map(str, ports))} user=pdp dbname={database}"


def started(
    folder: Path, servers: Sequence[PostgresServer], database: str, count: int, *, replication: str = "none"
) -> Sequence[Replica]:
    """Start replicas on a new database, whose primary is the first of the servers."""
    with servers[0].connect() as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    replicas = []
    for number in range(count):
        (folder / str(number)).mkdir()
        replicas.append(Replica(number, folder / str(number), servers, database, replication))
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
        schema=with_terms("max_calls?: Long"),
        labels=(SUSPECT,),
    )
