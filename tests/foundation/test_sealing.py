"""A sealed text needs its key, and belongs to one subject."""

from __future__ import annotations

import pytest

from pdp.foundation.sealing import Sealed, sealed, unsealed

TEXT = b"pay 500 to DE02"


def test_a_sealed_text_can_be_read_with_its_key() -> None:
    """It is not in what was sealed, and no two keys are the same."""
    one, other = sealed(TEXT, "acc_1"), sealed(TEXT, "acc_1")

    assert TEXT == unsealed(one, "acc_1")
    assert TEXT not in one.text
    assert {one.key, one.text}.isdisjoint({other.key, other.text})


@pytest.mark.parametrize("changed", ["key", "text", "subject"])
def test_a_changed_text_is_not_read(changed: str) -> None:
    """Nor one that was sealed for another subject, nor with another key."""
    one, subject = sealed(TEXT, "acc_1"), "acc_1"
    if changed == "key":
        one = Sealed(bytes(32), one.text)
    elif changed == "text":
        one = Sealed(one.key, bytes([one.text[0] ^ 1]) + one.text[1:])
    else:
        subject = "acc_2"

    with pytest.raises(ValueError, match="was changed"):
        unsealed(one, subject)
