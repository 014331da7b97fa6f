"""One policy of a bundle, with what a child process has found in its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pdp.model import Obligation
from pdp.policy.directory import Uid
from pdp.policy.moments import Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """One policy: its `@id`, effect, file, position, text, and the findings of `analysis`.

    `actions` holds the ids that its action scope names, None for any. `resource_type` is the only type of resource that
    its resource scope can match, None for any. `reads` holds what it can read apart from principal and action, in the
    words of `analysis.reads`, None for everything. `entities` holds the uids that it names. `moments` holds what it
    compares the time with, None when it reads the time in another way. `obligations` are those of a permit, `advice`
    that of a forbid. `step_up` is what a forbid asks a person, who can then lift it, empty when nobody can;
    `step_up_run` is how many calls one answer can cover, 0 when it covers only one.
    """

    id: str
    effect: str
    file: str
    line: int
    text: str
    actions: frozenset[str] | None
    reads: frozenset[str] | None
    entities: frozenset[Uid]
    column: int = 1
    resource_type: str | None = None
    moments: tuple[Moment, ...] | None = None
    obligations: tuple[Obligation, ...] = ()
    advice: str = ""
    step_up: str = ""
    step_up_run: int = 0

    def may_match(self, groups: Iterable[str]) -> bool:
        """Return whether its action scope can match an action; `groups` are its id and groups."""
        return self.actions is None or not self.actions.isdisjoint(groups)
