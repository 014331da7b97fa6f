"""Check the address of the listener, and know whether a server runs already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pdp.doctor.finding import Deployment, Finding, fine
from pdp.record.segments import segments_by_chain
from pdp.record.slot import held


def address(deployment: Deployment) -> Iterator[Finding]:
    """Say where a server would listen, or does; that the address is free is what a start needs."""
    where, running = deployment.settings.server.address, serves_here(deployment)
    yield fine("address", f"a server runs, on `{where}` by these settings" if running else f"`{where}` is free")


def serves_here(deployment: Deployment) -> bool:
    """Say whether a server of this machine runs on this deployment: it holds a chain of the record."""
    folder: Path = deployment.settings.record_folder
    try:
        return folder.is_dir() and any(held(folder, chain) for chain in segments_by_chain(folder))
    except OSError:
        return False
