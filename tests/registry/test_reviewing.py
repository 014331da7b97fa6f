"""What an approver is shown of a session: what the policies do with its tools, and what grants would open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import WrongStateError
from pdp.limits import MOST_POLICIES_OF_TOOL
from pdp.model import AT_EACH_CALL, Caller, Role, Visibility
from pdp.registry.review import review
from pdp.registry.scope import scope_of
from pdp.registry.words import Review, Selector, SessionRequest
from pdp.server.messages import review_message
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
WANTED = SessionRequest(user="alice", agent="worker", purpose="Work", tool_patterns=("files/*",))
POLICIES = """
@id("files/read")
permit (principal, action == Action::"files/read", resource);
@id("files/write")
permit (principal, action == Action::"files/write", resource) when { context.input.path like "/srv/*" };
@id("files/wipe")
permit (principal, action == Action::"files/wipe", resource)
when { context.session in Grant::"wipe" && context.session in Grant::"wipe-too" };
@id("files/wipe-one")
permit (principal, action == Action::"files/wipe", resource)
when { context.session in Grant::"wipe-one" };
@id("files/writes-need-a-grant")
forbid (principal, action == Action::"files/write", resource) unless { context.session in Grant::"write" };
@id("files/never-while-frozen")
forbid (principal, action, resource is Server) when { context.session in Grant::"frozen" };
@id("files/ask")
@step_up("May it read?")
forbid (principal, action == Action::"files/read", resource) when { context.session in Grant::"asked" };
"""
PATH = {"path": {"type": "string"}}


@pytest.fixture
def pdp(tmp_path: Path) -> Embedded:
    """Return a PDP whose policies ask for grants."""
    files = bundle_files(
        policies={"files": POLICIES},
        tools={
            "files": [
                tool("read", annotations={"readOnlyHint": True}),
                tool("write", PATH, ["path"], annotations={"destructiveHint": False}),
                tool("wipe", PATH, ["path"]),
            ]
        },
        directory="users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}\n",
        sessions=OPEN_SESSIONS,
    )
    write_folder(tmp_path, files)
    return open_embedded(tmp_path, clock=FakeClock(), compile_files=compile_once_here)


def seen(review: Review) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return for each tool what the policies do with it, and the grants that open more of it."""
    return {one.tool.tool: (one.visibility.value, one.opened_by) for one in review.tools}


def test_each_tool_is_shown_with_what_opens_it(pdp: Embedded) -> None:
    """A grant that alone opens more of a tool stands beside it; one that closes, or needs another one, does not."""
    session = pdp.registrar.request(WANTED, PEP)[0].session

    review = pdp.registrar.review(session.id, grants=(), caller=APPROVER)

    assert {
        "read": ("always", ()),
        "write": ("never", ("write",)),
        "wipe": ("never", ("wipe-one",)),
    } == seen(review)
    assert {
        "asked": ("files/ask",),
        "frozen": ("files/never-while-frozen",),
        "wipe": ("files/wipe",),
        "wipe-one": ("files/wipe-one",),
        "wipe-too": ("files/wipe",),
        "write": ("files/writes-need-a-grant",),
    } == review.known_grants


def test_each_tool_names_the_policies_that_say_so(pdp: Embedded) -> None:
    """Permits of what is always allowed, forbids of what never is, and else what looks at the call or can be lifted."""
    session = pdp.registrar.request(WANTED, PEP)[0].session

    found = {
        grants: {
            one.tool.tool: one.policies
            for one in pdp.registrar.review(session.id, grants=grants, caller=APPROVER).tools
        }
        for grants in ((), ("write",), ("frozen", "write"), ("asked",))
    }

    frozen = ("files/never-while-frozen",)
    assert {
        (): {"read": ("files/read",), "write": ("files/writes-need-a-grant",), "wipe": ()},
        ("write",): {"read": ("files/read",), "write": ("files/write",), "wipe": ()},
        ("frozen", "write"): {"read": frozen, "write": frozen, "wipe": frozen},
        ("asked",): {"read": ("files/ask",), "write": ("files/writes-need-a-grant",), "wipe": ()},
    } == found


def test_grants_that_are_thought_of_count(pdp: Embedded) -> None:
    """What a second grant opens beside the first is shown, and what it closes."""
    session = pdp.registrar.request(WANTED, PEP)[0].session

    beside = pdp.registrar.review(session.id, grants=("wipe",), caller=APPROVER)
    frozen = pdp.registrar.review(session.id, grants=("frozen",), caller=APPROVER)

    assert ("never", ("wipe-one", "wipe-too")) == seen(beside)["wipe"]
    assert {"never"} == {visibility for visibility, _ in seen(frozen).values()}


@pytest.mark.parametrize("grants", [(), ("wipe", "wipe-too"), ("write",), ("frozen",)])
def test_what_is_shown_is_what_is_approved(pdp: Embedded, grants: tuple[str, ...]) -> None:
    """After the approval the gateway's list of tools says what the approver was shown."""
    view, handle = pdp.registrar.request(WANTED, PEP)

    shown = pdp.registrar.review(view.session.id, grants=grants, caller=APPROVER)
    pdp.registrar.approve(view.session.id, request_digest=shown.view.request_digest, grants=grants, caller=APPROVER)
    active = pdp.registrar.review(view.session.id, grants=(), caller=APPROVER)
    listed = {one.tool: one.visibility for one in pdp.authorizer.list_tools(handle, PEP).tools}

    assert listed == {one.tool.tool: one.visibility for one in shown.tools}
    assert shown.tools == active.tools


def test_a_child_is_shown_with_what_its_parent_may(pdp: Embedded) -> None:
    """What the policies deny the parent is never allowed to the child, and a grant to the child opens none of it."""
    view, handle = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    below = SessionRequest(
        user="alice", agent="worker", purpose="Part of it", tool_patterns=("files/*",), parent_session_handle=handle
    )
    child = pdp.registrar.request(below, PEP)[0].session

    review = pdp.registrar.review(child.id, grants=(), caller=APPROVER)

    assert {"read": ("always", ()), "write": ("never", ()), "wipe": ("never", ())} == seen(review)


def test_a_session_that_is_over_is_not_judged(pdp: Embedded) -> None:
    """There is nothing to approve and nothing to narrow."""
    session = pdp.registrar.request(WANTED, PEP)[0].session
    pdp.registrar.revoke(Selector(kind="session", value=session.id), reason="over", caller=APPROVER)

    with pytest.raises(WrongStateError, match="the session is revoked"):
        pdp.registrar.review(session.id, grants=(), caller=APPROVER)


def test_grants_of_an_active_session_are_what_they_are(pdp: Embedded) -> None:
    """After the approval nobody can give a grant, so none is thought of."""
    view, _ = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)

    with pytest.raises(WrongStateError, match="the session is active"):
        pdp.registrar.review(view.session.id, grants=("wipe",), caller=APPROVER)


def test_a_review_is_bounded(pdp: Embedded) -> None:
    """Of many policies that say so, the answer names the first ones and counts the others."""
    review = pdp.registrar.review(pdp.registrar.request(WANTED, PEP)[0].session.id, grants=(), caller=APPROVER)
    many = replace(review.tools[0], policies=tuple(f"files/{number}" for number in range(MOST_POLICIES_OF_TOOL + 2)))

    told = review_message(replace(review, tools=(many,))).tools[0]

    assert (many.policies[:MOST_POLICIES_OF_TOOL], 2) == (tuple(told.policy_ids), told.policies_left_out)


def test_a_tool_that_left_the_catalogue_is_never_allowed(pdp: Embedded) -> None:
    """It stands in the scope that was approved, and no policy is asked about it."""
    view, _ = pdp.registrar.request(WANTED, PEP)
    chain = (view.session,)

    bundle = pdp.keeper.bundle_for(pdp.sessions.active_bundle())
    found = review(chain, scope_of({"files/gone": "sha256:0"}), bundle, wall_at=0.0)

    assert [(Visibility.NEVER, ())] == [(one.visibility, one.opened_by) for one in found]
