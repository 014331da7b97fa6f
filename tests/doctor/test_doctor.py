"""`pdp doctor`: each way in which a deployment can be broken is found, and nothing is found in one that is well."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from pdp.clock import Instant, SystemClock, utc_text
from pdp.config.reading import load
from pdp.doctor import Deployment, Finding, Level, examine
from pdp.doctor.examination import CHECKS
from pdp.doctor.machine import LIBRARIES, engine, libraries
from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.record.keys import SigningKey
from pdp.record.segments import segments_by_chain
from pdp.sessions.outbox import OutboxEvent, Topic
from pdp.testing.clock import FakeClock
from pdp.testing.otlp import OTLPReceiver
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.servers.commandline import run_here, start_server, stop_server, write_bundle

FIRST_SCHEMA = Path(__file__).parent.parent / "sessions" / "first_schema.sql"
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
NOBODY = 65534
CONSOLE = "https://console.example"

Flags = dict[str, str]
Spoil = Callable[[Path], Flags | None]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a deployment in which a server has run."""
    folder = tmp_path_factory.mktemp("sound")
    write_bundle(folder / "policies")
    stop_server(start_server(folder))
    return folder


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    """Return a copy of that deployment, to be spoiled."""
    shutil.copytree(sound, tmp_path / "place")
    return tmp_path / "place"


def deployment(
    place: Path, flags: Mapping[str, str], *, environ: Mapping[str, str] | None = None, now: float | None = None
) -> Deployment:
    """Return a deployment in a folder, on the clock of this machine or at a time of its own."""
    settings = load(
        environ={},
        flags={
            "data_dir": str(place / ".pdp"),
            "policies.folder": str(place / "policies"),
            "server.address": "127.0.0.1:0",
            **flags,
        },
        file=os.devnull,
    )
    clock = SystemClock() if now is None else FakeClock(wall_at=now)
    return Deployment(settings=settings, environ=environ or {}, clock=clock, user_id=os.geteuid())


def ills(found: Iterator[Finding]) -> list[tuple[str, Level, str, str]]:
    """Return what is not well."""
    return [(one.check, one.level, one.found, one.remedy) for one in found if one.level is not OK]


def test_a_sound_deployment_has_no_findings(place: Path) -> None:
    """Where a server has run, everything is well, and every check says so."""
    found = list(examine(deployment(place, {})))

    assert [] == ills(iter(found))
    assert {
        *("libraries", "sqlite", "threads", "clock", "data folder", "secrets", "callers", "keys"),
        *("tls", "policies", "store", "record", "disk space", "telemetry", "address"),
    } == {one.check for one in found}


class Row(NamedTuple):
    """One way to spoil a deployment, and what must be found."""

    name: str
    check: str
    level: Level
    found: str
    spoil: Spoil


# Ways to spoil.


def remove(name: str) -> Spoil:
    """Remove a file or folder."""

    def spoil(place: Path) -> None:
        path = place / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def write(name: str, content: bytes) -> Spoil:
    """Replace a file's content."""

    def spoil(place: Path) -> None:
        (place / name).write_bytes(content)

    return spoil


def mode(name: str, bits: int) -> Spoil:
    """Change a file's mode."""
    return lambda place: (place / name).chmod(bits)


def with_receiver(*, dead: bool | None = None, **given: str) -> Callable[[Path], Flags]:
    """Name a receiver of messages; with `dead`, one that did not take a message, which was given up or still waits."""

    def spoil(place: Path) -> Flags:
        url, receivers = place / "on-call.url", place / "receivers.yaml"
        url.write_text("https://example.org/hook", encoding="utf-8")
        url.chmod(0o600)
        receivers.write_text("on-call: {form: chat, url_file: on-call.url}", encoding="utf-8")
        if dead is not None:
            event = OutboxEvent(id="evt_1", topic=Topic.SESSION_REQUESTED, at=1000.0, tenant="default")
            with closing(SQLiteMessageQueue(place / ".pdp" / "messages.sqlite")) as queue:
                queue.put([Message(id="msg_1", receiver="on-call", event=event)], [], at=1000.0)
                (letter,) = queue.letters(dead=False, limit=1)
                queue.failed(letter, "answers `500`", next_at=2000.0)
                queue.give_up(["on-call"], created_before=2000.0 if dead else 0.0, most=9)
        named = {"messages.receivers_file": str(receivers)}
        return named | {name.replace("__", "."): value for name, value in given.items()}

    return spoil


def flags(**given: str) -> Spoil:
    """Change settings; `__` means a dot."""
    return lambda _: {name.replace("__", "."): value for name, value in given.items()}


def sql(statement: str) -> Spoil:
    """Change the store behind the server's back."""

    def spoil(place: Path) -> None:
        with closing(apsw.Connection(str(place / ".pdp" / "sessions.sqlite"))) as connection:
            connection.execute(statement).fetchall()

    return spoil


def first_schema(place: Path) -> None:
    """Put a store of an earlier program there."""
    (place / ".pdp" / "sessions.sqlite").unlink()
    sql(FIRST_SCHEMA.read_text(encoding="utf-8"))(place)
    (place / ".pdp" / "sessions.sqlite").chmod(0o600)


def folder_as_history(place: Path) -> None:
    """Put a folder in the place of the history."""
    remove(".pdp/history.sqlite")(place)
    (place / ".pdp" / "history.sqlite").mkdir()


def noise_in_the_index(place: Path) -> None:
    """Overwrite a page of the store."""
    file = place / ".pdp" / "sessions.sqlite"
    with closing(apsw.Connection(str(file))) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_by_age'").get
    with file.open("r+b") as opened:
        opened.seek((page - 1) * 4096)
        opened.write(b"\x5a" * 4096)


def tls(**given: object) -> Spoil:
    """Give the listener a certificate."""

    def spoil(place: Path) -> Flags:
        certificate, key = write_certificate(place, **given)  # type: ignore[arg-type] # by name
        return {"server.tls_certificate": str(certificate), "server.tls_key": str(key)}

    return spoil


def tls_of_another(place: Path) -> Flags:
    """Give the listener a certificate and the key of another one."""
    (place / "other").mkdir()
    _, other = write_certificate(place / "other")
    return {**(tls()(place) or {}), "server.tls_key": str(other)}


def tls_spoiled(setting: str, content: bytes | None) -> Spoil:
    """Give the listener a certificate, and spoil one of its files."""

    def spoil(place: Path) -> Flags:
        given = tls()(place) or {}
        file = Path(given[setting])
        file.unlink() if content is None else file.write_bytes(content)
        return given

    return spoil


def tls_roots(content: bytes | None = None, **given: float) -> Spoil:
    """Give the listener a certificate, and authorities of callers."""

    def spoil(place: Path) -> Flags:
        (place / "roots").mkdir()
        roots, _ = write_certificate(place / "roots", **given)  # type: ignore[arg-type] # by name
        if content is not None:
            roots.write_bytes(content)
        return {**(tls()(place) or {}), "server.tls_client_roots": str(roots)}

    return spoil


def caller(text: str) -> Spoil:
    """Add a caller."""

    def spoil(place: Path) -> None:
        with (place / ".pdp" / "callers.yaml").open("a") as file:
            file.write(text)

    return spoil


def ending(at: str) -> Spoil:
    """Add a caller whose token ends."""
    return caller(f"old: {{token_sha256: '{'ab' * 32}', roles: [auditor], expires_at: '{at}'}}\n")


def approving(caller_id: str, condition: str = "principal == context.user") -> Spoil:
    """Add an approver, and a rule against approving for oneself."""

    def spoil(place: Path) -> None:
        caller(f"{caller_id}: {{token_sha256: '{'cd' * 32}', roles: [approver]}}\n")(place)
        with (place / "policies" / "sessions.cedar").open("a") as file:
            file.write('@id("sessions/not-own")\nforbid (principal, action == Action::"pdp/approve_session", resource)')
            file.write(f"\nwhen {{ {condition} }};\n")

    return spoil


def caller_by_certificate(place: Path) -> None:
    """Add a caller whom only a certificate can prove."""
    with (place / ".pdp" / "callers.yaml").open("a") as file:
        file.write("mesh: {spiffe_id: 'spiffe://example.org/gateway', roles: [pep]}\n")


def tls_key_for_all(place: Path) -> Flags:
    """Let everybody read the listener's key."""
    given = tls()(place) or {}
    Path(given["server.tls_key"]).chmod(0o644)
    return given


def last_lines(place: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the lines of the record's last segment."""
    ((_, segments),) = segments_by_chain(place / ".pdp" / "record").items()
    lines = segments[-1].path.read_bytes().splitlines(keepends=True)
    segments[-1].path.write_bytes(b"".join(change(lines)))


def other_signing_key(place: Path) -> None:
    """Put another deployment's signing key, with its public half, in the place of this one's."""
    for name in ("record-signing.pem", "record-signing.pub.pem"):
        (place / ".pdp" / name).unlink()
    done = run_here(place, "init")
    assert "record-signing.pem" in done.stdout


def signed_bundles(place: Path) -> Flags:
    """Want a signature of a bundle that has none."""
    run_here(place, "bundle", "keygen", "-o", "release.key").check_returncode()
    run_here(place, "bundle", "build", "policies", "-o", "b.bundle").check_returncode()
    return {
        "policies.file": str(place / "b.bundle"),
        "policies.require_signature": "true",
        "policies.public_keys": str(place / "release.key.pub"),
    }


BY_SUBJECT = "jwt_subject: s, roles: [auditor]"
BY_GROUP = "jwt_group: g, roles: [auditor]"
IN_13_DAYS = utc_text(SystemClock().now().wall_at + 13 * 86400)
OWN_SESSION = r"no user .* these approvers: `alice@corp`; `sessions/not-own` compares"

ROWS = (
    Row("no data folder", "data folder", WARNING, r"`.*\.pdp` does not exist", remove(".pdp")),
    Row(
        "a file",
        "data folder",
        PROBLEM,
        r"`.*x` is not a folder",
        lambda p: write("x", b"")(p) or {"data_dir": f"{p}/x"},
    ),
    Row("open folder", "data folder", PROBLEM, r"others can enter `.*\.pdp`, mode 0755", mode(".pdp", 0o755)),
    Row("open token", "secrets", PROBLEM, r"others .* `.*pep.token`, mode 0644", mode(".pdp/tokens/pep.token", 0o644)),
    Row("open key", "secrets", PROBLEM, r"others .* `.*record.key`, mode 0620", mode(".pdp/record.key", 0o620)),
    Row("open store", "secrets", PROBLEM, r"others .* `.*sessions.sqlite`, mode", mode(".pdp/sessions.sqlite", 0o666)),
    Row("open signing key", "secrets", PROBLEM, r"record-signing.pem`", mode(".pdp/record-signing.pem", 0o604)),
    Row("open TLS key", "secrets", PROBLEM, r"others .* `.*tls.key`, mode 0644", tls_key_for_all),
    Row("no callers", "callers", WARNING, r"callers.yaml` does not exist", remove(".pdp/callers.yaml")),
    Row("bad callers", "callers", PROBLEM, r"callers.yaml:1: unknown key", write(".pdp/callers.yaml", b"a: {b: 1}")),
    Row("writable callers", "callers", PROBLEM, r"others can write to", mode(".pdp/callers.yaml", 0o622)),
    Row(
        "strange token", "callers", WARNING, r"`.*old.token` holds no token", write(".pdp/tokens/old.token", b"pdpt_x")
    ),
    Row("no digest key", "keys", WARNING, r"no digest key: `.*record.key`", remove(".pdp/record.key")),
    Row("short digest key", "keys", PROBLEM, r"is shorter than 32 bytes", write(".pdp/record.key", b"x")),
    Row("no signing key", "keys", WARNING, r"no signing key: `.*pem`", remove(".pdp/record-signing.pem")),
    Row("bad signing key", "keys", PROBLEM, r"is not a PEM file", write(".pdp/record-signing.pem", b"x")),
    Row("no such key", "keys", PROBLEM, r"cannot read the signing key `/no/key`", flags(record__signing_key="/no/key")),
    Row("no such digest key", "keys", PROBLEM, r"cannot read `/no/key`", flags(record__digest_key="/no/key")),
    Row("wrong public half", "keys", WARNING, r"is not the public half", write(".pdp/record-signing.pub.pem", b"x")),
    Row(
        "plain text",
        "tls",
        WARNING,
        r"any user of this machine can impersonate",
        lambda _: {"server.plaintext": "true"},
    ),
    Row("no certificate of its own", "tls", WARNING, r"no certificate: `.*server.pem`", remove(".pdp/tls/server.pem")),
    Row("no certificate", "tls", PROBLEM, r"`.*tls.crt`: no such file", tls_spoiled("server.tls_certificate", None)),
    Row("bad certificate", "tls", PROBLEM, r"holds no certificate", tls_spoiled("server.tls_certificate", b"x")),
    Row("no TLS key", "tls", PROBLEM, r"`.*tls.key`: no such file", tls_spoiled("server.tls_key", None)),
    Row("bad TLS key", "tls", PROBLEM, r"holds no private key", tls_spoiled("server.tls_key", b"x")),
    Row("TLS key with password", "tls", PROBLEM, r"needs a password", tls(password=b"secret")),
    Row("another's TLS key", "tls", PROBLEM, r"is not the key of the first certificate", tls_of_another),
    Row("expired", "tls", PROBLEM, r"the certificate expired on", tls(begins_in_days=-9, ends_in_days=-1)),
    Row("expires soon", "tls", WARNING, r"the certificate expires on", tls(ends_in_days=3)),
    Row("not yet valid", "tls", PROBLEM, r"is not valid before", tls(begins_in_days=2)),
    Row("no names", "tls", PROBLEM, r"names no host", tls(names=())),
    Row("bad authorities", "tls", PROBLEM, r"`.*roots/tls.crt` holds no certificate", tls_roots(b"x")),
    Row("old authority", "tls", WARNING, r"an authority .* is not valid now: `CN=pdp`", tls_roots(ends_in_days=-0.5)),
    Row("unprovable caller", "callers", WARNING, r"SPIFFE id, such as `mesh`, cannot call", caller_by_certificate),
    Row("no issuer", "callers", WARNING, r"subject, such as `me`, cannot call", caller(f"me: {{{BY_SUBJECT}}}\n")),
    Row("no groups", "callers", WARNING, r"a group, such as `us`, cannot call", caller(f"us: {{{BY_GROUP}}}\n")),
    Row("token ended", "callers", WARNING, r"token of `old` expired on 2020-02", ending("2020-02-01T00:00:00Z")),
    Row("token ends", "callers", WARNING, r"token of `old` expires on 20", ending(IN_13_DAYS)),
    Row("unknown approver", "policies", WARNING, OWN_SESSION, approving("alice@corp")),
    Row("no policies", "policies", PROBLEM, r"policy folder `.*`: ", remove("policies")),
    Row("bad policy", "policies", PROBLEM, r"files.cedar:1: ", write("policies/files.cedar", b"permit (")),
    Row("unsigned", "policies", PROBLEM, r"the bundle is not signed", signed_bundles),
    Row(
        "no public keys", "policies", PROBLEM, r"`policies.public_keys`: `/no/k`", flags(policies__public_keys="/no/k")
    ),
    Row("silent URL", "policies", PROBLEM, r"127.0.0.1:1", flags(policies__url="http://127.0.0.1:1/b")),
    Row("in memory", "store", WARNING, r"`sessions.store` is `memory`", flags(sessions__store="memory")),
    Row("no store's file", "store", PROBLEM, r"not a session store", write(".pdp/sessions.sqlite", b"noise" * 99)),
    Row("damaged store", "store", PROBLEM, r".*sessions_by_age|page", noise_in_the_index),
    Row("no history's file", "store", PROBLEM, r"session history is not a file", folder_as_history),
    Row(
        "noise as history",
        "store",
        PROBLEM,
        r"history is damaged: `.*/history",
        write(".pdp/history.sqlite", b"n" * 99),
    ),
    Row("newer store", "store", PROBLEM, r"has schema 99, and this", sql("UPDATE meta SET schema_version = 99")),
    Row("older store", "store", WARNING, r"has schema 1; the next start upgrades it", first_schema),
    Row(
        "record is a file",
        "record",
        PROBLEM,
        r"is not a folder",
        lambda p: {"record.folder": f"{p}/policies/bundle.yaml"},
    ),
    Row("full disk", "disk space", PROBLEM, r"free for .*, and one segment", flags(record__segment_bytes=str(10**17))),
    Row("messages without links", "messages", WARNING, r"messages have no link", with_receiver()),
    Row(
        "no receivers",
        "messages",
        PROBLEM,
        r"`messages.receivers_file`: .*cannot read `/no/r.yaml`",
        flags(messages__receivers_file="/no/r.yaml", server__console_url=CONSOLE),
    ),
    Row(
        "a receiver that is away",
        "messages",
        WARNING,
        r"`on-call` has not taken 1 messages for \d+ seconds: answers `500`",
        with_receiver(dead=False, server__console_url=CONSOLE),
    ),
    Row(
        "dead letters",
        "messages",
        WARNING,
        r"1 messages for `on-call` were given up",
        with_receiver(dead=True, server__console_url=CONSOLE),
    ),
    Row(
        "a queue of noise",
        "messages",
        PROBLEM,
        r"the queue of messages is damaged: `.*/messages\.sqlite`; stop the server",
        lambda p: {
            **with_receiver(server__console_url=CONSOLE)(p),
            **(write(".pdp/messages.sqlite", b"noise" * 99)(p) or {}),
        },
    ),
    Row(
        "cut record",
        "record ends",
        PROBLEM,
        r"that was certainly signed is missing: the chain was cut, or is gone",
        remove(".pdp/record"),
    ),
    Row(
        "changed record",
        "record ends",
        PROBLEM,
        r"the signature of a checkpoint is wrong",
        lambda p: last_lines(p, lambda lines: [*lines[:-1], lines[-1].replace(b'"signature":"', b'"signature":"00')]),
    ),
    Row(
        "another signer",
        "record ends",
        PROBLEM,
        r"signed by the key `.*`, which is not among the given keys",
        other_signing_key,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_what_is_broken_is_found(place: Path, row: Row) -> None:
    """Each broken deployment has exactly one finding of its check, with what to do."""
    given = row.spoil(place) or {}

    found = ills(CHECKS[row.check](deployment(place, given)))

    assert 1 == len(found), found
    check, level, text, remedy = found[0]
    assert row.level is level
    assert re.search(row.found, text), text
    assert remedy
    assert row.check.startswith(check)


@pytest.mark.parametrize(
    ("caller_id", "condition"),
    [("alice", "principal == context.user"), ("alice@corp", 'context.user in UserGroup::"x"')],
)
def test_an_approver_that_policies_know(place: Path, caller_id: str, condition: str) -> None:
    """Where approver and user have one id, or no rule compares them, there is nothing to say."""
    approving(caller_id, condition)(place)

    assert [] == ills(CHECKS["policies"](deployment(place, {})))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only while the `with` block runs, even for root."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", folder], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def disk_of(mebibytes: int, folder: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(file: Path, *, but: int) -> None:
    """Write to a file until that many bytes are left on the disk."""
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, shutil.disk_usage(file.parent).free - but)


@pytest.mark.parametrize(
    ("left", "settings", "store", "space"),
    [
        (
            0,
            {},
            "0 B are left, and the last 8 MiB are reserved for ending sessions",
            "cannot write to .*: no space left on device",
        ),
        (
            4 << 20,
            {},
            "MiB are left, and the last 8 MiB are reserved for ending",
            "3.* MiB free for .*, and one segment",
        ),
        (
            65536,
            {"sessions.reserve_bytes": "0"},
            "no space left on device",
            "cannot write to .*: no space left on device",
        ),
    ],
)
def test_a_full_disk(
    place: Path, tmp_path: Path, left: int, settings: dict[str, str], store: str, space: str
) -> None:  # fmt: skip
    """A sound store on a full disk is not called sound, and the finding about disk space names the disk."""
    with disk_of(64, tmp_path / "disk") as disk:
        shutil.copytree(place / ".pdp", disk / ".pdp")
        fill(disk / "others", but=left)
        full = deployment(place, {"data_dir": str(disk / ".pdp"), **settings})
        found = [*ills(CHECKS["store"](full)), *ills(CHECKS["disk space"](full))]

    assert [("store", PROBLEM), ("disk space", PROBLEM)] == [one[:2] for one in found]
    assert store in found[0][2]
    assert re.search(space, found[1][2])


def test_a_server_that_cannot_write(place: Path) -> None:
    """Beside a server whose heart has not beaten in the store for three times, the store is not called well."""
    server = start_server(place)
    with closing(apsw.Connection(str(place / ".pdp" / "sessions.sqlite"))) as connection:
        last = connection.execute("SELECT high_water_at FROM meta").get
    # The server writes on meanwhile, by the clock of the machine.
    beside = [ills(CHECKS["store"](deployment(place, {}, now=last + seconds))) for seconds in (29.0, 3600.0)]
    stop_server(server)
    alone = ills(CHECKS["store"](deployment(place, {}, now=last + 3600.0)))

    ((check, level, found, remedy),) = beside[1]
    assert ([], "store", PROBLEM, []) == (beside[0], check, level, alone)
    assert re.fullmatch(r"the server has written nothing to the store for 3\d\d\d seconds, and tries every 10", found)
    assert "its log says why" in remedy


def test_a_record_that_cannot_be_written(place: Path) -> None:
    """A folder on a file system that is read-only is a problem of the record."""
    (place / "elsewhere").mkdir(mode=0o700)

    with read_only(place / "elsewhere"):
        found = ills(CHECKS["record"](deployment(place, {"record.folder": str(place / "elsewhere")})))

    assert [("record", PROBLEM)] == [one[:2] for one in found]
    assert "cannot be written" in found[0][2]


def test_a_folder_for_copies_of_the_record_that_is_not_there(place: Path) -> None:
    """Servers run without it, and answer without the records of this one."""
    flags = {"sessions.store": "postgres", "sessions.postgres_file": "f", "record.shared_folder": str(place / "shared")}
    absent = ills(CHECKS["record"](deployment(place, flags)))
    (place / "shared").mkdir()

    assert [("record", PROBLEM, True)] == [(check, level, "is not there" in found) for check, level, found, _ in absent]
    assert [] == ills(CHECKS["record"](deployment(place, flags)))


def test_more_keys_of_records_are_counted(place: Path) -> None:
    """All that are in the file."""
    (place / "more.pem").write_bytes(b"".join(SigningKey.generate().public.pem for _ in range(2)))
    found = [one.found for one in CHECKS["record"](deployment(place, {"record.public_keys": str(place / "more.pem")}))]

    assert f"segments are verified with 2 more public keys (`{place / 'more.pem'}`)" in found


def test_a_foreign_data_folder(place: Path) -> None:
    """Another user than the owner learns whose folder it is."""
    settings = deployment(place, {}).settings
    other = Deployment(settings=settings, environ={}, clock=SystemClock(), user_id=os.geteuid() + 1)

    found = ills(CHECKS["data folder"](other))

    assert [("data folder", PROBLEM)] == [one[:2] for one in found]
    assert "belongs to" in found[0][2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_foreign_file(place: Path) -> None:
    """A file that the server writes and that belongs to another user is a problem of its own."""
    os.chown(place / ".pdp" / "sessions.sqlite", NOBODY, NOBODY)

    found = ills(CHECKS["secrets"](deployment(place, {})))

    assert [("secrets", PROBLEM)] == [one[:2] for one in found]
    assert re.search(r"sessions.sqlite` belongs to \w+, and the data folder to root", found[0][2])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand secrets to a group")
def test_a_secret_that_is_handed_to_a_group(place: Path) -> None:
    """What belongs to root and is readable for the service's group alone is how platforms hand secrets over."""
    given = tls()(place) or {}
    os.chown(given["server.tls_key"], 0, NOBODY)
    Path(given["server.tls_key"]).chmod(0o440)

    assert [] == ills(CHECKS["secrets"](deployment(place, given)))


def test_a_clock_behind_the_store(place: Path) -> None:
    """A wall clock that is behind the last write of the store is a problem, and by how much is said."""
    found = ills(CHECKS["store"](deployment(place, {}, now=1_000_000.0)))

    assert [("clock", PROBLEM)] == [one[:2] for one in found]
    assert re.search(r"the clock is \d+ seconds behind the last write", found[0][2])


def test_a_small_step_of_the_clock_is_no_problem(place: Path) -> None:
    """Clocks are corrected by parts of a second all the time."""
    with closing(apsw.Connection(str(place / ".pdp" / "sessions.sqlite"))) as connection:
        last = connection.execute("SELECT high_water_at FROM meta").get

    assert [] == ills(CHECKS["store"](deployment(place, {}, now=last - 1.0)))


class NamelessBoot:
    """A machine that has no id for its boot."""

    def now(self) -> Instant:
        """Return a reading with an id that was made up."""
        return Instant(wall_at=1.0, boot_at=1.0, boot_id="boot-1")


def test_a_machine_without_boot_id(place: Path) -> None:
    """A system that cannot reliably tell boots apart gets a warning."""
    settings = deployment(place, {}).settings
    nameless = Deployment(settings=settings, environ={}, clock=NamelessBoot(), user_id=os.geteuid())

    assert [("clock", WARNING)] == [one[:2] for one in ills(CHECKS["clock"](nameless))]


def test_an_old_sqlite(place: Path) -> None:
    """A version of SQLite that can corrupt the store is a problem."""
    found = ills(engine(deployment(place, {}), "3.46.1"))

    assert [("sqlite", PROBLEM, "SQLite `3.46.1` can corrupt a store: 3.51.3 or later is needed")] == [
        one[:3] for one in found
    ]


@pytest.mark.parametrize(
    ("version", "text"),
    [("4.11.9", "cedarpy has version `4.11.9`"), ("4.13.0", "cedarpy has version `4.13.0`"), ("", "is not installed")],
)
def test_a_wrong_library(place: Path, version: str, text: str) -> None:
    """A library that is too old, too new or absent is a problem."""

    def installed(name: str) -> str:
        if name == "cedarpy" and not version:
            raise PackageNotFoundError(name)
        return version if name == "cedarpy" else version_of(name)

    found = ills(libraries(deployment(place, {}), installed))

    assert [("libraries", PROBLEM, "pip install 'cedarpy>=4.12.2,<4.13'")] == [(*one[:2], one[3]) for one in found]
    assert text in found[0][2]


def test_the_table_of_libraries_is_the_packages(project_root: Path) -> None:
    """What doctor asks for is what a server needs of the package."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = {
        f"{name}{f'>={low}' if low else ''}{f',<{high}' if high else ''}" for name, (low, high) in LIBRARIES.items()
    }

    assert {*project["dependencies"], *project["optional-dependencies"]["server"]} == table


def test_threads_that_do_not_start(place: Path) -> None:
    """Where memory is limited, stacks for all threads are not to be had."""
    code = f"""
import resource
from pathlib import Path
from pdp.doctor.machine import threads
from tests.doctor.test_doctor import deployment, ills
where = deployment(Path({str(place)!r}), {{"server.threads": "64"}})
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
print([one[:3] for one in ills(threads(where))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ, timeout=120
    )

    assert "('threads', <Level.PROBLEM: 'problem'>, '64 threads with 64 MiB of stack do not start')" in done.stdout


def test_receivers_that_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that takes the empty request of each signal is well."""
    # On a busy machine an answer takes longer than the usual five seconds.
    monkeypatch.setattr("pdp.doctor.receivers._SECONDS", 60.0)
    with OTLPReceiver() as receiver:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "60000"}
        found = list(CHECKS["telemetry"](deployment(place, {}, environ=environ)))

    assert [OK] * 3 == [one.level for one in found]


@pytest.mark.parametrize(
    ("environ", "level", "text"),
    [
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, WARNING, "does not accept traces: UNAVAILABLE"),
        (
            {
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1/v1/logs",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            WARNING,
            "does not accept logs: unreachable",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x"}, PROBLEM, "must begin with `http://`"),
    ],
)
def test_receivers_that_do_not(place: Path, environ: dict[str, str], level: Level, text: str) -> None:
    """A silent receiver is a warning, because decisions do not wait for it; a wrong variable is a problem."""
    found = ills(CHECKS["telemetry"](deployment(place, {}, environ=environ)))

    assert [("telemetry", level)] == [one[:2] for one in found]
    assert text in found[0][2]


# The command.


def run(place: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a deployment."""
    return run_here(place, "doctor", *words, **{"PDP_SERVER__ADDRESS": "127.0.0.1:0"} | environ)


def test_the_command_on_a_sound_deployment(place: Path) -> None:
    """All is well is exit code 0; for scripts there is JSON."""
    text, as_json = run(place), run(place, "--json")

    assert (0, "", 0) == (text.returncode, text.stderr, as_json.returncode)
    answer = json.loads(as_json.stdout)
    assert answer["sound"] is True
    assert {"ok"} == {one["level"] for one in answer["findings"]}
    assert {"check", "level", "found", "remedy"} == set(answer["findings"][0])


def test_the_command_on_a_broken_deployment(place: Path) -> None:
    """A problem is exit code 1, and its row says what to do."""
    (place / ".pdp").chmod(0o755)

    done = run(place)

    assert 1 == done.returncode
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("problem"))
    assert row.endswith("chmod 700 .pdp")


def test_the_command_on_wrong_settings(place: Path) -> None:
    """Every wrong setting is a row."""
    done = run(place, "--server-address", "0.0.0.0:1", "--cache-size", "many", "--json")

    assert 1 == done.returncode
    assert ["settings"] == [one["check"] for one in json.loads(done.stdout)["findings"]]
    both = run(place, PDP_CACHE__SIZE="many", PDP_SERVER__THREADS="0")
    assert 2 == sum(line.startswith("problem") for line in both.stdout.splitlines())


def test_warnings_fail_when_asked(place: Path) -> None:
    """A warning is exit code 0, and 1 for who wants to know of warnings."""
    given = {"PDP_SESSIONS__STORE": "memory"}

    assert (0, 1) == (run(place, **given).returncode, run(place, "--deny", "warnings", **given).returncode)


def test_the_command_beside_a_server(sound: Path) -> None:
    """It may run while a server does, which goes on."""
    server = start_server(sound)
    done = run(sound)
    code, _, _ = stop_server(server)

    assert (0, 0) == (done.returncode, code)


def test_nothing_is_changed(place: Path) -> None:
    """No file of the deployment has another content afterwards, and none is gone."""
    before = contents(place)

    run(place)

    after = contents(place)
    assert before == {name: after.get(name) for name in before}
    assert after.keys() - before.keys() <= {
        f".pdp/{store}.sqlite-{part}" for store in ("sessions", "history") for part in ("wal", "shm")
    }


def contents(place: Path) -> dict[str, bytes]:
    """Return the content of every file, but SQLite's own two beside the store and the history."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }
