"""Write who may call what into the page of the server: `python -m tests.docs.who_may_call`.

The roles are those of the server's own table; what comes of each RPC in each state of a session stands in the tables
of the tests, which hold every cell of them against a real server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pdp.model import Role
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import PUBLIC, RPC
from tests.machinery.rpcs.table import ALL, OWN

PAGE = Path(__file__).parents[2] / "pdp" / "server" / "README.md"
BEGIN, END = "<!-- who may call: begin -->", "<!-- who may call: end -->"

_STATES = {
    "requested": "requested",
    "active": "active",
    "expired": "at_its_end",
    "denied": "denied",
    "ended": "ended",
    "revoked": "revoked",
    "foreign or unknown": "of_another_tenant",
}


def generated() -> str:
    """Return both tables."""
    return "\n".join((BEGIN, "", *_roles(), "", *_states(), "", END))


def written(page: str) -> str:
    """Return the text of the page with the present tables."""
    before, _, rest = page.partition(BEGIN)
    return before + generated() + rest.partition(END)[2]


def _roles() -> Iterable[str]:
    yield from _header(["RPC", *(f"`{role.value}`" for role in Role)])
    # One row for reflection, which is served under two names.
    for rpc in {rpc.method: rpc for rpc in RPCS.values()}.values():
        yield _row([f"`{rpc.method}`", *(_reach(rpc, role) for role in Role)])


def _reach(rpc: RPC, role: Role) -> str:
    if rpc.roles == PUBLIC:
        return "everybody"
    if role not in rpc.roles:
        return "no"
    cells = ALL[rpc.method].roles[role.value]
    if cells.own == cells.foreign:
        return "yes"
    if cells.own != cells.other:
        return "own"
    # A gateway that did not open a session knows it by nothing else.
    return "by handle" if role is Role.PEP else "tenant"


def _states() -> Iterable[str]:
    yield from _header(["RPC", *_STATES])
    for method, row in OWN.items():
        named = [row.states[state] for state in _STATES.values()]
        if len(set(named)) > 1:
            yield _row([f"`{method}`", *(f"`{cell}`" if cell.replace("_", "").isalpha() else cell for cell in named)])


def _header(names: Sequence[str]) -> Iterable[str]:
    yield _row(names)
    yield "|" + "---|" * len(names)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
