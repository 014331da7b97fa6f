"""What a model is told of a call that did not run, or whose result it must not see.

A text says what to do next, and is the same for the same deny. It names no policy, and nothing that an error has said.
"""

from __future__ import annotations

from pdp.client import Answer
from pdp.client.values import ERROR_BASIS

NO_RETRY = "Do not retry this call"


def denied(tool: str, answer: Answer, approval: str) -> str:
    """Return the text for a deny. `approval` says how a person approves a call, with `{id}` for that of the request."""
    if answer.waits:
        how = approval.replace("{id}", answer.access_request_id)
        return (
            f"The call of `{tool}` did not run: a person must approve exactly this call first. "
            f"Tell the user how: {how} . Make the same call again only after that.{_decision(answer)}"
        )
    if answer.basis == ERROR_BASIS:
        return f"{undecided(tool)}{_decision(answer)}"
    advice = "".join(f" {line}." for line in answer.advice)
    return f"The call of `{tool}` was denied ({answer.basis}) and did not run. {NO_RETRY}.{advice}{_decision(answer)}"


def unknown(tool: str) -> str:
    """Return the text for a tool that the door does not know."""
    return f"The call of `{tool}` was denied (unknown_tool) and did not run. {NO_RETRY}."


def undecided(tool: str) -> str:
    """Return the text for a call about which there is no reliable decision."""
    return f"The call of `{tool}` did not run: no decision could be made about it. {NO_RETRY}; tell the user."


def withheld(tool: str, why: str, answer: Answer) -> str:
    """Return the text for a result that must not be handed on."""
    return f"The call of `{tool}` ran, and its result is withheld: {why}. {NO_RETRY}.{_decision(answer)}"


def _decision(answer: Answer) -> str:
    return f" Decision {answer.decision_id}." if answer.decision_id else ""
