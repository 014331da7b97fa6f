"""The demonstration with two servers and a database shows what it says."""

from __future__ import annotations

import re

import pytest

from tests.sessions.postgres import demo

pytestmark = pytest.mark.replicas

# What stands after the first word of a line, in this order; other lines may be in between.
SHOWN = (
    r"west      the first call: allow \(permit\)",
    r"east      a person revokes the session: .* after \d+\.\d+ seconds",
    r"west      the next call: deny \(session_revoked\)",
    r"west      is stopped",
    r"east      the next call: allow \(permit\)",
    r"east      a person revokes the session: the lease of the server that does not confirm was over after \d\.\d+",
    r"west      goes on, and is asked: deny \(session_revoked\)",
    r"database  is stopped",
    r"east      \d+\.\d seconds later: no answer, which every client takes for a deny: unavailable",
    r"database  is back",
    r"east      \d+\.\d seconds later: allow \(permit\)",
    r"west      \d+\.\d seconds later: allow \(permit\)",
)


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Approved and revoked at one server, seen at the other; a server that stops, and the database."""
    demo.main()
    printed = capsys.readouterr().out

    assert re.search(".*".join(SHOWN), printed, re.DOTALL), printed
