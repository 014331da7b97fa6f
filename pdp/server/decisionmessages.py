"""Write decisions as messages of the API. What the answers to equal calls have in common is written once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from sys import getsizeof
from typing import Any, Final, NamedTuple, TypeVar

from pdp.decision.advice import advice
from pdp.foundation.quickcaches import WeighedCache
from pdp.limits import MOST_POLICIES
from pdp.model import Basis, CacheResult, Decision, Matter, Obligation, Outcome, Ruling
from pdp.server.fields import write_timestamp
from pdp.v1 import decision_pb2 as decisions

E = TypeVar("E", bound=Enum)

# Mostly about 1 KiB each, but they hold text from agents.
_MOST_KEPT, MOST_KEPT_BYTES, _KEPT_BYTES = 2048, 2 * 1024 * 1024, 1024


def numbers(words: type[E], api: Any, prefix: str) -> Mapping[E, Any]:  # noqa: ANN401 - the generated stubs give numbers no common type
    """Return the numbers that the API has for our words."""
    return {word: api.Value(prefix + word.name) for word in words}


OUTCOMES: Final = numbers(Outcome, decisions.Outcome, "OUTCOME_")
BASES: Final = numbers(Basis, decisions.Basis, "BASIS_")
_CACHE_RESULTS: Final = numbers(CacheResult, decisions.CacheResult, "CACHE_RESULT_")


class _Common(NamedTuple):
    """The common part of the answers to equal calls. It is found by the identity of the other two, so it keeps them."""

    matter: Matter
    ruling: Ruling
    written: bytes


class DecisionMessages:
    """Writes decisions for callers. Safe for threads.

    What a decision that recurs is about and its ruling are the same objects each time: what an answer says of them is
    kept, as bytes.
    """

    def __init__(self) -> None:
        self._kept: WeighedCache[tuple[int, int], _Common] = WeighedCache(_MOST_KEPT, MOST_KEPT_BYTES)

    def write(self, decision: Decision, message: decisions.Decision) -> None:
        """Write a decision into a message, such as an answer's field, without a copy.

        INVARIANT: the message is empty. What it holds before the decision's own fields is kept for other answers.
        """
        matter, ruling = decision.matter, decision.ruling
        kept = self._kept.get((id(matter), id(ruling))) if decision.recurs else None
        if kept is not None:
            message.MergeFromString(kept.written)
        else:
            _write_common(matter, ruling, message)
            if decision.recurs:
                self._keep(_Common(matter, ruling, message.SerializeToString()))
        message.decision_id = decision.id
        message.cache_result = _CACHE_RESULTS[decision.cache_result]
        write_timestamp(decision.decided_at, message.decide_time)
        message.trace_id = decision.trace_id
        message.span_id = decision.span_id
        message.duration_us = decision.duration_us
        if decision.labels_added:
            message.labels_added.extend(decision.labels_added)
        if decision.access_request_id:
            message.access_request.id = decision.access_request_id
        if decision.access_ends_at:
            write_timestamp(decision.access_ends_at, message.access_request.expire_time)

    def _keep(self, common: _Common) -> None:
        matter, ruling, written = common
        # The two are kept with it, and hold much of the same text.
        held = (ruling.resource_id, ruling.detail, *(value for _, value in ruling.logged_arguments), *ruling.policies)
        weight = _KEPT_BYTES + 2 * len(written) + sum(map(getsizeof, held))
        self._kept.keep((id(matter), id(ruling)), common, weight)


def _write_common(matter: Matter, ruling: Ruling, message: decisions.Decision) -> None:
    message.outcome = OUTCOMES[ruling.outcome]
    message.basis = BASES[ruling.basis]
    message.determining_policies.extend(ruling.policies[:MOST_POLICIES])
    if len(ruling.policies) > MOST_POLICIES:
        message.policies_left_out = len(ruling.policies) - MOST_POLICIES
    message.session_id = matter.session_id
    message.user = matter.user
    message.agent = matter.agent
    message.server = matter.server
    message.tool = matter.tool
    message.arguments_digest = matter.arguments_digest
    message.bundle_version = matter.bundle_version
    message.session_epoch = matter.session_epoch
    message.tenant = matter.tenant
    message.policies_lifted.extend(ruling.policies_lifted)
    message.obligations.extend(map(obligation_message, ruling.obligations))
    if not ruling.allowed:
        message.advice.extend(advice(ruling))
    if ruling.ancestor_id:
        message.ancestor_session_id = ruling.ancestor_id
    if ruling.ancestor_basis is not None:
        message.ancestor_basis = BASES[ruling.ancestor_basis]


def obligation_message(obligation: Obligation) -> decisions.Obligation:
    """Return an obligation as a message of the API."""
    return decisions.Obligation(id=obligation.id, parameters_json=obligation.parameters_json.encode("utf-8"))
