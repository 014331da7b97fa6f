"""A decision log, written by the real thing, replayed through two bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.clock import Deadline, SystemClock
from pdp.limits import DEFAULT_LIMITS
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, CallStatus, Decision, Role
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.words import SessionRequest
from pdp.sessions import access
from pdp.testing.bundles import SCHEMA, bundle_files, compile_once_here, tool, with_terms
from pdp.workbench.bundlediff import Effect
from pdp.workbench.logreplay import FACT_CHARACTERS, LogDifference, compare_records

SESSIONS = """
@id("sessions/all")
permit (principal, action in [Action::"pdp/request_session", Action::"pdp/approve_session"], resource);
@id("sessions/delegate") permit (principal, action == Action::"pdp/delegate_session", resource);
@id("sessions/dropping") permit (principal, action == Action::"pdp/approve_session", resource)
when { context.grants.contains(Grant::"dropping") };
"""
DIRECTORY = """
user_groups: {staff: {}}
users: {ada: {groups: [staff]}, bob: {}, approver: {}}
agents: {coder: {ceiling: ["files/*"]}, helper: {ceiling: ["files/read"]}}
entities: [{type: Thing, id: mine, attributes: {owner: {type: User, id: ada}}}]
"""
OVERLAY = """
tools:
  read: {risk: read_only, adds_labels: [read]}
  drop: {risk: destructive, resource: {type: Thing, id: "{path}"}}
  hide: {risk: mutating, resource: {type: Thing, id: "{path}", log: digest}}
"""
PATH = {"path": {"type": "string"}}
TOOLS = {"files": [tool(name, PATH, ["path"]) for name in ("read", "drop", "hide")]}

GATEWAY = Caller(id="gateway", kind="test", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="test", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)

NAN = float("nan")
FORBID = '@id("files/y") forbid (principal, action == Action::"files/read", resource)'
READ = '@id("files/read") permit (principal, action == Action::"files/read", resource);'
WIDENED = READ.replace(";", ' when { context.session.labels.contains("x") };')


def files_of(
    policies: str, directory: str = DIRECTORY, widening: str = "", terms: str = "ticket?: String"
) -> dict[str, bytes]:
    """Return a bundle's files; the label `widening` widens."""
    files = bundle_files(
        policies={"files": policies},
        tools=TOOLS,
        directory=directory,
        overlays={"files": OVERLAY},
        schema=with_terms(terms) if terms else SCHEMA,
        sessions=SESSIONS,
        labels=("late", "read", "x"),
    )
    plain = f'{{"meaning": "{widening}"'.encode()
    files["bundle.yaml"] = files["bundle.yaml"].replace(plain, plain + b', "widens": true')
    return files


def bundle_of(policies: str, directory: str = DIRECTORY, widening: str = "", **more: str) -> Bundle:
    """Load a bundle."""
    return load_bundle(files_of(policies, directory, widening, **more), DEFAULT_LIMITS, compile_once_here)


OBLIGED = READ.replace(" permit", ' @obligation("redact_result: {fields: [email]}") permit', 1)
LONG_FIELDS = f"[{'a' * 250}, {'b' * 250}, c]"
LONG = READ.replace(" permit", f' @obligation("redact_result: {{fields: {LONG_FIELDS}}}") permit', 1)


class Recorder:
    """A PDP that runs on a bundle and keeps a record."""

    def __init__(self, pdp: Embedded, folder: Path) -> None:
        self._pdp = pdp
        self._folder = folder
        self._ids: dict[str, str] = {}

    def session(
        self,
        user: str = "ada",
        agent: str = "coder",
        *,
        parent: str = "",
        grants: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
        terms: bytes = b"",
    ) -> str:
        """Open a session and return its handle."""
        wanted = SessionRequest(
            user=user,
            agent=agent,
            purpose="test",
            environment="prod",
            tool_patterns=("files/*",),
            parent_session_handle=parent,
            may_delegate=True,
            labels=labels,
            terms_json=terms,
        )
        view, handle = self._pdp.registrar.request(wanted, GATEWAY)
        self._ids[handle] = view.session.id
        if not parent:
            shown = self._pdp.registrar.proposal(view.session.id, grants=grants, caller=APPROVER)
            self._pdp.registrar.approve(
                view.session.id, request_digest=shown.request_digest, grants=grants, caller=APPROVER
            )
        return handle

    def narrow(self, handle: str, label: str) -> None:
        """Give a session a label."""
        session_id = self._ids[handle]
        self._pdp.registrar.narrow(session_id, tool_patterns=(), expires_at=None, labels=(label,), caller=APPROVER)

    def report(self, decision: Decision, *labels: str) -> None:
        """Report what came of a call."""
        token = self._pdp.outcomes.token(decision)
        self._pdp.outcomes.report(
            OutcomeReport(outcome_token=token, status=CallStatus.SUCCEEDED, labels=labels), GATEWAY
        )

    def approve(self, decision: Decision) -> None:
        """Approve what a call waits for."""
        now = SystemClock().now()
        yes = partial(access.approve, now=now, by="approver", session_end=Deadline.after(now, 600.0))
        self._pdp.history.access().answer(decision.access_request_id, yes)

    def call(self, handle: str, name: str, path: str = "mine") -> Decision:
        """Make a call."""
        arguments = f'{{"path": "{path}"}}'.encode()
        call = Call(session_handle=handle, server="files", tool=name, arguments_json=arguments)
        return self._pdp.authorizer.authorize(CallRequest(call=call), GATEWAY)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """Return the record of the calls."""
        return [one for one in self.records if one["kind"] == "decision"]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the record."""
        return [one.record for one in read_records(self._folder)]


@contextmanager
def running(tmp_path: Path, policies: str, widening: str = "") -> Iterator[Recorder]:
    """Run a PDP on these policies."""
    folder = tmp_path / "policies"
    for name, content in files_of(policies, widening=widening).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    log = DecisionLog(tmp_path / "record", key=b"k" * 32, signer=SigningKey.generate())
    pdp = open_embedded(folder, observer=log, compile_files=compile_once_here)
    try:
        yield Recorder(pdp, tmp_path / "record")
        log.tick()
    finally:
        pdp.close()
        log.close()


def outcome(found: LogDifference) -> list[tuple[str, Effect]]:
    """Return what changed."""
    return [(change.what, change.effect) for change in found.changes]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (READ, []),
        ('@id("files/x") permit (principal, action, resource is Thing);', [
            ("files/read", Effect.NEWLY_DENIED), ("files/drop", Effect.NEWLY_ALLOWED)
        ]),
        (READ + '@id("files/x") forbid (principal in UserGroup::"staff", action, resource);', [
            ("files/read", Effect.NEWLY_DENIED)
        ]),
        (READ + '@id("files/x") permit (principal, action == Action::"files/drop", resource);', [
            ("files/drop", Effect.NEWLY_ALLOWED)
        ]),
        (
            READ + '@id("files/x") permit (principal, action == Action::"files/drop", resource) '
            "when { resource has owner && resource.owner == principal };",
            [("files/drop", Effect.NEWLY_ALLOWED)],
        ),
        (
            READ + '@id("files/x") permit (principal, action == Action::"files/drop", resource) '
            'when { context.session in Grant::"dropping" };',
            [("files/drop", Effect.NEWLY_ALLOWED)],
        ),
        (
            READ + '@id("files/x") permit (principal, action == Action::"files/drop", resource) '
            'when { context.now < datetime("2020-01-01") };',
            [],
        ),
    ],
)  # fmt: skip
def test_recorded_calls_are_decided_again(tmp_path: Path, changed: str, expected: list[tuple[str, Effect]]) -> None:
    """By user, agent, grants, resource and time, which the record holds."""
    with running(tmp_path, READ) as pdp:
        handle = pdp.session(grants=("dropping",))
        pdp.call(handle, "read")
        pdp.call(handle, "drop")
        found = compare_records(bundle_of(READ), bundle_of(changed), pdp.records)

    assert (expected, {}, 2) == (outcome(found), found.undecided, found.decided)


@pytest.mark.parametrize(
    ("recorded", "old", "new", "effect"),
    [
        (OBLIGED, OBLIGED, OBLIGED, None),
        (LONG, LONG, LONG, None),
        (LONG, LONG, LONG + "// changed", None),
        (OBLIGED, OBLIGED, OBLIGED + "// changed", None),
        (OBLIGED, OBLIGED, READ, Effect.LESS_OBLIGED),
        (LONG, LONG, LONG.replace("c]", "d]"), Effect.LESS_OBLIGED),
        (READ, READ, OBLIGED, Effect.MORE_OBLIGED),
        (READ, OBLIGED, READ, Effect.LESS_OBLIGED),
    ],
)
def test_recorded_obligations_are_compared(
    tmp_path: Path, recorded: str, old: str, new: str, effect: Effect | None
) -> None:
    """With those of the same call under another bundle; of long parameters by the digest that the record holds."""
    with running(tmp_path, recorded) as pdp:
        pdp.call(pdp.session(), "read")
        found = compare_records(bundle_of(old), bundle_of(new), pdp.records)

    assert ([("files/read", effect)] if effect else [], {}) == (outcome(found), found.undecided)


@pytest.mark.parametrize(
    "condition",
    [
        'when { context.input.path == "x" }',
        'unless { context.opaque.contains("x") }',
        'when { context.caller.id == "x" }',
    ],
)
def test_what_the_record_does_not_hold_is_undecided(tmp_path: Path, condition: str) -> None:
    """Arguments and facts of the gateway: such a call is counted and never guessed."""
    reading = f'@id("files/y") permit (principal, action == Action::"files/read", resource) {condition};'
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    assert ([], {"policies read what is not in the log": 1}, 0) == (outcome(found), found.undecided, found.decided)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('context.session.purpose == "test"', [True, True, True]),
        ('context.session.purpose == "x"', [False, False, False]),
        ('context["session"].labels.contains("late")', [False, True, True]),
        ('context.session.environment == "prod" && context.session.opened_by == "gateway"', [True, True, True]),
    ],
)
def test_what_a_session_was_approved_with_is_read(tmp_path: Path, condition: str, expected: list[bool]) -> None:
    """Purpose, environment and labels as they were at each call, of a session above as well."""
    reading = f"{READ} {FORBID} when {{ {condition} }};"
    with running(tmp_path, READ) as pdp:
        handle = pdp.session()
        pdp.call(handle, "read")
        pdp.narrow(handle, "late")
        pdp.call(handle, "read")
        pdp.call(pdp.session(agent="helper", parent=handle), "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    changed = {change.name.partition(" ")[0] for change in found.changes}
    assert ({}, expected) == (found.undecided, [one["id"] in changed for one in pdp.decisions])


def test_what_reads_terms_is_undecided(tmp_path: Path) -> None:
    """The values of most terms are not in the log; a call of a session without terms is decided."""
    reading = f'{READ} {FORBID} when {{ context.session.terms has ticket && context.session.terms.ticket == "x" }};'
    with running(tmp_path, READ) as pdp:
        for terms in (b"", b'{"ticket": "x"}'):
            pdp.call(pdp.session(terms=terms), "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    assert ([], {"policies read what is not in the log": 1}, 1) == (outcome(found), found.undecided, found.decided)


def test_what_reads_targets_is_undecided(tmp_path: Path) -> None:
    """The log holds no arguments, so it is unknown what a call names."""
    reading = f'{READ} {FORBID} when {{ context.targets.provenance.contains("unseen") }};'
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    assert ([], {"policies read what is not in the log": 1}) == (outcome(found), found.undecided)


@pytest.mark.parametrize(
    "condition", ['context.counts["files/read"] > 3', 'context.done.contains("files/drop")'], ids=["counts", "done"]
)
def test_what_reads_counts_is_undecided(tmp_path: Path, condition: str) -> None:
    """How often a session had called what is not in the log."""
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "read")
        found = compare_records(bundle_of(READ), bundle_of(f"{READ} {FORBID} when {{ {condition} }};"), pdp.records)

    assert ([], {"policies read what is not in the log": 1}) == (outcome(found), found.undecided)


@pytest.mark.parametrize(
    ("terms", "fits"),
    [("ticket?: String", True), ("ticket: Bool, more?: Long", True), ("more?: Long", False), ("", False)],
)
def test_a_schema_without_a_term_of_a_session_denies(tmp_path: Path, terms: str, *, fits: bool) -> None:
    """The names of terms are in the log, and with them whether the schema can take them."""
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(terms=b'{"ticket": "x"}'), "read")
        found = compare_records(bundle_of(READ), bundle_of(READ + "// changed", terms=terms), pdp.records)

    assert ({}, [] if fits else [("files/read", Effect.NEWLY_DENIED)]) == (found.undecided, outcome(found))


def test_a_label_that_a_call_added_is_read(tmp_path: Path) -> None:
    """From the next call on, in the session and in those above it."""
    reading = f'{READ} {FORBID} when {{ context.session.labels.contains("read") }};'
    with running(tmp_path, READ) as pdp:
        parent = pdp.session()
        for handle in (pdp.session(agent="helper", parent=parent), parent, parent, pdp.session()):
            pdp.call(handle, "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    changed = {change.name.partition(" ")[0] for change in found.changes}
    assert ({}, [False, True, True, False]) == (found.undecided, [one["id"] in changed for one in pdp.decisions])


def test_a_label_that_came_with_an_outcome_is_read(tmp_path: Path) -> None:
    """From the report on, in the session and in those above it."""
    reading = f'{READ} {FORBID} when {{ context.session.labels.contains("late") }};'
    with running(tmp_path, READ) as pdp:
        parent = pdp.session()
        child = pdp.session(agent="helper", parent=parent)
        pdp.report(pdp.call(child, "read"), "late")
        for handle in (child, parent, pdp.session()):
            pdp.call(handle, "read")
        found = compare_records(bundle_of(READ), bundle_of(reading), pdp.records)

    changed = {change.name.partition(" ")[0] for change in found.changes}
    assert [False, True, True, False] == [one["id"] in changed for one in pdp.decisions]


def test_a_label_that_a_call_adds_widens_as_its_approver_saw_it(tmp_path: Path) -> None:
    """An approver sees which labels the tools of a session add."""
    widened = READ.replace(";", ' when { context.session.labels.contains("read") };').replace("/read", "/again", 1)
    old = bundle_of(READ, widening="read")
    with running(tmp_path, READ, widening="read") as pdp:
        handle = pdp.session()
        for _ in range(2):
            pdp.call(handle, "read")
        found = compare_records(old, bundle_of(widened, widening="read"), pdp.records)

    assert ([("files/read", Effect.NEWLY_DENIED)], {}) == (outcome(found), found.undecided)


def test_a_label_that_its_approver_did_not_see_as_widening_denies(tmp_path: Path) -> None:
    """As at the gate: whether it came with the request or later, of a session above as well."""
    with running(tmp_path, READ) as pdp:
        asked, later, never = pdp.session(labels=("x",)), pdp.session(), pdp.session()
        pdp.narrow(later, "x")
        for handle in (asked, later, pdp.session(agent="helper", parent=later), never):
            pdp.call(handle, "read")
        found = compare_records(
            bundle_of(READ), bundle_of(f"{READ} {WIDENED.replace('/read', '/x', 1)}", widening="x"), pdp.records
        )

    assert {"deny label_not_approved"} == {str(change.now) for change in found.changes}
    assert [("files/read", Effect.NEWLY_DENIED)] * 3 == outcome(found)
    assert 4 == found.decided


def test_a_label_that_its_approver_saw_as_widening_permits(tmp_path: Path) -> None:
    """What the approval's bundle let widen is decided by the policies, if that bundle is one of the two."""
    old = bundle_of(WIDENED, widening="x")
    new = bundle_of(WIDENED + READ.replace("read", "drop"), widening="x")
    third = bundle_of(WIDENED + READ.replace("read", "hide"), widening="x")
    with running(tmp_path, WIDENED, widening="x") as pdp:
        pdp.call(pdp.session(labels=("x",)), "read")
        pdp.call(pdp.session(), "read")
        records = pdp.records

    assert ([], {}) == (outcome(compare_records(old, new, records)), compare_records(old, new, records).undecided)
    assert {"what the session's approver saw is not in the log": 1} == compare_records(third, new, records).undecided


@pytest.mark.parametrize(
    ("condition", "expected"),
    [('purpose == "x"', 2), ('labels.contains("x")', 2), ('environment == "x"', 1), ('opened_by == "x"', 1)],
)
def test_an_approval_from_an_old_log_leaves_calls_undecided(tmp_path: Path, condition: str, expected: int) -> None:
    """An old log does not hold what was asked for; of the session itself each call says two."""
    reading = f"{READ} {FORBID} when {{ context.session.{condition} }};"
    with running(tmp_path, READ) as pdp:
        handle = pdp.session()
        pdp.call(handle, "read")
        pdp.call(pdp.session(agent="helper", parent=handle), "read")
        old = [one | {"facts": {}} if one["kind"] == "session.approved" else one for one in pdp.records]
    found = compare_records(bundle_of(READ), bundle_of(reading), old)

    assert ([], {"policies read what is not in the log": expected}) == (outcome(found), found.undecided)


def test_a_resource_that_is_not_logged_is_undecided(tmp_path: Path) -> None:
    """A digest cannot be decided about."""
    wider = READ + '@id("files/x") permit (principal, action, resource is Thing);'
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "hide")
        found = compare_records(bundle_of(READ), bundle_of(wider), pdp.records)

    assert ([], {"the resource is not in the log": 1}) == (outcome(found), found.undecided)


def test_all_sessions_of_a_chain_must_be_permitted(tmp_path: Path) -> None:
    """A delegated call is denied as soon as the session above would be."""
    narrower = READ + '@id("files/x") forbid (principal, action, resource) when { context.agent == Agent::"coder" };'
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(agent="helper", parent=pdp.session()), "read")
        found = compare_records(bundle_of(READ), bundle_of(narrower), pdp.records)

    assert [("files/read", Effect.NEWLY_DENIED)] == outcome(found)


@pytest.mark.parametrize(
    "directory",
    [
        DIRECTORY.replace('coder: {ceiling: ["files/*"]}', 'coder: {ceiling: ["files/drop"]}'),
        DIRECTORY.replace("ada: {groups: [staff]}, ", "").replace("type: User, id: ada", "type: User, id: bob"),
    ],
    ids=["ceiling", "user"],
)
def test_a_directory_that_lacks_what_it_had_denies(tmp_path: Path, directory: str) -> None:
    """An agent with a lower ceiling and a user who is gone lose what they had."""
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "read")
        found = compare_records(bundle_of(READ), bundle_of(READ, directory), pdp.records)

    assert [("files/read", Effect.NEWLY_DENIED)] == outcome(found)


def test_what_the_gate_denied_is_undecided(tmp_path: Path) -> None:
    """No policy was asked, so no policy could change it."""
    with running(tmp_path, READ) as pdp:
        pdp.call("pdps_unknown", "read")
        found = compare_records(bundle_of(READ), bundle_of(READ), pdp.records)

    assert {"not decided by the policies": 1} == found.undecided


def test_what_a_person_was_asked_about_is_undecided(tmp_path: Path) -> None:
    """Also a call that one approved: no policy holds what people answer."""
    lifted = FORBID.replace(" forbid", ' @step_up("May it?") forbid', 1)
    asking = f"{READ} {lifted};"
    with running(tmp_path, asking) as pdp:
        session = pdp.session()
        pdp.approve(pdp.call(session, "read"))
        decisions = [pdp.call(session, "read"), pdp.call(session, "drop")]
        found = compare_records(bundle_of(asking), bundle_of(READ), pdp.records)

    assert [True, False] == [one.allowed for one in decisions]
    assert {"a person was asked, and what people answer is not in the policies": 2} == found.undecided
    assert [] == outcome(found)


def test_a_call_without_its_approval_is_undecided(tmp_path: Path) -> None:
    """If the record begins after the approval, or its list of grants was cut, the grants are unknown."""
    other = READ.replace('files/read")', 'files/other")')
    with running(tmp_path, READ) as pdp:
        pdp.call(pdp.session(), "read")
        records = pdp.records
    late = [one for one in records if one["kind"] == "decision"]
    cut = [
        one | {"facts": {"grants": "g" * FACT_CHARACTERS}} if one["kind"] == "session.approved" else one
        for one in records
    ]

    for kept in (late, cut):
        assert {"the session's approval is not in the log": 1} == compare_records(
            bundle_of(READ), bundle_of(other), kept
        ).undecided


ODD: tuple[dict[str, Any], ...] = (
    {"kind": "session.approved", "session_id": "s", "facts": "none"},
    {"kind": "session.approved", "session_id": "s", "facts": {"duration": "1", "terms": 3, "tools": 3, "labels": {}}},
    {"kind": ["decision"]},
    {"kind": "decision", "basis": []},
    {"kind": "decision", "basis": "permit", "session_id": "s", "ancestors": 3, "labels_added": 3},
    {"kind": "decision", "basis": "permit", "bundle_version": "", "policies": 3, "obligations": 3},
    {
        "kind": "decision",
        "basis": "permit",
        "bundle_version": "",
        "obligations": [3, {}, {"id": 3, "parameters": {"a": NAN}}],
    },
    {
        "kind": "decision",
        "basis": "permit",
        "session_id": "s",
        "server": "files",
        "tool": "read",
        "resource_id": "files",
    },
)


def test_a_log_from_others_is_replayed_as_far_as_it_goes() -> None:
    """Fields of other types are as if they were missing."""
    old, new = bundle_of(READ), bundle_of(FORBID + ";")
    records = [{name: old.version if name == "bundle_version" else value for name, value in one.items()} for one in ODD]

    found = compare_records(old, new, records)

    assert 5 == found.decisions
