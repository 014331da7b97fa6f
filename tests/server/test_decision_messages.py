"""Decisions as messages: what the answers to equal calls have in common is written once, and says the same."""

from __future__ import annotations

from dataclasses import replace
from sys import getsizeof

import pytest

from pdp.model import Basis, CacheResult, Decision, Obligation, Outcome
from pdp.server import decisionmessages
from pdp.server.decisionmessages import DecisionMessages
from pdp.testing.decisions import a_decision
from pdp.v1 import decision_pb2


def written(messages: DecisionMessages, decision: Decision) -> bytes:
    """Return the bytes of a decision."""
    message = decision_pb2.Decision()
    messages.write(decision, message)
    return message.SerializeToString()


ALLOWED = a_decision(cache_result=CacheResult.HIT, recurs=True)
ALLOW, MATTER = ALLOWED.ruling, ALLOWED.matter
OTHERS = (
    replace(ALLOW, obligations=(Obligation(id="mask", parameters_json="{}"),), policies_lifted=("a/b", "a/c")),
    replace(ALLOW, outcome=Outcome.DENY, basis=Basis.FORBID, advice=("ask Ada",)),
    replace(ALLOW, outcome=Outcome.DENY, basis=Basis.ANCESTOR_DENIED, ancestor_id="ses_a", ancestor_basis=Basis.FORBID),
)


def test_an_answer_says_the_same_when_others_were_like_it() -> None:
    """It is that of another process to the same decision, byte for byte, whatever was written before."""
    messages = DecisionMessages()
    matters = MATTER, replace(MATTER, user="another")
    decided = [replace(ALLOWED, matter=matter, ruling=ruling) for matter in matters for ruling in (ALLOW, *OTHERS)]
    for turn in range(2):
        for one in decided:
            own = replace(one, id=f"dec_{turn}", trace_id="a" * 32, labels_added=("seen",) if turn else ())
            missed = replace(own, cache_result=CacheResult.MISS)
            anew = decision_pb2.Decision.FromString(written(DecisionMessages(), missed))
            anew.cache_result = decision_pb2.CACHE_RESULT_HIT

            assert anew.SerializeToString() == written(messages, own)
    assert len(decided) == len(messages._kept)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many answers nor large ones take more than their bound, with what is kept for them."""
    monkeypatch.setattr(decisionmessages, "MOST_KEPT_BYTES", 100_000)
    messages, most = DecisionMessages(), 0
    for number in range(200):
        # One character in four bytes has all others of its text take as many.
        ruling = replace(ALLOW, resource_id="x" * (2500 if number % 2 else 10) + "\U0001f600")
        written(messages, replace(ALLOWED, ruling=ruling))
        held = sum(getsizeof(one.ruling.resource_id) for one in messages._kept.values())
        most = max(most, held + 1024 * len(messages._kept))

    assert 50_000 < most <= 100_000
