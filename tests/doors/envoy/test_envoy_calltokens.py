"""A call that Envoy sends on has its call token, where the route wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.calltokens.claims import HEADER
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.desk import files
from tests.doors.envoy.asker import Asker, call, door, opened, request
from tests.machinery.calltokens import AUDIENCE, ISSUER, PRESENTER, refusal_of, server_verifier

OVERLAY = f"audiences: ['{AUDIENCE}']\ntools: {{closed: {{audiences: []}}}}"
ROUTE = {"server": "desk", "call_token": AUDIENCE, "certificate": PRESENTER.certificate}


@pytest.fixture(scope="module")
def issuing() -> Iterator[RunningServer]:
    """Return a PDP that issues call tokens for the tools of the desk."""
    with running_server(files(overlay=OVERLAY), call_token_issuer=ISSUER) as server:
        yield server


@pytest.fixture(scope="module")
def asker(issuing: RunningServer) -> Iterator[Asker]:
    """Return what asks the door before it, by a route that wants a call token."""
    with door(issuing, opened(issuing)[1], route=ROUTE) as asking:
        yield asking


def test_the_upstream_gets_the_token_in_the_place_of_what_the_agent_says(issuing: RunningServer, asker: Asker) -> None:
    """It is for this call and for the certificate of Envoy, and the agent is told nothing of it."""
    told = asker.http("POST", "/mcp", call("note", {"text": "x"}), {HEADER: "mine"})

    token, by = told.set[HEADER], server_verifier(issuing)
    made = {"server": "desk", "tool": "note", "arguments": {"text": "x"}, "presenter": PRESENTER}
    assert told.allowed
    assert ("x-pdp-session",) == told.removed
    assert refusal_of(by, token, **made) is None
    assert "arguments" == refusal_of(by, token, **{**made, "arguments": {"text": "y"}})
    assert token not in f"{told.headers} {told.metadata} {issuing.evidence.records}"


@pytest.mark.parametrize("route", [{"server": "desk"}, ROUTE])
def test_what_an_agent_says_there_is_not_sent_on(asker: Asker, route: dict[str, str]) -> None:
    """Neither where no token is wanted, nor with what is no call."""
    told = asker.http("POST", "/mcp", request("tools/list"), {HEADER: "mine"}, route=route)

    assert told.allowed
    assert (HEADER, "x-pdp-session") == told.removed
    assert {} == told.set


def test_without_a_token_the_call_is_not_sent_on(asker: Asker) -> None:
    """The audience is not one of the tool, or the arguments have no canonical form."""
    ran = len(asker.ran)
    other = {**ROUTE, "call_token": "https://other.example"}
    tries = [
        asker.http("POST", "/mcp", call("note", {"text": "x"}), route=other).shown,
        asker.http("POST", "/mcp", call("note", {"amount": 2**53 + 1})).shown,
    ]

    assert all("Denied (no_call_token)" in shown for shown in tries)
    assert ran == len(asker.ran)


@pytest.mark.parametrize(
    "more", [{"call_token": ""}, {"call_token": "a b"}, {"certificate": "x"}, {"call_token": "a", "certificate": "x"}]
)
def test_a_route_that_says_it_wrongly_lets_nothing_pass(asker: Asker, more: dict[str, str]) -> None:
    """A token that is bound to nobody would be worth more than was meant."""
    told = asker.http("POST", "/mcp", call("note", {"text": "x"}), route={"server": "desk", **more})

    assert (False, 403) == (told.allowed, told.status)
