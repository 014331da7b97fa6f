"""What a deny advises the agent and its gateway to do. One table, by the basis of the deny.

It names no policy, no other session and no value, since an agent reads it. What the author of a forbid says in
`@advice` comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType

from pdp.limits import MOST_ADVICE
from pdp.model import Basis, Ruling

ADVICE: Mapping[Basis, str] = MappingProxyType(
    {
        Basis.PERMIT: "",
        Basis.FORBID: "a rule forbids this call: do not retry it; find another way, or tell the user",
        Basis.DEFAULT_DENY: "no rule permits this call: do not retry it; find another way, or tell the user",
        Basis.POLICY_ERROR: "the rules could not be evaluated for this call: do not retry it; report the decision's id",
        Basis.INVALID_ARGUMENTS: "the arguments do not fit the tool: correct what is named, and call again",
        Basis.UNKNOWN_TOOL: "there is no such tool: do not retry it; call one that is listed",
        Basis.TOOL_CHANGED: (
            "the tool's definition is not the approved one: do not retry it; have it imported and reviewed, and ask "
            "for a new session"
        ),
        Basis.OUT_OF_SCOPE: (
            "this tool is outside the session's scope: do not retry it; ask for approval of a session that includes it"
        ),
        Basis.SESSION_NOT_FOUND: "there is no session with this handle: do not retry it; ask for a new session",
        Basis.SESSION_NOT_APPROVED: "the session is not approved: wait for its approval; if it was refused, stop",
        Basis.SESSION_EXPIRED: "the session has expired: do not retry it; ask for a new session",
        Basis.SESSION_REVOKED: "the session was revoked: stop, and tell the user",
        Basis.SESSION_ENDED: "the session has ended: do not retry it; ask for a new session if there is more to do",
        Basis.ANCESTOR_DENIED: (
            "a session above this one may not make this call: do not retry it; hand the task back to the agent that "
            "delegated it"
        ),
        Basis.APPROVAL_REQUIRED: "a person must approve this call: wait, then call again with the same arguments",
        Basis.BUDGET_EXHAUSTED: "the session's budget is used up: do not retry it; tell the user",
        Basis.RECORD_UNAVAILABLE: "the decision cannot be recorded now: retry it later",
        Basis.LEDGER_UNAVAILABLE: "what this call changes in its session cannot be written now: retry it later",
        Basis.RESULT_UNSEEN: (
            "what this call brings must be reported, and this gateway sees no results: do not retry it; use a gateway "
            "that sees results"
        ),
        Basis.FROZEN: "people have stopped all calls for now: wait until that is lifted; do not retry it meanwhile",
        Basis.LABEL_NOT_APPROVED: (
            "the session has a label that may permit more since the rules changed, and was not approved for that: do "
            "not retry it; ask for a new session"
        ),
    }
)


def advice(ruling: Ruling) -> tuple[str, ...]:
    """Return what to do about a deny: our own line, then which arguments do not fit, or what the forbids say.

    For a call that a person can allow, what the person is asked comes before that. It is empty for an allow.
    """
    if ruling.allowed:
        return ()
    if ruling.basis is Basis.INVALID_ARGUMENTS and ruling.detail:
        # It names paths and rules of the tool's own definition, and never a value.
        return ADVICE[ruling.basis], ruling.detail
    said = dict.fromkeys((*(ask.question for ask in ruling.asks), *ruling.advice))
    return ADVICE[ruling.basis], *islice(said, MOST_ADVICE)
