"""How far records reach, noted in a real database: by whom, what contradicts it, and what `pdp audit verify` finds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pdp.app.server import App
from pdp.audit.noting import HeadNoter, is_signed, signed
from pdp.cli.operate.init import prepare
from pdp.cli.root import root
from pdp.config.settings import PolicySettings, RecordSettings, ServerSettings, SessionSettings, Settings
from pdp.model import TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.envelope import CHECKPOINT, parse_line
from pdp.record.keys import PublicKeys
from pdp.sessions.notedheads import NotedHead
from pdp.sessions.postgresheads import PostgresHeads
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.notes import notes_bundle
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

SIGNER = SigningKey.generate()
KEY = b"k" * 32
EVERY = 10.0


@dataclass(kw_only=True)
class Machine:
    """The record of one machine, with a log and what notes its heads."""

    folder: Path
    heads: PostgresHeads
    clock: FakeClock = field(default_factory=FakeClock)
    failures: int = 0

    def __post_init__(self) -> None:
        deployment = self.heads.read().deployment
        self.log = self.another_log(deployment)
        self.noter = HeadNoter(
            self.heads,
            reached=lambda: self.log.reached,
            sign=lambda head: signed(head, deployment, SIGNER),
            replica=self.folder.name,
            clock=self.clock,
            every=EVERY,
            folder=self.log.folder,
            anchors=self.folder / "record-heads",
            on_failure=self._failed,
        )

    def another_log(self, deployment: str) -> DecisionLog:
        """Open a log in the folder, as each process of the machine does."""
        return DecisionLog(
            self.folder / "record",
            key=KEY,
            signer=SIGNER,
            clock=self.clock,
            anchors=self.folder / "record-heads",
            origin={"deployment": deployment, "replica": self.folder.name},
        )

    def go_on(self) -> None:
        """Record an event, sign it, and note that."""
        self.log.event(Event(kind=EventKind.SERVER_STARTED, at=self.clock.now().wall_at))
        self.log.tick()
        self.noter.turn()

    def end(self) -> None:
        """End the log, and note that."""
        self.log.close()
        self.noter.turn()

    def _failed(self) -> None:
        self.failures += 1


@pytest.fixture
def heads(conninfo: str) -> Iterator[PostgresHeads]:
    """Give the noted heads of an empty database."""
    with closing(PostgresHeads(conninfo)) as heads:
        heads.prepare()
        yield heads


@pytest.fixture
def machine(heads: PostgresHeads, tmp_path: Path) -> Iterator[Machine]:
    """Give one machine."""
    machine = Machine(folder=tmp_path / "here", heads=heads)
    yield machine
    machine.log.close()


def test_a_checkpoint_is_noted(machine: Machine, heads: PostgresHeads) -> None:
    """What is signed and on the disk, with the machine's name and a signature of its own."""
    machine.go_on()
    reached, noted = machine.log.reached, heads.read()

    assert reached is not None
    (head,) = noted.heads
    assert (reached.chain, *reached.head, "here", False) == (
        head.chain,
        head.seq,
        head.hash,
        head.replica,
        head.silent,
    )
    assert CHECKPOINT == (parse_line(machine.log.path.read_bytes().splitlines()[-1]) or {})["kind"]
    assert is_signed(head, noted.deployment, PublicKeys.of(SIGNER))


def test_nothing_new_is_noted_again_when_that_is_due(machine: Machine, heads: PostgresHeads) -> None:
    """So whoever reads it sees up to when nothing is missing, and not before."""
    machine.go_on()
    first = heads.read().heads[0].at
    machine.clock.advance(EVERY - 1)
    machine.noter.turn()
    before_due = heads.read().heads[0].at
    machine.clock.advance(1)
    machine.noter.turn()

    assert [first, first, first + EVERY] == [first, before_due, heads.read().heads[0].at]


@pytest.mark.parametrize(("again_seconds", "silent"), [(-1.0, True), (60.0, False), (None, False)])
def test_who_is_silent(heads: PostgresHeads, again_seconds: float | None, *, silent: bool) -> None:
    """A writer that has missed its time, and not one that has ended its chain."""
    head = NotedHead(chain="a" * 12, replica="here", seq=1, hash="0" * 64, at=1.0)
    heads.note(head, again_seconds=again_seconds)

    assert [silent] == [one.silent for one in heads.read().heads]


@pytest.mark.parametrize(("seq", "text", "taken"), [(8, "1", True), (7, "0", True), (7, "1", False), (6, "0", False)])
def test_a_head_never_goes_back(heads: PostgresHeads, seq: int, text: str, *, taken: bool) -> None:
    """A later record is taken, and the same one; not an earlier one, nor another in its place."""
    first = NotedHead(chain="a" * 12, replica="here", seq=7, hash="0" * 64, at=1.0)
    second = NotedHead(chain="a" * 12, replica="here", seq=seq, hash=text * 64, at=2.0)
    heads.note(first, again_seconds=60.0)

    assert taken == heads.note(second, again_seconds=60.0)
    assert [(second if taken else first).at] == [one.at for one in heads.read().heads]


def test_a_record_that_is_behind_what_was_noted_says_so(machine: Machine, heads: PostgresHeads) -> None:
    """A chain that was cut and went on does not take the place of what it had reached."""
    machine.go_on()
    (head,) = heads.read().heads
    heads.note(NotedHead(chain=head.chain, replica="here", seq=1000, hash="0" * 64, at=2.0), again_seconds=60.0)
    machine.go_on()

    assert (1, 1000) == (machine.failures, heads.read().heads[0].seq)
    assert f"chain `{head.chain}` are noted there: run `pdp audit verify`" in machine.noter.problem


def test_a_database_that_does_not_answer_holds_up_no_decision(machine: Machine, server: PostgresServer) -> None:
    """The failure is counted and stays visible; the decision is allowed and recorded."""
    with closing(PostgresHeads(server.conninfo_at(1))) as gone:
        machine.noter._notes = gone
        machine.go_on()
        decision = a_decision()

        assert machine.log.decision(decision, TraceParent()) is decision
    assert (1, True) == (machine.failures, "does not answer" in machine.noter.problem)


def test_what_other_processes_left_behind_is_noted(machine: Machine, heads: PostgresHeads) -> None:
    """The chain of a command, or of a worker that was killed; not one that another process still writes."""
    ended, open_one = machine.another_log(""), machine.another_log("")
    ended.close()
    open_one.tick()
    machine.go_on()
    open_one.close()

    assert {machine.log.path.name[7:19], ended.path.name[7:19]} == {one.chain for one in heads.read().heads}


def test_the_end_of_a_chain_is_noted_when_the_server_stops(
    machine: Machine, heads: PostgresHeads, server: PostgresServer
) -> None:
    """With its last record, and without a time at which more is due."""
    machine.noter.start()
    machine.log.close()
    machine.noter.stop()
    (head,) = heads.read().heads
    with server.connect() as connection:
        due = connection.execute("SELECT due_at FROM pdp_record.heads").fetchall()

    assert len(machine.log.path.read_bytes().splitlines()) == head.seq
    assert [(None,)] == due


@pytest.fixture
def settings(server: PostgresServer, tmp_path: Path) -> Settings:
    """Give the settings of a whole server on the database."""
    write_folder(tmp_path / "policies", notes_bundle())
    (tmp_path / "postgres").touch(mode=0o600)
    (tmp_path / "postgres").write_text(server.conninfo, encoding="utf-8")
    settings = Settings(
        data_dir=str(tmp_path / "data"),
        server=ServerSettings(address="127.0.0.1:0", control_address=f"unix:{tmp_path / 'control'}"),
        policies=PolicySettings(folder=str(tmp_path / "policies")),
        sessions=SessionSettings(store="postgres", postgres_file=str(tmp_path / "postgres")),
        record=RecordSettings(replica="pdp-0"),
    )
    prepare(settings)
    return settings


def serve_once(settings: Settings) -> None:
    """Start a server and stop it."""
    app = App(settings)
    app.start()
    app.stop()


def test_a_server_notes_how_far_its_record_reaches(heads: PostgresHeads, settings: Settings) -> None:
    """By the name of its machine, which is in its record too, with the deployment."""
    serve_once(settings)
    records = [one.record for one in read_records(settings.record_folder)]
    noted = heads.read()

    assert [("pdp-0", records[0]["chain"], records[-1]["seq"])] == [
        (one.replica, one.chain, one.seq) for one in noted.heads
    ]
    assert (noted.deployment, "pdp-0") == (records[0]["deployment"], records[0]["replica"])


def test_a_server_says_what_its_record_has_lost_of_what_was_noted(heads: PostgresHeads, settings: Settings) -> None:
    """Also when the notes beside the record were taken away with it."""
    serve_once(settings)
    (head,) = heads.read().heads
    (file,) = settings.record_folder.glob("*.jsonl")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    shutil.rmtree(settings.record_anchors)
    serve_once(settings)
    records = [one.record for one in read_records(settings.record_folder)]

    assert [{}, {head.chain: f"{head.seq}:{head.hash}"}] == [one["lost"] for one in records if "lost" in one]


# What `pdp audit verify` finds.


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The ended records of two machines, a folder with copies of both, and the file of the connection string."""

    here: Path
    there: Path
    copies: Path
    postgres: Path
    server: PostgresServer

    def verify(self, folder: Path, *more: str) -> Result:
        """Verify a folder against what was noted."""
        key = self.postgres.with_name("key.pem")
        words = ["audit", "verify", str(folder), "--public-key", str(key), "--known-postgres", str(self.postgres)]
        return CliRunner().invoke(root, [*words, *more], prog_name="pdp")


@pytest.fixture
def replicas(heads: PostgresHeads, server: PostgresServer, tmp_path: Path) -> Replicas:
    """Give two machines."""
    for name in ("here", "there"):
        machine = Machine(folder=tmp_path / name, heads=heads)
        for _ in range(3):
            machine.go_on()
        machine.end()
        shutil.copytree(tmp_path / name / "record", tmp_path / "copies", dirs_exist_ok=True)
    (tmp_path / "key.pem").write_bytes(SIGNER.public.pem)
    (tmp_path / "postgres").touch(mode=0o600)
    (tmp_path / "postgres").write_text(server.conninfo, encoding="utf-8")
    return Replicas(
        here=tmp_path / "here" / "record",
        there=tmp_path / "there" / "record",
        copies=tmp_path / "copies",
        postgres=tmp_path / "postgres",
        server=server,
    )


def _cut(replicas: Replicas) -> None:
    # At a checkpoint: as a copy of a record in use it looks whole.
    (file,) = replicas.copies.glob(f"{_chain(replicas.there)}*.jsonl")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-3]))


def _lost(replicas: Replicas) -> None:
    for file in replicas.copies.glob(f"{_chain(replicas.there)}*"):
        file.unlink()


def _another_deployment(replicas: Replicas) -> None:
    with replicas.server.connect() as connection:
        connection.execute("UPDATE pdp_record.deployment SET id = CAST(gen_random_uuid() AS text)")


def _not_noted(replicas: Replicas) -> None:
    elsewhere = replicas.postgres.with_name("elsewhere")
    DecisionLog(elsewhere, key=KEY, signer=SIGNER).close()
    shutil.copytree(elsewhere, replicas.copies, dirs_exist_ok=True)


def _forged(replicas: Replicas) -> None:
    with replicas.server.connect() as connection:
        connection.execute("UPDATE pdp_record.heads SET seq = seq - 2 WHERE replica = 'there'")


def _chain(folder: Path) -> str:
    (file,) = folder.glob("*.jsonl")
    return file.name[:19]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_cut, "but `pdp_record.heads[there]` names record"),
        (_lost, "pdp_record.heads[there]: chain `"),
        (_not_noted, "is here, but no server has noted it in `pdp_record.heads`"),
        (_another_deployment, "pdp_record.heads[here]: none of the given keys has signed"),
        (_another_deployment, "a record of another deployment: `"),
        (_forged, "pdp_record.heads[there]: none of the given keys has signed"),
    ],
)
def test_what_the_database_shows(replicas: Replicas, change: Callable[[Replicas], None], found: str) -> None:
    """What was noted there finds what files cannot show; before, all is intact."""
    before = replicas.verify(replicas.copies, "--open-end")
    change(replicas)
    after = replicas.verify(replicas.copies, "--open-end")

    assert (0, 1) == (before.exit_code, after.exit_code), before.output + after.output
    assert found in after.output


def test_the_folder_of_one_machine_is_compared_with_what_it_has_noted(replicas: Replicas) -> None:
    """Not with what others have; without a name, they are missing there, and with another one it is theirs."""
    one, other = (replicas.verify(replicas.here, "--replica", name) for name in ("here", "there"))
    all_of_them = replicas.verify(replicas.here)

    assert (0, 1, 1) == (one.exit_code, other.exit_code, all_of_them.exit_code), one.output
    assert "is here, but the machine `here` has noted it" in other.output
    assert "pdp_record.heads[there]: chain `" in all_of_them.output


def test_a_chain_that_has_just_begun_need_not_be_noted(replicas: Replicas) -> None:
    """While its process writes it: the first checkpoint notes it."""
    log = DecisionLog(replicas.here, key=KEY, signer=SIGNER)
    begun = DecisionLog(replicas.here, key=KEY, signer=SIGNER)
    writing = replicas.verify(replicas.here, "--replica", "here")
    log.close()
    begun.close()
    ended = replicas.verify(replicas.here, "--replica", "here")

    assert (0, 1) == (writing.exit_code, ended.exit_code), writing.output
    assert "no server has noted it" in ended.output


def test_a_database_in_which_nothing_was_noted_is_no_proof(replicas: Replicas) -> None:
    """Exit code 2: it cannot be verified."""
    text = replicas.server.conninfo.replace("dbname=postgres", "dbname=template1")
    replicas.postgres.write_text(text, encoding="utf-8")
    done = replicas.verify(replicas.copies)

    assert 2 == done.exit_code
    assert "no server has noted in this database how far its record reaches" in done.output
