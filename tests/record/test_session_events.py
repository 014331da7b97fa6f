"""What the record holds of an approval: everything that it bound, and what changed afterwards, whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import InvalidRequestError, PermissionDeniedError
from pdp.foundation.jsontext import keyed_digest
from pdp.limits import (
    DEFAULT_LIMITS,
    MOST_USER_GROUPS,
    RECORD_LINE_BYTES,
    USER_GROUP_CHARACTERS,
    Limits,
    largest_session_bytes,
)
from pdp.model import Caller, Role
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool, with_terms
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import KEY, Evidence
from pdp.testing.inprocess import write_folder

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
WANTED = SessionRequest(
    user="alice",
    agent="worker",
    purpose="Work on it",
    tool_patterns=("files/r*", "files/write"),
    duration=600.5,
    environment="production",
    user_attributes_json=b'{"level": 3, "team": "blue"}',
    labels=("b", "a"),
    may_delegate=True,
    terms_json=b'{"ticket": "OPS-1", "max_sum": 20.50}',
)
ASKED = {
    "purpose": "Work on it",
    "environment": "production",
    "opened_by": "pep",
    "duration": "600.5",
    "may_delegate": "yes",
    "labels": ["a", "b"],
    "tool_patterns": ["files/r*", "files/write"],
    "attributes": {"team": "blue"},
    "attribute_digests": {"level": keyed_digest(KEY, "3")},
    "terms": {"ticket": "OPS-1"},
    "term_digests": {"max_sum": keyed_digest(KEY, '"20.5"')},
}
TOOLS = ["files/read", "files/rename", "files/write"]
POLICIES = '@id("files/all") permit (principal, action, resource is Server) when { context.session in Grant::"g" };'
# As many groups as a token can bring, and as long.
GROUPS = tuple(f"{n:02d}".ljust(USER_GROUP_CHARACTERS, "\U0001f600") for n in range(MOST_USER_GROUPS))
DIRECTORY = (
    "users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}\n"
    f"user_groups: {json.dumps(dict.fromkeys(GROUPS), ensure_ascii=False)}\n"
)

SCHEMA = with_terms(", ".join(["ticket?: String", "max_sum?: decimal", *(f"t{n:02d}?: Bool" for n in range(62))]))

KINDS = ("session.approved", "session.narrowed")

# The last ones are as long as a label may be, and one more than a session may have.
LABELS = ("a", "b", "c", "reviewed", *(f"{n:0128d}" for n in range(257)))

Open = Callable[..., Embedded]


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    """Yield what keeps a record, which may hold the value of one attribute."""
    evidence = Evidence(tmp_path, attributes=frozenset({"team"}), terms=frozenset({"ticket"}))
    yield evidence
    evidence.close()


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock, evidence: Evidence) -> Open:
    """Return what opens a PDP on some tools and policies."""

    def open_pdp(names: tuple[str, ...] = ("read", "rename", "write", "wipe"), policies: str = POLICIES) -> Embedded:
        tools = [tool(name, annotations={"destructiveHint": name == "wipe"}) for name in names]
        files = bundle_files(
            policies={"files": policies},
            tools={"files": tools},
            directory=DIRECTORY,
            sessions=OPEN_SESSIONS,
            labels=LABELS,
            schema=SCHEMA,
        )
        write_folder(tmp_path / "policies", files)
        return open_embedded(
            tmp_path / "policies",
            clock=clock,
            observer=evidence,
            compile_files=compile_once_here,
            trusted_attributes=frozenset({"team", "level"}),
        )

    return open_pdp


def approver(clock: FakeClock) -> Caller:
    """Return a person who authenticated a minute ago."""
    at = clock.now().wall_at - 60
    return Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=at)


def approve(pdp: Embedded, session_id: str, grants: tuple[str, ...], clock: FakeClock) -> str:
    """Approve what is shown with these grants, and return its digest."""
    shown = pdp.registrar.proposal(session_id, grants=grants, caller=approver(clock)).request_digest
    pdp.registrar.approve(session_id, request_digest=shown, grants=grants, caller=approver(clock))
    return shown


def facts(evidence: Evidence, kind: str) -> dict[str, Any]:
    """Return the facts of the last event of a kind."""
    found: dict[str, Any] = [one["facts"] for one in evidence.records if one["kind"] == kind][-1]
    return found


def test_a_request_holds_what_was_asked_for(opened: Open, evidence: Evidence) -> None:
    """Purpose, environment, labels, tools, time, delegation, and attributes as far as the settings show them."""
    opened().registrar.request(WANTED, PEP)

    requested, decided = facts(evidence, "session.requested"), facts(evidence, "session.decided")
    assert ASKED == {name: requested.get(name) for name in ASKED}
    assert ASKED | {"tools": TOOLS} == {name: decided.get(name) for name in (*ASKED, "tools")}


def test_an_approval_holds_what_it_bound(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """What was asked for, the tools that it means now, the grants, what was shown, and when the person was there."""
    pdp = opened()
    view, _ = pdp.registrar.request(WANTED, PEP)
    digest = approve(pdp, view.session.id, ("g",), clock)

    approved, decided = facts(evidence, "session.approved"), facts(evidence, "session.decided")
    bound = ASKED | {
        "tools": TOOLS,
        "grants": ["g"],
        "by": "approver",
        "request_digest": digest,
        "bundle_version": pdp.keeper.current().version,
        "authenticated_at": "2025-12-31T23:59:00.000000Z",
    }
    assert bound == {name: approved.get(name) for name in bound}
    seen = ASKED | {"tools": TOOLS, "grants": ["g"], "principal": "approver", "policies": ["sessions/all"]}
    assert seen == {name: decided.get(name) for name in seen}


def test_a_refusal_holds_what_was_refused(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """By a person as by the policies."""
    pdp = opened()
    view, _ = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.deny(view.session.id, reason="too much", caller=approver(clock))

    denied = facts(evidence, "session.denied")
    assert ASKED | {"reason": "too much"} == {name: denied.get(name) for name in (*ASKED, "reason")}


def test_a_child_holds_what_it_inherits(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """A delegation is recorded with what was asked for it, and with the labels of the session above."""
    pdp = opened()
    view, handle = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=approver(clock))
    below = replace(
        WANTED, parent_session_handle=handle, tool_patterns=("files/read",), labels=("c",), user_attributes_json=b""
    )
    pdp.registrar.request(below, PEP)

    expected = {"labels": ["a", "b", "c"], "tool_patterns": ["files/read"], "parent_id": view.session.id}
    for kind in ("session.requested", "session.delegated", "session.approved"):
        found = facts(evidence, kind)
        assert expected == {name: found.get(name) for name in expected}
    assert ["files/read"] == facts(evidence, "session.approved")["tools"]


def test_a_narrowing_holds_what_changed(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """Labels that came, tools that went, the end before, and what is left."""
    pdp = opened()
    view, _ = pdp.registrar.request(WANTED, PEP)
    approved = pdp.registrar.approve(
        view.session.id, request_digest=view.request_digest, grants=(), caller=approver(clock)
    ).session
    narrowed = pdp.registrar.narrow(
        view.session.id,
        tool_patterns=("files/re*",),
        expires_at=clock.now().wall_at + 60,
        labels=("reviewed", "a"),
        caller=PEP,
    ).session

    assert approved.scope is not None
    assert narrowed.scope is not None
    assert {
        "labels": ["a", "b", "reviewed"],
        "labels_added": ["reviewed"],
        "tools": ["files/read", "files/rename"],
        "tools_removed": ["files/write"],
        "scope_before": approved.scope.id,
        "scope_id": narrowed.scope.id,
        "expires_before": "2026-01-01T00:10:00.500000Z",
        "expires_at": "2026-01-01T00:01:00.000000Z",
    } == facts(evidence, "session.narrowed")


def test_what_did_not_change_is_not_told_as_a_change(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """A label alone removes no tool and moves no end."""
    pdp = opened()
    view, _ = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=approver(clock))
    pdp.registrar.narrow(view.session.id, tool_patterns=(), expires_at=None, labels=("c",), caller=PEP)

    found = facts(evidence, "session.narrowed")
    assert {"labels", "labels_added", "tools", "scope_id", "expires_at"} == set(found)


def test_grants_are_never_hidden(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """As many as an approval takes, as long as they may be, hide none."""
    grants = tuple(sorted([*(f"{n:02d}" + "a" * 126 for n in range(63)), "destructive-approved"]))
    policy = (
        '@id("files/p{n}") permit (principal, action, resource is Server) when {{ context.session in Grant::"{g}" }};'
    )
    pdp = opened(policies="\n".join(policy.format(n=n, g=grant) for n, grant in enumerate(grants)))
    view, _ = pdp.registrar.request(WANTED, PEP)
    approve(pdp, view.session.id, grants, clock)

    assert list(grants) == facts(evidence, "session.approved")["grants"]
    assert list(grants) == facts(evidence, "session.decided")["grants"]


def test_the_largest_session_fits_into_a_line(opened: Open, evidence: Evidence, clock: FakeClock) -> None:
    """Whatever the limits admit, in characters that take most: no list is cut, and no line is too long to be read."""
    limits = DEFAULT_LIMITS
    most = limits.session_tools
    names = tuple(f"{n:04d}".ljust(128, "\U0001f600") for n in range(most))
    pdp = opened(names=names)
    padding = limits.attributes_bytes - len('{"level": 3, "team": ""}')
    flags = "".join(f',"t{n:02d}":true' for n in range(62))
    ticket = "\x7f" * (limits.terms_bytes - len('{"ticket":""}' + flags))
    wanted = replace(
        WANTED,
        purpose="\U0001f600" * limits.text_characters,
        environment="e" * 128,
        tool_patterns=(*(f"files/{name}" for name in names[: limits.tool_patterns - 1]), "files/*"),
        user_attributes_json=b'{"level": 3, "team": "' + b"\x7f" * padding + b'"}',
        labels=tuple(f"{n:0128d}" for n in range(64)),
        terms_json=f'{{"ticket":"{ticket}"{flags}}}'.encode(),
    )
    user = replace(PEP, id="alice", user_groups=GROUPS)
    view, _ = pdp.registrar.request(wanted, user)
    approve(pdp, view.session.id, ("g",), clock)
    for first in range(64, 256, 64):
        labels = tuple(f"{n:0128d}" for n in range(first, first + 64))
        kept = ("files/00*",) if first == 192 else ()
        pdp.registrar.narrow(view.session.id, tool_patterns=kept, expires_at=None, labels=labels, caller=user)

    lines = [
        line for path in evidence.record_folder.glob("*.jsonl") for line in path.read_bytes().splitlines(keepends=True)
    ]
    told = [json.loads(line) for line in lines]
    largest = max(map(len, lines))
    assert most * 128 * 12 * 0.9 < largest < largest_session_bytes(limits) < RECORD_LINE_BYTES
    approved, narrowed = ([one["facts"] for one in told if one["kind"] == kind][-1] for kind in KINDS)
    assert [f"files/{name}" for name in names] == approved["tools"]
    assert wanted.purpose == approved["purpose"]
    assert [*GROUPS] == approved["user_groups"]
    assert 256 == len(narrowed["labels"])
    assert most == len(narrowed["tools"]) + len(narrowed["tools_removed"])


def test_what_exceeds_a_bound_is_refused(opened: Open) -> None:
    """More tools, labels or attributes than a line could hold are no session."""
    tight = Limits(session_tools=2, attributes_bytes=27)
    registrar = opened().registrar
    # The same registrar under other limits.
    registrar._limits = registrar._drafting._limits = tight
    few = replace(WANTED, tool_patterns=("files/r*",), user_attributes_json=b"")

    registrar.request(few, PEP)
    for wanted, said in (
        (
            replace(few, tool_patterns=("files/*",)),
            r"`tool_patterns`: match 4 tools, more than 2 \(limit `session_tools`\)",
        ),
        (
            replace(few, user_attributes_json=WANTED.user_attributes_json),
            r"larger than 27 bytes \(limit `attributes_bytes`\)",
        ),
        (replace(few, labels=LABELS[-257:]), "`labels`: more than 256 in total"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            registrar.request(wanted, PEP)


def test_a_request_that_the_policies_refuse_is_told_with_what_was_asked_for(
    tmp_path: Path, clock: FakeClock, evidence: Evidence
) -> None:
    """It leaves no session behind, so its only trace is what the policies were asked."""
    files = bundle_files(
        policies={},
        tools={"files": [tool("read"), tool("rename"), tool("write")]},
        directory=DIRECTORY,
        sessions="",
        labels=LABELS,
        schema=SCHEMA,
    )
    write_folder(tmp_path / "strict", files)
    trusted = frozenset({"team", "level"})
    pdp = open_embedded(
        tmp_path / "strict", clock=clock, observer=evidence, compile_files=compile_once_here, trusted_attributes=trusted
    )

    with pytest.raises(PermissionDeniedError):
        pdp.registrar.request(WANTED, PEP)

    decided = facts(evidence, "session.decided")
    assert ASKED | {"tools": TOOLS} == {name: decided.get(name) for name in (*ASKED, "tools")}
