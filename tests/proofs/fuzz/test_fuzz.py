"""Any bytes do no harm: the corpora and the inputs of old crashes through every target, and a little fuzzing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.decision.cache import Key
from pdp.model import Call, Caller
from tests.proofs.fuzz.table import CORPUS, CRASHES, TARGETS, corpus, target
from tests.proofs.fuzz.targets import key

MOST_BYTES = 256 * 1024
SECONDS = 4
LONG_SECONDS = 3600

# The server refuses weak keys; the library that reads them warns of them besides.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


def crashes() -> Iterator[tuple[str, Path]]:
    """Yield every input that once failed, with its target; each is named after what was wrong."""
    for path in sorted(CRASHES.glob("*/*")):
        yield path.parent.name, path


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_does_no_harm(name: str) -> None:
    """Every seed and every input of the corpus is answered or refused, as the target says."""
    one = target(name)

    for data in (b"", *one.seeds, *(path.read_bytes() for path in corpus(name))):
        one.run(data)


@pytest.mark.parametrize(("name", "path"), [pytest.param(*row, id=f"{row[0]}: {row[1].name}") for row in crashes()])
def test_what_once_failed_does_no_harm(name: str, path: Path) -> None:
    """What fuzzing has found, once each."""
    target(name).run(path.read_bytes())


def test_every_folder_belongs_to_a_target() -> None:
    """A target that is renamed takes its corpus along, and every target has one, of a bounded size."""
    kept = {folder.name: sum(path.stat().st_size for path in folder.glob("*")) for folder in CORPUS.iterdir()}

    assert set(TARGETS) == set(kept)
    assert {folder.name for folder in CRASHES.iterdir()} <= set(TARGETS)
    assert sum(kept.values()) <= MOST_BYTES


def test_a_key_that_joins_its_parts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle of the target for keys sees what it is there to see: two calls with one key."""
    one = [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 0, 0]
    other = [0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0]
    data = bytes(one) + bytes(other) + b"ab"
    key.run(data)

    def joined(version: str, _: object, call: Call, caller: Caller, __: object) -> Key:
        return ("call", version + caller.id + call.server + call.tool)

    monkeypatch.setattr(key, "call_key", joined)

    with pytest.raises(AssertionError):
        key.run(data)


def _fuzz(*arguments: str) -> list[dict[str, object]]:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true" and sys.version_info[:2] == (3, 11) and platform.machine() == "x86_64":
            pytest.fail("atheris is absent; it is in the extra `fuzz`")
        pytest.skip("atheris is absent: pip install 'agent-pdp[fuzz]'")
    command = [sys.executable, "-m", "tests.proofs.fuzz", *arguments]
    done = subprocess.run(command, cwd=CORPUS.parent.parent.parent, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_few_seconds_find_nothing() -> None:
    """All targets in one process, from their seeds."""
    (outcome,) = _fuzz("all", "--seconds", str(SECONDS))

    assert "" == outcome["crash"]
    assert outcome["executions"]


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_an_hour_finds_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each target for its share of an hour, from its corpus."""
    (outcome,) = _fuzz(name, "--seconds", str(LONG_SECONDS // len(TARGETS)))

    with capsys.disabled():
        print(outcome)  # noqa: T201 - the figures of a long proof
    assert "" == outcome["crash"]
