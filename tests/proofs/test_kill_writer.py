"""`kill -9` while records are written: what was answered is recorded, and the chain goes on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.keys import PublicKeys
from pdp.record.segments import segments_by_chain
from pdp.record.verify import verify

# The kill comes after so many answers at most.
MOST_ANSWERS = 400


@pytest.mark.parametrize("durability", ["written", "durable"])
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.long)])
def test_what_was_answered_survives_kills(tmp_path: Path, durability: str, kills: int) -> None:
    """No answer lacks its record, a restart changes nothing but an incomplete last line, and the chain verifies."""
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # noqa: T201 - to repeat it
    choices = random.Random(seed)  # noqa: S311 - no secret
    signer, folder = SigningKey.generate(), tmp_path / "record"
    (tmp_path / "key.pem").write_bytes(signer.private_pem)
    answered: list[str] = []
    changed: list[str] = []
    left: dict[Path, bytes] = {}

    for kill in range(kills):
        answered += killed(tmp_path, durability, f"{kill}", choices.randrange(1, MOST_ANSWERS))
        changed += [path.name for path, content in left.items() if path.read_bytes() != whole_lines(content)]
        left = {one.path: one.path.read_bytes() for segments in segments_by_chain(folder).values() for one in segments}
    DecisionLog(folder, key=b"k" * 32, signer=signer).close()

    recorded = {f"{one['id']} {one['basis']}" for _, _, one in read_records(folder) if one["kind"] == "decision"}
    (chain,) = (report := verify(folder, PublicKeys.of(signer))).chains
    print(f"{kills} kills, {len(answered)} answers, {len(recorded)} records")  # noqa: T201 - the figures of the proof
    assert (report.findings, chain.segments) == ((), kills + 1)
    assert changed == []
    assert set(answered) - recorded == set()
    assert len(answered) >= kills


def killed(folder: Path, durability: str, name: str, answers: int) -> list[str]:
    """Run a writer, kill it after so many answers, and return all that it answered."""
    command = [sys.executable, "-m", "tests.proofs.killed_writer"]
    arguments = [str(folder / "record"), str(folder / "key.pem"), durability, name]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(answers)]
        writer.kill()
        lines += writer.stdout.readlines()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


def whole_lines(content: bytes) -> bytes:
    """Return what a restart leaves of a file."""
    return content[: content.rfind(b"\n") + 1]
