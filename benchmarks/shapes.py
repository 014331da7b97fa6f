"""Make a workload file from recorded agent runs: `python -m benchmarks.shapes bfcl FILE` or `agentdojo FILE...`.

`bfcl` takes `multi_turn_calls.jsonl` of the Berkeley Function Calling Leaderboard, `agentdojo` the `calls.jsonl.gz` and
`attack_traces.jsonl.gz` of AgentDojo. The lines go to standard output, for `pdp bench --workload`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_Row = Mapping[str, Any]


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=sorted(_KINDS))
    parser.add_argument("files", nargs="+", type=Path)
    chosen = parser.parse_args()
    for file in chosen.files:
        for row in _rows(file):
            for call in _KINDS[chosen.kind](row):
                print(json.dumps(call, ensure_ascii=False))
    return 0


def _rows(file: Path) -> Iterator[_Row]:
    content = file.read_bytes()
    for line in (gzip.decompress(content) if file.suffix == ".gz" else content).splitlines():
        yield json.loads(line)


def _bfcl(row: _Row) -> Iterator[_Row]:
    yield {"server": "bfcl", "tool": row["tool"], "arguments": row["args"], "session": f"{row['category']}/{row['id']}"}


def _agentdojo(row: _Row) -> Iterator[_Row]:
    session = row.get("id") or f"{row['suite']}/{row['task']}"
    for call in row.get("calls", [row]):
        yield {"server": row["suite"], "tool": call["tool"], "arguments": call["args"], "session": session}


_KINDS: Mapping[str, Callable[[_Row], Iterator[_Row]]] = {"agentdojo": _agentdojo, "bfcl": _bfcl}


if __name__ == "__main__":
    raise SystemExit(main())
