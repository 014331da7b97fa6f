"""What becomes of the data of one person in one place, when they are to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of it."""

    REMOVED = "removed"
    TO_REMOVE = "to be removed"  # a preview
    STAYS = "stays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place: what it has (`found` entries that name the person), and what becomes of these.

    `why` says of what stays when it goes, and how.
    """

    where: str
    found: int
    fate: Fate
    why: str = ""


def gone(where: str, found: int, *, apply: bool, why: str = "") -> Place:
    """Return a place whose entries go, or with a preview would."""
    return Place(where=where, found=found, fate=Fate.REMOVED if apply else Fate.TO_REMOVE, why=why)


def staying(where: str, found: int, why: str) -> Place:
    """Return a place whose entries stay."""
    return Place(where=where, found=found, fate=Fate.STAYS, why=why)
