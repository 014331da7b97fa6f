"""`python -m tests.proofs.fuzz --seconds N [TARGET…]`: fuzz each target for its share of the time, from its corpus.

What is found new lies in `--work`; `--merge` keeps the smallest inputs that reach as much, at most so many of a target.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.proofs.fuzz.table import CORPUS, FOLDER, TARGETS, corpus

LONGEST_INPUT = 4096
MOST_KEPT = 60
LONGEST_KEPT = 1024
_ROOT = FOLDER.parent.parent
_MEMORY = Path("/dev/shm")  # noqa: S108 - only where it lies; each folder in it is new and private
_STATE = re.compile(r"#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run of one target came to. `coverage` and `features` are libFuzzer's; `crash` is the input that failed."""

    target: str
    executions: int
    per_second: int
    coverage: int
    features: int
    new_inputs: int
    peak_mib: int
    crash: str


def fuzz(name: str, seconds: int, work: Path) -> Outcome:
    """Fuzz one target; what it finds is left in `work`."""
    found, kept = work / name, work / "kept" / name
    for folder in (found, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(_seeds(name)):
        (kept / f"{place:04d}").write_bytes(seed)
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-artifact_prefix={found}/failed-",
        f"-dict={work / name}.dict",
        "-timeout=60",
        "-rss_limit_mb=3072",
        "-print_final_stats=1",
        str(found),
        str(kept),
    ]
    # The dictionary is written by the child, which knows the words; libFuzzer wants it to exist when it starts.
    command = [sys.executable, "-m", "tests.proofs.fuzz.one", name, *flags]
    log = work / f"{name}.log"
    # What targets write lies in memory where there is such a place; libFuzzer ends without cleaning up.
    with log.open("wb") as output, tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        environment = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(command, cwd=_ROOT, env=environment, stdout=output, stderr=output, check=False)
    return _outcome(name, log.read_text(encoding="utf-8", errors="replace"), found, failed=done.returncode != 0)


def _seeds(name: str) -> list[bytes]:
    """Return the inputs to begin with; for all targets at once, each with the byte that chooses its target."""
    from tests.proofs.fuzz.table import target  # noqa: PLC0415 - imports what is tested

    if name != "all":
        return [*target(name).seeds, *(path.read_bytes() for path in corpus(name))]
    return [bytes([place]) + seed for place, one in enumerate(TARGETS) for seed in target(one).seeds]


def _outcome(name: str, text: str, found: Path, *, failed: bool) -> Outcome:
    states = _STATE.findall(text)
    final = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    failures = sorted(str(path) for path in found.glob("failed-*"))
    return Outcome(
        target=name,
        executions=int(final.get("number_of_executed_units", 0)),
        per_second=int(final.get("average_exec_per_sec", 0)),
        coverage=int(states[-1][0]) if states else 0,
        features=int(states[-1][1]) if states else 0,
        new_inputs=int(final.get("new_units_added", 0)),
        peak_mib=int(final.get("peak_rss_mb", 0)),
        crash=failures[0] if failures else ("the process ended" if failed else ""),
    )


def merge(name: str, work: Path) -> int:
    """Keep the smallest inputs that together reach what all do, at most `MOST_KEPT`; return how many are kept."""
    with tempfile.TemporaryDirectory() as folder:
        smallest = Path(folder)
        command = [sys.executable, "-m", "tests.proofs.fuzz.one", name, "-merge=1", f"-max_len={LONGEST_KEPT}", folder]
        sources = [str(one) for one in (CORPUS / name, work / name, work / "kept" / name) if one.is_dir()]
        subprocess.run([*command, *sources], cwd=_ROOT, capture_output=True, check=False)
        # libFuzzer names inputs by what they hold; the smallest come first because they say most about one thing.
        inputs = sorted((path.read_bytes() for path in smallest.glob("[0-9a-f]*")), key=lambda one: (len(one), one))
    if not inputs:
        return len(corpus(name))
    every = max(1, -(-len(inputs) // MOST_KEPT))
    kept = inputs[::every]
    shutil.rmtree(CORPUS / name, ignore_errors=True)
    (CORPUS / name).mkdir(parents=True)
    for one in kept:
        (CORPUS / name / hashlib.sha256(one).hexdigest()[:16]).write_bytes(one)
    return len(kept)


def main() -> int:
    """Run what the arguments say; 1 when an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"any of {', '.join(TARGETS)}; or `all` for all in one process")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--work", type=Path, help="folder of what is found, and of the logs; kept")
    parser.add_argument("--merge", action="store_true", help="afterwards keep what is worth it in the corpus")
    arguments = parser.parse_args()
    chosen = arguments.targets or list(TARGETS)
    failed = False
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in chosen:
            outcome = fuzz(name, max(1, arguments.seconds // len(chosen)), work)
            print(json.dumps(asdict(outcome)), flush=True)  # noqa: T201 - a command
            if outcome.crash and arguments.work is None:
                print((work / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:])  # noqa: T201
            failed = failed or bool(outcome.crash)
            if arguments.merge:
                merge(name, work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
