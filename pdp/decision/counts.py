"""What policies see of earlier calls: the counts of a session and of all above it, read before they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pdp.decision.budgets import retry_digest
from pdp.decision.ruling import ancestor_deny, deny
from pdp.decision.snapshot import Snapshot
from pdp.model import Basis, Caller, CallRequest, Counted, Ruling, Session
from pdp.policy.counting import CountedNames
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.values import Count, Counts

_ADVICE = "the session is older than a rule that counts its calls: ask for a new session"

Seen = Mapping[tuple[str, str], Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCounts:
    """The counts that policies see: `counted` for each session of the chain, and the same as rows of the history.

    `unknown` is the deny of a call for which a count is not known.
    """

    counted: tuple[Counted, ...]
    rows: Seen
    unknown: Ruling | None = None


def seen_counts(
    snapshot: Snapshot, request: CallRequest, caller: Caller, names: CountedNames, history: SessionHistory
) -> SeenCounts:
    """Return the counts under some names as they are now. Raises what `history.counts` raises.

    A retry of a call does not see itself.
    """
    chain = snapshot.chain
    digest = retry_digest(request, caller) if request.request_id else b""
    found = history.counts([session.id for session in chain], names.all, retry_digest=digest, now=snapshot.now)
    own = frozenset(snapshot.bundle.counted_as.get(request.call.action, ())) if found.retried else frozenset[str]()
    rows = {
        (session.id, name): _without(found.of.get((session.id, name), Count()), less=name in own)
        for session in chain
        for name in names.all
    }
    return SeenCounts(
        counted=tuple(_counted(session, names, rows) for session in chain),
        rows=rows,
        unknown=_unknown(snapshot, names, found),
    )


def never_called(snapshot: Snapshot, names: CountedNames) -> tuple[Counted, ...]:
    """Return what sessions see that have called nothing."""
    return tuple(_counted(session, names, {}) for session in snapshot.chain)


def _counted(session: Session, names: CountedNames, rows: Seen) -> Counted:
    none = Count()
    done = (name for name in sorted(names.done) if (row := rows.get((session.id, name), none)).made > row.failed)
    return Counted(tuple((name, rows.get((session.id, name), none).made) for name in sorted(names.counts)), tuple(done))


def _without(count: Count, *, less: bool) -> Count:
    return count._replace(made=max(count.made - 1, 0)) if less else count


def _unknown(snapshot: Snapshot, names: CountedNames, found: Counts) -> Ruling | None:
    # INVARIANT: all calls of the session under the name were made, and counted, after this time.
    since = dict(snapshot.activation.counted) if snapshot.activation is not None else {}
    for place, session in enumerate(snapshot.chain):
        for name in sorted(names.all):
            if name in since and session.approved_at > max(since[name], found.begun_at):
                continue
            denied = replace(
                deny(
                    Basis.BUDGET_EXHAUSTED,
                    f"how often `{name}` was called is not known: session `{session.id}` is older than what counts it",
                ),
                advice=(_ADVICE,),
            )
            return ancestor_deny(session, denied) if place else denied
    return None
