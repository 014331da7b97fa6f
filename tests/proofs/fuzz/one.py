"""One run of one target under atheris: `python -m tests.proofs.fuzz.one NAME FLAGS…`; the flags are those of libFuzzer.

Without a name but `all`, the first byte of each input chooses the target.
"""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.proofs.fuzz.table import TARGETS, Mutate, target

# As many as threads that decide need, and more than libFuzzer's own has.
_STACK_BYTES = 64 * 1024 * 1024


def main() -> None:
    """Fuzz what the arguments say, until libFuzzer ends the process."""
    name, flags = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=["pdp"]):
        found = [target(one) for one in (TARGETS if name == "all" else (name,))]
    words = sorted({word for one in found for word in one.words})
    dictionary = next((flag.partition("=")[2] for flag in flags if flag.startswith("-dict=")), "")
    if dictionary:
        Path(dictionary).write_text("".join(f'"{_escaped(word)}"\n' for word in words), encoding="ascii")
    # libFuzzer starts itself again to merge, through a shell.
    again = shlex.join([sys.executable, "-m", "tests.proofs.fuzz.one", name])
    mutator = _mutator(found[0].mutate) if len(found) == 1 and found[0].mutate else {}
    atheris.Setup([again, *flags], _chosen([one.run for one in found]), **mutator)
    atheris.Fuzz()


def _chosen(runs: list[Callable[[bytes], None]]) -> Callable[[bytes], None]:
    if len(runs) == 1:
        return runs[0]
    return lambda data: runs[data[0] % len(runs)](data[1:]) if data else None


def _mutator(mutate: Mutate) -> dict[str, Callable[[bytes, int, int], bytes]]:
    return {"custom_mutator": lambda data, most, seed: mutate(data, most, seed, atheris.Mutate)}


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8"))


if __name__ == "__main__":
    threading.stack_size(_STACK_BYTES)
    main()
