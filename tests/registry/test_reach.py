"""What can be reached: in a session, in the active sessions of a user or agent, and in one that is asked for now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.clock import Deadline
from pdp.decision.explainer import SupposedSession
from pdp.errors import InvalidRequestError, NotFoundError, WrongStateError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.policy.loading import load_bundle
from pdp.registry.reach import MOST_SESSIONS, Reach
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool, with_terms
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from pdp.testing.stores.samples import make_scope, make_session

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
AUDITOR = Caller(id="auditor", kind="token", roles=frozenset({Role.AUDITOR}))
STRANGER = Caller(id="stranger", kind="token", roles=frozenset({Role.AUDITOR}), tenant="other")
POLICIES = """
@id("files/read")
permit (principal, action == Action::"files/read", resource);
@id("files/write")
permit (principal, action == Action::"files/write", resource) when { context.input.path like "/srv/*" };
@id("files/write-all")
permit (principal, action == Action::"files/write", resource) when { context.session in Grant::"all" };
@id("files/wipe")
permit (principal, action == Action::"files/wipe", resource) when { context.session in Grant::"all" };
@id("files/not-bob")
forbid (principal == User::"bob", action == Action::"files/read", resource);
"""
PATH = {"path": {"type": "string"}}
DIRECTORY = "users: {alice: {}, bob: {}}\nagents: {coder: {ceiling: ['files/*']}, reader: {ceiling: ['files/read']}}\n"


@pytest.fixture
def pdp(tmp_path: Path) -> Embedded:
    """Return a PDP with three tools, of which one needs a grant, and one is not for bob."""
    files = bundle_files(
        policies={"files": POLICIES},
        tools={"files": [tool("read"), tool("write", PATH, ["path"]), tool("wipe")]},
        directory=DIRECTORY,
        sessions=OPEN_SESSIONS,
        schema=with_terms("max_calls?: Long"),
    )
    write_folder(tmp_path, files)
    return open_embedded(tmp_path, clock=FakeClock(), compile_files=compile_once_here)


WANTED = SessionRequest(user="alice", agent="coder", purpose="Work", tool_patterns=("files/*",))
Opens = Callable[..., tuple[str, str]]


@pytest.fixture
def opens(pdp: Embedded) -> Opens:
    """Return what opens and approves a session, and returns its id and handle."""

    def opened(
        user: str = "alice", agent: str = "coder", *, grants: tuple[str, ...] = (), **more: str
    ) -> tuple[str, str]:
        tools, terms = more.get("tools", "files/*"), more.get("terms", "{}").encode()
        wanted = replace(WANTED, user=user, agent=agent, tool_patterns=(tools,), terms_json=terms)
        view, handle = pdp.registrar.request(wanted, PEP)
        shown = pdp.registrar.review(view.session.id, grants=grants, caller=APPROVER)
        pdp.registrar.approve(view.session.id, request_digest=shown.view.request_digest, grants=grants, caller=APPROVER)
        return view.session.id, handle

    return opened


def told(found: Reach) -> dict[str, tuple[str, tuple[str, ...], int]]:
    """Return of each tool how visible it is, by which policies, and in how many sessions."""
    return {one.tool.tool: (one.visibility.value, one.policies, len(one.session_ids)) for one in found.tools}


def active(pdp: Embedded, user: str = "", agent: str = "", caller: Caller = AUDITOR) -> Reach:
    """Return what the active sessions of a user or agent reach."""
    return pdp.reaching.of_active(user=user, agent=agent, caller=caller, after="", size=0)


def test_a_session_reaches_what_its_gateway_is_told(pdp: Embedded, opens: Opens) -> None:
    """Each tool is as visible as in the list for the gateway, budgets included, with the policies that say so."""
    session_id, handle = opens(terms='{"max_calls": 3}')

    found = pdp.reaching.of_session(session_id, caller=AUDITOR, after="", size=0)

    assert {
        "read": ("depends", ("files/read",), 1),
        "write": ("depends", ("files/write",), 1),
        "wipe": ("never", (), 0),
    } == told(found)
    listed = {one.tool: one.visibility for one in pdp.authorizer.list_tools(handle, PEP).tools}
    assert listed == {one.tool.tool: one.visibility for one in found.tools}
    assert (1, False, False) == (found.sessions, found.left_out, found.more)


def test_of_several_sessions_the_one_that_allows_most_counts(pdp: Embedded, opens: Opens) -> None:
    """The union names that session's policies, and counts the sessions that could call the tool at all."""
    opens(grants=("all",))
    opens()
    opens(tools="files/read")
    opens(user="bob")

    assert {
        "read": ("always", ("files/read",), 3),
        "write": ("depends", ("files/write",), 2),
        "wipe": ("always", ("files/wipe",), 1),
    } == told(active(pdp, user="alice"))
    assert ("never", ("files/not-bob",), 0) == told(active(pdp, user="bob", agent="coder"))["read"]
    assert ("always", ("files/read",), 3) == told(active(pdp, agent="coder"))["read"]
    assert {} == told(active(pdp, agent="reader"))


def test_only_active_sessions_of_the_own_tenant_count(pdp: Embedded, opens: Opens) -> None:
    """What waits, is over, or belongs to others reaches nothing, and no question tells that it is there."""
    waiting = pdp.registrar.request(replace(WANTED, purpose="Wait"), PEP)[0].session
    over, handle = opens()
    pdp.registrar.end(handle, caller=PEP)
    live, _ = opens(user="bob")

    assert 0 == active(pdp, user="alice").sessions
    assert 0 == active(pdp, user="bob", caller=STRANGER).sessions
    for session_id, word in ((waiting.id, "requested"), (over, "ended")):
        with pytest.raises(WrongStateError, match=f"the session is {word}, not active"):
            pdp.reaching.of_session(session_id, caller=AUDITOR, after="", size=0)
    for unknown in (live, "ses_none"):
        with pytest.raises(NotFoundError, match="no such session"):
            pdp.reaching.of_session(unknown, caller=STRANGER, after="", size=0)


def test_a_session_that_is_asked_for_now_has_the_whole_ceiling(pdp: Embedded) -> None:
    """It has no grant yet, so what a grant would open is told with the grant; the ceiling bounds it."""
    coder = pdp.reaching.of_asked_now(SupposedSession(user="alice", agent="coder"), caller=AUDITOR, after="", size=0)
    reader = pdp.reaching.of_asked_now(SupposedSession(user="bob", agent="reader"), caller=AUDITOR, after="", size=0)

    assert {"read": "always", "wipe": "never", "write": "depends"} == {
        one.tool.tool: one.visibility.value for one in coder.tools
    }
    assert {"read": (), "wipe": ("all",), "write": ()} == {one.tool.tool: one.opened_by for one in coder.tools}
    assert {"read": ("never", ("files/not-bob",), 0)} == told(reader)


def test_what_is_not_in_the_directory_cannot_ask(pdp: Embedded) -> None:
    """The error names the field, also that of terms that do not fit."""
    for wrong, field in (
        (SupposedSession(user="stranger", agent="coder"), "user"),
        (SupposedSession(user="alice", agent="stranger"), "agent"),
        (SupposedSession(user="alice", agent="coder", terms_json=b'{"more": 1}'), "terms_json"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            pdp.reaching.of_asked_now(wrong, caller=AUDITOR, after="", size=0)
        assert field == caught.value.attribute


def test_a_freeze_is_told_beside_what_it_stops(pdp: Embedded, opens: Opens) -> None:
    """While no call is allowed, the reach is what it will be when the freeze is lifted."""
    session_id, _ = opens()
    before = active(pdp, user="alice")
    frozen = pdp.freezer.freeze("default", reason="stolen", caller=APPROVER)

    assert replace(before, freeze_id=frozen.id) == active(pdp, user="alice")
    assert replace(before, freeze_id=frozen.id) == pdp.reaching.of_session(session_id, caller=AUDITOR, after="", size=0)
    assert "" == active(pdp, user="alice", caller=STRANGER).freeze_id


def test_pages_hold_every_tool_once(pdp: Embedded, opens: Opens) -> None:
    """A page begins after the last tool of the page before."""
    session_id, _ = opens()

    names, after, more = list[str](), "", True
    while more:
        page = pdp.reaching.of_session(session_id, caller=AUDITOR, after=after, size=2)
        names += [one.tool.tool for one in page.tools]
        more, after = page.more, f"files/{names[-1]}"

    assert ["read", "wipe", "write"] == names


def test_a_union_is_of_a_bounded_number_of_sessions(pdp: Embedded) -> None:
    """Of more sessions the newest count, and the answer says that there are others."""
    now = FakeClock().now()
    for place in range(MOST_SESSIONS + 1):
        session = make_session(
            f"{place}",
            user="alice",
            agent="coder",
            scope=make_scope(*(f"files/gone{number:02}" for number in range(30))),
            requested_at=now.wall_at - place,
            deadline=Deadline.after(now, 60.0),
            entities_json=pdp.keeper.current().directory.capture("alice", "coder"),
        )
        pdp.sessions.insert(session, wall_at=now.wall_at)

    found = active(pdp, user="alice")

    assert (MOST_SESSIONS, True) == (found.sessions, found.left_out)
    # A tool that has left the catalogue cannot be called. With so many sessions a page is short.
    assert {f"gone{number:02}": ("never", (), 0) for number in range(20)} == told(found)
    assert found.more


def test_a_former_bundle_is_compared_tool_by_tool(pdp: Embedded, opens: Opens) -> None:
    """Of sessions and of a session that is asked for now, also a tool that only the former ceiling has."""
    policy = '@id("files/list") permit (principal, action == Action::"files/list", resource);'
    tools = {"files": [tool("list"), tool("write", PATH, ["path"])]}
    files = bundle_files(policies={"files": policy}, tools=tools, directory=DIRECTORY, sessions=OPEN_SESSIONS)
    former = load_bundle(files, DEFAULT_LIMITS, compile_once_here)
    session_id, _ = opens()
    page: dict[str, Any] = {"caller": AUDITOR, "after": "", "size": 0, "former": former}

    def judged(found: Reach) -> dict[str, tuple[str, str]]:
        return {one.tool.tool: (one.visibility.value, one.former.visibility.value) for one in found.tools if one.former}

    now = {"read": ("always", "never"), "write": ("depends", "never"), "wipe": ("never", "never")}
    wanted = SupposedSession(user="alice", agent="coder")
    # The former bundle declares no terms, so a session with some could not be asked for.
    with_some = replace(wanted, terms_json=b'{"max_calls": 3}')
    assert now == judged(pdp.reaching.of_session(session_id, **page))
    assert {**now, "list": ("never", "always")} == judged(pdp.reaching.of_asked_now(wanted, **page))
    assert {**now, "list": ("never", "never")} == judged(pdp.reaching.of_asked_now(with_some, **page))
