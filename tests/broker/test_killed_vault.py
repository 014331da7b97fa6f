"""A vault whose process is killed loses nothing that it acknowledged, and stays usable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.broker.vaults import BY, Files, connection
from tests.machinery.seeds import seeded

KILLS = 4


def test_a_killed_process_loses_no_secret(tmp_path: Path, project_root: Path) -> None:
    """Whatever it was doing: each secret is the acknowledged one or a later one, and keys rotate and go as before."""
    files, chance = Files(tmp_path / "broker"), seeded()
    vault = files.open()
    for number in range(3):
        vault.add(connection(f"c{number}"), by=BY)
        vault.put(f"c{number}", f"c{number} -1".encode(), by=BY)
    vault.close()
    acknowledged = {f"c{number}": (1, -1) for number in range(3)}

    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.broker.vault_process", str(files.folder)]
        with subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randint(1, 12))]
            process.kill()
            for id_, *numbers in map(str.split, [*lines, *process.stdout]):
                version, turn = map(int, numbers)
                acknowledged[id_] = (version, turn)
        vault = files.open()
        for id_, (version, turn) in acknowledged.items():
            one = vault.connection(id_)
            stored = vault.open(one).reveal().decode().split()
            assert one.version in (version, version + 1)
            assert [id_, str(turn)] == stored or (one.version == version + 1 and stored[0] == id_)
            # One that was stored in the last moment was acknowledged to nobody, and stays all the same.
            acknowledged[id_] = (one.version, int(stored[1]))
        vault.close()

    vault = files.open()
    vault.rotate_key("acme", "prod", by=BY)
    vault.rewrap("acme", "prod")
    for kek, _ in vault.keys()[:-1]:
        vault.retire(kek.id, by=BY)
    [(_, sealed)] = vault.keys()
    assert len(acknowledged) == sealed
    assert all(vault.open(vault.connection(id_)).reveal() for id_ in acknowledged)
    vault.close()
