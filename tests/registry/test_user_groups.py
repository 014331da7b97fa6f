"""Groups that a person's token names: whose they become, what binds them, and when they are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import PermissionDeniedError, WrongStateError
from pdp.limits import MOST_USER_GROUPS
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.policy.directory import FILE, load_directory
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from tests.machinery.pages import blocks

FINANCE, OPERATORS, UNDECLARED = "idp/finance", "idp/operators", "idp/strangers"
GATEWAY = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
LEAD = Caller(id="lead", kind="jwt", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
# The user, as a person who approves, and with a gateway that presents their own token.
ALICE = replace(LEAD, id="alice", user_groups=(FINANCE, UNDECLARED))
LAPTOP = replace(ALICE, roles=frozenset({Role.PEP}))
WANTED = SessionRequest(user="alice", agent="worker", purpose="Work", tool_patterns=("files/*",))
DIRECTORY = """
users: {alice: {}, bob: {}}
user_groups: {accountants: {}, idp/finance: {parents: [accountants]}, idp/operators: {}, %s}
agents: {worker: {ceiling: ["files/*"]}}
"""
MANY = ", ".join(f"idp/{number}: {{}}" for number in range(MOST_USER_GROUPS + 1))
SESSIONS = (
    OPEN_SESSIONS
    + """
@id("sessions/operators")
forbid (principal, action == Action::"pdp/approve_session", resource)
when { resource.purpose == "Operate" } unless { principal in UserGroup::"idp/operators" };
@id("sessions/children")
permit (principal, action == Action::"pdp/delegate_session", resource);
"""
)


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    """Yield what keeps the record."""
    evidence = Evidence(tmp_path / "evidence")
    yield evidence
    evidence.close()


def files(declared: str = MANY) -> dict[str, bytes]:
    """Return a bundle in which accountants may read."""
    return bundle_files(
        policies={
            "files": """@id("files/accountants")
            permit (principal in UserGroup::"accountants", action, resource is Server);"""
        },
        tools={"files": [tool("read")]},
        overlays={"files": "tools: {read: {risk: read_only}}"},
        directory=DIRECTORY % declared,
        sessions=SESSIONS,
    )


@pytest.fixture
def pdp(tmp_path: Path, evidence: Evidence) -> Embedded:
    """Return a PDP whose bundle declares some groups of the provider."""
    write(tmp_path, files())
    return open_embedded(tmp_path / "policies", clock=FakeClock(), observer=evidence, compile_files=compile_once_here)


def write(folder: Path, content: dict[str, bytes]) -> None:
    """Write a bundle."""
    for name, text in content.items():
        (folder / "policies" / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / "policies" / name).write_bytes(text)


def opened(pdp: Embedded, requester: Caller, approver: Caller, **wanted: Any) -> tuple[str, str]:
    """Open a session that somebody else approves as they are shown it; return its id and its handle."""
    view, handle = pdp.registrar.request(replace(WANTED, **wanted), requester)
    shown = pdp.registrar.review(view.session.id, grants=(), caller=approver).view
    pdp.registrar.approve(view.session.id, request_digest=shown.request_digest, grants=(), caller=approver)
    return view.session.id, handle


def basis(pdp: Embedded, handle: str, caller: Caller) -> str:
    """Return what the answer to a call rests on."""
    call = Call(session_handle=handle, server="files", tool="read")
    return pdp.authorizer.authorize(CallRequest(call=call), caller).ruling.basis.value


@pytest.mark.parametrize(
    ("requester", "approver", "expected"),
    [
        pytest.param(LAPTOP, LEAD, "permit", id="the user asks"),
        pytest.param(GATEWAY, ALICE, "permit", id="the user approves"),
        pytest.param(LAPTOP, ALICE, "permit", id="both"),
        pytest.param(GATEWAY, LEAD, "default_deny", id="neither"),
        pytest.param(GATEWAY, replace(LEAD, user_groups=(FINANCE,)), "default_deny", id="another person's groups"),
        pytest.param(replace(LAPTOP, id="bob"), LEAD, "default_deny", id="another person's gateway"),
        pytest.param(LAPTOP, replace(ALICE, user_groups=()), "default_deny", id="no longer, at the approval"),
        pytest.param(LAPTOP, replace(ALICE, user_groups=None), "permit", id="approved with another credential"),
        pytest.param(GATEWAY, replace(ALICE, user_groups=(UNDECLARED,)), "default_deny", id="an undeclared group"),
    ],
)
def test_a_token_speaks_of_its_holder_alone(pdp: Embedded, requester: Caller, approver: Caller, expected: str) -> None:
    """Who asks for themselves, or approves for themselves, brings their groups; nobody gives theirs to another."""
    assert expected == basis(pdp, opened(pdp, requester, approver)[1], requester)


def test_the_approver_sees_the_groups_and_the_record_tells_them(pdp: Embedded, evidence: Evidence) -> None:
    """Those of the bundle alone, from the request on."""
    session_id, _ = opened(pdp, LAPTOP, LEAD)

    assert (FINANCE,) == pdp.registrar.get(session_id, caller=LEAD).session.user_groups
    told = {one["kind"]: one["facts"].get("user_groups") for one in evidence.records}
    assert [FINANCE] == told["session.requested"] == told["session.approved"]


def test_an_approval_is_for_the_groups_that_were_shown(pdp: Embedded) -> None:
    """A token that says otherwise by then approves nothing, also where it says more."""
    view, _ = pdp.registrar.request(WANTED, GATEWAY)
    shown = pdp.registrar.review(view.session.id, grants=(), caller=replace(ALICE, user_groups=())).view

    with pytest.raises(WrongStateError, match="does not match what would be approved now"):
        pdp.registrar.approve(view.session.id, request_digest=shown.request_digest, grants=(), caller=ALICE)


def test_an_approver_has_the_groups_of_their_own_token(pdp: Embedded) -> None:
    """For policies about approvals; the refusal says where neither token nor directory names one."""
    opened(pdp, GATEWAY, replace(LEAD, user_groups=(OPERATORS,)), purpose="Operate")

    none, unknown = "names no user group of the bundle$", "`lead` is not a user of the bundle's directory$"
    for groups, said in (((UNDECLARED,), none), ((FINANCE,), r"\)$"), (None, unknown)):
        with pytest.raises(PermissionDeniedError, match=r"forbid \(sessions/operators\)") as caught:
            opened(pdp, GATEWAY, replace(LEAD, user_groups=groups), purpose="Operate")
        caught.match(said)


def test_a_child_has_the_groups_of_its_parent(pdp: Embedded) -> None:
    """Without a token of its user, and for the same user alone."""
    _, handle = opened(pdp, GATEWAY, ALICE, may_delegate=True)
    below = replace(WANTED, parent_session_handle=handle)

    same, another = (pdp.registrar.request(replace(below, user=user), GATEWAY) for user in ("alice", "bob"))

    assert ((FINANCE,), ()) == (same[0].session.user_groups, another[0].session.user_groups)
    assert "permit" == basis(pdp, same[1], GATEWAY)


def test_a_group_that_the_bundle_drops_is_none(pdp: Embedded, tmp_path: Path) -> None:
    """And one that it declares later is none of a session that was approved before."""
    _, handle = opened(pdp, replace(LAPTOP, user_groups=(FINANCE, UNDECLARED)), LEAD)
    assert "permit" == basis(pdp, handle, LAPTOP)
    changed = files("idp/strangers: {parents: [accountants]}")
    changed["directory.yaml"] = changed["directory.yaml"].replace(b"idp/finance: {parents: [accountants]}", b"x: {}")
    write(tmp_path, changed)
    pdp.keeper.reload(by="author")

    assert "default_deny" == basis(pdp, handle, LAPTOP)


def test_too_many_groups_are_refused(pdp: Embedded) -> None:
    """None is left out silently: a forbid could be about it."""
    crowd = tuple(f"idp/{number}" for number in range(MOST_USER_GROUPS + 1))

    for requester, approver in (
        (replace(LAPTOP, user_groups=crowd), LEAD),
        (GATEWAY, replace(ALICE, user_groups=crowd)),
    ):
        with pytest.raises(WrongStateError, match="names 33 user groups that the bundle declares, more than 32"):
            opened(pdp, requester, approver)


def test_the_page_shows_a_directory_that_is_read(project_root: Path) -> None:
    """In which a group of the issuer is in one of the bundle's own."""
    [text] = blocks(project_root / "pdp/server/README.md", "yaml directory")

    found = load_directory({FILE: text.encode()}).closure([("UserGroup", FINANCE)])

    assert {("UserGroup", FINANCE), ("UserGroup", "accountants")} == set(found)
