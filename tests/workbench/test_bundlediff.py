"""What changes between two bundles, for policies and for calls."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, Outcome, Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import OPEN_SESSIONS, SCHEMA, bundle_files, compile_once_here, tool
from pdp.workbench.bundlediff import (
    Answer,
    Effect,
    answer_of,
    by_policy,
    compare_calls,
    compare_files,
    compare_policies,
    effect_of,
)
from pdp.workbench.reading import read_suite
from pdp.workbench.runner import CaseResult
from pdp.workbench.suite import Case, Expectation, NamedCall, Suite
from tests.machinery.oracle import judge

DIRECTORY = """
user_groups: {staff: {}, ops: {parents: [staff]}}
users:
  ada: {groups: [ops], attributes: {level: 3}}
  bob: {groups: [staff]}
  approver: {}
agents: {coder: {ceiling: ["files/*"]}, helper: {ceiling: ["files/*"]}}
"""
PATH = {"path": {"type": "string"}}
TOOLS = {
    "files": [
        tool("read", PATH, ["path"]),
        tool("write", PATH | {"size": {"type": "integer"}}, ["path", "size"]),
        tool("drop", PATH, ["path"]),
    ]
}
OVERLAY = "tools: {read: {risk: read_only}, write: {risk: mutating}, drop: {risk: destructive}}"
HEAD = """
sessions:
  ada-coder: {user: ada, agent: coder, tools: ["files/*"]}
  ada-helper: {user: ada, agent: helper, tools: ["files/*"], grants: [big]}
  bob-coder: {user: bob, agent: coder, tools: ["files/*"], grants: [big]}
  bob-helper: {user: bob, agent: helper, tools: ["files/*"]}
calls: {any: {tool: files/read, arguments: {path: a}}}
cases: [{case: any, session: ada-coder, call: any, expect: allow}]
"""
SESSIONS = {
    "ada-coder": ("ada", "coder", ()),
    "ada-helper": ("ada", "helper", ("big",)),
    "bob-coder": ("bob", "coder", ("big",)),
    "bob-helper": ("bob", "helper", ()),
}
PRINCIPALS = (
    "principal",
    'principal in UserGroup::"ops"',
    'principal in UserGroup::"staff"',
    'principal == User::"bob"',
)
ACTIONS = (
    'action in Action::"read_only"',
    'action in Action::"mutating"',
    'action in [Action::"files/read", Action::"files/drop"]',
    'action == Action::"files/write"',
)
CONDITIONS = (
    "",
    'when { context.session in Grant::"big" }',
    'when { context.agent == Agent::"coder" }',
    'when { context.input.path like "*a*" }',
    'unless { context.input.path == "b" }',
    "when { principal has level && principal.level > 2 }",
)
OBLIGATIONS = ("", *(f'@obligation("max_result_bytes: {{bytes: {number}}}")' for number in (1, 2)))
ONLY_WRITE = ("when { context.input.size > 5 }", "when { context.input.size * 4611686018427387904 > 0 }")


def thrown(seed: int) -> random.Random:
    """Return dice that fall the same way for the same seed."""
    return random.Random(seed)  # noqa: S311 - for tests that can be run again, not for secrets


ASKS = ('@step_up("May it?")', "")


def random_policies(dice: random.Random, count: int) -> dict[str, str]:
    """Return policies by id, a few of which can fail to be evaluated."""
    made = {}
    for place in range(count):
        action = dice.choice(ACTIONS)
        conditions = CONDITIONS + (ONLY_WRITE if action == ACTIONS[3] else ())
        effect = dice.choice(("permit", "permit", "forbid"))
        scope = f"{dice.choice(PRINCIPALS)}, {action}, resource"
        note = OBLIGATIONS[place % len(OBLIGATIONS)] if effect == "permit" else ASKS[place % len(ASKS)]
        made[f"files/p{place}"] = f'@id("files/p{place}") {note} {effect} ({scope}) {dice.choice(conditions)};'
    return made


def bundle_of(policies: dict[str, str]) -> Bundle:
    """Load a bundle with these policies."""
    files = bundle_files(
        policies={"files": "\n".join(policies.values())},
        tools=TOOLS,
        directory=DIRECTORY,
        overlays={"files": OVERLAY},
    )
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


def random_suite(dice: random.Random, count: int) -> Suite:
    """Return a suite of calls that are all different as far as the policies can tell, or not."""
    empty = read_suite("tests/generated_test.yaml", HEAD.encode())
    calls, cases = {}, []
    for place in range(count):
        name = dice.choice(("read", "write", "drop"))
        arguments: dict[str, object] = {"path": dice.choice(("a", "b", "ba", ""))}
        arguments |= {"size": dice.randint(-2, 9)} if name == "write" else {}
        call = f"call-{place}"
        calls[call] = NamedCall(
            name=call, line=1, server="files", tool=name, arguments_json=json.dumps(arguments).encode()
        )
        cases.append(
            Case(
                file=empty.file,
                line=1,
                name=call,
                now=1767607200.0,
                session=dice.choice(sorted(SESSIONS)),
                call=call,
                expect=Expectation(),
            )
        )
    return replace(empty, calls=calls, cases=tuple(cases))


@cache
def _judged_bundle(policies: tuple[str, ...]) -> judge.Judge:
    tools = {
        f"files/{name}": judge.Tool(server="files", name=name, risk=risk, digest="", parameters=shape, required=shape)
        for name, risk, shape in (
            ("read", "read_only", {"path": "string"}),
            ("write", "mutating", {"path": "string", "size": "integer"}),
            ("drop", "destructive", {"path": "string"}),
        )
    }
    staff, ops = ("UserGroup", "staff"), ("UserGroup", "ops")
    entities = [
        judge.entity(staff),
        judge.entity(ops, parents=[staff]),
        judge.entity(("User", "ada"), {"level": 3}, [ops]),
        judge.entity(("User", "bob"), {}, [staff]),
        judge.entity(("Agent", "coder")),
        judge.entity(("Agent", "helper")),
    ]
    return judge.Judge(
        judge.Bundle(
            schema=SCHEMA,
            policies="\n".join([*policies, OPEN_SESSIONS]),
            tools=tools,
            facts={},
            entities=entities,
            ceilings={},
            request_seconds=0,
        )
    )


def judged(policies: dict[str, str], case: Case, suite: Suite) -> judge.Answer:
    """Return the answer that the whole policy set gives, asked by nothing of the product."""
    user, agent, grants = SESSIONS[case.session]
    call = suite.calls[case.call]
    attributes = {
        "purpose": "test",
        "tenant": "default",
        "environment": "",
        "opened_by": "gateway",
        "depth": 0,
        "labels": [],
    }
    session = judge.entity(("Session", "s"), attributes, [("Grant", grant) for grant in grants])
    context = {
        "agent": judge.reference("Agent", agent),
        "session": judge.reference("Session", "s"),
        "caller": {"id": "gateway"},
        "opaque": [],
        "targets": {"provenance": [], "links": []},
        "input": json.loads(call.arguments_json),
    }
    made = [session, *(judge.entity(("Grant", grant)) for grant in grants)]
    asked = _judged_bundle(tuple(policies.values()))
    return asked.ask(call.action, user, ("Server", "files"), context, made, case.now)


def expected_effect(was: judge.Answer, now: judge.Answer) -> Effect | None:
    """Return what a change of the answer means, said once more."""
    if now.basis == "policy_error" and was.basis != "policy_error":
        return Effect.NEWLY_ERRING
    if was.basis == now.basis == "permit" and was.obligations != now.obligations:
        lost = [one for one in was.obligations if one not in now.obligations]
        return Effect.LESS_OBLIGED if lost else Effect.MORE_OBLIGED
    if (was.basis == "permit") == (now.basis == "permit"):
        if (was.basis == "approval_required") == (now.basis == "approval_required"):
            return None
        return Effect.NEWLY_LIFTABLE if now.basis == "approval_required" else Effect.NO_LONGER_LIFTABLE
    return Effect.NEWLY_ALLOWED if now.basis == "permit" else Effect.NEWLY_DENIED


@pytest.mark.parametrize("seeds", [(1, 2, 4), pytest.param(range(6), marks=pytest.mark.long)])
def test_what_changes_is_what_brute_force_finds(seeds: Iterable[int]) -> None:
    """On 500 generated calls for each seed, exactly those are found that the whole policy sets decide otherwise."""
    seen = set()
    for seed in seeds:
        dice = thrown(seed)
        old = random_policies(dice, 12)
        new = {**old, **random_policies(dice, 3)}
        del new["files/p11"]
        suite = random_suite(dice, 500)

        found = compare_calls(bundle_of(old), bundle_of(new), [suite])

        expected = {
            case.id: effect
            for case in suite.cases
            if (effect := expected_effect(judged(old, case, suite), judged(new, case, suite))) is not None
        }
        assert expected == {change.name: change.effect for change in found.changes}, f"seed {seed}"
        assert 500 == found.compared
        seen |= set(expected.values())
    # The proof would be empty otherwise.
    assert set(Effect) == seen


def test_a_bundle_decides_nothing_for_its_difference_from_itself() -> None:
    """There is none, and the calls of all suites count as compared."""
    decided: list[CaseResult] = []
    dice = thrown(0)
    bundle, suite = bundle_of(random_policies(dice, 12)), random_suite(dice, 5)

    found = compare_calls(bundle, bundle, [suite, suite], done=decided.append)

    assert (10, (), []) == (found.compared, found.changes, decided)


def test_policies_are_compared_by_id_and_text() -> None:
    """Added, removed and changed policies are listed; one that only moved is not."""
    same = '@id("files/same") permit (principal, action in Action::"read_only", resource);'
    old = {
        "files/gone": '@id("files/gone") forbid (principal, action in Action::"destructive", resource);',
        "files/other": '@id("files/other") permit (principal, action == Action::"files/write", resource);',
        "files/same": same,
    }
    new = {
        "files/same": same,
        "files/other": '@id("files/other") permit (principal, action == Action::"files/drop", resource);',
        "files/new": '@id("files/new") permit (principal in UserGroup::"ops", action, resource is Server);',
    }

    found = compare_policies(bundle_of(old), bundle_of(new))

    assert [("files/gone", "removed"), ("files/new", "added"), ("files/other", "changed")] == [
        (change.id, change.kind) for change in found
    ]


@pytest.mark.parametrize("note", ['@step_up("May it?")', '@step_up("Really?")\n@step_up_run("2")', ""])
def test_what_a_person_is_asked_is_a_change(note: str) -> None:
    """Whether one is asked, what, and about how many calls."""
    forbid = 'forbid (principal, action == Action::"files/read", resource);'
    before = {"files/x": f'@id("files/x")\n@step_up("Really?")\n{forbid}'}
    after = {"files/x": f'@id("files/x")\n{note}\n{forbid}'}

    assert ["changed"] == [one.kind for one in compare_policies(bundle_of(before), bundle_of(after))]


def test_other_files_are_compared_by_content() -> None:
    """What is no policy can change decisions too, so it is named."""
    old = {"a.cedar": b"1", "directory.yaml": b"1", "tools/x.json": b"1"}
    new = {"a.cedar": b"2", "directory.yaml": b"1", "tools/y.json": b"1"}

    assert ("tools/x.json", "tools/y.json") == compare_files(old, new)


ALLOW = Answer(allowed=True, basis="permit")
OBLIGED = Answer(allowed=True, basis="permit", obligations=("a {}",))
ASKED = Answer(basis="approval_required")
DENY = Answer(basis="default_deny")
ERRING = Answer(basis="policy_error", erring=True)
UNDECIDED = Answer(problem="the session cannot be opened")


@pytest.mark.parametrize(
    ("was", "now", "effect"),
    [
        (ALLOW, ALLOW, None),
        (DENY, Answer(basis="forbid"), None),
        (DENY, UNDECIDED, None),
        (ERRING, ERRING, None),
        (DENY, ALLOW, Effect.NEWLY_ALLOWED),
        (ERRING, ALLOW, Effect.NEWLY_ALLOWED),
        (UNDECIDED, ALLOW, Effect.NEWLY_ALLOWED),
        (ALLOW, DENY, Effect.NEWLY_DENIED),
        (ALLOW, UNDECIDED, Effect.NEWLY_DENIED),
        (ALLOW, ERRING, Effect.NEWLY_ERRING),
        (DENY, ERRING, Effect.NEWLY_ERRING),
        (ERRING, DENY, None),
        (OBLIGED, OBLIGED, None),
        (ALLOW, OBLIGED, Effect.MORE_OBLIGED),
        (OBLIGED, ALLOW, Effect.LESS_OBLIGED),
        (OBLIGED, replace(OBLIGED, obligations=("b {}",)), Effect.LESS_OBLIGED),
        (OBLIGED, DENY, Effect.NEWLY_DENIED),
        (DENY, OBLIGED, Effect.NEWLY_ALLOWED),
        (DENY, ASKED, Effect.NEWLY_LIFTABLE),
        (UNDECIDED, ASKED, Effect.NEWLY_LIFTABLE),
        (ASKED, DENY, Effect.NO_LONGER_LIFTABLE),
        (ASKED, ASKED, None),
        (ASKED, ALLOW, Effect.NEWLY_ALLOWED),
        (ALLOW, ASKED, Effect.NEWLY_DENIED),
        (ASKED, ERRING, Effect.NEWLY_ERRING),
    ],
)
def test_effect(was: Answer, now: Answer, effect: Effect | None) -> None:
    """No decision counts as a deny, and an error is shown even if the call was denied before."""
    assert effect is effect_of(was, now)


def test_an_ancestor_that_errs_is_an_error() -> None:
    """Of a delegated call, the error may lie with the session above."""
    ruling = Ruling(outcome=Outcome.DENY, basis=Basis.ANCESTOR_DENIED, ancestor_basis=Basis.POLICY_ERROR)

    assert answer_of(ruling).erring


def test_groups_say_what_decided() -> None:
    """Calls that the same policies decide before and after are grouped, the largest group first."""
    policies = {"files/read": '@id("files/read") permit (principal, action in Action::"read_only", resource);'}
    wider = {"files/all": '@id("files/all") permit (principal, action, resource is Server);'}
    suite = random_suite(thrown(7), 60)

    groups = by_policy(compare_calls(bundle_of(policies), bundle_of(wider), [suite]).having(Effect.NEWLY_ALLOWED))

    assert [("deny default_deny", "allow permit by files/all")] == list(groups)


@pytest.mark.parametrize("old_has_tool", [True, False])
def test_a_tool_that_is_new_can_be_newly_allowed(*, old_has_tool: bool) -> None:
    """Where the old bundle does not know the tool, there is no decision, which is a deny."""
    policies = {"files/all": '@id("files/all") permit (principal, action, resource is Server);'}
    new = bundle_of(policies)
    tools = {"files": TOOLS["files"] if old_has_tool else TOOLS["files"][:1]}
    overlay = OVERLAY if old_has_tool else "tools: {read: {risk: read_only}}"
    files: Callable[..., dict[str, bytes]] = bundle_files
    old = load_bundle(
        files(policies={"files": policies["files/all"]}, tools=tools, directory=DIRECTORY, overlays={"files": overlay}),
        DEFAULT_LIMITS,
        compile_once_here,
    )
    suite = random_suite(thrown(1), 30)

    changed = compare_calls(old, new, [suite]).having(Effect.NEWLY_ALLOWED)

    beyond = [case for case in suite.cases if suite.calls[case.call].tool != "read"]
    assert (0 if old_has_tool else len(beyond)) == len(changed)
