"""The table of lanes, in the page of the server."""

from __future__ import annotations

from pdp.model import Caller, Role
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import Lane
from tests.docs.lanes import PAGE, written


def test_the_table_is_current() -> None:
    """A changed lane is written into the page by `python -m tests.docs.lanes`."""
    page = PAGE.read_text(encoding="utf-8")

    assert written(page) == page


def test_no_gateway_enters_a_lane_that_ends_its_authority() -> None:
    """Whatever other roles a gateway has, and whatever it calls."""
    roles = [frozenset({Role.PEP}), frozenset(Role)]
    entered = {rpc.lane_for(Caller(id="any", kind="token", roles=role)) for rpc in RPCS.values() for role in roles}

    assert entered.isdisjoint({Lane.ENDING, Lane.ACTIVATION})
