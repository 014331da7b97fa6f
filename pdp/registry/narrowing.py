"""What an approver leaves out of a requested session: fewer tools, a shorter time, smaller terms. Never the reverse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pdp.errors import InvalidRequestError
from pdp.limits import Limits
from pdp.model import Scope, Session
from pdp.policy.bundle import Bundle
from pdp.policy.patterns import ToolPatterns
from pdp.registry.scope import require_patterns, scope_of
from pdp.registry.terms import narrower_terms

_FIELD = "narrowing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What to approve of a requested session; what is empty or None stays as it was asked for.

    `tool_patterns` select the tools to keep. `duration` is in seconds. `terms_json` holds the terms that change: a JSON
    object.
    """

    tool_patterns: tuple[str, ...] = ()
    duration: float | None = None
    terms_json: bytes = field(default=b"", repr=False)


def narrowed(
    session: Session, scope: Scope, narrowing: Narrowing, bundle: Bundle, limits: Limits
) -> tuple[Session, Scope]:
    """Return a requested session and its scope as an approval with a narrowing makes them.

    INVARIANT: the tools are among those of `scope`, the duration is not longer, and no term is wider.
    Raise `InvalidRequestError` naming what is wrong, and `WrongStateError` when the session's own terms no longer fit.
    """
    if narrowing.tool_patterns:
        scope = _kept(scope, narrowing.tool_patterns, limits)
    if narrowing.duration is not None:
        if not 0 < narrowing.duration <= session.duration:
            asked = f"at most what was asked for, {session.duration:g} s"
            raise InvalidRequestError(f"{_FIELD}.duration", f"must be more than 0 and {asked}")
        session = replace(session, duration=float(narrowing.duration))
    if narrowing.terms_json:
        terms = narrower_terms(f"{_FIELD}.terms_json", narrowing.terms_json, session, bundle, limits)
        session = replace(session, terms_json=terms)
    return session, scope


def _kept(scope: Scope, patterns: tuple[str, ...], limits: Limits) -> Scope:
    require_patterns(patterns, limits, field=f"{_FIELD}.tool_patterns")
    for index, pattern in enumerate(patterns):
        one = ToolPatterns((pattern,))
        if not any(one.match(action) for action in scope.tools):
            raise InvalidRequestError(
                f"{_FIELD}.tool_patterns[{index}]", "matches none of the tools that were asked for"
            )
    keep = ToolPatterns(patterns)
    return scope_of({action: digest for action, digest in scope.tools.items() if keep.match(action)})
