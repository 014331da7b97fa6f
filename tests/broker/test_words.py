"""The words of the broker."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

import pytest

from pdp.broker.words import Secret

CANARY = b"canary-4711"


def test_a_secret_is_shown_by_reveal_alone() -> None:
    """A representation, which ends up in tracebacks and debuggers, does not hold it."""
    secret = Secret(CANARY)

    assert CANARY == secret.reveal()
    assert "<secret>" == repr(secret)


@pytest.mark.parametrize(
    "use",
    [str, "{}".format, lambda secret: f"{secret!s}", pickle.dumps],
    ids=["str", "format", "f-string", "pickle"],
)
def test_a_secret_becomes_no_text(use: Callable[[Secret], object]) -> None:
    """Whatever would make a text or a copy of it raises, and the error does not hold it either."""
    with pytest.raises(TypeError, match="a secret has no") as refused:
        use(Secret(CANARY))

    assert CANARY.decode() not in "".join(traceback.format_exception(refused.value))
