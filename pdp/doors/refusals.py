"""What every door says of a call that did not run, or whose result must not be seen: one text for each case.

A text is for a model. It says what to do next, and is the same for the same deny. It names no policy, and nothing that
an error has said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pdp.client import Answer
from pdp.client.diagnosis import TOO_LARGE
from pdp.client.values import ERROR_BASIS
from pdp.model import Basis

NO_RETRY: Final = "do not retry it"

AWAY: Final = "The policy decision point does not answer. Try again later."
FROZEN: Final = "People have stopped all calls for now. Try again when they have lifted that, or tell the user."
SESSION_OVER: Final = (
    "The session of this handle is not active: it was never approved, or it is over. Do not retry; tell the user."
)
UNDECIDED: Final = "The call did not run: no decision could be made about it. Try again later, or tell the user."

PDP: Final = "pdp {}".format


def how_to_approve(link: str, command: str) -> str:
    """Say how a person gives an answer: at the link that the server gave, or else by a command."""
    return f"open {link}" if link else f"run `{command}`"


def denied(answer: Answer, pdp_command: Callable[[str], str] = PDP, *, call: str = "") -> str:
    """Return the text for a deny of the PDP. `call` is the tool as the model knows it, or else as the catalogue does.

    `pdp_command` returns a whole command of `pdp` for its words, as a person must type it.
    """
    if answer.waits:
        how = how_to_approve(answer.access_link, pdp_command(f"approvals approve {answer.access_request_id}"))
        return (
            f"The call of {_named(answer, call)} did not run: a person must approve exactly this call first. Tell the "
            f"user to {how}, and make the same call again after that.{_decision(answer)}"
        )
    if answer.basis == ERROR_BASIS:
        if answer.reason == TOO_LARGE:
            return _denied(_named(answer, call), "too_large", "its arguments are too large to be asked about", NO_RETRY)
        return unmet(answer, call=call) if answer.unmet_obligations else f"{UNDECIDED}{_decision(answer)}"
    why = [*answer.advice] or [NO_RETRY]
    if answer.basis == Basis.TOOL_CHANGED.value:
        why.append(f"a policy author sees what has changed with `pdp tools diff {answer.server}`")
    return f"{_denied(_named(answer, call), answer.basis, *why)}{_decision(answer)}"


def unknown(call: str) -> str:
    """Return the text for a tool that the door has no entry for."""
    return _denied(f"`{call}`", Basis.UNKNOWN_TOOL.value, "this door has no entry for the tool", NO_RETRY)


def unmet(answer: Answer, *, call: str = "") -> str:
    """Return the text for a call with an obligation that cannot be met here."""
    why = "it has an obligation that cannot be met here"
    return f"{_denied(_named(answer, call), 'unknown_obligation', why, NO_RETRY)}{_decision(answer)}"


def unreported(answer: Answer) -> str:
    """Return the text for a call whose result should be reported, from a door that sees no results."""
    why = "what it brings into the session cannot be reported from here"
    return f"{_denied(_named(answer), 'outcome_not_reported', why, NO_RETRY)}{_decision(answer)}"


def without_call_token(answer: Answer, why: str) -> str:
    """Return the text for a call that the server behind the door would refuse, since it has no call token."""
    return f"{_denied(_named(answer), 'no_call_token', why, NO_RETRY)}{_decision(answer)}"


def withheld(answer: Answer, why: str, *, call: str = "") -> str:
    """Return the text for a result that must not be handed on."""
    what = f"The call of {_named(answer, call)} was made, and its result is withheld"
    return f"{what}: {why}; {NO_RETRY}.{_decision(answer)}"


# Why no call of a session may go on.
IS_OVER: Final = "its session is over"
IS_FROZEN: Final = "people have stopped all calls for now"


def stopped(answer: Answer, why: str) -> str:
    """Return the text for a call that was stopped under way, such as for `IS_OVER` or `IS_FROZEN`."""
    what = f"The call of {_named(answer)} was stopped: {why}. The tool may have done all of it, or a part"
    return f"{what}; {NO_RETRY}, and tell the user.{_decision(answer)}"


def without_session(door: str, header: str) -> str:
    """Return the text for a request without a handle. `door` is what the client thinks it calls, such as `proxy`."""
    return (
        f"This {door} needs the handle of a session of the policy decision point in the header `{header}`. "
        "Do not retry; tell the user."
    )


def _denied(named: str, basis: str, *why: str) -> str:
    return f"Denied ({basis}): the call of {named} did not run; {'; '.join(why)}."


def _named(answer: Answer, call: str = "") -> str:
    return f"`{call or f'{answer.server}/{answer.tool}'}`"


def _decision(answer: Answer) -> str:
    return f" Decision {answer.decision_id}." if answer.decision_id else ""
