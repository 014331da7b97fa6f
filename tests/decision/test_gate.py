"""The gate by itself: for each check a row that it alone denies, whole rulings, and the order of the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pdp.clock import Deadline, Instant
from pdp.decision.gate import gate
from pdp.decision.gatewords import OF_STATE, ROWS, Refusal, Row
from pdp.decision.ruling import ancestor_deny, deny
from pdp.decision.snapshot import Snapshot
from pdp.foundation.jsontext import definition_digest, former_definition_digest
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, Bounds, Call, Outcome, Ruling, Scope, Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.sessions.freezes import Freeze
from pdp.testing.bundles import bundle_files, compile_once_here, tool
from pdp.testing.stores.samples import make_freeze, make_session
from tests.machinery.bases import ELSEWHERE

NOW = Instant(wall_at=1000.0, boot_at=100.0, boot_id="boot-1")
OTHER = "sha256:" + "0" * 64
FILES = bundle_files(
    policies={"a": '@id("a/all") permit (principal, action, resource);\n'},
    tools={"a": [tool("b"), tool("c"), tool("d/e")]},
    overlays={"a": "tools: {c: {digest: required}}\n"},
    directory="{users: {ada: {}}, agents: {coder: {ceiling: [a/*]}, reader: {ceiling: [a/c]}}}",
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return a bundle with a tool that needs its digest, and one whose name has a slash."""
    return load_bundle(FILES, DEFAULT_LIMITS, compile_once_here)


def digest_of(bundle: Bundle, name: str) -> str:
    """Return the digest of a tool's definition."""
    return bundle.catalogue.tools[f"a/{name}"].definition_digest


def session_of(bundle: Bundle, name: str = "s", parent: Session | None = None, **changes: Any) -> Session:
    """Return an approved session whose scope holds every tool as it is."""
    tools = {action: known.definition_digest for action, known in bundle.catalogue.tools.items()}
    return make_session(name, parent, **{"scope": Scope(id="", tools=tools), **changes})


def ruling_of(
    bundle: Bundle,
    *chain: Session,
    call: Call | None = None,
    now: Instant = NOW,
    freeze: Freeze | None = None,
    bounds: Bounds | None = None,
) -> Ruling | None:
    """Ask the gate about a call of `a/b`, by default."""
    snapshot = Snapshot(bundle=bundle, chain=chain, now=now, wall_at=now.wall_at, freeze=freeze)
    passed = gate(snapshot, call or Call(session_handle="", server="a", tool="b"), bounds)
    return passed.ruling if isinstance(passed, Refusal) else None


def denied(basis: Basis) -> Ruling:
    """Return the whole ruling of a deny."""
    return Ruling(
        outcome=Outcome.DENY,
        basis=basis,
        policies=(),
        errors=(),
        ancestor_id="",
        ancestor_basis=None,
        detail="",
    )


def test_a_session_that_stands_passes(bundle: Bundle) -> None:
    """When no check fails, the policies are asked."""
    assert ruling_of(bundle, session_of(bundle)) is None


def test_no_session_is_denied(bundle: Bundle) -> None:
    """Without a session nothing else is looked at."""
    assert denied(Basis.SESSION_NOT_FOUND) == ruling_of(bundle)


@pytest.mark.parametrize(
    ("state", "basis"),
    [
        (SessionState.REQUESTED, Basis.SESSION_NOT_APPROVED),
        (SessionState.DENIED, Basis.SESSION_NOT_APPROVED),
        (SessionState.ENDED, Basis.SESSION_ENDED),
        (SessionState.EXPIRED, Basis.SESSION_EXPIRED),
        (SessionState.REVOKED, Basis.SESSION_REVOKED),
        (SessionState.ACTIVE, None),
    ],
)
def test_each_state_has_its_basis(bundle: Bundle, state: SessionState, basis: Basis | None) -> None:
    """Only an active session passes; each other state is denied under its own name, of a parent as well."""
    own, parent = session_of(bundle), session_of(bundle, "parent", state=state)

    assert (denied(basis) if basis else None) == ruling_of(bundle, replace(own, state=state))
    found = ruling_of(bundle, own, parent)
    assert (None if basis is None else ancestor_deny(parent, denied(basis))) == found


@pytest.mark.parametrize(("wall_at", "basis"), [(1000.5, None), (1000.0, Basis.SESSION_EXPIRED), (999.5, "expired")])
def test_the_end_counts_as_passed(bundle: Bundle, wall_at: float, basis: object) -> None:
    """A session is expired from the moment of its end on."""
    ended = session_of(bundle, deadline=Deadline(wall_at=wall_at, boot_at=1e9, boot_id="boot-1"))

    assert (denied(Basis.SESSION_EXPIRED) if basis else None) == ruling_of(bundle, ended)


@pytest.mark.parametrize(
    ("call", "basis"),
    [
        ({"tool": "x"}, Basis.UNKNOWN_TOOL),
        ({"server": "x"}, Basis.UNKNOWN_TOOL),
        ({"server": "a/d", "tool": "e"}, Basis.UNKNOWN_TOOL),
        ({"tool": "d/e"}, None),
        ({"definition_digest": "b"}, None),
        ({"definition_digest": OTHER}, Basis.TOOL_CHANGED),
        ({"tool": "c"}, Basis.TOOL_CHANGED),
        ({"tool": "c", "definition_digest": "c"}, None),
        ({"tool": "c", "definition_digest": OTHER}, Basis.TOOL_CHANGED),
    ],
)
def test_the_tool_is_known_and_unchanged(bundle: Bundle, call: Mapping[str, str], basis: Basis | None) -> None:
    """A tool is known by its server and its name; a digest that is stated must be right, and stated where it must."""
    stated = call.get("definition_digest", "")
    digest = digest_of(bundle, stated) if len(stated) == 1 else stated
    server, name = call.get("server", "a"), call.get("tool", "b")
    asked = Call(session_handle="", server=server, tool=name, definition_digest=digest)

    assert (denied(basis) if basis else None) == ruling_of(bundle, session_of(bundle), call=asked)


@pytest.mark.parametrize(
    ("changes", "basis"),
    [
        ({"scope": None}, Basis.OUT_OF_SCOPE),
        ({"scope": Scope(id="", tools={})}, Basis.OUT_OF_SCOPE),
        ({"scope": Scope(id="", tools={"a/b": OTHER})}, Basis.TOOL_CHANGED),
        ({"agent": "reader"}, Basis.OUT_OF_SCOPE),
        ({"agent": "nobody"}, Basis.OUT_OF_SCOPE),
        ({"agent": "reader", "scope": Scope(id="", tools={"a/b": OTHER})}, Basis.OUT_OF_SCOPE),
    ],
)
def test_the_tool_is_in_reach(bundle: Bundle, changes: Mapping[str, Any], basis: Basis) -> None:
    """A tool is within the scope, as it was approved, and within the agent's ceiling: for a session and all above."""
    own, other = session_of(bundle), session_of(bundle, "other", **changes)

    assert denied(basis) == ruling_of(bundle, other)
    assert ancestor_deny(other, denied(basis)) == ruling_of(bundle, own, other)
    assert ancestor_deny(other, denied(basis)) == ruling_of(bundle, own, own, other)


def test_the_first_check_that_fails_is_the_basis(bundle: Bundle) -> None:
    """State before tool, tool before digest, digest before reach; and a session before those above it."""
    revoked = session_of(bundle, state=SessionState.REVOKED, scope=None)
    unscoped = session_of(bundle, scope=None)
    unknown = Call(session_handle="", server="a", tool="x", definition_digest=OTHER)
    changed = Call(session_handle="", server="a", tool="b", definition_digest=OTHER)

    assert denied(Basis.SESSION_REVOKED) == ruling_of(bundle, revoked, call=unknown)
    assert denied(Basis.UNKNOWN_TOOL) == ruling_of(bundle, unscoped, call=unknown)
    assert denied(Basis.TOOL_CHANGED) == ruling_of(bundle, unscoped, call=changed)
    assert denied(Basis.OUT_OF_SCOPE) == ruling_of(bundle, unscoped, unscoped)
    assert denied(Basis.SESSION_REVOKED) == ruling_of(bundle, revoked, unscoped)
    # All of the chain stands before any of it is asked for its reach.
    assert ancestor_deny(revoked, denied(Basis.SESSION_REVOKED)) == ruling_of(bundle, unscoped, revoked)


def test_a_freeze_denies_before_all_else(bundle: Bundle) -> None:
    """It stops every session, whatever else is to be said of it; where there is no session there is none to stop."""
    freeze, revoked = make_freeze("default"), session_of(bundle, state=SessionState.REVOKED)

    assert denied(Basis.FROZEN) == ruling_of(bundle, session_of(bundle), freeze=freeze)
    assert denied(Basis.FROZEN) == ruling_of(bundle, revoked, freeze=freeze)
    assert denied(Basis.SESSION_NOT_FOUND) == ruling_of(bundle, freeze=freeze)


@pytest.mark.parametrize(
    ("sees_results", "labels", "basis"),
    [
        (False, b"{read: {meaning: a stranger wrote it}}", Basis.RESULT_UNSEEN),
        (True, b"{read: {meaning: a stranger wrote it}}", None),
        (False, b"{}", None),
    ],
)
def test_what_must_be_reported_needs_a_gateway_that_sees_it(
    sees_results: bool,  # noqa: FBT001 - a column
    labels: bytes,
    basis: Basis | None,
) -> None:
    """A gateway that sees no results gets no call of which only a report says what it brings; it is the last check."""
    reporting = load_bundle({**FILES, "bundle.yaml": b"labels: " + labels}, DEFAULT_LIMITS, compile_once_here)
    bounds = Bounds(tenants=frozenset({"default"}), sees_results=sees_results)
    own, revoked = session_of(reporting), session_of(reporting, state=SessionState.REVOKED)

    assert (denied(basis) if basis else None) == ruling_of(reporting, own, bounds=bounds)
    assert denied(Basis.SESSION_REVOKED) == ruling_of(reporting, revoked, bounds=bounds)
    assert ruling_of(reporting, own) is None


@pytest.mark.parametrize(
    ("labels", "approved", "basis"), [("l", "", Basis.LABEL_NOT_APPROVED), ("l", "l", None), ("", "", None)]
)
def test_a_label_that_widens_was_approved(labels: str, approved: str, basis: Basis | None) -> None:
    """Of a session, and of each above it, before anything of the call is looked at."""
    manifest = b"name: test\nlabels: {l: {meaning: opens more, widens: true}}\n"
    widening = load_bundle({**FILES, "bundle.yaml": manifest}, DEFAULT_LIMITS, compile_once_here)
    own = session_of(widening, "own")
    other = session_of(widening, labels=tuple(labels), widening_labels=tuple(approved))
    unknown = Call(session_handle="", server="a", tool="x")

    assert (denied(basis) if basis else None) == ruling_of(widening, other)
    assert (ancestor_deny(other, denied(basis)) if basis else None) == ruling_of(widening, own, other)
    assert denied(basis or Basis.UNKNOWN_TOOL) == ruling_of(widening, other, call=unknown)


def test_every_basis_is_a_row_of_the_gate_or_comes_from_elsewhere() -> None:
    """A new basis is in neither yet: say which check denies by it, or who else does."""
    assert sorted(Basis, key=str) == sorted([*ELSEWHERE, *{row.basis for row in ROWS}], key=str)
    assert set(SessionState) - {SessionState.ACTIVE} == set(OF_STATE)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_words(bundle: Bundle, row: Row) -> None:
    """One line; where it names the session that is held against the call, it says so of one above."""
    chain = (session_of(bundle), session_of(bundle, "parent"))
    snapshot = Snapshot(bundle=bundle, chain=chain, now=NOW, wall_at=NOW.wall_at, freeze=make_freeze("default"))
    call = Call(session_handle="", server="a", tool="b")

    for above, session in enumerate(chain):
        said = Refusal(row, snapshot, call, above).words

        assert said.isprintable()
        if f"session `{session.id}`" in said:
            assert (f"`{session.id}` above" in said) is bool(above)


def test_a_deny_says_why() -> None:
    """The detail of a deny is what it was given, and nothing by default."""
    assert ("", "too deep") == (
        deny(Basis.INVALID_ARGUMENTS).detail,
        deny(Basis.INVALID_ARGUMENTS, "too deep").detail,
    )


def test_the_deny_of_an_ancestor_holds_all_of_its_ruling() -> None:
    """It names the ancestor and its basis, and keeps policies, errors and detail."""
    inner = Ruling(outcome=Outcome.DENY, basis=Basis.FORBID, policies=("p",), errors=("e",), detail="d")
    expected = Ruling(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        policies=("p",),
        errors=("e",),
        ancestor_id="ses_above",
        ancestor_basis=Basis.FORBID,
        detail="d",
    )

    assert expected == ancestor_deny(make_session("above"), inner)


@pytest.mark.parametrize("stated", [True, False])
def test_a_digest_of_former_times_still_holds(*, stated: bool) -> None:
    """Sessions and gateways that know a tool by the digest of its whole definition, title included, go on."""
    titled = tool("b", title="B")
    files = bundle_files(
        policies={"a": '@id("a/all") permit (principal, action, resource);\n'},
        tools={"a": [titled]},
        directory="{users: {ada: {}}, agents: {coder: {ceiling: [a/*]}}}",
    )
    titled_bundle = load_bundle(files, DEFAULT_LIMITS, compile_once_here)
    former = former_definition_digest(titled)
    session = session_of(titled_bundle, scope=Scope(id="", tools={"a/b": former}))
    call = Call(session_handle="", server="a", tool="b", definition_digest=former if stated else "")

    assert former != digest_of(titled_bundle, "b")
    assert digest_of(titled_bundle, "b") == definition_digest(tool("b"))
    assert ruling_of(titled_bundle, session, call=call) is None
