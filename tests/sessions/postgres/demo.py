"""Show two servers that share a database, and what holds while each of them fails: `make replicas-demo`.

Each server has a folder and a lease of its own, as on a machine of its own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from pdp.model import Role
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1 import session_pb2
from pdp.v1.fence_pb2 import FENCED_BY_CONFIRMED
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.sessions.postgres.onpostgres import open_session
from tests.sessions.postgres.postgresserver import PostgresServer, running

_LEASE_SECONDS = 1
_MANY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One server, and those who speak to it."""

    name: str
    process: ServerProcess
    callers: Callers

    def say(self, text: str) -> None:
        """Tell what happens here."""
        _say(self.name, text)

    def ask(self, opened: session_pb2.RequestSessionResponse) -> str:
        """Ask about a call in a session; return what a gateway makes of the answer."""
        session = self.callers.pep.attach(opened.session_handle, session_id=opened.session.session_id)
        answer = session.authorize("notes", READ, {"name": "shopping"})
        if answer.error:
            return f"no answer, which every client takes for a deny: {answer.error}"
        return f"{'allow' if answer.allowed else 'deny'} ({answer.basis})"

    def revoke(self, opened: session_pb2.RequestSessionResponse) -> str:
        """Revoke a session; return what that has waited for."""
        request = session_pb2.RevokeSessionsRequest(session_id=opened.session.session_id, reason="enough")
        metadata = (("authorization", f"Bearer {self.process.token(Role.APPROVER)}"),)
        with self.process.channel() as channel:
            revoke = SessionServiceStub(channel).RevokeSessions  # type: ignore[no-untyped-call]
            answer = revoke(request, metadata=metadata, timeout=PATIENCE)
        seconds = answer.fence_duration.ToNanoseconds() / 1e9
        if answer.fenced_by == FENCED_BY_CONFIRMED:
            return f"both servers have confirmed it after {seconds:.3f} seconds"
        return f"the lease of the server that does not confirm was over after {seconds:.3f} seconds"


def main() -> None:
    """Run the demonstration."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="pdp-replicas-")))
        database = opened.enter_context(running(18))
        _say("database", f"PostgreSQL 18 listens at 127.0.0.1:{database.port}")
        here, there = (opened.enter_context(_site(name, folder / name, database)) for name in ("east", "west"))
        _wait_for_leases(database)
        for site in (here, there):
            site.say(f"listens at {site.process.address}, with a lease of {_LEASE_SECONDS} second")
        show_revocation(here, there)
        show_stopped_server(here, there)
        show_stopped_database(here, there, database)


def show_revocation(here: Site, there: Site) -> None:
    """Show that what one server has written holds at the other one at once."""
    _title("What is approved or revoked at one server holds at the other, at once")
    opened = open_session(here.callers)
    here.say("a gateway requests a session, and a person approves it")
    there.say(f"the first call: {there.ask(opened)}")
    here.say(f"a person revokes the session: {here.revoke(opened)}")
    there.say(f"the next call: {there.ask(opened)}")


def show_stopped_server(here: Site, there: Site) -> None:
    """Show that a server that is stopped delays a revocation, and does not get around it."""
    _title("A server stops: the other goes on, and a revocation waits for the lease of the one that is silent")
    opened = open_session(here.callers)
    there.say(f"a call in another session: {there.ask(opened)}")
    there.process.send(signal.SIGSTOP)
    try:
        there.say("is stopped, in the middle of everything")
        here.say(f"the next call: {here.ask(opened)}")
        here.say(f"a person revokes the session: {here.revoke(opened)}")
    finally:
        there.process.send(signal.SIGCONT)
    there.say(f"goes on, and is asked: {there.ask(opened)}")


def show_stopped_database(here: Site, there: Site, database: PostgresServer) -> None:
    """Show that without the database memory answers for as long as a lease, and then nothing does."""
    _title("The database stops: memory answers while a lease lasts, then nothing does; no one needs to act")
    opened = open_session(here.callers)
    for site in (here, there):
        site.say(f"a call in a third session: {site.ask(opened)}")
    database.stop()
    began = time.monotonic()
    _say("database", "is stopped")
    answer = _first(lambda: here.ask(opened), "no answer")
    here.say(f"{time.monotonic() - began:.1f} seconds later: {answer}")
    database.start()
    began = time.monotonic()
    _say("database", "is back")
    for site in (here, there):
        answer = _first(lambda site=site: site.ask(opened), "allow")  # type: ignore[misc]
        site.say(f"{time.monotonic() - began:.1f} seconds later: {answer}")


@contextmanager
def _site(name: str, folder: Path, database: PostgresServer) -> Iterator[Site]:
    folder.mkdir()
    write_folder(folder / "policies", notes_bundle())
    file = folder / "postgres"
    file.touch(mode=0o600)
    file.write_text(database.conninfo, encoding="utf-8")
    settings = {
        "sessions_store": "postgres",
        "sessions_postgres_file": str(file),
        "sessions_lease_seconds": str(_LEASE_SECONDS),
    }
    with ServerProcess(folder, **settings) as process, Callers.of(process) as callers:
        yield Site(name=name, process=process, callers=callers)


def _wait_for_leases(database: PostgresServer) -> None:
    confirmed = "SELECT count(*) FROM pdp_sessions.replicas JOIN pdp_sessions.confirmations USING (id)"
    with database.connect() as connection:
        wait_until(lambda: connection.execute(confirmed).fetchone() == (2,), seconds=_MANY_SECONDS)


def _first(ask: Callable[[], str], beginning: str) -> str:
    """Return the first answer that begins in a way."""
    answers: list[str] = []

    def asked() -> bool:
        answers.append(ask())
        return answers[-1].startswith(beginning)

    wait_until(asked, seconds=_MANY_SECONDS)
    return answers[-1]


def _title(text: str) -> None:
    click.echo(f"\n{text}\n")


def _say(who: str, text: str) -> None:
    click.echo(f"  {who:<10}{text}")


if __name__ == "__main__":
    main()
