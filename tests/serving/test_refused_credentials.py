"""What the log says of credentials that are refused: why, from where, and not more often than somebody can read."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import grpc
import pytest

from pdp.serving.refusedcredentials import RefusedCredentials, peer_address
from pdp.serving.status import Refusal
from pdp.testing.clock import FakeClock
from tests.machinery.servers.running import Running, a_call

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"


def of_the_server(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the server has logged; libraries may tell of what is left of other tests."""
    return [record for record in caplog.records if record.name == "pdp.server"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "the call has no token"),
        (("Bearer a", "Bearer b"), "`authorization` appears 2 times"),
        (("Basic secret-word",), "`authorization` is not of the form `Bearer TOKEN`"),
        (("Bearer pdpt_secret-word",), "no caller has this token"),
    ],
)
def test_the_log_says_why_and_from_where(
    running: Running, caplog: pytest.LogCaptureFixture, values: tuple[str, ...], reason: str
) -> None:
    """A bearer token that is refused has a line with the reason, the RPC and the address, and not the token."""
    metadata = tuple(("authorization", value) for value in values)

    with caplog.at_level(logging.WARNING, "pdp.server"):
        refused = running.refused(AUTHORIZE, a_call().SerializeToString(), None, metadata)

    (record,) = of_the_server(caplog)
    where = "(pdp.v1.AuthorizationService/Authorize, from 127.0.0.1)"
    assert f"a bearer token was refused: {reason} {where}" == record.getMessage()
    assert reason not in refused.details()
    assert "127.0.0.1" == running.notes.refusal().facts["peer"]


def test_what_is_no_credential_has_no_line(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that may not do what it asks for is known, and stands in the record."""
    with caplog.at_level(logging.WARNING, "pdp.server"):
        running.refused(AUTHORIZE, a_call().SerializeToString(), "approver")

    assert [] == of_the_server(caplog)


def test_a_flood_has_ten_lines_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """What is left out is counted in the next line; other kinds of credentials have lines of their own."""
    clock = FakeClock()
    told = RefusedCredentials(clock)

    def refuse(credential: str) -> None:
        refusal = Refusal(
            kind="UNAUTHENTICATED",
            code=grpc.StatusCode.UNAUTHENTICATED,
            details="",
            credential=credential,
            reason="no",
        )
        told.tell("Authorize", refusal, "::1")

    with caplog.at_level(logging.WARNING, "pdp.server"):
        for _ in range(1000):
            refuse("a bearer token")
        refuse("a certificate")
        clock.advance(60.0)
        refuse("a bearer token")

    lines = [record.getMessage() for record in caplog.records]
    assert ["a bearer token was refused: no (Authorize, from ::1)"] * 10 == lines[:10]
    assert [
        "a certificate was refused: no (Authorize, from ::1)",
        "a bearer token was refused: no (Authorize, from ::1); 990 more were refused since the previous line",
    ] == lines[10:]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:50151", "10.0.0.7"),
        ("ipv6:%5B::1%5D:50151", "::1"),
        ("ipv6:[2001:db8::1]:50151", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50151", "fe80::1"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:50151", "::ffff:10.0.0.7"),
        ("unix:/run/pdp/socket", "unix"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_an_address_has_no_port(peer: str, address: str) -> None:
    """Of what gRPC says of the other end, the address alone is kept."""
    assert address == peer_address(SimpleNamespace(peer=lambda: peer))
