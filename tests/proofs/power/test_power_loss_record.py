"""The power goes: the record goes on without repair, verifies, and lacks nothing that was on the disk for sure.

`POWER_SEED` repeats a run.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pdp.record.log import Durability
from tests.machinery.seeds import seeded
from tests.proofs.power.recordhistory import RecordHistory

DEEDS = 60


@pytest.mark.parametrize("durability", ["written", "durable"])
@pytest.mark.parametrize(("histories", "images"), [(2, 60), pytest.param(20, 60, marks=pytest.mark.long)])
def test_power_loss_of_the_record(tmp_path: Path, durability: Durability, histories: int, images: int) -> None:
    """Whatever is left of the unsynced end, a start goes on behind it; `durable` has every allow that was answered."""
    choices, wrong, counts = seeded(), list[str](), Counter[str]()
    for number in range(histories):
        history = RecordHistory(tmp_path / str(number) / "record", choices, durability=durability, deeds=DEEDS)
        for image in history.images(images):
            twice = choices.random() < 0.25
            counts.update(images=1, twice=twice, required=len(image.required))
            wrong += filter(None, [history.what_is_wrong(history.again(image) if twice else image)])

    print(dict(counts))  # noqa: T201 - the figures of the proof
    assert wrong == []
    assert counts["required"] > counts["images"]


def test_records_that_are_not_synced_are_missed(tmp_path: Path) -> None:
    """A log that did not wait for the disk would lose what it answered, and this proof would notice."""
    history = RecordHistory(tmp_path / "record", seeded(), durability="durable", deeds=DEEDS, waits=False)
    wrong = Counter(history.what_is_wrong(image).partition(":")[0] for image in history.images(60))

    print(wrong)  # noqa: T201 - the figures of the proof
    assert wrong["lost"] > 0
