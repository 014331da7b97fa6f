"""An approver can approve less than was asked for, and never more: fewer tools, a shorter time, smaller terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pdp.errors import InvalidRequestError, PermissionDeniedError, WrongStateError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, SessionState
from pdp.registry.narrowing import Narrowing
from pdp.registry.words import Selector, SessionView
from pdp.sessions.writes import Write
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, tool, with_terms
from pdp.testing.evidence import Evidence
from tests.machinery.oracle.opened import APPROVER, Opened, opened

FILES = bundle_files(
    policies={
        "files": '@id("files/all") permit (principal, action, resource is Server);\n'
        '@id("files/g") forbid (principal, action, resource is Server) when { context.session in Grant::"frozen" };'
    },
    tools={"files": [tool("read"), tool("list"), tool("wipe")]},
    overlays={"files": "tools: {read: {risk: read_only}, list: {risk: read_only}}"},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
    schema=with_terms("ticket?: String, max_calls?: Long, max_sum?: decimal, targets?: Set<String>"),
    sessions=OPEN_SESSIONS
    + '\n@id("sessions/short") forbid (principal, action == Action::"pdp/approve_session", resource)'
    ' when { context.tools.contains("files/read") && context.duration == 60 };',
)
TERMS = b'{"max_calls": 9, "targets": ["a", "b"], "ticket": "OPS-1"}'
LESS = Narrowing(
    tool_patterns=("files/re*", "files/list"), duration=600.0, terms_json=b'{"max_calls": 3, "targets": ["b"]}'
)


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    """Yield what keeps the record."""
    evidence = Evidence(tmp_path / "evidence")
    yield evidence
    evidence.close()


@pytest.fixture
def pdp(tmp_path: Path, evidence: Evidence) -> Iterator[Opened]:
    """Yield a PDP with two harmless tools and a destructive one."""
    with opened(tmp_path / "policies", FILES, observer=evidence) as pdp:
        yield pdp


def shown(pdp: Opened, session_id: str, narrowing: Narrowing | None = LESS, *grants: str) -> str:
    """Return the digest of what an approver is shown."""
    registrar = pdp.embedded.registrar
    return registrar.proposal(session_id, grants=grants, narrowing=narrowing, caller=APPROVER).request_digest


def approve(pdp: Opened, session_id: str, narrowing: Narrowing | None = LESS, **more: Any) -> SessionView:
    """Approve what is shown, or with another digest."""
    given: dict[str, Any] = {"grants": (), "caller": APPROVER, **more}
    if "request_digest" not in given:
        given["request_digest"] = shown(pdp, session_id, narrowing)
    return pdp.embedded.registrar.approve(session_id, narrowing=narrowing, **given)


def test_less_is_what_is_approved(pdp: Opened, evidence: Evidence) -> None:
    """Session, policies and record have the tools, the time and the terms that are left, and calls of others fail."""
    session_id, handle = pdp.request("files/*", terms_json=TERMS)

    session = approve(pdp, session_id).session

    assert session == pdp.stored(session_id)
    assert session.scope is not None
    assert {"files/read", "files/list"} == set(session.scope.tools)
    assert (600.0, '{"max_calls":3,"targets":["b"],"ticket":"OPS-1"}') == (session.duration, session.terms_json)
    assert session.deadline.wall_at == session.approved_at + 600.0
    assert ("files/*",) == session.tool_patterns
    assert [Basis.PERMIT, Basis.OUT_OF_SCOPE] == [
        pdp.ask(handle, f"files/{name}").ruling.basis for name in ("read", "wipe")
    ]
    facts = {one["kind"]: one["facts"] for one in evidence.records if "facts" in one}
    assert "600" == facts["session.decided"]["duration"] == facts["session.approved"]["duration"]
    assert ["files/list", "files/read"] == facts["session.decided"]["tools"] == facts["session.approved"]["tools"]
    assert ("3600", ["files/wipe"]) == tuple(
        facts["session.approved"][name] for name in ("duration_asked", "tools_removed")
    )


@pytest.mark.parametrize(
    ("narrowing", "said"),
    [
        (Narrowing(tool_patterns=("files/rad",)), "`narrowing.tool_patterns[0]`: matches none of the tools"),
        (Narrowing(tool_patterns=("files/read", "git/*")), "`narrowing.tool_patterns[1]`: matches none of the tools"),
        (Narrowing(tool_patterns=("*",)), "`narrowing.tool_patterns[0]`: "),
        (
            Narrowing(duration=3600.5),
            "`narrowing.duration`: must be more than 0 and at most what was asked for, 3600 s",
        ),
        (Narrowing(duration=0.0), "`narrowing.duration`: must be more than 0"),
        (Narrowing(terms_json=b'{"max_calls": 10}'), "`$.max_calls`: must not be more than in the request"),
        (Narrowing(terms_json=b'{"targets": ["c"]}'), "`$.targets`: must hold only targets of the request"),
        (Narrowing(terms_json=b'{"ticket": "OPS-2"}'), "`$.ticket`: must be as in the request"),
        (Narrowing(terms_json=b'{"max_calls": -1}'), "`$.max_calls`: must not be negative"),
        (Narrowing(terms_json=b'{"max_cals": 1}'), "did you mean `max_calls`?"),
        (Narrowing(terms_json=b"["), "`narrowing.terms_json`: "),
    ],
)
def test_more_is_refused(pdp: Opened, narrowing: Narrowing, said: str) -> None:
    """Whatever would be more than was asked for is an error that names the field, when shown and when approved."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)

    for step in (shown, lambda *given: approve(*given, request_digest="sha256:0")):
        with pytest.raises(InvalidRequestError) as refused:
            step(pdp, session_id, narrowing)
        assert said in str(refused.value)
    assert SessionState.REQUESTED is pdp.stored(session_id).state


def test_a_limit_that_nobody_asked_for_can_be_added(pdp: Opened) -> None:
    """An approver can set a limit of calls where the request had none."""
    session_id, _ = pdp.request("files/*")

    approved = approve(pdp, session_id, Narrowing(terms_json=b'{"max_calls": 2}'))

    assert '{"max_calls":2}' == approved.session.terms_json


@pytest.mark.parametrize(
    ("narrowing", "grants"),
    [
        (None, ()),
        (None, ("frozen",)),
        (LESS, ("frozen",)),
        (replace(LESS, tool_patterns=("files/read",)), ()),
        (replace(LESS, duration=599.0), ()),
        (replace(LESS, terms_json=b'{"max_calls": 2, "targets": ["b"]}'), ()),
    ],
)
def test_the_digest_is_of_what_is_approved(pdp: Opened, narrowing: Narrowing | None, grants: tuple[str, ...]) -> None:
    """An approval with the digest of any other tools, time, terms or grants approves nothing."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)

    with pytest.raises(WrongStateError, match="the request digest"):
        approve(pdp, session_id, LESS, request_digest=shown(pdp, session_id, narrowing, *grants))

    assert SessionState.REQUESTED is pdp.stored(session_id).state


def test_the_digest_of_the_whole_request_is_told_apart(pdp: Opened) -> None:
    """Who considers grants or a narrowing and sends the digest of the request learns which digest is wanted."""
    session_id, _ = pdp.request("files/*")
    whole = pdp.embedded.registrar.get(session_id, caller=APPROVER).request_digest

    with pytest.raises(WrongStateError, match="covers neither grants nor a narrowing; review the session with them"):
        approve(pdp, session_id, None, request_digest=whole, grants=("frozen",))
    assert whole == shown(pdp, session_id, None) == shown(pdp, session_id, Narrowing())


def test_the_rules_are_about_what_is_approved(pdp: Opened) -> None:
    """Without its destructive tools a session needs no recent log-in, and policies see the narrowed time and tools."""
    lately = replace(APPROVER, authenticated_at=0.0)
    session_id, _ = pdp.request("files/*")

    with pytest.raises(PermissionDeniedError, match="`wipe` is destructive"):
        approve(pdp, session_id, None, caller=lately)
    with pytest.raises(PermissionDeniedError, match="sessions/short"):
        approve(pdp, session_id, Narrowing(duration=60.0))
    approve(pdp, session_id, Narrowing(tool_patterns=("files/list",), duration=60.0), caller=lately)


def test_narrowing_makes_room(tmp_path: Path) -> None:
    """A request whose patterns match too many tools by now can be approved for fewer."""
    with opened(tmp_path / "policies", FILES) as pdp:
        session_id, _ = pdp.request("files/*", terms_json=TERMS)
        pdp.embedded.registrar._limits = replace(DEFAULT_LIMITS, session_tools=2)

        with pytest.raises(WrongStateError, match="now match 3 tools, more than 2"):
            approve(pdp, session_id, None)
        approve(pdp, session_id, LESS)


def _revoke(pdp: Opened, session_id: str) -> None:
    pdp.embedded.registrar.revoke(Selector(kind="session", value=session_id), reason="stolen", caller=APPROVER)


def _deny(pdp: Opened, session_id: str) -> None:
    pdp.embedded.registrar.deny(session_id, reason="", caller=APPROVER)


def _expire(pdp: Opened, _: str) -> None:
    pdp.clock.advance(3600)


def _approve(pdp: Opened, session_id: str) -> None:
    approve(pdp, session_id, None)


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [
        (_revoke, "the session is revoked (by `ann`), not requested"),
        (_deny, "the session is denied (by `ann`), not requested"),
        (_expire, "the session is expired, not requested"),
        (_approve, "the session is active (by `ann`), not requested"),
    ],
)
def test_who_comes_too_late_is_told_why(pdp: Opened, meanwhile: Callable[[Opened, str], None], said: str) -> None:
    """An approval of what has changed since changes nothing, and says what became of the session and by whom."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)
    digest = shown(pdp, session_id)
    meanwhile(pdp, session_id)
    before = pdp.stored(session_id)

    with pytest.raises(WrongStateError) as refused:
        approve(pdp, session_id, LESS, request_digest=digest)

    assert (said, before) == (str(refused.value), pdp.stored(session_id))


def test_a_change_between_reading_and_writing_wins(pdp: Opened) -> None:
    """The write is a compare-and-set: what ended the session in that moment is named, and nothing comes back."""
    session_id, _ = pdp.request("files/*", terms_json=TERMS)
    digest, store = shown(pdp, session_id), pdp.embedded.sessions
    update = type(store).update

    def late(self: Any, sessions: Any, *, wall_at: float, write: Write | None) -> None:
        with patch.object(type(store), "update", update):
            _revoke(pdp, session_id)
        update(self, sessions, wall_at=wall_at, write=write)

    with patch.object(type(store), "update", late), pytest.raises(WrongStateError, match=r"revoked \(by `ann`\)"):
        approve(pdp, session_id, LESS, request_digest=digest)

    assert SessionState.REVOKED is pdp.stored(session_id).state


def test_another_tool_list_is_another_digest(tmp_path: Path) -> None:
    """What has come into the catalogue since the review is not approved with it."""
    with opened(tmp_path / "policies", FILES) as pdp:
        session_id, _ = pdp.request("files/*")
        digest = shown(pdp, session_id, Narrowing(duration=600.0))
        more = bundle_files(
            policies={"files": '@id("files/all") permit (principal, action, resource is Server);'},
            tools={"files": [tool("read"), tool("list"), tool("wipe"), tool("burn")]},
            directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
            sessions=OPEN_SESSIONS,
        )
        pdp.reload(more)

        with pytest.raises(WrongStateError, match="does not match what would be approved now"):
            approve(pdp, session_id, Narrowing(duration=600.0), request_digest=digest)
