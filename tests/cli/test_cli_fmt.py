"""`pdp fmt`: what it writes, what it leaves alone, and what it answers to a script."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import clean_environment

LOOSE = '@id("loose/a") permit(principal == User::"ada", action, resource)when{true};\n'
LAID_OUT = """@id("loose/a")
permit (
  principal == User::"ada",
  action,
  resource
)
when { true };
"""


@pytest.fixture
def loose(policies: Path, run: Run) -> Path:
    """Return a policy file that is not laid out, in a folder whose other files are."""
    run("fmt", "policies")
    file = policies / "loose.cedar"
    file.write_text(LOOSE, encoding="utf-8")
    return file


def test_writes_what_is_not_laid_out(run: Run, loose: Path) -> None:
    """The file is laid out, and keeps its mode; the second run has nothing to do."""
    loose.chmod(0o640)

    done = run("fmt", "policies")

    assert (0, "formatted policies/loose.cedar\n", "") == (done.exit_code, done.stdout, done.stderr)
    assert LAID_OUT == loose.read_text(encoding="utf-8")
    assert 0o640 == stat.S_IMODE(loose.stat().st_mode)
    again = run("fmt", "policies")
    assert (0, "") == (again.exit_code, again.output)


def test_check_changes_nothing_and_shows_what_would(run: Run, loose: Path) -> None:
    """`--check` exits with 1 and shows the lines; after `pdp fmt` it exits with 0 and is silent."""
    done = run("fmt", "policies", "--check")

    assert 1 == done.exit_code
    assert "--- policies/loose.cedar" == done.stdout.splitlines()[0]
    assert f"-{LOOSE.rstrip()}" in done.stdout.splitlines()
    assert "+when { true };" in done.stdout.splitlines()
    assert "1 of 3 files would change; `pdp fmt policies` formats them" in done.stdout
    assert LOOSE == loose.read_text(encoding="utf-8")
    run("fmt", "policies")
    again = run("fmt", "policies", "--check")
    assert (0, "") == (again.exit_code, again.output)


def test_a_policy_that_cannot_be_read_keeps_all_as_it_is(run: Run, loose: Path, policies: Path) -> None:
    """One file with a mistake: exit code 2, its line, and no file is written."""
    (policies / "slip.cedar").write_text("\npermit (principal, action, resorce);\n", encoding="utf-8")

    done = run("fmt", "policies")

    assert (2, "") == (done.exit_code, done.stdout)
    assert "error: policies/slip.cedar:2: this policy cannot be parsed; `pdp check` says why\n" == done.stderr
    assert LOOSE == loose.read_text(encoding="utf-8")


def test_what_is_not_text_is_named(run: Run, policies: Path) -> None:
    """A file that is not UTF-8 is named with its line."""
    (policies / "odd.cedar").write_bytes(b"// c\n\xff\n")

    done = run("fmt", "policies")

    assert (2, "error: policies/odd.cedar:2: not UTF-8\n") == (done.exit_code, done.stderr)


def test_a_link_stays_one(run: Run, loose: Path, policies: Path) -> None:
    """A file that is a link within the folder is laid out where it is."""
    target = policies / "shared" / "loose.cedar"
    target.parent.mkdir()
    loose.rename(target)
    loose.symlink_to(target)

    run("fmt", "policies")

    assert loose.is_symlink()
    assert LAID_OUT == target.read_text(encoding="utf-8")


@pytest.mark.usefixtures("loose")
def test_what_is_written_loads_as_before(run: Run) -> None:
    """`pdp check` finds the same before and after."""
    before = run("check", "policies").stdout.splitlines()[-1].partition(", sha256")[0]

    run("fmt", "policies")

    assert before == run("check", "policies").stdout.splitlines()[-1].partition(", sha256")[0]
    assert before.startswith("policies: 4 policies")


def test_new_bundles_are_laid_out(run: Run) -> None:
    """What `pdp new` writes passes `pdp fmt --check`."""
    run("new", "mine")

    done = run("fmt", "mine", "--check")

    assert (0, "") == (done.exit_code, done.output)


SLIP = "\npermit (principal, action, resorce);\n"
OF_SLIP = "policies/slip.cedar:2: "


@pytest.mark.parametrize(
    "words",
    [
        ("fmt", "policies"),
        ("bundle", "build", "policies", "-o", "packed"),
        ("explain", "--policies", "policies", "--user", "alice", "--agent", "coder", "--tool", "files/read"),
    ],
    ids=" ".join,
)
def test_problems_are_told_with_the_folder(run: Run, policies: Path, words: tuple[str, ...]) -> None:
    """An editor and a person open the file by what they read."""
    (policies / "slip.cedar").write_text(SLIP, encoding="utf-8")

    assert OF_SLIP in run(*words).output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_tells_problems_with_the_folder(policies: Path, workers: str) -> None:
    """Whichever of its processes has met them."""
    (policies / "slip.cedar").write_text(SLIP, encoding="utf-8")
    words = ("serve", "--policies-folder", "policies", "--server-address", "127.0.0.1:0", "--server-workers", workers)

    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", *words], check=False, capture_output=True, text=True, env=clean_environment()
    )

    assert OF_SLIP in done.stdout + done.stderr
