"""Two whole servers on one database with a shared folder: what each answers of both records, and what it lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.cli.root import root
from pdp.client import Client, NotFoundError
from pdp.config.settings import PolicySettings, RecordSettings, ServerSettings, SessionSettings, Settings
from pdp.sessions.notedheads import NotedHead
from pdp.sessions.postgresheads import PostgresHeads
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1.audit_pb2 import Lacking, PlanRevocationRequest, RecordFilter
from pdp.v1.session_pb2 import SESSION_STATE_ACTIVE
from tests.machinery.servers.notes import READ, notes_bundle
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

SECONDS = 60.0
GONE = NotedHead(chain="f" * 12, replica="gone", seq=7, hash="0" * 64, at=1_767_225_600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A server in this process, with its settings."""

    app: App
    settings: Settings
    opened: ExitStack

    def client(self, role: str) -> Client:
        """Return a client in a role; it is closed at the end."""
        file = self.settings.tokens_folder / f"{role}.token"
        client = Client(self.app.address, token_file=file, timeout=SECONDS, data_dir=self.settings.data_dir)
        return self.opened.enter_context(client)

    def run(self, *words: str) -> Result:
        """Run a command with these settings."""
        environment = {
            "PDP_DATA_DIR": self.settings.data_dir,
            "PDP_SESSIONS__STORE": "postgres",
            "PDP_SESSIONS__POSTGRES_FILE": self.settings.sessions.postgres_file,
            "PDP_RECORD__SHARED_FOLDER": self.settings.record.shared_folder,
            "PDP_ADDRESS": self.app.address,
        }
        return CliRunner().invoke(root, words, env=environment, prog_name="pdp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """Two machines, and what is noted in their database."""

    here: Machine
    there: Machine
    heads: PostgresHeads
    started: Callable[[str, float], Machine]

    def open_session(self) -> tuple[str, str]:
        """Open a session there and call in it; return its id and that of the decision, when it is answered here."""
        pep, approver = self.there.client("pep"), self.there.client("approver")
        opened = pep.request_session(user="alice", agent="coder", purpose="notes", tools=("notes/*",))
        session_id = opened.session.session_id
        approver.approve_session(session_id, request_digest=opened.session.request_digest)
        answer = pep.attach(opened.session_handle, session_id=session_id).authorize("notes", READ, {"name": "x"})
        assert answer.allowed
        auditor = self.here.client("auditor")
        kind = RecordFilter(session_id=session_id, kind="decision")
        wait_until(lambda: bool(list(auditor.list_records(kind))), seconds=SECONDS)
        return session_id, answer.decision_id


@pytest.fixture(scope="module")
def both(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Give two servers, on a database of their own."""
    folder = tmp_path_factory.mktemp("both")
    with server.connect() as connection:
        connection.execute("CREATE DATABASE both_records")
    conninfo = server.conninfo.replace("dbname=postgres", "dbname=both_records")
    (folder / "postgres").touch(mode=0o600)
    (folder / "postgres").write_text(conninfo, encoding="utf-8")
    (folder / "shared").mkdir()
    write_folder(folder / "policies", notes_bundle())
    with ExitStack() as opened:

        def started(name: str, checkpoint_seconds: float = 0.1) -> Machine:
            settings = Settings(
                data_dir=str(folder / name),
                server=ServerSettings(address="127.0.0.1:0", control_address=f"unix:{folder / name}.control"),
                policies=PolicySettings(folder=str(folder / "policies"), watch=False),
                sessions=SessionSettings(store="postgres", postgres_file=str(folder / "postgres")),
                record=RecordSettings(
                    checkpoint_seconds=checkpoint_seconds, replica=name, shared_folder=str(folder / "shared")
                ),
            )
            prepare(settings, development=True)
            app = App(settings)
            app.start()
            opened.callback(app.stop)
            return Machine(app=app, settings=settings, opened=opened.enter_context(ExitStack()))

        here, there = started("here"), started("there")
        yield Both(
            here=here, there=there, heads=opened.enter_context(closing(PostgresHeads(conninfo))), started=started
        )


@pytest.fixture
def lost(both: Both, server: PostgresServer) -> Iterator[Both]:
    """Give both while the folder of a third machine is lost, of which only its note is left."""
    both.heads.note(GONE, again_seconds=None)
    yield both
    with server.connect(dbname="both_records") as connection:
        connection.execute("DELETE FROM pdp_record.heads WHERE replica = 'gone'")


def test_an_answer_has_the_records_of_all(both: Both) -> None:
    """What one server has decided is answered by the other, and nothing is lacking."""
    session_id, decision_id = both.open_session()
    lacking: list[Lacking] = []
    auditor = both.here.client("auditor")
    (decision,) = auditor.get_records(decision_id, on_lacking=lacking.append)
    (touched,) = auditor.list_touched(RecordFilter(session_id=session_id), on_lacking=lacking.append)

    assert ("allow", 1, []) == (json.loads(decision.record_json)["outcome"], touched.allowed, lacking)


Ask = Callable[[Client, str, Callable[[Lacking], Any]], object]
QUESTIONS: dict[str, Ask] = {
    "GetRecord": lambda client, found, note: client.get_records(found, on_lacking=note),
    "ListRecords": lambda client, _, note: list(client.list_records(on_lacking=note)),
    "ListApprovals": lambda client, found, note: client.list_approvals(decision_id=found, on_lacking=note),
    "ListTouched": lambda client, _, note: list(client.list_touched(on_lacking=note)),
    "PlanRevocation": lambda client, _, note: list(
        client.plan_revocation(PlanRevocationRequest(user="nobody"), on_lacking=note)
    ),
    "VerifySegment": lambda client, segment, note: note(client.verify_segment(segment).lacking),
}


def test_every_answer_names_what_it_lacks(lost: Both) -> None:
    """The machine, and up to when it had records; an unknown id may be in what is lacking."""
    _, decision_id = lost.open_session()
    auditor = lost.here.client("auditor")
    lacking: dict[str, list[Lacking]] = {name: [] for name in QUESTIONS}
    # A server knows the key of its own segments.
    (own,) = Path(lost.here.settings.data_dir, "record").glob("record-*.jsonl")
    for name, ask in QUESTIONS.items():
        ask(auditor, own.name if name == "VerifySegment" else decision_id, lacking[name].append)
    with pytest.raises(NotFoundError) as unknown:
        auditor.get_records("dec_0")

    parts = {name: [part for one in found for part in one.parts] for name, found in lacking.items()}
    assert {name: [("gone", GONE.chain, round(GONE.at), False)] for name in QUESTIONS} == {
        name: [(part.replica, part.chain, part.until_time.seconds, part.HasField("since_time")) for part in found]
        for name, found in parts.items()
    }
    assert "records of `gone` are lacking" in str(unknown.value)


@pytest.mark.parametrize("source", [(), ("--server",)])
def test_nothing_is_revoked_while_records_are_lacking(lost: Both, source: tuple[str, ...]) -> None:
    """Unless that is told: then what is listed is."""
    session_id, _ = lost.open_session()
    words = ("audit", "revoke-plan", f"session:{session_id}", "--apply", "--reason", "leak", "--yes", "--json", *source)
    refused = lost.here.run(*words)
    state = lost.there.client("approver").get_session(session_id).state
    told = lost.here.run(*words, "--incomplete")

    assert (1, 0) == (refused.exit_code, told.exit_code), refused.output + told.output
    assert "nothing was revoked, since records of `gone` are lacking; --incomplete revokes" in refused.stderr
    assert f"the answer lacks records of `gone`, of chain {GONE.chain}, from the beginning to 2026-" in refused.stderr
    assert SESSION_STATE_ACTIVE == state
    assert {session_id: "revoked"} == json.loads(told.stdout)["outcomes"]
    assert ["gone"] == [part["replica"] for part in json.loads(told.stdout)["lacking"]["parts"]]


def test_a_machine_is_known_when_it_has_started(both: Both, server: PostgresServer) -> None:
    """Before its first checkpoint is due: whoever lacks its records says so."""
    late = both.started("late", 3600.0)
    noted = {head.replica: head.chain for head in both.heads.read().heads}
    late.app.stop()
    # So that the others lack nothing, and verify with their own keys.
    with server.connect(dbname="both_records") as connection:
        connection.execute("DELETE FROM pdp_record.heads WHERE replica = 'late'")
    for copy in Path(late.settings.record.shared_folder).glob(f"*{noted['late']}*"):
        copy.unlink()

    assert {"here", "there", "late"} == noted.keys()


def test_health_shows_that_others_cannot_see_a_record(both: Both, server: PostgresServer) -> None:
    """Of the record of this machine, as long as it lasts; calls are served."""

    def healthy(service: str = "") -> bool:
        return both.there.run("health", *(["--service", service] if service else [])).exit_code == 0

    both.open_session()
    with server.connect(dbname="both_records") as connection:
        connection.execute("UPDATE pdp_record.heads SET seq = seq + 1000 WHERE replica = 'there'")
        wait_until(lambda: not healthy("pdp.record"), seconds=SECONDS)
        serves = healthy()
        connection.execute("UPDATE pdp_record.heads SET seq = seq - 1000 WHERE replica = 'there'")
    wait_until(lambda: healthy("pdp.record"), seconds=SECONDS)

    assert serves


def test_both_records_verify_in_the_shared_folder(both: Both) -> None:
    """With the keys of both, against what both have noted."""
    both.open_session()
    keys = [
        word
        for machine in (both.here, both.there)
        for word in ("--public-key", str(Path(machine.settings.data_dir) / "record-signing.pub.pem"))
    ]
    postgres = both.here.settings.sessions.postgres_file
    words = ("audit", "verify", both.here.settings.record.shared_folder, *keys, "--open-end")

    def verified() -> bool:
        done = both.here.run(*words, "--known-postgres", postgres)
        return done.exit_code == 0 and done.stdout.count("chain ") == 2

    # A checkpoint can be noted after the folder was copied and before it is read.
    wait_until(verified, seconds=SECONDS)
