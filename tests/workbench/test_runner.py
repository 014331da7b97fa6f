"""Running cases: the real PDP decides, sessions really are in their states, and a wrong case fails."""

from __future__ import annotations

from functools import cache

import pytest

from pdp.decision.explainer import CallExplainer
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, Outcome, SessionState
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import compile_once_here, with_terms
from pdp.workbench.reasons import Reasons
from pdp.workbench.runner import run
from tests.workbench.material import HEAD, bundle, material_files, only, report, suite

SESSION = "  {name}: {{user: ada, agent: coder, tools: ['files/*'], {more}}}\n"


OBLIGING = """
@id("files/obliged")
@obligation("redact_result: {fields: [a, b]}, notice: {text: x}")
permit (principal in UserGroup::"staff", action in Action::"read_only", resource);
"""


@cache
def obliging() -> Bundle:
    """Return a bundle whose reads have two obligations; it declares a third."""
    manifest = b"obligations: {log_access: {meaning: Tell the owner.}}"
    files = {**material_files(), "files.cedar": OBLIGING.encode(), "bundle.yaml": manifest}
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


TARGETS = """
@id("files/sources")
permit (principal, action == Action::"files/read", resource)
when { ["named", "known"].containsAll(context.targets.provenance) };
"""


WRITES = '@id("files/writes") permit (principal, action == Action::"files/write", resource);'


@cache
def sourced() -> Bundle:
    """Return a bundle that permits to read what the session names, or its user knows."""
    files = {
        **material_files(),
        "files.cedar": TARGETS.encode(),
        "tools/files.yaml": b"tools: {read: {risk: read_only, targets: [path]}, write: {risk: mutating}}",
        "bundle.yaml": b"known: [team]",
        "directory.yaml": material_files()["directory.yaml"].replace(
            b"[staff]}", b"[staff], attributes: {team: reds}}", 1
        ),
    }
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


@pytest.mark.parametrize(
    ("more", "path", "outcome"),
    [
        ("", "reds", "allow"),
        ("", "blues", "deny"),
        ("purpose: ask the blues", "blues", "allow"),
        ("", "greens", "deny"),
        ("user: zoe", "greens", "allow"),
        ("user: zoe", "reds", "deny"),
    ],
)
def test_targets_are_seen_as_in_a_call(more: str, path: str, outcome: str) -> None:
    """The purpose of the session, and the directory with the users that the file adds."""
    head = (
        "users: {zoe: {groups: [staff], attributes: {team: greens}}}\n"
        f"sessions: {{work: {{{more or 'user: ada'}, {'user: ada, ' * more.startswith('purpose')}"
        "agent: coder, tools: ['files/*']}}\n"
        f"calls: {{read: {{tool: files/read, arguments: {{path: {path}}}}}}}\n"
    )
    cases = f"  - {{case: one, session: work, call: read, expect: {{outcome: {outcome}}}}}\n"

    (result,) = run(sourced(), [suite(cases, head)]).results

    assert () == result.problems


@pytest.mark.parametrize(
    ("expected", "problems"),
    [
        ("[notice, redact_result]", []),
        ("[redact_result: {fields: [a, b]}, notice: {text: x}]", []),
        ("[redact_result, notice: {text: x}]", []),
        ("[notice]", ['obligations: `redact_result {"fields":["a","b"]}` was not expected']),
        (
            "[]",
            [
                'obligations: `notice {"text":"x"}` was not expected',
                'obligations: `redact_result {"fields":["a","b"]}` was not expected',
            ],
        ),
        ("[notice, redact_result, log_access]", ["obligations: `log_access` is missing"]),
        ("[notice, redact_result, notice]", ["obligations: `notice` is missing"]),
        ("[notice, redact_result, notice: {text: x}]", ["obligations: `notice` is missing"]),
        (
            "[notice, redact_result, log_acces]",
            ["unknown obligation: `log_acces`; did you mean `log_access`?"],
        ),
        (
            "[notise, redact_result]",
            [
                "unknown obligation: `notise`; did you mean `notice`?",
                'obligations: `notice {"text":"x"}` was not expected',
            ],
        ),
        (
            "[notice, redact_result: {fields: [a]}]",
            [
                'obligations: `redact_result {"fields":["a"]}` is missing',
                'obligations: `redact_result {"fields":["a","b"]}` was not expected',
            ],
        ),
    ],
)
def test_obligations_are_compared(expected: str, problems: list[str]) -> None:
    """By name, and with their parameters where the case states them; each must be stated as often as it is there."""
    cases = f"  - {{case: one, session: work, call: read, expect: {{outcome: allow, obligations: {expected}}}}}\n"
    (result,) = run(obliging(), [suite(cases)]).results

    assert tuple(problems) == result.problems


@pytest.mark.parametrize(
    ("overlay", "after", "outcome"),
    [
        ("results: trusted", "{call: list, result: [blues, greens]}", "allow"),
        ("results: trusted", "{call: list, result: 'teams: reds'}, {call: list, result: '- blues'}", "allow"),
        ("results: trusted", "{call: asked, result: 'no team blues: is blues right?'}", "deny"),
        ("results: trusted", "list", "deny"),
        ("results: trusted", "{call: list, failed: true}", "deny"),
        ("issues: [id]", "{call: list, result: {id: blues}}", "allow"),
        ("issues: [id]", "{call: list, result: {name: blues}}", "deny"),
        ("risk: mutating", "{call: list, result: [blues]}", "deny"),
    ],
)
@pytest.mark.parametrize("session", ["work", "child"])
def test_names_come_from_the_results_of_earlier_calls(overlay: str, after: str, outcome: str, session: str) -> None:
    """As a gateway would report them: by the overlay of the tool that returned them, in a session and below it."""
    files = {
        **material_files(),
        "files.cedar": (TARGETS.replace('"known"', '"known", "issued", "clean"') + WRITES).encode(),
        "tools/files.yaml": f"tools: {{read: {{risk: read_only, targets: [path]}}, write: {{{overlay}}}}}".encode(),
    }
    head = (
        "sessions: {work: {user: ada, agent: coder, tools: ['files/*']}, child: {parent: work, tools: ['files/*']}}\n"
        "calls:\n  read: {tool: files/read, arguments: {path: blues}}\n"
        "  list: {tool: files/write, arguments: {path: x, size: 1}}\n"
        "  asked: {tool: files/write, arguments: {path: blues, size: 1}}\n"
    )
    cases = f"  - {{case: one, session: {session}, after: [{after}], call: read, expect: {{outcome: {outcome}}}}}\n"
    bundle = load_bundle(files, DEFAULT_LIMITS, compile_once_here)

    (result,) = run(bundle, [suite(cases, head)]).results

    assert () == result.problems
    assert result.facts is not None
    assert result.facts.snapshot is not None
    assert result.facts.call is not None
    explained = CallExplainer().explain(result.facts.snapshot, result.facts.call, "pep", result.facts.find)
    assert (outcome == "allow") == explained.ruling.allowed


CHANGING = """
@id("files/all")
permit (principal, action in [Action::"files/read", Action::"files/write"], resource);

@id("files/no-write-after-read")
forbid (principal, action == Action::"files/write", resource)
when { context.session.labels.contains("seen") };
"""


@cache
def changing() -> Bundle:
    """Return a bundle whose reads add a label to their session, and whose calls sessions can limit."""
    files = {
        **material_files(),
        "files.cedar": CHANGING.encode(),
        "schema.cedarschema": with_terms("max_calls?: Long").encode(),
        "tools/files.yaml": b"tools: {read: {risk: read_only, adds_labels: [seen]}, write: {risk: mutating}}",
        "bundle.yaml": b"labels: {seen: {meaning: It has read what others wrote.}}",
    }
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


@pytest.mark.parametrize("calls", [["read", "write"], ["read", "read", "write", "write"]])
@pytest.mark.parametrize("more", ["grants: []", "terms: {max_calls: 1}"])
def test_no_case_changes_the_session_of_another(calls: list[str], more: str) -> None:
    """Labels that a call adds, and what it takes of a budget, end with its case."""
    cases = "".join(
        f"  - {{case: c{number}, session: work, call: {call}, expect: allow}}\n" for number, call in enumerate(calls)
    )
    head = HEAD.replace("work: {", f"work: {{{more}, ", 1)
    results = run(changing(), [suite(cases, head)]).results

    assert [()] * len(calls) == [result.problems for result in results]


def test_a_call_that_changes_nothing_shares_its_session() -> None:
    """Only the cases whose calls can change a session open one of their own."""
    cases = "".join(f"  - {{case: w{n}, session: work, call: write, expect: allow}}\n" for n in range(3))
    results = run(changing(), [suite(cases)]).results

    ids = {result.facts.snapshot.chain[0].id for result in results if result.facts and result.facts.snapshot}
    assert 1 == len(ids)


def test_the_facts_of_a_case_are_those_before_its_call() -> None:
    """What the call itself adds to the session is not what it was decided by."""
    result = run(changing(), [suite("  - {case: one, session: work, call: read, expect: allow}\n")]).results[0]

    assert result.facts
    assert result.facts.snapshot
    assert () == result.facts.snapshot.chain[0].labels


ASKING = CHANGING.replace('@id("files/no', '@step_up("May it write after it has read?")\n@id("files/no')


@cache
def asking() -> Bundle:
    """Return the same bundle where a person can let a session write after it has read."""
    files = {
        **material_files(),
        "files.cedar": ASKING.encode(),
        "schema.cedarschema": with_terms("max_calls?: Long").encode(),
        "tools/files.yaml": b"tools: {read: {risk: read_only, adds_labels: [seen]}, write: {risk: mutating}}",
        "bundle.yaml": b"labels: {seen: {meaning: It has read what others wrote.}}",
    }
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


@pytest.mark.parametrize(
    ("said", "expect", "problem"),
    [
        ("after: [read]", "deny approval_required", ""),
        ("after: [read]", "{basis: approval_required, policies: [files/no-write-after-read]}", ""),
        ("after: [read]", "deny forbid", "expected basis `forbid`, got `approval_required`"),
        ("after: [read], approvals: [write]", "{outcome: allow, policies: [files/all]}", ""),
        ("after: [read, write], approvals: [write]", "allow", ""),
        ("after: [read, write]", "allow", "call `write` of `after` must be allowed, and is denied: approval_required"),
        ("after: [read], approvals: [read, write]", "allow", "call `read` of `approvals` never waits for a person"),
        ("approvals: [write]", "allow", "call `write` of `approvals` never waits for a person"),
    ],
)
def test_a_person_can_be_asked(said: str, expect: str, problem: str) -> None:
    """A case says which calls a person approves; all others wait."""
    result = run(asking(), [suite(f"  - {{case: c, session: work, {said}, call: write, expect: {expect}}}\n")]).results[
        0
    ]

    assert [problem] * bool(problem) == [one[: len(problem)] for one in result.problems]


def test_no_case_asks_too_much_for_another() -> None:
    """However many share a session, none of them finds what another one has asked."""
    head = HEAD.replace("work: {", "work: {labels: [seen], ", 1)
    arguments = [
        f"  w{number}: {{tool: files/write, arguments: {{path: p{number}, size: 1}}}}\n" for number in range(12)
    ]
    names = [f"w{number}" for number in range(12)]
    cases = "".join(f"  - {{case: {n}, session: work, call: {n}, expect: deny approval_required}}\n" for n in names)
    results = run(asking(), [suite(cases, head + "".join(arguments))]).results

    assert [()] * 12 == [result.problems for result in results]


HISTORY = HEAD.replace(
    "  gone:",
    """  two: {user: ada, agent: coder, tools: ["files/*"], terms: {max_calls: 2}}
  above: {user: ada, agent: coder, tools: ["files/*"], may_delegate: true}
  below: {parent: above, agent: helper, tools: ["files/read"]}
  gone:""",
)


@pytest.mark.parametrize(
    ("session", "after", "call", "expect"),
    [
        ("work", "[write, write]", "write", "allow"),
        ("work", "[read]", "write", "deny forbid"),
        ("work", "[write, {call: write, labels: [seen]}]", "write", "deny forbid"),
        ("work", "[{call: write, labels: [seen], failed: true}]", "write", "deny forbid"),
        ("work", "[{call: write, failed: true}]", "write", "allow"),
        ("below", "[read]", "read", "allow"),
        ("two", "[write]", "write", "allow"),
        ("two", "[write, write]", "write", "deny budget_exhausted"),
        ("work", "[read]", "missing", "deny unknown_tool"),
    ],
)
def test_calls_are_made_before_that_of_a_case(session: str, after: str, call: str, expect: str) -> None:
    """Their labels, the labels that are reported of them, and what they take of budgets are there."""
    head = HISTORY + "  missing: {tool: files/gone}\n"
    cases = f"  - {{case: c, session: {session}, after: {after}, call: {call}, expect: {expect}}}\n"
    alone = (
        f"  - {{case: alone, session: {session}, call: write, expect: {'deny' if session == 'below' else 'allow'}}}\n"
    )

    results = run(changing(), [suite(cases + alone, head)]).results

    assert [(), ()] == [result.problems for result in results]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("[read, write]", "call `write` of `after` must be allowed, and is denied: forbid files/no-write-after-read"),
        (
            "[broken]",
            "call `broken` of `after` must be allowed, and is denied: invalid_arguments (`$.path`: is required)",
        ),
        ("[missing]", "call `missing`: unknown tool: `files/gone`; did you mean `files/read`?"),
        (
            "[{call: read, labels: [sen]}]",
            "call `read` cannot be reported: `labels[0]`: unknown label: `sen`; did you mean `seen`?",
        ),
    ],
)
def test_a_history_that_cannot_be_fails_the_case(after: str, said: str) -> None:
    """Whatever the case expects; a case that no session can reach shows nothing."""
    head = HISTORY + "  missing: {tool: files/gone}\n  broken: {tool: files/read}\n"
    result = run(
        changing(), [suite(f"  - {{case: c, session: work, after: {after}, call: write, expect: deny}}\n", head)]
    )

    assert [(said,)] == [one.problems for one in result.results]


def test_a_bundle_without_labels_takes_no_report() -> None:
    """As a gateway gets no token for one. That a call failed makes no difference in it, and is no mistake."""
    labels, failed = (
        only(f"  - {{case: c, session: work, after: [{{call: read, {said}}}], call: read, expect: allow}}\n")
        for said in ("labels: [seen]", "failed: true")
    )

    assert ("call `read` cannot be reported: the bundle makes no use of it",) == labels.problems
    assert () == failed.problems


def test_what_was_asked_for_a_history_is_a_fact() -> None:
    """So that coverage counts it, and a changed policy that decides only about it is noticed."""
    cases = "  - {case: c, session: work, after: [write], call: read, expect: allow}\n"
    (result,) = run(changing(), [suite(cases)]).results

    assert result.facts
    assert ["files/write"] == [one.action for one in result.facts.opening if one.action.startswith("files/")]
    assert ["files/read"] == [one.action for one in result.facts.asked]


def test_each_of_two_obligations_of_a_name_is_stated() -> None:
    """One name without parameters is one obligation, not all of that name."""
    again = OBLIGING.replace("files/obliged", "files/again").replace("text: x", "text: y")
    files = {**material_files(), "files.cedar": (OBLIGING + again).encode()}
    expected = ("[redact_result, notice, notice: {text: y}]", "[redact_result, notice]")
    cases = "".join(
        f"  - {{case: c{place}, session: work, call: read, expect: {{outcome: allow, obligations: {listed}}}}}\n"
        for place, listed in enumerate(expected)
    )

    both, one = run(load_bundle(files, DEFAULT_LIMITS, compile_once_here), [suite(cases)]).results

    assert () == both.problems
    assert ('obligations: `notice {"text":"y"}` was not expected',) == one.problems


def with_sessions(**more: str) -> str:
    """Return the head of a file with further sessions, each with further fields."""
    added = "".join(SESSION.format(name=name, more=text) for name, text in more.items())
    return HEAD.replace("calls:\n", added + "calls:\n")


@pytest.mark.parametrize(
    "expect",
    [
        "allow",
        "allow permit",
        "{outcome: allow}",
        "{basis: permit}",
        "{outcome: allow, basis: permit, policies: [files/staff-read]}",
        "{errors: []}",
        "{obligations: []}",
    ],
)
def test_right_expectation_passes(expect: str) -> None:
    """What a case leaves out is not checked."""
    result = only(f"  - {{case: one, session: work, call: read, expect: {expect}}}\n")

    assert () == result.problems


@pytest.mark.parametrize(
    ("case", "problems"),
    [
        ("call: secret, expect: allow", ["expected `allow`, got `deny`"]),
        ("call: write, expect: deny forbid", ["expected basis `forbid`, got `default_deny`"]),
        ("call: read, expect: {policies: []}", ["policies: `files/staff-read` was not expected"]),
        (
            "call: read, expect: {policies: [files/staff-read, guardrails/no-secrets]}",
            ["policies: `guardrails/no-secrets` is missing"],
        ),
        (
            "call: read, expect: {policies: [files/staff-red]}",
            [
                "unknown policy: `files/staff-red`; did you mean `files/staff-read`?",
                "policies: `files/staff-read` was not expected",
            ],
        ),
    ],
)
def test_wrong_expectation_fails(case: str, problems: list[str]) -> None:
    """Each difference between what is expected and what was decided is said."""
    result = only(f"  - {{case: one, session: work, {case}}}\n")

    assert problems == list(result.problems)


def test_unexpected_error_fails_where_a_deny_is_expected() -> None:
    """A policy that cannot be evaluated denies, and that is not the deny that a test means."""
    result = only("  - {case: one, session: granted, call: huge, expect: deny}\n")

    assert ("unexpected error: `files/write-when-granted` could not be evaluated",) == result.problems


def test_expected_error_passes() -> None:
    """A test may mean that a policy cannot be evaluated, and then names it."""
    result = only(
        "  - {case: one, session: granted, call: huge,"
        " expect: {basis: policy_error, errors: [files/write-when-granted]}}\n"
    )

    assert () == result.problems


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("{tool: files/rad}", "call `x`: unknown tool: `files/rad`; did you mean `files/read`?"),
        ("{tool: files/read, arguments: {pth: a}}", "the basis of the deny is `invalid_arguments`"),
        ("{tool: files/read, arguments: '{'}", "the basis of the deny is `invalid_arguments`"),
        ("{tool: files/read, definition_digest: sha256:0}", "the basis of the deny is `tool_changed`"),
    ],
)
def test_slip_in_a_call_does_not_pass_for_a_deny(call: str, said: str) -> None:
    """A case that expects a deny fails when it is denied because of a slip in the case."""
    result = only("  - {case: one, session: work, call: x, expect: deny}\n", f"{HEAD}  x: {call}\n")

    assert result.problems[0].startswith(said)


@pytest.mark.parametrize(
    ("call", "basis"),
    [
        ("{tool: files/rad}", "unknown_tool"),
        ("{tool: files/read, arguments: '{'}", "invalid_arguments"),
        ("{tool: files/read, definition_digest: sha256:0}", "tool_changed"),
    ],
)
def test_deny_of_the_gate_can_be_meant(call: str, basis: str) -> None:
    """A case that names the basis may be about what agents write wrongly."""
    result = only(f"  - {{case: one, session: work, call: x, expect: deny {basis}}}\n", f"{HEAD}  x: {call}\n")

    assert () == result.problems


@pytest.mark.parametrize("state", list(SessionState))
def test_session_is_in_its_state(state: SessionState) -> None:
    """A case finds its session in the state that it names, at the time that it names."""
    bases = {
        SessionState.ACTIVE: Basis.PERMIT,
        SessionState.EXPIRED: Basis.SESSION_EXPIRED,
        SessionState.REVOKED: Basis.SESSION_REVOKED,
        SessionState.ENDED: Basis.SESSION_ENDED,
        SessionState.REQUESTED: Basis.SESSION_NOT_APPROVED,
        SessionState.DENIED: Basis.SESSION_NOT_APPROVED,
    }

    result = only(
        "  - {case: one, session: s, call: read, expect: {errors: []}}\n",
        with_sessions(s=f"state: {state.value}"),
    )

    assert result.ruling is not None
    assert bases[state] is result.ruling.basis
    assert result.facts is not None
    assert result.facts.snapshot is not None
    assert 1767607200.0 == result.facts.snapshot.wall_at


def test_child_of_an_ended_session_has_ended() -> None:
    """What happens to a parent happens to the session below it."""
    head = with_sessions(p="state: revoked, may_delegate: true").replace(
        "calls:\n", "  c: {parent: p, agent: helper, tools: [files/read]}\ncalls:\n"
    )

    result = only("  - {case: one, session: c, call: read, expect: deny session_revoked}\n", head)

    assert () == result.problems


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("user: eve", "session `s` cannot be requested: no permit for `pdp/request_session` matches"),
        ("user: add", "session `s` cannot be requested: unknown user: `add`; did you mean `ada`?"),
        ("agent: codr", "session `s` cannot be requested: unknown agent: `codr`; did you mean `coder`?"),
        ("approver: ada", "session `s` cannot be approved by `ada`: no permit for `pdp/approve_session` matches"),
        ("tools: [files/rm]", "session `s` cannot be requested: `tool_patterns[0]`: `files/rm` matches no tool"),
        ("parent: child, tools: [files/read], state: ended, may_delegate: true", ""),
        ("parent: gone, tools: [files/read], grants: [writing]", ""),
        (
            "grants: [writting]",
            "session `s` cannot be approved by `approver`: `grants[0]`: no policy asks for `writting`; did",
        ),
    ],
)
def test_session_that_cannot_be_opened_fails_its_cases(more: str, said: str) -> None:
    """Where the policies or the registrar refuse a session, the case fails and says which step was refused."""
    keys = {part.split(":")[0] for part in more.split(", ")}
    own = ", ".join(
        f"{key}: {value}"
        for key, value in {"user": "ada", "agent": "coder", "tools": "['files/*']"}.items()
        if key not in keys
    )
    head = HEAD.replace("calls:\n", f"  s: {{{', '.join(filter(None, (own, more)))}}}\ncalls:\n")

    result = only("  - {case: one, session: s, call: read, expect: deny}\n", head)

    if said:
        assert result.problems[0].startswith(said)
        assert result.ruling is None
    else:
        assert () == result.problems


def test_delegated_session_has_no_grants() -> None:
    """A delegation needs no approver, so a test that gives it grants is an error."""
    head = HEAD.replace('tools: ["files/read"]}', 'tools: ["files/read"], grants: [writing]}')

    result = only("  - {case: one, session: child, call: read, expect: allow}\n", head)

    assert ("session `child` is delegated without an approval, so no approver can give it `grants`",) == result.problems


@pytest.mark.parametrize(
    ("session", "step", "policies"),
    [
        ("work", "request", "sessions/request"),
        ("work", "approve", "sessions/approve"),
        ("child", "delegate", "sessions/delegate"),
    ],
)
def test_steps_of_a_session_are_decided(session: str, step: str, policies: str) -> None:
    """A case may be about what the policies say to a request, an approval or a delegation."""
    result = only(
        f"  - {{case: one, session: {session}, step: {step}, expect: {{outcome: allow, policies: [{policies}]}}}}\n"
    )

    assert () == result.problems


def test_refused_step_is_a_ruling() -> None:
    """Where the policies refuse a step, that is what the case is about and not a failure to open."""
    result = only(
        "  - {case: one, session: own, step: approve, expect: deny default_deny}\n", with_sessions(own="approver: ada")
    )

    assert () == result.problems


@pytest.mark.parametrize(
    ("session", "step", "said"),
    [
        ("work", "delegate", "session `work` never asks the policies about `pdp/delegate_session`: it has no `parent`"),
        ("child", "approve", "session `child` never asks the policies about `pdp/approve_session`: it is delegated"),
    ],
)
def test_step_that_is_never_taken_fails(session: str, step: str, said: str) -> None:
    """A case about a step that the session never takes says why."""
    result = only(f"  - {{case: one, session: {session}, step: {step}, expect: allow}}\n")

    assert result.problems[0].startswith(said)


def test_own_users_stand_over_the_directory() -> None:
    """A test file may bring its own users and change those of the bundle, for itself alone."""
    head = HEAD + "users: {zoe: {groups: [staff]}, ada: {}}\n"
    head = head.replace("work: {user: ada", "work: {user: zoe")

    done = run(
        bundle(),
        [
            suite("  - {case: one, session: work, call: read, expect: allow}\n", head),
            suite("  - {case: two, session: gone, step: request, expect: deny default_deny}\n", head),
            suite("  - {case: three, session: work, call: read, expect: allow}\n"),
        ],
    )

    assert [(), (), ()] == [result.problems for result in done.results]


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("{zoe: {groups: [stuff]}}", "unknown parent: `UserGroup::stuff`"),
        ("{zoe: {attributes: {level: high}}}", "`User::zoe` does not fit the schema of the bundle"),
    ],
)
def test_own_users_must_fit_the_bundle(users: str, said: str) -> None:
    """Users that the bundle's groups or schema do not take fail the cases of their file, with file and line."""
    result = only("  - {case: one, session: work, call: read, expect: deny}\n", f"{HEAD}users:\n  {users[1:-1]}\n")

    assert (f"tests/files_test.yaml:14: {said}",) == result.problems


@pytest.mark.parametrize(
    "more",
    [
        "attributes: {level: .inf}",
        "attributes: {level: {__entity: {type: User, id: ada}}}",
        "attributes: {level: 99999999999999999999}",
        "terms: {ticket: 7}",
        "terms: {tickt: x}",
        "terms: {max_sum: .inf}",
        "duration: 1.0e+300",
        "state: expired, duration: 1.0e+300",
        "grants: ['']",
        'purpose: "a\\0b"',
        "tools: []",
    ],
)
def test_odd_session_ends_no_run(more: str) -> None:
    """Whatever a test file says of a session, its case passes or fails, and the run goes on."""
    own = "user: ada, agent: coder" + ("" if "tools" in more else ", tools: ['files/*']")
    head = HEAD.replace("calls:\n", f"  s: {{{own}, {more}}}\ncalls:\n")
    cases = """  - {case: odd, session: s, call: read, expect: deny}
  - {case: even, session: work, call: read, expect: allow}
"""

    odd, even = report(cases, head).results

    assert (False, True) == (odd.passed, even.passed)


def test_a_session_has_terms() -> None:
    """As the schema declares them; a child takes over its parent's."""
    head = HEAD.replace(
        "calls:\n",
        """  bound: {user: ada, agent: coder, tools: ["files/*"], terms: {ticket: secret}, may_delegate: true}
  below: {parent: bound, tools: ["files/read"]}
calls:
""",
    )
    cases = """  - case: terms
    sessions: [bound, below, work]
    call: read
    expect:
      bound: {outcome: deny, policies: [tickets/no-secrets]}
      below: {outcome: deny, policies: [tickets/no-secrets]}
      work: allow
"""
    policy = """
@id("tickets/no-secrets")
forbid (principal, action == Action::"files/read", resource)
when { context.session.terms has ticket && context.session.terms.ticket == "secret" };
"""
    found = load_bundle({**material_files(), "tickets.cedar": policy.encode()}, DEFAULT_LIMITS, compile_once_here)

    assert [] == [result.problems for result in run(found, [suite(cases, head)]).results if not result.passed]


def test_approvals_of_calls_are_asked_about() -> None:
    """The policies see the call that waits, what a person is asked about it, and who answers."""
    policy = """
@id("asking/read")
@step_up("may it read?")
forbid (principal, action == Action::"files/read", resource);
@id("asking/answer")
permit (principal == User::"ada", action == Action::"pdp/approve_call", resource)
when {
  context.action == "files/read" && context.risk == "read_only" && context.groups.isEmpty() && context.calls == 1 &&
  context.questions == ["may it read?"] && context.provenance == ["undeclared"]
};
"""
    cases = """  - case: ada answers
    session: work
    call: read
    step: approve_call
    by: ada
    expect: {outcome: allow, policies: [asking/answer]}
  - case: others do not
    session: work
    call: read
    step: approve_call
    expect: deny default_deny
  - case: until then it waits
    session: work
    call: read
    expect: deny approval_required
"""
    found = load_bundle({**material_files(), "asking.cedar": policy.encode()}, DEFAULT_LIMITS, compile_once_here)

    assert [] == [result.problems for result in run(found, [suite(cases)]).results if not result.passed]


# A result cannot issue what its call had asked for.
LISTING = HEAD.replace("{tool: files/read, arguments: {path: notes}}", "{tool: files/read, arguments: {path: all}}")


@cache
def answering() -> Bundle:
    """Return a bundle where a person is asked about writes after a read, and may allow those to what was issued."""
    policy = """
@id("asking/answer")
permit (principal, action == Action::"pdp/approve_call", resource) when { context.provenance == ["issued"] };
"""
    files = {
        **material_files(),
        "files.cedar": ASKING.encode(),
        "asking.cedar": policy.encode(),
        "tools/files.yaml": (
            b"tools:\n"
            b"  read: {risk: read_only, adds_labels: [seen], issues: [id]}\n"
            b"  write: {risk: mutating, targets: [path]}\n"
        ),
        "bundle.yaml": b"labels: {seen: {meaning: It has read what others wrote.}}",
    }
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


@pytest.mark.parametrize(
    ("said", "expect", "problem"),
    [
        ("after: [{call: read, result: {id: notes}}]", "allow", ""),
        ("after: [{call: read, result: {id: notes}}, write], approvals: [write]", "allow", ""),
        ("after: [{call: read, result: {id: others}}]", "deny default_deny", ""),
        ("after: [{call: read, result: {id: notes}, labels: [seen]}]", "allow", ""),
        ("after: [{call: read, failed: true}]", "deny default_deny", ""),
        ("after: [read], approvals: [read]", "allow", "call `read` of `approvals` never waits for a person"),
        ("after: [read, write]", "allow", "call `write` of `after` must be allowed, and is denied: approval_required"),
    ],
)
def test_an_approver_sees_what_earlier_calls_returned(said: str, expect: str, problem: str) -> None:
    """Policies about the approval of a call see where its targets come from, after calls that people approved too."""
    cases = f"  - {{case: c, session: work, {said}, call: write, step: approve_call, expect: {expect}}}\n"
    result = run(answering(), [suite(cases, LISTING)]).results[0]

    assert [problem] * bool(problem) == [one[: len(problem)] for one in result.problems]


def test_where_a_name_comes_from_is_known_where_nobody_is_asked() -> None:
    """A call that waits for nobody has the same targets, so a case about its approval sees the same of them."""
    fewer = [policy for policy in answering().policies.values() if policy.id != "files/no-write-after-read"]
    case = "{case: c, session: work, after: [{call: read, result: {id: notes}}], call: write, step: approve_call"
    result = run(answering().with_policies(fewer), [suite(f"  - {case}, expect: allow}}\n", LISTING)]).results[0]

    assert () == result.problems


def test_facts_answer_again() -> None:
    """What a case rested on is kept, so that the same question has the same answer."""
    result = only("  - {case: one, session: child, call: read, expect: allow}\n")

    assert result.facts is not None
    asked = result.facts.asked
    assert ["files/read", "files/read"] == [one.action for one in asked]
    assert [one.ruling for one in asked] == [result.facts.bundle.judge(one.session, one.facts, one.at) for one in asked]
    assert ["pdp/request_session", "pdp/approve_session", "pdp/request_session", "pdp/delegate_session"] == [
        one.action for one in result.facts.opening
    ]


def test_same_suites_run_against_other_policies() -> None:
    """Without a policy the cases that rest on it fail, and the bundle itself is as before."""
    suites = [suite("  - {case: one, session: work, call: secret, expect: deny}\n")]
    fewer = [policy for policy in bundle().policies.values() if policy.id != "guardrails/no-secrets"]

    changed, same = run(bundle().with_policies(fewer), suites), run(bundle(), suites)

    assert (False, True) == (changed.passed, same.passed)
    assert Outcome.ALLOW is changed.results[0].ruling.outcome  # type: ignore[union-attr] # it has one


def test_run_can_stop_at_the_first_failure() -> None:
    """Whoever only wants to know whether all pass need not wait for the rest."""
    cases = """  - {case: one, session: work, call: read, expect: deny}
  - {case: two, session: work, call: read, expect: allow}
"""

    done = run(bundle(), [suite(cases)], stop_at_failure=True)

    assert ["one"] == [result.case.name for result in done.results]
    assert 2 == len(report(cases).results)


def test_caller_facts_and_times_reach_the_policies() -> None:
    """A call's facts are checked as the gateway's are; a fact that the bundle does not declare is no decision."""
    result = only(
        "  - {case: one, session: work, call: x, expect: deny}\n",
        f"{HEAD}  x: {{tool: files/read, arguments: {{path: a}}, caller: {{workstation: w1}}}}\n",
    )

    assert result.problems[0].startswith("`call.facts_json`: ")


COUNTING = """
@id("files/all")
permit (principal, action in [Action::"read_only", Action::"mutating", Action::"destructive"], resource);

@id("files/once")
forbid (principal, action == Action::"files/write", resource) when { context.counts["files/write"] > 0 };

@id("files/looked")
forbid (principal, action == Action::"files/write", resource) unless { context.done.contains("files/read") };
"""


@cache
def counting() -> Bundle:
    """Return a bundle that lets a session write once, after it has read."""
    files = {**material_files(), "files.cedar": COUNTING.encode()}
    return load_bundle(files, DEFAULT_LIMITS, compile_once_here)


@pytest.mark.parametrize(
    ("after", "expect"),
    [
        ("", "{outcome: deny, policies: [files/looked]}"),
        ("read", "allow"),
        ("{call: read, failed: true}", "{outcome: deny, policies: [files/looked]}"),
        ("{call: read, failed: true}, read", "allow"),
        ("read, write", "{outcome: deny, policies: [files/once]}"),
        ("read, {call: write, failed: true}", "{outcome: deny, policies: [files/once]}"),
    ],
)
def test_the_calls_before_a_case_are_counted(after: str, expect: str) -> None:
    """Those that failed are not done; and no case counts the calls of another."""
    before = f"after: [{after}], " if after else ""
    case = f"  - {{case: NAME, session: work, {before}call: write, expect: {expect}}}\n"
    results = run(counting(), [suite("".join(case.replace("NAME", f"c{number}") for number in range(2)))]).results

    assert [(), ()] == [result.problems for result in results]


def test_why_a_case_failed_is_said_with_what_was_counted() -> None:
    """The explanation sees the calls before, as the decision did."""
    cases = "  - {case: c, session: work, after: [read, write], call: write, expect: allow}\n"
    (result,) = run(counting(), [suite(cases)]).results

    assert Reasons(DEFAULT_LIMITS)(result)[0].startswith("why:      denied: `files/once`")
