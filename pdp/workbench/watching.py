"""Record every question that policies are asked, with all facts and the answer, without changing any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from pdp.model import Ruling, Session
from pdp.policy.bundle import Bundle
from pdp.policy.question import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to the policies: `bundle.judge(session, facts, at)` answers it again."""

    session: Session
    facts: Facts
    at: float
    ruling: Ruling

    @property
    def action(self) -> str:
        """Return the action that was asked about."""
        return self.facts.action


def watched(bundle: Bundle, seen: list[Asked]) -> Bundle:
    """Return a bundle that behaves the same and adds each question to `seen`."""
    return cast("Bundle", _WatchedBundle(bundle, seen))


class _WatchedBundle:
    def __init__(self, bundle: Bundle, seen: list[Asked]) -> None:
        self._bundle = bundle
        self._seen = seen

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a bundle has
        return getattr(self._bundle, name)

    def judge(self, session: Session, facts: Facts, at: float) -> Ruling:
        ruling = self._bundle.judge(session, facts, at)
        self._seen.append(Asked(session=session, facts=facts, at=at, ruling=ruling))
        return ruling
