"""The rows of the gate: the basis of each check, and its plain words for authors and auditors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from pdp.decision.ruling import ancestor_deny, deny
from pdp.decision.snapshot import Snapshot
from pdp.foundation.nearest import hint
from pdp.model import Basis, Call, Ruling, Session, SessionState

_LISTED = 8
_NAME_CHARACTERS = 200


class Row(NamedTuple):
    """One check: the basis of the deny when it fails, and the words for it."""

    basis: Basis
    words: Callable[[Refusal], str]


class Refusal(NamedTuple):
    """The first check that failed; `above` counts the levels from the session of the call up to the checked one."""

    row: Row
    snapshot: Snapshot
    call: Call
    above: int = 0

    @property
    def ruling(self) -> Ruling:
        """Return the deny."""
        denied = deny(self.row.basis)
        return ancestor_deny(self.session, denied) if self.above else denied

    @property
    def words(self) -> str:
        """Return in plain words what failed."""
        return self.row.words(self)

    @property
    def session(self) -> Session:
        """Return the checked session."""
        return self.snapshot.chain[self.above]

    @property
    def who(self) -> str:
        """Return a name of that session, for messages."""
        return f"session `{self.session.id}`" + (" above" if self.above else "")


def _frozen(at: Refusal) -> str:
    freeze = at.snapshot.freeze
    if freeze is None:
        raise AssertionError("only a freeze is refused for")
    return f"{freeze.what} frozen since {moment(freeze.set_at)} by `{freeze.set_by}`: {freeze.reason}"


def _expired(at: Refusal) -> str:
    what = "expired" if at.session.approved_at else "was never approved, and its request expired"
    return f"{at.who} {what} at {moment(at.session.deadline.wall_at)}"


def _closed(how: str) -> Callable[[Refusal], str]:
    def words(at: Refusal) -> str:
        session = at.session
        reason = f": {session.reason}" if session.reason else ""
        return f"{at.who} was {how} at {moment(session.ended_at)} by `{session.ended_by}`{reason}"

    return words


def _unapproved_labels(at: Refusal) -> str:
    labels = _list(sorted(at.snapshot.bundle.unapproved_labels(at.session)))
    return f"{at.who} has {labels}: declared as widening now, but not when it was approved"


def _unknown_tool(at: Refusal) -> str:
    # Comparing takes quadratic time in the length, and the name may be any text.
    near = hint(at.call.action[:_NAME_CHARACTERS], at.snapshot.bundle.catalogue.tools)
    return f"the catalogue holds no tool `{at.call.action}`{near}"


def _changed(at: Refusal) -> str:
    since = f"{at.who} was approved at {moment(at.session.approved_at)}"
    return f"the definition of `{at.call.action}`, or its connection, has changed since {since}"


def _out_of_scope(at: Refusal) -> str:
    # Narrowing and ceilings may have left fewer tools than the patterns match.
    asked = f"it was requested for {_list(at.session.tool_patterns)}"
    return f"`{at.call.action}` is not among the tools of {at.who}; {asked}"


def _above_ceiling(at: Refusal) -> str:
    agent = at.session.agent
    ceiling = at.snapshot.bundle.directory.ceilings.get(agent)
    if ceiling is None:
        return f"agent `{agent}` is not in the directory"
    return f"`{at.call.action}` is above the ceiling of agent `{agent}`, which is {_list(ceiling.patterns)}"


def _list(patterns: Iterable[str]) -> str:
    listed = [f"`{pattern}`" for pattern in patterns]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return (", ".join(listed[:_LISTED]) or "nothing") + more


def moment(at: float) -> str:
    """Write unix seconds for people, in UTC to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# The rows, in the order of their checks.
NO_SESSION = Row(Basis.SESSION_NOT_FOUND, lambda _: "no session of this tenant has this handle")
# Of the tenant.
FROZEN = Row(Basis.FROZEN, _frozen)
# Of the session and of each above it.
OF_STATE = {
    SessionState.REQUESTED: Row(
        Basis.SESSION_NOT_APPROVED,
        lambda at: f"{at.who} has waited for approval since {moment(at.session.requested_at)}",
    ),
    SessionState.DENIED: Row(Basis.SESSION_NOT_APPROVED, _closed("refused")),
    SessionState.ENDED: Row(Basis.SESSION_ENDED, _closed("ended")),
    SessionState.EXPIRED: Row(Basis.SESSION_EXPIRED, _expired),
    SessionState.REVOKED: Row(Basis.SESSION_REVOKED, _closed("revoked")),
}
UNAPPROVED_LABELS = Row(Basis.LABEL_NOT_APPROVED, _unapproved_labels)
# Of the call.
UNKNOWN_TOOL = Row(Basis.UNKNOWN_TOOL, _unknown_tool)
UNSTATED = Row(
    Basis.TOOL_CHANGED,
    lambda at: f"a call of `{at.call.action}` must state the digest of its definition, but this one does not",
)
MISSTATED = Row(
    Basis.TOOL_CHANGED,
    lambda at: f"the gateway sees a different definition of `{at.call.action}` from the one in the catalogue",
)
# Of the session and of each above it.
OUT_OF_SCOPE = Row(Basis.OUT_OF_SCOPE, _out_of_scope)
ABOVE_CEILING = Row(Basis.OUT_OF_SCOPE, _above_ceiling)
CHANGED = Row(Basis.TOOL_CHANGED, _changed)
# Of the gateway.
RESULT_UNSEEN = Row(
    Basis.RESULT_UNSEEN,
    lambda at: f"what `{at.call.action}` brings is known only by a report, and the gateway sees no results",
)
ROWS = (
    *(NO_SESSION, FROZEN, *OF_STATE.values(), UNAPPROVED_LABELS),
    *(UNKNOWN_TOOL, UNSTATED, MISSTATED),
    *(OUT_OF_SCOPE, ABOVE_CEILING, CHANGED),
    RESULT_UNSEEN,
)
