"""The table of lanes, in the page of the server."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller, Role
from pdp.server.rpcs import RPCS
from pdp.server.service import rooms
from pdp.serving.begun import ASKED
from pdp.serving.rpc import PUBLIC, Lane
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


def test_no_call_that_ends_authority_waits_to_be_asked_for_its_message() -> None:
    """A caller is asked for as many at a time as it can have open: none waits behind others that send nothing."""
    ending = {Lane.ENDING, Lane.GATEWAY_ENDING, Lane.ACTIVATION}
    shares = [room.share for lane, room in rooms(DEFAULT_LIMITS, call_threads=4).items() if lane in ending]

    assert max(shares) <= ASKED


def test_what_grpc_reads_ahead_is_counted_in_every_lane_of_a_gateway(project_root: Path) -> None:
    """The page of operators names the sum for the shares that one gateway has, 64 KiB for each call."""
    gateway = Caller(id="any", kind="token", roles=frozenset({Role.PEP}))
    lanes = {rpc.lane_for(gateway) for rpc in RPCS.values() if rpc.roles != PUBLIC and Role.PEP in rpc.roles}
    shares = {lane: room.share for lane, room in rooms(DEFAULT_LIMITS, call_threads=4).items() if lane in lanes}
    watches = shares.pop(Lane.SESSION_WATCHES)

    said = (
        f"{ceil(sum(shares.values()) / 16)} MiB in all shares of a gateway, and {watches // 16} MiB more in its watches"
    )

    assert said in (project_root / "pdp" / "deployment" / "README.md").read_text(encoding="utf-8")
