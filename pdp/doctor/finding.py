"""The subject of an examination, and its findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pdp.clock import Clock
from pdp.config.settings import Settings


class Level(Enum):
    """The weight of a finding: nothing to do, something to consider, or something that must be corrected."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding: its check, its level, the fact, and the remedy."""

    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The subject of an examination: settings, environment and clock of a server, and the examining user's id."""

    settings: Settings
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    user_id: int


def fine(check: str, found: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check=check, level=Level.OK, found=found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Return a finding to consider."""
    return Finding(check=check, level=Level.WARNING, found=found, remedy=remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that must be corrected."""
    return Finding(check=check, level=Level.PROBLEM, found=found, remedy=remedy)
