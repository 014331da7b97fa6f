"""What people and gateways see of an access request, and the digest of what an approver was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pdp.clock import Instant
from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.snapshot import Snapshot
from pdp.foundation.jsontext import canonical, digest, parse_object
from pdp.limits import Limits
from pdp.model import Call, Session
from pdp.policy.bundle import Bundle
from pdp.policy.provenance import KNOWN, NAMED, NONE, UNDECLARED, UNSEEN
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.overlay import ToolConnection
from pdp.sessions.access import AccessRequest, AccessState, state_of


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessView:
    """A request as people and gateways see it in lists: with its present state."""

    request: AccessRequest
    state: AccessState


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTarget:
    """A parameter that names a target or holds a link, and where the names come from, as the session sees them."""

    path: str
    provenance: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReview:
    """A request with all that its approver needs.

    `session` is None, and `request_digest` empty, for those who may not approve; `arguments_json` and `targets` are
    empty for those who may not see them. The facts of the tool are empty when the catalogue no longer has it.
    `connection` is what the call uses downstream. `most_calls` is how many calls one approval can be for.
    """

    view: AccessView
    session: Session | None = None
    arguments_json: bytes = field(default=b"", repr=False)
    targets: tuple[SeenTarget, ...] = ()
    risk: str = ""
    groups: tuple[str, ...] = ()
    definition_digest: str = ""
    connection: ToolConnection | None = None
    critical: bool = False
    most_calls: int = 1
    request_digest: str = ""


def view(request: AccessRequest, chain: Sequence[Session], bundle: Bundle, now: Instant) -> AccessView:
    """Return a request with its present state; `chain` is its session with those above it.

    A call that the gate would stop has expired, whatever a person says.
    """
    snapshot = Snapshot(bundle=bundle, chain=tuple(chain), now=now, wall_at=now.wall_at)
    call = Call(
        session_handle="",
        server=request.call.server,
        tool=request.call.tool,
        arguments_json=b"",
        definition_digest=request.call.definition_digest,
    )
    live = bool(chain) and not isinstance(gate(snapshot, call), Refusal)
    return AccessView(request=request, state=state_of(request, now, bundle_version=bundle.version, live=live))


def review(
    seen: AccessView, chain: Sequence[Session], bundle: Bundle, arguments: bytes, limits: Limits, *, for_approver: bool
) -> AccessReview:
    """Return a request with what its reader may see; `arguments` are empty when the reader may not see them."""
    request = seen.request
    tool = bundle.catalogue.tools.get(request.call.action)
    critical = tool is not None and tool.critical
    reviewed = AccessReview(
        view=seen,
        session=chain[0] if for_approver and chain else None,
        arguments_json=arguments,
        # Who is known to the user is not for gateways.
        targets=_targets(request, chain, bundle, tool, arguments, limits) if tool and chain and for_approver else (),
        risk=tool.risk if tool else "",
        groups=tool.groups if tool else (),
        definition_digest=tool.definition_digest if tool else "",
        connection=tool.connection if tool else None,
        critical=critical,
        most_calls=1 if critical else max(1, request.call.run),
    )
    if seen.state is not AccessState.OPEN or not (for_approver and arguments):
        return reviewed
    return replace(reviewed, request_digest=_digest(reviewed, chain[0]))


def _targets(
    request: AccessRequest, chain: Sequence[Session], bundle: Bundle, tool: Tool, arguments: bytes, limits: Limits
) -> tuple[SeenTarget, ...]:
    """Return the parameters with targets or links; none without the arguments.

    Which result held a name can be told only with the handle of the session, so of a name that the session neither
    names nor knows these are all words that the call was asked about with.
    """
    if not arguments:
        return ()
    elsewhere = {*request.provenance, *request.links}.difference((NAMED, KNOWN, NONE, UNDECLARED)) or {UNSEEN}
    found: dict[str, set[str]] = {}
    for target in bundle.provenances.each(chain, tool, parse_object(arguments, limits)):
        words = elsewhere if target.provenance == UNSEEN else {target.provenance}
        found.setdefault(target.path, set()).update(words)
    return tuple(SeenTarget(path=path, provenance=tuple(sorted(words))) for path, words in sorted(found.items()))


def _digest(reviewed: AccessReview, session: Session) -> str:
    """Return the digest of what the approver sees, except what changes by waiting."""
    request = reviewed.view.request
    shown = {
        "access_request_id": request.id,
        "server": request.call.server,
        "tool": request.call.tool,
        "definition_digest": reviewed.definition_digest,
        "connection": [used.kind, *used.scopes] if (used := reviewed.connection) else [],
        "risk": [reviewed.risk, *reviewed.groups],
        "critical": reviewed.critical,
        "arguments": digest(reviewed.arguments_json),
        "targets": [[one.path, *one.provenance] for one in reviewed.targets],
        "questions": [list(ask) for ask in request.call.asks],
        "most_calls": reviewed.most_calls,
        "asked_by": request.asked_by,
        "decision_id": request.decision_id,
        "bundle_version": request.call.bundle_version,
        "expires_at": request.deadline.wall_at,
        "session": _shown_session(session),
    }
    return digest(canonical(shown))


def _shown_session(session: Session) -> dict[str, object]:
    return {
        "session_id": session.id,
        "user": session.user,
        "agent": session.agent,
        "purpose": session.purpose,
        "tenant": session.tenant,
        "environment": session.environment,
        "parent_id": session.parent_id,
        "opened_by": session.opened_by,
        "approved_by": session.approved_by,
        "grants": list(session.grants),
        "labels": list(session.labels),
        "label_origins": dict(session.label_origins),
        "attributes": session.user_attributes_json,
        "user_groups": list(session.user_groups),
        "terms": session.terms_json,
    }
