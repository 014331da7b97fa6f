"""Write the lanes, with their bounds and shares, into the page of the server: `python -m tests.docs.lanes`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller
from pdp.server.rpcs import RPCS
from pdp.server.service import CALL_THREADS, LIMITS_OF_LANES, rooms
from pdp.serving.lanes import Room
from pdp.serving.rpc import PUBLIC, RPC, Lane

PAGE = Path(__file__).parents[2] / "pdp" / "server" / "README.md"
BEGIN, END = "<!-- lanes: begin -->", "<!-- lanes: end -->"


def generated() -> str:
    """Return the table."""
    return "\n".join((BEGIN, "", *_table(), "", END))


def written(page: str) -> str:
    """Return the text of the page with the present table."""
    before, _, rest = page.partition(BEGIN)
    return before + generated() + rest.partition(END)[2]


def _table() -> Iterable[str]:
    yield "| lane | RPCs | threads | open | share | at once |"
    yield "|---|---|---|---|---|---|"
    for lane, room in rooms(DEFAULT_LIMITS, call_threads=CALL_THREADS).items():
        # Reflection is served under two names.
        served = ", ".join(dict.fromkeys(f"`{rpc.method}`" for rpc in RPCS.values() if lane in _lanes(rpc)))
        yield f"| {lane.value} | {served} | {room.threads} | {_bound(lane, room)} | {_share(lane, room)} |"


def _lanes(rpc: RPC) -> set[Lane]:
    if rpc.roles == PUBLIC:
        return {rpc.lane}
    return {rpc.lane_for(Caller(id="any", kind="token", roles=frozenset({role}))) for role in rpc.roles}


def _bound(lane: Lane, room: Room) -> str:
    return f"{room.bound}, {LIMITS_OF_LANES[lane]}" if lane in LIMITS_OF_LANES else str(room.bound)


def _share(lane: Lane, room: Room) -> str:
    # Callers without credentials are told apart by nothing.
    share = "" if lane in (Lane.PROBES, Lane.WATCHES) else str(room.share)
    return f"{share} | {'' if room.turns == math.inf else room.turns}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
