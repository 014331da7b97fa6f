"""What the record holds of a session's life, beside its decisions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import OverloadedError
from pdp.foundation.jsontext import definition_digest
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.registry.words import Selector, SessionRequest
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.bundles import bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from pdp.testing.inprocess import write_folder

GATEWAY = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
LEAD = Caller(id="lead", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
FILES = bundle_files(
    policies={"notes": '@id("notes/all") permit (principal, action, resource) when { true };'},
    tools={"notes": [tool("read")]},
    labels=("seen",),
    directory="users: {alice: {}}\nagents: {coder: {ceiling: [notes/*]}, helper: {ceiling: [notes/*]}}",
)


class Life:
    """A PDP on the bundle above, and what it records."""

    def __init__(self, embedded: Embedded, evidence: Evidence, clock: FakeClock) -> None:
        self.registrar, self._authorizer = embedded.registrar, embedded.authorizer
        self._evidence, self.clock = evidence, clock

    def open(self, *, agent: str = "coder", parent: str = "", may_delegate: bool = False) -> tuple[str, str]:
        """Ask for a session and have it approved unless it was delegated; return its id and its handle."""
        wanted = SessionRequest(
            user="alice",
            agent=agent,
            purpose="take notes",
            tool_patterns=("notes/*",),
            duration=600.0,
            parent_session_handle=parent,
            may_delegate=may_delegate,
        )
        view, handle = self.registrar.request(wanted, GATEWAY)
        if view.session.state.value == "requested":
            self.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=LEAD)
        return view.session.id, handle

    def ask(self, handle: str, name: str = "read") -> str:
        """Ask about a call; return the basis of the answer."""
        call = Call(session_handle=handle, server="notes", tool=name)
        return self._authorizer.authorize(CallRequest(call=call), GATEWAY).ruling.basis.value

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """Return what the record holds of a session, without decisions."""
        records = [one for one in self._evidence.records if one.get("session_id") == session_id]
        return [one for one in records if one["kind"] not in ("decision", "session.decided")]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Return what the record holds of the policies' answers about sessions."""
        return [one for one in self._evidence.records if one["kind"] == "session.decided"]

    def decisions(self, session_id: str) -> list[dict[str, Any]]:
        """Return the decisions of a session in the record."""
        records = [one for one in self._evidence.records if one.get("session_id") == session_id]
        return [one for one in records if one["kind"] == "decision"]

    def kinds(self, session_id: str) -> list[str]:
        """Return the kinds of those records."""
        return [one["kind"].removeprefix("session.") for one in self.events(session_id)]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Yield the PDP."""
    write_folder(tmp_path / "policies", FILES)
    evidence, clock = Evidence(tmp_path), FakeClock()
    embedded = open_embedded(tmp_path / "policies", observer=evidence, clock=clock, compile_files=compile_once_here)
    yield Life(embedded, evidence, clock)
    embedded.close()
    evidence.close()


def test_a_request_says_what_for(life: Life) -> None:
    """The purpose that the approver read stands in the record."""
    session, _ = life.open()

    assert life.events(session)[0]["facts"]["purpose"] == "take notes"


def test_an_approval_says_of_what(life: Life) -> None:
    """The record of an approval names the digest of exactly what the approver was shown, and who that was."""
    wanted = SessionRequest(user="alice", agent="coder", purpose="take notes", tool_patterns=("notes/*",))
    view, _ = life.registrar.request(wanted, GATEWAY)

    life.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=LEAD)

    facts = life.events(view.session.id)[1]["facts"]
    assert (facts["by"], facts["request_digest"]) == ("lead", view.request_digest)


@pytest.mark.parametrize(("asked", "told"), [(True, "yes"), (False, None)])
def test_a_request_says_whether_it_may_delegate(life: Life, asked: bool, told: str | None) -> None:  # noqa: FBT001 - a column of the table
    """Who approves a session that may delegate approves sessions that nobody is asked about: the record shows it."""
    session, _ = life.open(may_delegate=asked)

    assert life.events(session)[0]["facts"].get("may_delegate") == told


@pytest.mark.parametrize(("name", "known"), [("read", True), ("none", False)])
def test_a_decision_says_which_tool_the_bundle_holds(life: Life, name: str, known: bool) -> None:  # noqa: FBT001 - a column of the table
    """Whatever the gateway states, the record has the digest of the definition that the call was decided by."""
    session, handle = life.open()

    life.ask(handle, name)

    (record,) = life.decisions(session)
    expected = definition_digest(tool("read")) if known else ""
    assert (record["definition_digest"], record["catalogue_digest"]) == ("", expected)


def test_an_expiry_is_recorded_when_a_call_meets_it(life: Life) -> None:
    """The first call after the end is denied, and the record tells that the session has expired, once."""
    session, handle = life.open()
    life.clock.advance(600.0)

    answers = [life.ask(handle) for _ in range(3)]

    assert answers == ["session_expired"] * 3
    assert life.kinds(session) == ["requested", "approved", "expired"]


def test_an_expiry_is_recorded_when_somebody_looks(life: Life) -> None:
    """Reading an expired session is noticing it, and says what it was and when it ended."""
    session, handle = life.open()
    life.clock.advance(900.0)

    life.registrar.get(session, caller=LEAD)
    life.ask(handle)

    assert life.kinds(session) == ["requested", "approved", "expired"]
    assert life.events(session)[-1]["facts"] == {"was": "active", "expired_at": "2026-01-01T00:10:00.000000Z"}


def test_the_expiry_of_a_session_above_is_recorded(life: Life) -> None:
    """A call that fails because of an ancestor's expiry is noticing that one."""
    parent, handle = life.open(may_delegate=True)
    child, child_handle = life.open(agent="helper", parent=handle)
    life.clock.advance(599.0)
    life.registrar.narrow(parent, tool_patterns=(), expires_at=life.clock.now().wall_at, labels=(), caller=LEAD)

    answer = life.ask(child_handle)

    assert answer == "ancestor_denied"
    assert life.kinds(parent)[-1] == "expired"
    assert "expired" not in life.kinds(child)


def test_a_delegation_is_recorded(life: Life) -> None:
    """A session below another one is told as such, with the one above."""
    parent, handle = life.open(may_delegate=True)
    child, _ = life.open(agent="helper", parent=handle)

    assert life.kinds(child)[:2] == ["requested", "delegated"]
    assert life.events(child)[1]["facts"]["parent_id"] == parent


def test_a_whole_life_is_recorded(life: Life) -> None:
    """Each change of a session is one record, in order."""
    session, handle = life.open()
    life.registrar.narrow(session, tool_patterns=(), expires_at=None, labels=("seen",), caller=LEAD)
    other, _ = life.open()
    life.registrar.end(handle, caller=GATEWAY)
    life.registrar.revoke(Selector(kind="session", value=other), reason="enough", caller=LEAD)

    assert life.kinds(session) == ["requested", "approved", "narrowed", "ended"]
    assert life.kinds(other) == ["requested", "approved", "revoked"]


def test_what_the_store_refused_leaves_nothing_in_the_record(tmp_path: Path) -> None:
    """A request that was permitted and could not be stored names no session: nobody looks for one that never was."""
    write_folder(tmp_path / "policies", FILES)
    evidence, file = Evidence(tmp_path), tmp_path / "sessions.sqlite"
    with closing(SQLiteSessionStore(file, busy_seconds=0.01)) as store:
        pdp = open_embedded(tmp_path / "policies", sessions=store, observer=evidence, compile_files=compile_once_here)
        wanted = SessionRequest(user="alice", agent="coder", purpose="take notes", tool_patterns=("notes/*",))
        with closing(apsw.Connection(str(file))) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OverloadedError, match="nothing was written"):
                pdp.registrar.request(wanted, GATEWAY)
        pdp.registrar.request(wanted, GATEWAY)

    told = [one["kind"] for one in evidence.records if one["kind"].startswith("session.")]
    evidence.close()
    assert told == ["session.decided", "session.requested"]
