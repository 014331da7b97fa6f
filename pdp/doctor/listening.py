"""Check the address of the listener, and detect a server that already runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pdp.doctor.finding import Deployment, Finding, fine
from pdp.record.segments import segments_by_chain
from pdp.record.slot import held


def address(deployment: Deployment) -> Iterator[Finding]:
    """State where a server would listen, or does.

    The needs of a start cover that the address is free.
    """
    where, running = deployment.settings.server.address, serves_here(deployment)
    yield fine(
        "address", f"a server runs, on `{where}` according to these settings" if running else f"`{where}` is free"
    )


def serves_here(deployment: Deployment) -> bool:
    """Say whether a server on this machine holds a chain of this deployment's record."""
    folder: Path = deployment.settings.record_folder
    try:
        return folder.is_dir() and any(held(folder, chain) for chain in segments_by_chain(folder))
    except OSError:
        return False
