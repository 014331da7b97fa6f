"""Seeds of what is chosen at random: fresh ones, printed or named, so that a run can be repeated."""

from __future__ import annotations

import os
import random


def seeded() -> random.Random:
    """Return a source of choices; its seed is printed."""
    seed = int(os.environ.get("POWER_SEED") or random.SystemRandom().randrange(2**32))
    print(f"POWER_SEED={seed}")  # noqa: T201 - to repeat it
    return random.Random(seed)  # noqa: S311 - no secret


def fresh_seed() -> int:
    """Return a seed that no run had before, or the one that `SEED` names."""
    return int(os.environ.get("SEED") or random.SystemRandom().randrange(2**40))
