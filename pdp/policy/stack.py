"""Refuse threads whose stack is too small for the engine."""

from __future__ import annotations

import threading

import cedarpy

from pdp.errors import UnavailableError
from pdp.foundation.threads import on_large_stack
from pdp.limits import Limits
from pdp.policy.binding import NO_ENTITIES, answer_of
from pdp.policy.directory import uid_json


class StackCheck:
    """Refuses threads whose stack is too small for the deepest policy that a bundle may hold.

    The engine's answer depends on the stack of the calling thread: it skips a forbid that is too deep, with an error.
    So each thread evaluates the deepest policy once: as many brackets and operators as the limits allow.
    """

    def __init__(self, limits: Limits) -> None:
        text = _probe_text(limits.policy_depth, limits.policy_terms)
        # Parsing takes more stack than evaluating, so it runs on a thread with a large one.
        self._probe = on_large_stack(lambda: cedarpy.PolicySet.from_str(text))
        self._checked = threading.local()

    def require(self) -> None:
        """Raise `UnavailableError` on a thread with a small stack."""
        if getattr(self._checked, "enough", False):
            return
        request = {
            "principal": uid_json(("P", "")),
            "action": uid_json(("Action", "")),
            "resource": uid_json(("R", "")),
        }
        answer = answer_of(request, self._probe, NO_ENTITIES)
        if answer.errors or answer.allowed or not answer.decided:
            raise UnavailableError("this thread's stack is too small to evaluate policies; give it at least 2 MiB")
        self._checked.enough = True


def _probe_text(depth: int, terms: int) -> str:
    wide = " || ".join(["principal == resource"] * (terms - 1) + ["true"])
    deep = "(" * (depth - 2) + wide + ")" * (depth - 2)
    return f"permit(principal, action, resource); forbid(principal, action, resource) when {{ {deep} }};"
