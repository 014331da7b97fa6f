"""`pdp-broker doctor`: a broker that can serve has no problem, and each thing that is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.broker.checkouts.words import Checkout, CheckoutState, CredentialKind, Look
from pdp.broker.cli.root import root
from pdp.broker.opening import make_broker, opened_checkouts, opened_people, opened_record, opened_vault
from pdp.broker.words import Consent, ConsentState
from pdp.cli.root import root as pdp
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.consented import source_at
from tests.broker.notes import AUDIENCE, CALLERS, FILES, ISSUER, RULES
from tests.broker.vaults import connection
from tests.machinery.servers.running import PATIENCE


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Provide the server that brokers ask."""
    with running_server(FILES, callers=CALLERS, call_token_issuer=ISSUER) as made:
        yield made


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server take long to answer: on a busy machine a late answer would be a problem that is found."""
    monkeypatch.setattr("pdp.broker.examination._ASKING_SECONDS", PATIENCE)


@pytest.fixture
def folder(tmp_path: Path, server: RunningServer) -> Path:
    """Make the folder of a broker, with a secret of two versions."""
    folder = tmp_path / "broker"
    make_broker(folder)
    with opened_record(folder) as record, opened_vault(folder, record.event) as vault:
        vault.add(connection(), by="test")
        vault.put("github", b"first-secret", by="test")
    (tmp_path / "older").write_bytes((folder / "store" / "broker.sqlite").read_bytes())
    with opened_record(folder) as record, opened_vault(folder, record.event) as vault:
        vault.put("github", b"second-secret", by="test")
    pdp = f'{{address: "{server.address}", token_file: token, plaintext: true}}'
    settings = f"issuer: {ISSUER}\naudience: {AUDIENCE}\ncalls: unix:calls.sock\npdp: {pdp}\n"
    for name, text in {"rules.yaml": RULES, "token": server.token("broker"), "broker.yaml": settings}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder


def examined(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run the command; return its exit code and the problems that it found."""
    done = CliRunner().invoke(root, ("doctor", "--settings", str(folder / "broker.yaml"), "--json"))
    return done.exit_code, [one for one in json.loads(done.stdout)["findings"] if one["level"] == "problem"]


def test_a_broker_that_can_serve_has_no_problem(folder: Path) -> None:
    """Every check says what is well; nothing is changed by looking."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name}

    assert (0, []) == examined(folder)
    text = CliRunner().invoke(root, ("doctor", "--settings", str(folder / "broker.yaml")))

    assert all(
        one in text.output
        for one in ("rules", "files", "secrets", "people", "checkouts", "record", "server", "addresses", "memory")
    )
    assert before == {path: path.read_bytes() for path in before}


def test_a_connection_that_came_again_is_no_problem(folder: Path) -> None:
    """Its former secret ended with it, or with its tenant."""
    with opened_record(folder) as record, opened_vault(folder, record.event) as vault:
        vault.remove("github", by="test")
        vault.add(connection(), by="test")
        removed = examined(folder)[1]
        vault.put("github", b"third-secret", by="test")
        vault.shred("acme", by="test")
        vault.add(connection(), by="test")

    assert [] == removed
    assert (0, []) == examined(folder)


def foreign_token(folder: Path, server: RunningServer) -> None:
    """Let the broker be a caller without its role."""
    (folder / "token").write_text(server.token("gateway"))


def older_store(folder: Path, _: RunningServer) -> None:
    """Put an older store in the place of the present one."""
    for path in (folder / "store").iterdir():
        path.unlink()
    (folder / "store" / "broker.sqlite").write_bytes((folder.parent / "older").read_bytes())
    (folder / "store" / "broker.sqlite").chmod(0o600)


def shared_socket(folder: Path, _: RunningServer) -> None:
    """Let the broker listen in a folder into which others can put a socket."""
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    file = folder / "broker.yaml"
    file.write_text(file.read_text().replace("unix:calls.sock", "unix:shared/calls.sock"))


def changed_record(folder: Path, _: RunningServer) -> None:
    """Change a word in the record."""
    file = min((folder / "record").glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"caller_id":"test"', b'"caller_id":"tess"', 1))


def left_out(folder: Path, _: RunningServer | None) -> None:
    """Leave a credential out that should have ended, and could not be."""
    one = Checkout(
        id="chk_1",
        connection_id="github",
        kind=CredentialKind.LOGIN,
        token_id="t",  # noqa: S106 - an id
        decision_id="d",
        session_ids=("ses_1",),
        user="alice",
        agent="coder",
        action="a/b",
        scopes=("a",),
        begun_at=1.0,
        next_at=2.0,
    )
    with opened_checkouts(folder) as store:
        store.begin(one)
        store.hand_out(one.id, ends_at=3.0, kept=None)
        store.put_off(one, CheckoutState.ENDING, next_at=4.0, problem="away")
        store.note(Look(connection_id="github", at=5.0, orphans=2))


def test_connections_that_need_their_person_are_named(folder: Path) -> None:
    """Nothing is wrong with the broker, so these are warnings."""
    source = source_at("https://login.example.com")
    rows = [connection("crm", source=source, owner=owner) for owner in ("", "alice", "bob", "carol")]
    with (
        opened_record(folder) as record,
        opened_vault(folder, record.event) as vault,
        opened_people(folder, vault, record.event) as people,
    ):
        for one in rows:
            vault.add(replace(one, id=one.owner or one.id), by="test")
        people.consents.add(Consent(connection_id="alice"))
        people.consents.add(Consent(connection_id="carol", state=ConsentState.ENDING))

    done = CliRunner().invoke(root, ("doctor", "--settings", str(folder / "broker.yaml"), "--json"))

    said = [(one["level"], one["found"]) for one in json.loads(done.stdout)["findings"] if one["check"] == "people"]
    assert (0, 3) == (done.exit_code, len(said))
    assert ("warning", True) == (said[0][0], said[0][1].startswith("`bob` of `bob` must be connected again by that"))
    assert ("warning", True) == (said[1][0], said[1][1].startswith("`carol` of `carol` is being disconnected"))
    assert ("ok", "connections of people that can be used: 1") == said[2]


def test_the_doctor_of_the_server_looks_at_the_broker_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that its own doctor finds, also what is wrong with it."""
    monkeypatch.chdir(folder.parent)
    left_out(folder, None)
    done = CliRunner().invoke(pdp, ("doctor", "--broker", str(folder / "broker.yaml"), "--json"))

    said = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert {"settings", "broker: settings", "broker: people", "broker: checkouts"} <= said.keys()
    assert ("ok", "problem") == (said["broker: people"]["level"], said["broker: checkouts"]["level"])
    assert (1, "see `pdp-broker doctor`, as the broker's user") == (done.exit_code, said["broker: checkouts"]["remedy"])


@pytest.mark.parametrize(
    ("spoil", "check", "found"),
    [
        (lambda folder, _: (folder / "broker.yaml").write_text("issuer: x\n"), "settings", "audience"),
        (lambda folder, _: (folder / "rules.yaml").write_text("notes: {kin: x}\n"), "rules", "kin"),
        (lambda folder, _: (folder / "record.key").chmod(0o644), "files", "others can read"),
        (lambda folder, _: next((folder / "keys").glob("root-*")).unlink(), "secrets", "root"),
        (older_store, "secrets", "the record names another version 2"),
        (left_out, "checkouts", "overdue credentials: 1"),
        (left_out, "checkouts", "credentials that could not be ended: 1"),
        (left_out, "checkouts", "`github` has roles that no checkout here names, 2 of them"),
        (changed_record, "record", "it is not intact"),
        (foreign_token, "server", "must name a caller with the role `broker`"),
        (lambda folder, _: (folder / "token").unlink(), "server", "token"),
        (shared_socket, "addresses", "others can"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, server: RunningServer, spoil: Callable[[Path, RunningServer], object], check: str, found: str
) -> None:
    """Each problem under its check, with exit code 1; the other checks are made all the same."""
    spoil(folder, server)

    code, problems = examined(folder)

    assert 1 == code
    assert any(check == one["check"] and found in one["found"] for one in problems), problems
