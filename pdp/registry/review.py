"""What an approver sees of a session: what the policies say about each tool, and what each grant would allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pdp.decision.visibility import LEAST_FIRST, foreseen
from pdp.model import Scope, Session, Visibility
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Foreseen
from pdp.registry.scope import ScopedTool, scoped_tools

_GRANT = "Grant"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedTool:
    """One tool as an approver sees it.

    `policies` are those that say how visible it is, in the words of `Foreseen`. Each grant in `opened_by` alone makes
    the policies allow more of its calls.
    """

    tool: ScopedTool
    visibility: Visibility
    policies: tuple[str, ...] = ()
    opened_by: tuple[str, ...] = ()


def review(chain: Sequence[Session], scope: Scope, bundle: Bundle, *, wall_at: float) -> tuple[ReviewedTool, ...]:
    """Return the tools of a scope, sorted, as the policies treat them under the session's grants.

    The session and its ancestors are judged as if they were active; `wall_at` is the time in unix seconds.
    """
    own, *above = chain

    def seen(action: str, grants: tuple[str, ...]) -> Foreseen:
        return foreseen(
            bundle,
            (replace(own, grants=grants), *above),
            bundle.catalogue.tools[action],
            caller_id=own.opened_by,
            wall_at=wall_at,
        )

    def reviewed(tool: ScopedTool) -> ReviewedTool:
        action = tool.action
        if action not in bundle.catalogue.tools:
            return ReviewedTool(tool=tool, visibility=Visibility.NEVER)
        now = seen(action, own.grants)
        # Only a grant that the policies of this action name can change their answer.
        named = {uid[1] for policy in bundle.slice(action).policies for uid in policy.entities if uid[0] == _GRANT}
        further = sorted(named.difference(own.grants))
        opens = (one for one in further if _more(seen(action, (*own.grants, one)), now))
        return ReviewedTool(tool=tool, visibility=now.visibility, policies=now.policies, opened_by=tuple(opens))

    return tuple(map(reviewed, scoped_tools(scope, bundle)))


def _more(one: Foreseen, other: Foreseen) -> bool:
    return LEAST_FIRST.index(one.visibility) > LEAST_FIRST.index(other.visibility)
