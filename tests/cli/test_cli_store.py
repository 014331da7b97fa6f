"""`pdp store`: a real server is backed up while it runs, and restored without bringing back what was revoked."""

from __future__ import annotations

import json
import shutil
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import Server, start_server, stop_server, write_bundle

READ = ("files", "read", '{"path": "/a"}')


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a server has run."""
    folder = tmp_path_factory.mktemp("stopped")
    write_bundle(folder / "policies")
    stop_server(start_server(folder))
    return folder


@pytest.fixture
def has_run(stopped: Path, tmp_path: Path) -> None:
    """Have a server run before, in a copy of the folder of one that has."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)


def request(run: Run, server: Server, name: str) -> str:
    """Open and approve a session; its handle goes to the file `name`."""
    env = {"PDP_ADDRESS": server.address}
    asked = ("session", "request", "--user", "alice", "--agent", "coder", "--purpose", "x", "--tool", "files/*")
    session_id = run(*asked, "--handle-file", name, env=env).stdout.strip()
    assert 0 == run("session", "approve", session_id, "--yes", env=env).exit_code
    return session_id


def ask(run: Run, server: Server, name: str) -> str:
    """Ask about a call in a session; return the first line of the answer."""
    done = run("authorize", "--session-handle-file", name, *READ, env={"PDP_ADDRESS": server.address})
    return done.stdout.partition("\n")[0]


def test_a_restored_store_brings_no_session_back(run: Run, policies: Path) -> None:
    """A session that was revoked after the backup stays without an allow, and the decision log tells why."""
    server = start_server(policies.parent)
    revoked, other = request(run, server, "revoked"), request(run, server, "other")
    saved = run("store", "backup", "saved.sqlite")
    run("session", "revoke", revoked, env={"PDP_ADDRESS": server.address})
    stop_server(server)

    done = run("store", "restore", "saved.sqlite")
    server = start_server(policies.parent)
    answers = [ask(run, server, name) for name in ("revoked", "other")]
    shown = run("session", "show", other, env={"PDP_ADDRESS": server.address}).stdout
    stop_server(server)

    assert saved.stdout.startswith("wrote `saved.sqlite`: 2 sessions (2 active), as of ")
    assert (0, "revoked 2 live sessions: what was revoked since the backup is not known\n") == (
        done.exit_code,
        done.stderr,
    )
    assert ["deny  session_revoked"] * 2 == [answer[:21] for answer in answers]
    assert "store-restore" in shown
    told = [(one["kind"], one["session_id"]) for one in records() if one.get("caller_id") == "store-restore"]
    assert ("store.restored", "") == told[0]
    assert {("session.revoked", other), ("session.revoked", revoked)} == set(told[1:])
    assert 0 == run("audit", "verify", ".pdp/record", "--public-key", ".pdp/record-signing.pub.pem").exit_code


def test_sessions_are_kept_when_asked(run: Run, policies: Path) -> None:
    """With the flag a live session goes on after the restore, and a line says what that means."""
    server = start_server(policies.parent)
    request(run, server, "handle")
    run("store", "backup", "saved.sqlite")
    stop_server(server)

    done = run("store", "restore", "saved.sqlite", "--keep-sessions")
    server = start_server(policies.parent)
    answer = ask(run, server, "handle")
    stop_server(server)

    assert "sessions that were live stay live: revoke again what was revoked since\n" == done.stderr
    assert answer.startswith("allow")
    assert "true" == next(one for one in records() if one["kind"] == "store.restored")["facts"]["sessions_kept"]


def test_a_running_server_is_not_restored(run: Run, policies: Path) -> None:
    """While a server runs the restore is refused, and the server goes on."""
    server = start_server(policies.parent)
    request(run, server, "handle")
    run("store", "backup", "saved.sqlite")

    done = run("store", "restore", "saved.sqlite")
    answer = ask(run, server, "handle")
    stop_server(server)

    assert (
        2,
        "error: a server uses the session store: `.pdp/sessions.sqlite`; stop it, then restore\n",
    ) == (done.exit_code, done.stderr)
    assert answer.startswith("allow")


def test_a_killed_server_can_be_restored(run: Run, policies: Path) -> None:
    """Nothing of a killed server keeps a restore from its work."""
    server = start_server(policies.parent)
    request(run, server, "handle")
    run("store", "backup", "saved.sqlite")
    server.process.kill()
    server.process.communicate()

    assert 0 == run("store", "restore", "saved.sqlite").exit_code
    assert 0 == run("store", "check").exit_code


@pytest.mark.usefixtures("has_run")
def test_what_cannot_be_recorded_is_not_restored(run: Run) -> None:
    """Without the keys of the decision log the store stays as it is."""
    run("store", "backup", "saved.sqlite")
    Path(".pdp/record-signing.pem").unlink()
    before = Path(".pdp/sessions.sqlite").read_bytes()

    done = run("store", "restore", "saved.sqlite")

    assert (2, True) == (done.exit_code, "cannot read the signing key" in done.stderr)
    assert before == Path(".pdp/sessions.sqlite").read_bytes()


@pytest.mark.usefixtures("has_run")
def test_a_backup_is_for_its_owner_and_overwrites_nothing(run: Run) -> None:
    """The file is readable for its owner alone; a second one of the same name is refused."""
    run("store", "backup", "saved.sqlite")

    done = run("store", "backup", "saved.sqlite")

    assert 0o600 == stat.S_IMODE(Path("saved.sqlite").stat().st_mode)
    assert (2, "error: `saved.sqlite`: the file exists, and a backup never overwrites a file\n") == (
        done.exit_code,
        done.stderr,
    )


@pytest.mark.usefixtures("has_run")
def test_check_says_what_is_there(run: Run) -> None:
    """A sound store is described, for people and for scripts; a backup is checked by its name."""
    run("store", "backup", "saved.sqlite")

    text, as_json = run("store", "check"), run("store", "check", "saved.sqlite", "--json")

    assert 0 == text.exit_code
    assert "sound" == dict(line.split(None, 1) for line in text.stdout.splitlines())["state"]
    answer = json.loads(as_json.stdout)
    assert (True, "saved.sqlite", answer["known_schema"]) == (answer["sound"], answer["store"], answer["schema"])


@pytest.mark.usefixtures("has_run")
@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("UPDATE meta SET schema_version = 99", "newer than this program"),
        ("INSERT INTO sessions VALUES ('x', x'00', 'active', '', '', '', '', 1, 1, '', 0, '{}', '', 0, 1)", "damaged"),
    ],
    ids=["newer", "damaged"],
)
def test_check_of_what_is_not_sound_fails(run: Run, sql: str, state: str) -> None:
    """A store that is damaged or newer than the program gives exit code 1 and says what to do."""
    with closing(apsw.Connection(".pdp/sessions.sqlite")) as connection:
        connection.execute(sql).fetchall()

    text, as_json = run("store", "check"), run("store", "check", "--json")

    assert (1, 1, False) == (text.exit_code, as_json.exit_code, json.loads(as_json.stdout)["sound"])
    assert state in text.stdout


def test_check_without_a_store(run: Run) -> None:
    """Nothing to check is exit code 2, in one line."""
    done = run("store", "check")

    assert (2, "error: there is no session store: `.pdp/sessions.sqlite`\n") == (done.exit_code, done.stderr)


@pytest.mark.parametrize("command", [("backup", "x"), ("restore", "x"), ("check",)])
def test_a_store_in_memory_has_no_file(run: Run, command: tuple[str, ...]) -> None:
    """With `sessions.store: memory` there is nothing to look after, and that is said."""
    done = run("store", *command, env={"PDP_SESSIONS__STORE": "memory"})

    assert (2, "error: `sessions.store` is `memory`: there is no session store file\n") == (
        done.exit_code,
        done.stderr,
    )


def records() -> list[dict[str, Any]]:
    """Return what the decision log of this folder holds."""
    files = sorted(Path(".pdp/record").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
