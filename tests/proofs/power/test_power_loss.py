"""The power goes: the store opens without repair, and holds all that was acknowledged and nothing else.

All that SQLite asks of the disk is kept in a journal; an image is what a disk may hold at some moment of it.
`POWER_SEED` repeats a run.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.machinery.seeds import seeded
from tests.proofs.power.history import History
from tests.proofs.power.platter import WAYS

DEEDS = 60


@pytest.mark.parametrize(("histories", "images"), [(2, 80), pytest.param(40, 100, marks=pytest.mark.long)])
def test_power_loss(tmp_path: Path, histories: int, images: int) -> None:
    """Every image of the disk opens, is sound, and answers as the oracle does; so does one of a start that failed."""
    choices, wrong, counts = seeded(), list[str](), Counter[str]()
    for number in range(histories):
        with closing(History(tmp_path / str(number), choices, deeds=DEEDS)) as history:
            for image in history.images(images):
                counts[image.way] += 1
                twice = choices.random() < 0.25
                counts["twice"] += twice
                wrong += filter(None, [history.what_is_wrong(history.again(image) if twice else image)])
            counts["acknowledged"] += len(history.moments)
            counts.update(history.done)

    shown = (*WAYS, "twice", "acknowledged", "allows", "denies")
    print(", ".join(f"{counts[name]} {name}" for name in shown))  # noqa: T201 - the figures of the proof
    assert wrong == []
    assert [] == [name for name in shown if not counts[name]]


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_what_is_not_synced_is_missed(tmp_path: Path, synchronous: str) -> None:
    """A store that did not wait for the disk would lose what it acknowledged, and this proof would notice."""
    with closing(History(tmp_path, seeded(), deeds=DEEDS, synchronous=synchronous)) as history:
        wrong = Counter(history.what_is_wrong(image).partition(":")[0] for image in history.images(60))

    print(wrong)  # noqa: T201 - the figures of the proof
    assert wrong["lost"] + wrong["damaged"] > 0
