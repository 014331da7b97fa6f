"""Each mutant of `replicamutants.yaml`, made in a copy of the program, dies in every test that is named there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.sessions.postgres.postgresserver import INSTALLED
from tests.sessions.replicamutants import Mutant, mutants

pytestmark = [pytest.mark.replicas, pytest.mark.long, pytest.mark.timeout(0)]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a copy of the project."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("pdp", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / INSTALLED.name).symlink_to(INSTALLED)
    yield root
    shutil.rmtree(root)


def failed(root: Path, tests: Iterable[str]) -> set[str]:
    """Run tests of a copy; return those that fail, of which some cases may pass."""
    wanted = [f"tests/sessions/{one}" for one in tests]
    options = ["-q", "-rfE", "-p", "no:cacheprovider", "-m", "replicas or not replicas"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *wanted],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout
    # What cannot be set up says nothing.
    assert not re.search(r"^ERROR ", done.stdout, re.MULTILINE), done.stdout
    return set(re.findall(r"^FAILED tests/sessions/([^\s\[]+)", done.stdout, re.MULTILINE))


def test_all_tests_that_are_named_pass(copied: Path) -> None:
    """Without a mutant."""
    assert set() == failed(copied, sorted({test for mutant in mutants() for test in mutant.tests}))


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_dies(copied: Path, mutant: Mutant) -> None:
    """In each of its tests."""
    file = mutant.file(copied)
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.made(source), encoding="utf-8")
    found = failed(copied, mutant.tests)
    file.write_text(source, encoding="utf-8")

    assert set(mutant.tests) == found
