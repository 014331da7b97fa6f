"""Check the decision log: can it be written, is there room, and does what was signed last still stand?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pdp.doctor.files import reason
from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import ConfigurationError
from pdp.record.anchors import Anchors
from pdp.record.ends import chain_ends
from pdp.record.keys import PublicKeys, SigningKey

_CHECK: Final = "record"
_SEGMENTS_OF_COMFORT: Final = 8
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024


def record(deployment: Deployment) -> Iterator[Finding]:
    """Check that the folder of the record can be written."""
    folder = deployment.settings.record_folder.absolute()
    yield fine(_CHECK, f"`{folder}` can be written" if folder.exists() else f"`{folder}` can be made")


def room(deployment: Deployment) -> Iterator[Finding]:
    """Check that there is room for the record, and for the sessions where they lie elsewhere."""
    settings = deployment.settings
    places = {_nearest(folder) for folder in (settings.record_folder, Path(settings.data_dir))}
    # One finding for each file system.
    for place in {one.stat().st_dev: one for one in sorted(places)}.values():
        status = os.statvfs(place)
        free, segment = status.f_bavail * status.f_frsize, settings.record.segment_bytes
        found = f"{_size(free)} free for `{place}`, and one segment of the record takes {_size(segment)}"
        if free < segment:
            yield problem(_CHECK, found, "make room: a full disk denies in `durable`, and stops approvals in any mode")
        elif free < segment * _SEGMENTS_OF_COMFORT:
            yield warning(_CHECK, found, "make room, or move old segments away; `pdp audit verify --missing-start`")
        else:
            yield fine(_CHECK, f"{_size(free)} free for `{place}`")


def record_ends(deployment: Deployment) -> Iterator[Finding]:
    """Check the last checkpoint of each chain, and what is known of the chains elsewhere."""
    settings, folder = deployment.settings, deployment.settings.record_folder
    anchors = Anchors(settings.record_anchors)
    try:
        signer = SigningKey.load(settings.record_signing_key)
        if folder.is_dir():
            ends, lost = chain_ends(folder, PublicKeys.of(signer)), anchors.lost(folder)
        else:
            ends, lost = (), dict.fromkeys(anchors.heads() if settings.record_anchors.is_dir() else (), "")
    except ConfigurationError:
        return  # told by the check of keys
    except OSError as error:
        yield problem(_CHECK, f"`{error.filename}`: {reason(error)}", "examine as the user of the server")
        return
    wrong = {one.chain: one.problem for one in ends if one.problem}
    wrong = dict.fromkeys(lost, "it does not hold the record that was signed last for sure: cut, or gone") | wrong
    signed = max((one.signed_at for one in ends), default="")
    for chain, what in wrong.items():
        yield problem(_CHECK, f"chain {chain}: {what}", "find out who changed it; `pdp audit verify` reads the whole")
    if not wrong:
        yield fine(_CHECK, f"{len(ends)} chains, last signed at {signed}" if signed else "nothing is signed yet")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def _size(count: float) -> str:
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count, unit = count / _STEP, unit + 1
    return f"{count:.4g} {_UNITS[unit]}"
