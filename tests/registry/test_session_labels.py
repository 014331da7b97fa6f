"""Which labels a session may get, when, and that none of them gives it more than an approver saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.decision.advice import advice
from pdp.errors import InvalidRequestError
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role, SessionState
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool
from pdp.testing.inprocess import write_folder

PEP = Caller(id="gateway", kind="test", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="test", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
WANTED = SessionRequest(user="ann", agent="worker", purpose="Work", tool_patterns=("files/*",), may_delegate=True)
MANIFEST = """
labels:
  untrusted: {meaning: has read what strangers wrote}
  reviewed: {meaning: a person has read what it will send, widens: true}
"""
POLICIES = """
@id("files/reviewed")
permit (principal, action, resource is Server) when { context.session.labels.contains("reviewed") };
@id("files/tainted")
forbid (principal, action, resource is Server) when { context.session.labels.contains("untrusted") };
"""


@pytest.fixture
def pdp(tmp_path: Path) -> Embedded:
    """Return a PDP with a label that widens and one that does not."""
    files = bundle_files(
        policies={"files": POLICIES},
        tools={"files": [tool("send")]},
        directory="users: {ann: {}}\nagents: {worker: {ceiling: ['files/*']}}\n",
        manifest=MANIFEST,
        sessions=OPEN_SESSIONS,
    )
    write_folder(tmp_path, files)
    return open_embedded(tmp_path, compile_files=compile_once_here)


def requested(pdp: Embedded, *labels: str, parent_session_handle: str = "") -> tuple[str, str, str]:
    """Return id, digest and handle of a session that waits for approval."""
    view, handle = pdp.registrar.request(
        replace(WANTED, labels=labels, parent_session_handle=parent_session_handle), PEP
    )
    return view.session.id, view.request_digest, handle


def approved(pdp: Embedded, *labels: str) -> tuple[str, str]:
    """Return id and handle of an approved session."""
    session_id, digest, handle = requested(pdp, *labels)
    pdp.registrar.approve(session_id, request_digest=digest, grants=(), caller=APPROVER)
    return session_id, handle


def narrowed(pdp: Embedded, session_id: str, *labels: str, caller: Caller = PEP) -> tuple[str, ...]:
    """Return the labels of a session to which some are added."""
    view = pdp.registrar.narrow(session_id, tool_patterns=(), expires_at=None, labels=labels, caller=caller)
    return view.session.labels


def basis(pdp: Embedded, handle: str) -> str:
    """Return what a call rests on."""
    call = Call(session_handle=handle, server="files", tool="send")
    return pdp.authorizer.authorize(CallRequest(call=call), PEP).ruling.basis.value


@pytest.mark.parametrize("caller", [PEP, APPROVER], ids=["gateway", "approver"])
def test_no_label_that_widens_comes_after_the_approval(pdp: Embedded, caller: Caller) -> None:
    """The approver did not see it, so the call is denied as before."""
    session_id, handle = approved(pdp)

    with pytest.raises(InvalidRequestError, match=r"`labels\[1\]`: `reviewed` widens"):
        narrowed(pdp, session_id, "untrusted", "reviewed", caller=caller)

    assert "default_deny" == basis(pdp, handle)
    assert () == pdp.registrar.get(session_id, caller=PEP).session.labels


def test_a_label_that_widens_is_asked_for_and_seen(pdp: Embedded) -> None:
    """It is in the request that the approver sees, and what it permits is permitted; another label takes it away."""
    session_id, handle = approved(pdp, "reviewed")

    assert "permit" == basis(pdp, handle)
    assert ("reviewed", "untrusted") == narrowed(pdp, session_id, "reviewed", "untrusted")
    assert "forbid" == basis(pdp, handle)


def test_a_child_gets_no_label_that_widens_from_its_gateway(pdp: Embedded) -> None:
    """Delegation needs no person: what widens is the parent's, or is refused."""
    _, plain = approved(pdp)
    _, reviewed = approved(pdp, "reviewed")

    with pytest.raises(InvalidRequestError, match="widens"):
        requested(pdp, "reviewed", parent_session_handle=plain)
    view, _ = pdp.registrar.request(replace(WANTED, labels=("reviewed",), parent_session_handle=reviewed), PEP)

    assert (SessionState.ACTIVE, ("reviewed",)) == (view.state, view.session.labels)


def test_a_label_that_nothing_declares_is_refused_with_the_nearest(pdp: Embedded) -> None:
    """A misspelt label would mark nothing."""
    session_id, _ = approved(pdp)

    with pytest.raises(InvalidRequestError, match=r"`labels\[0\]`.*did you mean `untrusted`"):
        requested(pdp, "untrustd")
    with pytest.raises(InvalidRequestError, match=r"`labels\[1\]`: unknown label: `x`"):
        narrowed(pdp, session_id, "untrusted", "x")


def test_a_label_stays_when_its_declaration_goes(pdp: Embedded, tmp_path: Path) -> None:
    """A live session keeps it; it may be named again and takes nothing more with it."""
    session_id, handle = approved(pdp, "untrusted")
    (tmp_path / "bundle.yaml").write_text("labels: {reviewed: {meaning: a, widens: true}}\n", encoding="utf-8")
    pdp.keeper.reload(by="author")

    assert ("untrusted",) == narrowed(pdp, session_id, "untrusted")
    assert "forbid" == basis(pdp, handle)


def test_a_label_that_widens_from_now_on_opens_nothing_that_nobody_approved(pdp: Embedded, tmp_path: Path) -> None:
    """The gateway added it while it could only take away; the deny says which label, and that a new session helps."""
    session_id, handle = approved(pdp)
    narrowed(pdp, session_id, "untrusted")
    opened = POLICIES.replace('"reviewed"', '"untrusted"').replace("forbid", "permit")
    (tmp_path / "files.cedar").write_text(opened, encoding="utf-8")
    (tmp_path / "bundle.yaml").write_text(MANIFEST.replace("wrote}", "wrote, widens: true}"), encoding="utf-8")
    pdp.keeper.reload(by="author")
    call = Call(session_handle=handle, server="files", tool="send")
    decision = pdp.authorizer.authorize(CallRequest(call=call), PEP)
    explained = pdp.explainer.explain(session_id, call, PEP, made_by=PEP.id)

    assert "label_not_approved" == decision.ruling.basis.value
    assert "ask for a new session" in " ".join(advice(decision.ruling))
    assert "has `untrusted`: declared as widening now, but not when it was approved" in explained.refusal
    assert "permit" == basis(pdp, approved(pdp, "untrusted")[1])
