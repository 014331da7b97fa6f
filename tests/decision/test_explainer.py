"""Explanations: every answer is explained in one sentence that names what decided, and nothing is decided by asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.decision.explainer import SupposedSession
from pdp.decision.explanation import Explanation
from pdp.errors import InvalidRequestError, NotFoundError
from pdp.model import AT_EACH_CALL, Basis, Call, Caller, Role
from pdp.policy.conditions import Value
from pdp.registry.words import Selector, SessionRequest
from pdp.testing.bundles import bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from pdp.testing.inprocess import write_folder

AUTHOR = Caller(id="author", kind="token", roles=frozenset({Role.AUTHOR}))
PEP = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="boss", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)

POLICIES = """
@id("files/staff-read")
permit (principal in UserGroup::"staff", action in Action::"read_only", resource);

@id("files/staff-write")
permit (principal in UserGroup::"staff", action == Action::"files/write", resource)
when { context.input.n < 10 && context.input.path like "/srv/*" };

@id("files/granted-write")
permit (principal, action == Action::"files/write", resource)
when { context.session in Grant::"writing" && context.input.n < 100 };

@id("files/not-secret")
forbid (principal, action, resource)
when { action == Action::"files/write" && context.input.path like "*/secret/*" };

@id("files/small")
forbid (principal, action == Action::"files/write", resource)
when { context.input.n + 9223372036854770000 < 0 };

@id("files/at-night")
forbid (principal, action == Action::"files/read", resource)
when { context.now.toTime() >= duration("22h") };
"""
DIRECTORY = """
user_groups: {staff: {}}
users: {ada: {groups: [staff]}, bob: {}, boss: {}}
agents: {worker: {ceiling: ["files/*"]}, reader: {ceiling: ["files/read", "files/peek"]}}
"""
OVERLAY = """
tools:
  read: {risk: read_only}
  write: {risk: mutating}
  peek: {risk: destructive, digest: required}
"""
PATH = {"path": {"type": "string"}, "n": {"type": "integer"}}
TOOLS = [tool("read", PATH, ["path"]), tool("write", PATH, ["path", "n"]), tool("peek")]


class World:
    """A PDP whose sessions are opened and approved in one word."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.evidence = Evidence(folder)
        self.folder = folder / "policies"
        write_folder(self.folder, files())
        self.pdp: Embedded = open_embedded(
            self.folder, clock=self.clock, observer=self.evidence, compile_files=compile_once_here
        )
        self.handles: dict[str, str] = {}

    def open(self, *tools: str, user: str = "ada", agent: str = "worker", approve: bool = True, **more: Any) -> str:
        """Open a session and return its public id."""
        grants = more.pop("grants", ())
        wanted = SessionRequest(user=user, agent=agent, purpose="test", tool_patterns=tools or ("files/*",), **more)
        view, handle = self.pdp.registrar.request(wanted, PEP)
        session_id = view.session.id
        self.handles[session_id] = handle
        if approve and view.session.approved_at == 0.0:
            shown = self.pdp.registrar.proposal(session_id, grants=grants, caller=APPROVER).request_digest
            self.pdp.registrar.approve(session_id, request_digest=shown, grants=grants, caller=APPROVER)
        return session_id

    def why(self, session_id: str, name: str, arguments: str = "{}", **more: Any) -> Explanation:
        """Explain a call."""
        digest = more.pop("definition_digest", "")
        return self.pdp.explainer.explain(session_id, call(name, arguments, digest), AUTHOR, **more)

    def why_not(self, session_id: str, name: str, arguments: str = "{}", **more: Any) -> str:
        """Explain a call in one sentence, with the session's id replaced."""
        return self.why(session_id, name, arguments, **more).summary.replace(session_id, "SESSION")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a PDP on the policies above."""
    made = World(tmp_path)
    yield made
    made.pdp.close()
    made.evidence.close()


def files(tools: list[dict[str, Any]] = TOOLS) -> Mapping[str, bytes]:
    """Return the files of the bundle."""
    return bundle_files(
        policies={"files": POLICIES}, tools={"files": tools}, directory=DIRECTORY, overlays={"files": OVERLAY}
    )


def call(name: str, arguments: str = "{}", definition_digest: str = "") -> Call:
    """Return a call by `server/tool`."""
    server, _, tool_name = name.partition("/")
    return Call(
        session_handle="",
        server=server,
        tool=tool_name,
        arguments_json=arguments.encode(),
        definition_digest=definition_digest,
    )


NO_GRANT = (
    "denied: no permit matched; the nearest is `files/granted-write` (files.cedar:9): "
    '`context.session in Grant::"writing"` (files.cedar:11) does not hold'
)
NO_STAFF = (
    "denied: no permit matched; the nearest is `files/staff-read` (files.cedar:2): "
    '`principal in UserGroup::"staff"` (files.cedar:3) does not hold'
)
OVERFLOW = (
    "denied: `files/small` (files.cedar:17) could not be evaluated: "
    "overflow in `context.input.n + 9223372036854770000 < 0` (files.cedar:19)"
)

# (user, call, arguments, the answer)
ANSWERS = [
    (
        "ada",
        "files/read",
        '{"path": "/x"}',
        "allowed: `files/staff-read` (files.cedar:2) permits it",
    ),
    (
        "ada",
        "files/write",
        '{"path": "/srv/secret/x", "n": 1}',
        "denied: `files/not-secret` (files.cedar:13) forbids it",
    ),
    (
        "bob",
        "files/write",
        '{"path": "/srv/secret/x", "n": 1}',
        "denied: `files/not-secret` (files.cedar:13) forbids it, and no permit matched either",
    ),
    (
        "ada",
        "files/write",
        '{"path": "/srv/x", "n": 99}',
        NO_GRANT,
    ),
    (
        "ada",
        "files/write",
        '{"path": "/etc/x", "n": 1}',
        NO_GRANT,
    ),
    (
        "bob",
        "files/write",
        '{"path": "/srv/x", "n": 500}',
        NO_GRANT + ", and 1 more",
    ),
    (
        "bob",
        "files/read",
        '{"path": "/x"}',
        NO_STAFF,
    ),
    (
        "ada",
        "files/write",
        '{"path": "/srv/x", "n": 987654}',
        OVERFLOW,
    ),
    (
        "ada",
        "files/read",
        '{"path": 7}',
        "denied: the arguments do not fit the tool: `$.path`: must be a string",
    ),
    (
        "ada",
        "files/raed",
        "{}",
        "denied: the catalogue holds no tool `files/raed`; did you mean `files/read`?",
    ),
]


@pytest.mark.parametrize(("user", "name", "arguments", "expected"), ANSWERS)
def test_every_answer_has_its_reason(world: World, user: str, name: str, arguments: str, expected: str) -> None:
    """One sentence names the policy, its place and the condition that decided."""
    session = world.open(user=user)

    explanation = world.why(session, name, arguments)

    assert expected == explanation.summary


def test_a_policy_of_nobody_is_named_so(world: World) -> None:
    """When no permit covers a tool, the answer says that instead of naming a nearest one."""
    session = world.open(agent="reader")
    digest = world.pdp.keeper.current().catalogue.tools["files/peek"].definition_digest

    assert "denied: no permit matched; none covers `files/peek`" == world.why_not(
        session, "files/peek", definition_digest=digest
    )


def test_an_unapproved_session_is_explained(world: World) -> None:
    """A session that waits says since when, and what the policies would say."""
    session = world.open(approve=False)

    assert (
        "denied: session `SESSION` has waited for approval since 2026-01-01T00:00:00Z; "
        "the policies were not asked, and would permit it"
    ) == world.why_not(session, "files/read", '{"path": "/x"}')


def test_ends_are_explained(world: World) -> None:
    """Expired, ended, revoked and refused sessions say when, and by whom."""
    expired, ended, revoked, refused = (
        world.open(duration=60.0),
        world.open(),
        world.open(),
        world.open(approve=False),
    )
    world.clock.advance(60.0)
    world.pdp.registrar.end(world.handles[ended], caller=PEP)
    world.pdp.registrar.revoke(Selector(kind="session", value=revoked), reason="stolen", caller=APPROVER)
    world.pdp.registrar.deny(refused, reason="no need", caller=APPROVER)

    found = [world.why_not(one, "files/nothing").partition(";")[0] for one in (expired, ended, revoked, refused)]

    assert [
        "denied: session `SESSION` expired at 2026-01-01T00:01:00Z",
        "denied: session `SESSION` was ended at 2026-01-01T00:01:00Z by `gateway`",
        "denied: session `SESSION` was revoked at 2026-01-01T00:01:00Z by `boss`: stolen",
        "denied: session `SESSION` was refused at 2026-01-01T00:01:00Z by `boss`: no need",
    ] == found


def test_scope_and_ceiling_are_explained(world: World) -> None:
    """What a session was not approved for, and what an agent may never have, name the patterns that lack it."""
    narrow = world.open("files/read")
    above = SupposedSession(user="ada", agent="reader")

    scope = world.why_not(narrow, "files/write", '{"path": "/srv/x", "n": 1}')
    ceiling = world.pdp.explainer.suppose(above, call("files/write"), AUTHOR, made_by="gateway").summary

    assert (
        "denied: `files/write` is not among the tools of session `SESSION`; it was requested for `files/read`; "
        "the policies were not asked, and would permit it"
    ) == scope
    assert (
        "denied: `files/write` is above the ceiling of agent `reader`, which is `files/read`, `files/peek`" == ceiling
    )


def test_changed_definitions_are_explained(world: World) -> None:
    """Three ways of a changed definition are told apart."""
    session = world.open()
    other = world.why_not(session, "files/read", definition_digest="sha256:" + "0" * 64)
    missing = world.why_not(session, "files/peek")
    changed = [{**one, "description": "another"} for one in TOOLS]
    write_folder(world.folder, files(changed))
    world.pdp.keeper.reload(by="author")

    since = world.why_not(session, "files/read").partition(";")[0]

    assert other.startswith(
        "denied: the gateway sees a different definition of `files/read` from the one in the catalogue"
    )
    assert missing.startswith("denied: a call of `files/peek` must state the digest of its definition")
    assert (
        "denied: the definition of `files/read`, or its connection, has changed since session `SESSION` was approved "
        "at 2026-01-01T00:00:00Z"
    ) == since


def test_each_session_above_is_explained(world: World) -> None:
    """A call of a delegated session is explained for itself and for each one above it."""
    parent = world.open(user="bob")
    child = world.open(user="ada", parent_session_handle=world.handles[parent])

    explanation = world.why(child, "files/read", '{"path": "/x"}')

    assert [(child, "allow"), (parent, "deny")] == [
        (one.session.id, one.ruling.outcome.value) for one in explanation.sessions
    ]
    assert f"denied: session `{parent}` above is denied: no permit matched; the nearest is" in explanation.summary


def test_a_refusal_above_names_the_session(world: World) -> None:
    """When a session above has ended, the answer says which one and when."""
    parent = world.open(may_delegate=True)
    child = world.open("files/read", parent_session_handle=world.handles[parent], approve=False)
    world.pdp.registrar.narrow(parent, tool_patterns=("files/write",), expires_at=None, labels=(), caller=APPROVER)

    explanation = world.why(child, "files/read", '{"path": "/x"}')

    assert (Basis.ANCESTOR_DENIED, parent) == (explanation.ruling.basis, explanation.ruling.ancestor_id)
    assert f"is not among the tools of session `{parent}` above" in explanation.summary


def test_another_moment_can_be_explained(world: World) -> None:
    """A policy about the time, and the end of a session, are judged at the moment that is asked about."""
    session = world.open(duration=3600.0)
    midnight = 1_767_225_600.0

    at_night = world.why(session, "files/read", '{"path": "/x"}', at=midnight - 3600)
    too_late = world.why(session, "files/read", '{"path": "/x"}', at=midnight + 3600)

    assert (Basis.FORBID, ("files/at-night",)) == (at_night.ruling.basis, at_night.ruling.policies)
    assert Basis.SESSION_EXPIRED is too_late.ruling.basis


def test_supposed_facts_count(world: World) -> None:
    """Grants that nobody gave are supposed, and the session need not exist."""
    asked = call("files/write", '{"path": "/x", "n": 50}')
    without, granted = (
        SupposedSession(user="bob", agent="worker"),
        SupposedSession(user="bob", agent="worker", grants=("writing",)),
    )

    found = [world.pdp.explainer.suppose(one, asked, AUTHOR, made_by="gateway") for one in (without, granted)]

    assert [Basis.DEFAULT_DENY, Basis.PERMIT] == [one.ruling.basis for one in found]


@pytest.mark.parametrize(
    ("supposed", "field"),
    [
        (SupposedSession(user="nobody", agent="worker"), "supposed.user"),
        (SupposedSession(user="ada", agent="nobody"), "supposed.agent"),
        (SupposedSession(user="ada", agent="worker", user_attributes_json=b"["), "supposed.user_attributes_json"),
        (
            SupposedSession(user="ada", agent="worker", user_attributes_json=b'{"level": 1.5}'),
            "supposed.user_attributes_json",
        ),
    ],
)
def test_what_cannot_be_supposed_names_its_field(world: World, supposed: SupposedSession, field: str) -> None:
    """A user or agent that the directory does not know, and attributes that are none, are errors of the asker."""
    with pytest.raises(InvalidRequestError) as caught:
        world.pdp.explainer.suppose(supposed, call("files/read"), AUTHOR, made_by="gateway")

    assert field == caught.value.attribute


def test_asking_decides_nothing_and_is_told(world: World) -> None:
    """An explanation leaves no decision, but one event that names who asked, and no argument."""
    session = world.open()

    world.why(session, "files/write", '{"path": "/srv/canary", "n": 4711}')

    assert () == world.evidence.decision_records
    last = world.evidence.records[-1]
    assert ("call.explained", "author", session) == (last["kind"], last["caller_id"], last["session_id"])
    assert {"action": "files/write", "basis": "default_deny"}.items() <= last["facts"].items()
    assert "canary" not in str(world.evidence.records)


def test_sessions_of_other_tenants_look_unknown(world: World) -> None:
    """An author of another tenant learns nothing, not even that the session exists."""
    session = world.open()
    stranger = Caller(id="author", kind="token", roles=frozenset({Role.AUTHOR}), tenant="other")

    for unknown in (session, "ses_none"):
        with pytest.raises(NotFoundError, match=f"no such session: `{unknown}`"):
            world.pdp.explainer.explain(unknown, call("files/read"), stranger)


def test_explanations_hold_no_argument(world: World) -> None:
    """What is explained names policies and conditions; values of arguments stay out, also out of its repr."""
    session = world.open()

    explanation = world.why(session, "files/write", '{"path": "/srv/canary", "n": 987654321}')

    assert Basis.POLICY_ERROR is explanation.ruling.basis
    assert "canary" not in explanation.summary + repr(explanation)
    assert "987654321" not in explanation.summary + repr(explanation)


def test_of_very_many_policies_some_are_looked_at(tmp_path: Path) -> None:
    """What decided is always among them, and how many are left out is said."""
    many = "".join(
        f'@id("files/n{n}") permit (principal, action == Action::"files/read", resource)'
        f" when {{ {'true' if n == 1100 else 'false'} }};\n"
        for n in range(1200)
    )
    write_folder(
        tmp_path, bundle_files(policies={"files": many}, tools={"files": TOOLS}, directory=DIRECTORY, sessions="")
    )
    pdp = open_embedded(tmp_path, compile_files=compile_once_here)

    explanation = pdp.explainer.suppose(
        SupposedSession(user="ada", agent="worker"), call("files/read", '{"path": "/x"}'), AUTHOR, made_by="gateway"
    )

    (one,) = explanation.sessions
    assert (1000, 200) == (len(one.policies), one.left_out)
    assert ["files/n1100"] == [result.policy.id for result in one.policies if result.value is Value.TRUE]
    assert "allowed: `files/n1100` (files.cedar:1101) permits it" == explanation.summary
