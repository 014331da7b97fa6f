"""What an examination is about, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pdp.clock import Clock
from pdp.config import Settings


class Level(Enum):
    """How much a finding matters: nothing to do, something to consider, or something that must be mended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found: by which check, how much it matters, what it is, and what to do about it."""

    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is examined: settings, environment and clock of a server, and the id of the user who examines."""

    settings: Settings
    environ: Mapping[str, str]
    clock: Clock
    user_id: int


def fine(check: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, level=Level.OK, found=found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Return what somebody should consider."""
    return Finding(check=check, level=Level.WARNING, found=found, remedy=remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """Return what must be mended."""
    return Finding(check=check, level=Level.PROBLEM, found=found, remedy=remedy)
