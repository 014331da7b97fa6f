"""`pdp bundle`: pack, sign and verify; list the versions of a real server, and go back to one."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.testing.bundles import SCHEMA
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import POLICIES, Server, start_server, stop_server, write_bundle


@pytest.fixture
def packed(run: Run, policies: Path) -> Path:
    """Return a packed bundle."""
    done = run("bundle", "build", str(policies), "-o", "one.bundle")
    assert 0 == done.exit_code, done.output
    return Path("one.bundle")


@pytest.fixture
def key(run: Run) -> str:
    """Return the file of a private key; the public one is beside it."""
    assert 0 == run("bundle", "keygen", "-o", "release.key").exit_code
    return "release.key"


def test_building_twice_gives_the_same_bytes(run: Run, packed: Path, policies: Path) -> None:
    """A copy of the folder with other times, packed elsewhere, gives the same file and version."""
    shutil.copytree(policies, "copy", copy_function=shutil.copy)
    done = run("bundle", "build", "copy", "-o", "two.bundle")

    assert packed.read_bytes() == Path("two.bundle").read_bytes()
    assert json.loads(run("check", "copy", "--json").stdout)["version"] == done.stdout.strip()
    assert ["one.bundle", "two.bundle"] == sorted(path.name for path in Path().glob("*.*bundle*"))


def test_bad_folder_is_not_packed(run: Run, policies: Path) -> None:
    """A bundle that does not load is reported as by `pdp check`, and nothing is written."""
    (policies / "files.cedar").write_text("permit (", encoding="utf-8")

    done = run("bundle", "build", str(policies), "-o", "bad.bundle")

    assert 1 == done.exit_code
    assert done.stdout.startswith(f"{policies / 'files.cedar'}:1: ")
    assert not Path("bad.bundle").exists()


def test_signing_and_verifying(run: Run, packed: Path, key: str) -> None:
    """A signed bundle is verified with the public key, and shows its number."""
    done = run("bundle", "sign", str(packed), "--key", key, "--number", "42", "-o", "signed.bundle")
    verified = run("bundle", "verify", "signed.bundle", "--key", f"{key}.pub")

    assert (0, 0) == (done.exit_code, verified.exit_code), done.output + verified.output
    assert done.stdout == verified.stdout
    assert re.search(r"^number +42$", verified.stdout, re.MULTILINE)


def test_number_is_the_time_where_none_is_given(run: Run, packed: Path, key: str) -> None:
    """Signing in place, without a number, makes each bundle newer than those of earlier seconds."""
    assert 0 == run("bundle", "sign", str(packed), "--key", key).exit_code

    shown = json.loads(run("bundle", "show", str(packed), "--json").stdout)

    assert int(shown["number"]) > 1_700_000_000
    assert shown["signed_by"].startswith("ed25519:")


def test_what_was_not_signed_is_not_verified(run: Run, packed: Path, key: str) -> None:
    """Exit code 1, and why."""
    done = run("bundle", "verify", str(packed), "--key", f"{key}.pub")

    assert (1, "the bundle is not signed, but only signed ones are taken; see `pdp bundle sign`\n") == (
        done.exit_code,
        done.stdout,
    )


def test_what_was_changed_is_not_verified(run: Run, packed: Path, key: str) -> None:
    """One changed letter of a policy is enough."""
    run("bundle", "sign", str(packed), "--key", key)
    packed.write_bytes(packed.read_bytes().replace(b"permit", b"permiT", 1))

    done = run("bundle", "verify", str(packed), "--key", f"{key}.pub")

    assert 1 == done.exit_code
    assert "is wrong: the bundle is not what was signed with this key" in done.stdout


def test_keys_are_for_their_owner_and_never_overwritten(run: Run, key: str) -> None:
    """The private key has mode 0600; making another one under its name fails."""
    before = Path(key).read_bytes()

    again = run("bundle", "keygen", "-o", key)

    assert 0o600 == stat.S_IMODE(Path(key).stat().st_mode)
    assert (2, before) == (again.exit_code, Path(key).read_bytes())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("show", "nothing.bundle"), "error: nothing.bundle: cannot be read: no such file or directory"),
        (("show", "release.key"), "error: release.key: is not a packed bundle; `pdp bundle build` makes one"),
        (
            ("sign", "one.bundle", "--key", "release.key.pub"),
            "error: `release.key.pub`: this is not an Ed25519 private key",
        ),
        (("verify", "one.bundle", "--key", "one.bundle"), "error: `one.bundle` holds no public key in PEM"),
        (("sign", "one.bundle", "--key", "release.key", "--number", "0"), "error: invalid value for '--number'"),
    ],
)
def test_mistakes_are_told(run: Run, packed: Path, key: str, words: tuple[str, ...], problem: str) -> None:
    """Exit code 2, and one line that says what to fix."""
    done = run("bundle", *words)

    assert packed.exists()
    assert Path(key).exists()
    assert 2 == done.exit_code
    assert problem in done.stderr


def test_show_lists_the_files(run: Run, packed: Path) -> None:
    """Whoever gets a file sees what is in it."""
    done = run("bundle", "show", str(packed))

    assert re.search(r"^name +test$", done.stdout, re.MULTILINE)
    assert re.search(r"^tools/files.json +\d+$", done.stdout, re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run a server that follows a folder, after a change of the folder."""
    write_bundle(tmp_path / "policies")
    running = start_server(tmp_path, "--policies-watch=false")
    yield running
    stop_server(running)


def test_going_back_to_an_earlier_version(ask: Run, server: Server) -> None:
    """The listing shows who did what and why; the first digits of a version are enough to go back."""
    first = json.loads(ask("bundle", "list", "--json").stdout)[0]["version"]
    unchanged = ask("bundle", "reload")
    write_bundle(server.folder / "policies", policies={**POLICIES, "more": "// a comment makes a version\n"})
    reloaded = ask("bundle", "reload")

    back = ask("bundle", "activate", first[7:15], "--reason", "the new one denies every call")
    again = ask("bundle", "activate", first)
    listed = json.loads(ask("bundle", "list", "--json").stdout)
    table = ask("bundle", "list")

    assert reloaded.stdout.startswith("now active: bundle `test`, sha256:")
    assert f"now active: bundle `test`, {first}\n" == back.stdout
    assert f"already active: bundle `test`, {first}\n" == unchanged.stdout
    assert f"already active, and chosen: bundle `test`, {first}\n" == again.stdout
    assert [(True, "author", True), (False, "author", False)] == [
        (one["active"], one["activated_by"], one["chosen"]) for one in listed
    ]
    assert "the new one denies every call" == listed[0]["reason"]
    assert re.search(rf"^{first[7:19]} +active, chosen +\S+Z +author ", table.stdout, re.MULTILINE)
    assert table.stderr.startswith("the source holds ")


def test_sessions_that_a_bundle_denies_are_told(ask: Run, server: Server) -> None:
    """After an activation and before it: the number of sessions whose terms do not fit its schema."""
    wanted = (
        "--user",
        "alice",
        "--agent",
        "coder",
        "--purpose",
        "p",
        "--tool",
        "files/*",
        "--terms",
        '{"ticket":"T-1"}',
    )
    session = ask("session", "request", *wanted, "--handle-file", "handle").stdout.strip()
    approved = ask("session", "approve", session, "--yes")
    first = json.loads(ask("bundle", "list", "--json").stdout)[0]["version"]
    write_bundle(server.folder / "policies", schema=SCHEMA)

    without = ask("bundle", "reload")
    running = json.loads(ask("bundle", "list", "--json").stdout)[0]["version"]
    tried, again = (
        ask("bundle", "activate", first, "--preview"),
        ask("bundle", "activate", running, "--preview", "--json"),
    )
    back = ask("bundle", "activate", first)

    warning = "warning: the terms of 1 active session do not fit its schema: all their calls are denied\n"
    assert (0, warning) == (approved.exit_code, without.stderr)
    assert (f"would be active: bundle `test`, {first}\n", "") == (tried.stdout, tried.stderr)
    assert (1, False) == tuple(json.loads(again.stdout)[name] for name in ("sessions_unfit", "changed"))
    assert (f"now active: bundle `test`, {first}\n", "") == (back.stdout, back.stderr)


@pytest.mark.parametrize(("prefix", "problem"), [("", "more than one version"), ("zz", "no version that the server")])
def test_versions_must_be_told_apart(ask: Run, server: Server, prefix: str, problem: str) -> None:
    """A prefix names exactly one version, or nothing happens."""
    write_bundle(server.folder / "policies", policies={**POLICIES, "more": "// a comment makes a version\n"})
    ask("bundle", "reload")

    done = ask("bundle", "activate", "--", prefix)

    assert 2 == done.exit_code
    assert done.stderr.startswith(f"error: {problem}")
