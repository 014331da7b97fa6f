"""Note every question that policies are asked, with all facts and the answer, without changing any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from pdp.model import Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Question, Slice, SliceEntities


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to the policies of one action: `bundle.slice(action).ask(question, beside)` answers it again."""

    action: str
    question: Question
    beside: SliceEntities
    ruling: Ruling


def watched(bundle: Bundle, seen: list[Asked]) -> Bundle:
    """Return the bundle as others see it; what is asked of it is added to `seen`."""
    return cast("Bundle", _WatchedBundle(bundle, seen))


class _WatchedBundle:
    def __init__(self, bundle: Bundle, seen: list[Asked]) -> None:
        self._bundle = bundle
        self._seen = seen

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a bundle has
        return getattr(self._bundle, name)

    def slice(self, action: str) -> Slice:
        return cast("Slice", _WatchedSlice(self._bundle.slice(action), self._seen))


class _WatchedSlice:
    def __init__(self, inner: Slice, seen: list[Asked]) -> None:
        self._inner = inner
        self._seen = seen

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a slice has
        return getattr(self._inner, name)

    def ask(self, question: Question, beside: SliceEntities) -> Ruling:
        ruling = self._inner.ask(question, beside)
        self._seen.append(Asked(action=self._inner.action, question=question, beside=beside, ruling=ruling))
        return ruling
