"""Store secrets and rotate keys until this process is killed: prints each version once it is acknowledged."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from tests.broker.vaults import BY, Files


def main(folder: Path) -> None:
    """Change everything that can be changed, in turn."""
    vault = Files(folder).open()
    for turn in itertools.count():
        id_ = f"c{turn % 3}"
        version = vault.put(id_, f"{id_} {turn}".encode(), by=BY).version
        print(id_, version, turn, flush=True)  # noqa: T201 - read by the test
        if turn % 4 == 0:
            vault.rotate_key("acme", "prod", by=BY)
            vault.rewrap("acme", "prod")
            for kek, sealed in vault.keys()[:-1]:
                if not sealed:
                    vault.retire(kek.id, by=BY)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
