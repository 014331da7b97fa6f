"""A person stops a tenant in the console, and two others lift that again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pdp.client import fencing
from pdp.client.fencing import Fence
from pdp.console import freeze
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from tests.console.desk import Browser, console, files, live, requested

_PEOPLE = ("ann", "bob", "eve")


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Return a server with several approvers, for one test: a freeze stops them all."""
    people = (
        Caller(id=name, kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
        for name in _PEOPLE
    )
    with running_server(files(), callers=(*ONE_OF_EACH_ROLE, *people)) as running:
        yield running


@pytest.fixture
def people(server: RunningServer) -> Iterator[list[Browser]]:
    """Return the browser of each, and that of an operator."""
    with ExitStack() as opened:
        yield [opened.enter_context(console(server, name)).person() for name in (*_PEOPLE, "operator")]


def test_a_tenant_is_frozen_and_lifted_by_two_others(server: RunningServer, people: list[Browser]) -> None:
    """Its calls are denied and its requests cannot be approved; then what was live goes on."""
    ann, bob, eve, _ = people
    _, handle = live(server)
    waiting, _ = requested(server)
    ann.open("/freeze")
    assert "It has 2 sessions, live or waiting." in ann.words
    ann.send("/freeze", {"reason": "something is wrong"})
    assert "something is wrong" in ann.words
    assert not server.client("pep").authorize(handle, "crm", "find_customer").allowed
    bob.open("/")
    assert "The tenant default is frozen by ann: something is wrong." in bob.words
    bob.open(f"/sessions/{waiting}")
    bob.send(f"/sessions/{waiting}/approve")
    assert bob.page is not None
    assert bob.page.status_code >= 400
    for person in (ann, bob):
        person.open("/freeze")
        person.send("/lift")
    assert not server.client("pep").authorize(handle, "crm", "find_customer").allowed
    eve.open("/freeze")
    assert "bob wants it lifted" in eve.words
    eve.send("/lift")

    assert "Nothing is frozen." in eve.words
    assert server.client("pep").authorize(handle, "crm", "find_customer").allowed


def test_a_freeze_says_what_it_has_waited_for(people: list[Browser], monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does who lifts it."""
    said = "This holds everywhere: a server did not confirm it; after 1.01 s none can answer from before it any more."
    for module in (fencing, freeze):
        monkeypatch.setattr(module, "fence_of", lambda _: Fence(by="waited", seconds=1.01))
    ann, bob, *_ = people
    ann.open("/freeze")
    ann.send("/freeze", {"reason": "something is wrong"})
    bob.open("/freeze")
    before = bob.words
    bob.send("/lift")

    assert [True, False, True] == [said in words for words in (ann.words, before, bob.words)]


def test_a_freeze_can_revoke_as_well(server: RunningServer, people: list[Browser]) -> None:
    """By a button of its own; nothing is frozen without a reason."""
    ann = people[0]
    session_id, _ = live(server)
    ann.open("/freeze")
    ann.send("/freeze", {"reason": ""})
    assert "say why" in ann.words
    assert "Nothing is frozen." in ann.words
    ann.send("/freeze", {"reason": "stolen", "then": "revoke"})

    assert session_id in ann.text
    assert "REVOKED" in str(server.client("approver").get_session(session_id))


def test_all_tenants_are_for_operators(people: list[Browser]) -> None:
    """Others do not see the button, and the server refuses them."""
    ann, operator = people[0], people[-1]
    ann.open("/freeze")
    assert "Freeze all tenants" not in ann.words
    ann.post("/freeze", {**ann.form("/log-out"), "tenant": "", "reason": "x"})
    assert "You may not do this" in ann.words
    operator.open("/freeze")
    operator.send("/freeze", {"reason": "an incident"})

    ann.open("/now")
    assert "All tenants are frozen by operator: an incident." in ann.words
