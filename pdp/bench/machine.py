"""The machine of a run: without it, no figure can be compared with another run's."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from pdp import __version__

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> Mapping[str, str]:
    """Return this machine and its software, as name and value."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "cedarpy": version("cedarpy"),
        "pdp": __version__,
    }


def control_digest() -> str:
    """Return the digest of the control's code: another control gives other ratios."""
    return "sha256:" + sha256(files("pdp.bench").joinpath("control.py").read_bytes()).hexdigest()


def _processor() -> str:
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
