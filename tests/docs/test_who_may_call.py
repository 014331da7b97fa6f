"""The tables of who may call what, in the page of the server."""

from __future__ import annotations

from pdp.server.rpcs import RPCS
from tests.docs.who_may_call import PAGE, generated, written


def test_the_tables_are_current() -> None:
    """Whoever changes who may call what has `python -m tests.docs.who_may_call` write the page again."""
    page = PAGE.read_text(encoding="utf-8")

    assert written(page) == page


def test_every_rpc_stands_in_the_tables() -> None:
    """Each row of the server's table is one of the page."""
    assert [rpc.method for rpc in RPCS.values() if f"| `{rpc.method}` |" not in generated()] == []
