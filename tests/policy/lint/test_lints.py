"""Each lint finds its mistake, and is silent about the same policy without it."""

from __future__ import annotations

import pytest

from pdp.policy.lint.table import LINTS
from tests.policy.lint.material import AGENT, DIRECTORY, codes, found, policy
from tests.policy.lint.mistakes import MISTAKES

PERMIT = "permit (principal, action, resource)"
TRANSFER = 'action == Action::"bank/transfer"'
FORBID = f"forbid (principal, {TRANSFER}, resource)"
FORBID_BALANCE = 'forbid (principal, action == Action::"bank/balance", resource)'
PERMIT_TRANSFER = policy(f"permit (principal, {TRANSFER}, resource)", AGENT)
TELLERS_TRANSFER = policy(f'permit (principal in UserGroup::"tellers", {TRANSFER}, resource)', AGENT, name="y")
READ = 'action == Action::"files/read"'
APPROVED = 'unless { context.session in Grant::"transfer-approved" }'
WRITE = 'action == Action::"files/write"'

# (code, a policy with the mistake, one without it)
CASES = [
    ("open-permit", policy(PERMIT), policy(PERMIT, AGENT)),
    ("open-permit", policy(PERMIT, "when { true }"), policy(PERMIT, "unless { false }", AGENT)),
    (
        "no-agent",
        policy('permit (principal in UserGroup::"tellers", action, resource)'),
        policy('permit (principal in UserGroup::"tellers", action, resource)', AGENT),
    ),
    (
        "no-agent",
        policy(f"permit (principal, {TRANSFER}, resource)", "when { context.input.cents < 5 }"),
        policy(f"permit (principal, {TRANSFER}, resource)", 'when { context.session in Grant::"transfers" }'),
    ),
    (
        "no-agent",
        policy('permit (principal == User::"ann", action in Action::"read_only", resource)'),
        policy('permit (principal == User::"ann", action == Action::"pdp/approve_session", resource)'),
    ),
    (
        "caller-only",
        policy(f"permit (principal, {TRANSFER}, resource)", 'when { context.caller.id == "gateway" }'),
        policy(f"permit (principal, {TRANSFER}, resource)", 'when { context.caller.id == "gateway" }', AGENT),
    ),
    (
        "idle-run",
        policy(FORBID, note='@step_up("May it?")\n@step_up_run("5")'),
        policy(FORBID, note='@step_up("May it?")'),
    ),
    (
        "raw-string",
        policy(FORBID, 'when { context.input.to == "mallory" }'),
        policy(FORBID, 'unless { context.input.to == "shop" }'),
    ),
    (
        "raw-string",
        policy(FORBID, 'when { context.input.to like "mal*" }'),
        policy(FORBID, 'when { !(context.input.to like "shop*") }'),
    ),
    (
        "raw-string",
        policy(FORBID, 'when { ["mallory", "eve"].contains(context.input.to) }'),
        policy(FORBID, 'when { context.input.to != "shop" }'),
    ),
    (
        "raw-string",
        policy(f'forbid (principal, {WRITE}, resource == Thing::"safe")'),
        policy(f'forbid (principal, {READ}, resource == Thing::"safe")'),
    ),
    (
        "raw-string",
        policy(f"forbid (principal, {WRITE}, resource)", "when { resource has owner && resource.owner == principal }"),
        policy(f'forbid (principal, {WRITE}, resource in Server::"files")'),
    ),
    (
        "raw-string",
        policy(
            'forbid (principal, action == Action::"bank/balance", resource)', 'when { context.input.account == "1" }'
        ),
        policy(
            'forbid (principal, action == Action::"bank/balance", resource)', 'when { context.input.kind == "day" }'
        ),
    ),
    (
        "opaque-parameter",
        policy(FORBID, "when { context.input has amount && context.input.amount == 1 }"),
        policy(FORBID, 'when { context.opaque.contains("amount") }'),
    ),
    (
        "opaque-parameter",
        policy(FORBID, 'when { context.input.amount.greaterThan(decimal("5.0")) }'),
        policy(FORBID, "when { context.input.cents > 500 }"),
    ),
    (
        "overflow",
        policy(FORBID, "when { context.input.cents * 2 > 100 }"),
        policy(FORBID, "when { context.session.depth * 2 > 100 }"),
    ),
    ("optional-attribute", policy(FORBID, 'unless { context.input.note == "x" }'), policy(FORBID)),
    (
        "never-matches",
        policy('permit (principal, action == Action::"bank/transfer", resource == Server::"files")', AGENT),
        policy('permit (principal, action == Action::"bank/transfer", resource == Server::"bank")', AGENT),
    ),
    (
        "never-matches",
        policy('forbid (principal, action in Action::"destructive", resource)'),
        policy('forbid (principal, action in Action::"mutating", resource)'),
    ),
    (
        "never-matches",
        policy('forbid (principal == User::"ann", action, resource)', 'when { principal in UserGroup::"managers" }'),
        policy('forbid (principal == User::"ann", action, resource)', 'when { principal in UserGroup::"tellers" }'),
    ),
    (
        "never-matches",
        policy(FORBID, "when { context.input.cents > 5 && context.input.cents < 3 }"),
        policy(FORBID, "when { context.input.cents > 5 && context.input.cents < 7 }"),
    ),
    (
        "never-matches",
        policy(FORBID, 'when { action == Action::"bank/balance" }'),
        policy(FORBID, 'when { action in Action::"mutating" }'),
    ),
    (
        "never-matches",
        policy(FORBID, "when { principal has shoe && principal.shoe == 3 }"),
        policy(FORBID, "when { principal has level && principal.level == 3 }"),
    ),
    ("never-matches", policy(FORBID, "when { false }"), policy(FORBID, "unless { false }")),
    (
        "never-matches",
        policy('permit (principal is UserGroup, action == Action::"bank/transfer", resource)', AGENT),
        policy('permit (principal is User, action == Action::"bank/transfer", resource)', AGENT),
    ),
    (
        "shadowed",
        PERMIT_TRANSFER + policy(FORBID, name="y"),
        PERMIT_TRANSFER + policy(FORBID, "when { context.input.cents > 1 }", name="y"),
    ),
    (
        "shadowed",
        PERMIT_TRANSFER + PERMIT_TRANSFER.replace("bank/x", "bank/y"),
        PERMIT_TRANSFER + policy(f"permit (principal, {READ}, resource)", AGENT, name="y"),
    ),
    (
        "shadowed",
        policy('permit (principal, action in Action::"mutating", resource)', AGENT) + TELLERS_TRANSFER,
        policy('permit (principal, action in Action::"read_only", resource)', AGENT) + TELLERS_TRANSFER,
    ),
    (
        "unknown-name",
        policy(f'permit (principal in UserGroup::"teller", {TRANSFER}, resource)', AGENT),
        policy(f'permit (principal in UserGroup::"tellers", {TRANSFER}, resource)', AGENT),
    ),
    (
        "unknown-name",
        policy(FORBID, 'unless { context.agent == Agent::"clark" }'),
        policy(FORBID, 'unless { context.agent == Agent::"clerk" }'),
    ),
    (
        "unknown-name",
        policy('forbid (principal, action, resource in Server::"bnak")'),
        policy('forbid (principal, action, resource in Server::"bank")'),
    ),
    (
        "unknown-name",
        policy(FORBID, 'unless { context.session in Grant::"transfer-aproved" }')
        + policy(FORBID, "when { context.input.cents > 1 }", APPROVED, name="y")
        + policy(FORBID, "when { context.session.depth > 1 }", APPROVED, name="z"),
        policy(FORBID, APPROVED),
    ),
    (
        "mixed-script",
        policy(FORBID, 'unless { context.session in Grant::"approvеd" }'),  # noqa: RUF001 - the point of it
        policy(FORBID, 'unless { context.session in Grant::"одобрено" }'),
    ),
]


@pytest.mark.parametrize(("code", "wrong", "right"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_lint_finds_its_mistake_alone(code: str, wrong: str, right: str) -> None:
    """The mistake is found, and without it nothing is."""
    assert (code, []) == (code if code in codes(wrong) else codes(wrong), codes(right))


def test_every_lint_has_a_case() -> None:
    """No lint is without a mistake that it finds."""
    assert {lint.code for lint in LINTS} <= {code for code, _, _ in CASES} | {one.code for one in MISTAKES.values()}


def test_open_permit_is_told_once() -> None:
    """Of the permits below an open one nothing is told: to remove those would not mend it."""
    assert ["open-permit"] == codes(policy(PERMIT) + TELLERS_TRANSFER)


def test_overlay_that_types_a_number_mends_the_rule() -> None:
    """The line that the help tells to add makes the rule load."""
    rule = policy(FORBID, 'when { context.input.amount.greaterThan(decimal("500.0")) }')
    (problem,) = found(rule)
    line = problem.help.partition("`tools: ")[2].rstrip("`")

    assert "{transfer: {parameters: {amount: {type: decimal}}}}" == line
    assert [] == codes(rule, bank=f"risk: mutating\ntools: {line}\n")


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [("risk: mutating, targets: [to]", []), ("risk: destructive, targets: [to]", ["idle-run"])],
)
def test_a_run_needs_targets_and_no_great_harm(overlay: str, expected: list[str]) -> None:
    """A tool that says what its calls name outside can have runs, unless a person must see each of its calls."""
    run = policy(FORBID, note='@step_up("May it?")\n@step_up_run("5")')

    assert expected == codes(run, bank=f"tools: {{transfer: {{{overlay}}}, balance: {{risk: read_only}}}}\n")


def test_reference_to_nobody_is_found() -> None:
    """An owner that the directory does not know is told with the line of the thing, and with who may be meant."""
    (problem,) = found("", directory=DIRECTORY.replace("id: ann}", "id: anna}"))

    assert ("unknown-reference", "directory.yaml", 9) == (problem.code, problem.file, problem.line)
    assert problem.help.startswith("did you mean `ann`?")


def test_mixed_scripts_in_the_directory_are_found() -> None:
    """A user whose name only looks like another's is told."""
    problems = found("", directory=DIRECTORY.replace("bob:", "bоb:"))  # noqa: RUF001 - the point of it

    assert [("mixed-script", "directory.yaml", 4)] == [(one.code, one.file, one.line) for one in problems]


def test_tools_without_a_risk_group_are_found() -> None:
    """What no overlay names is told once for each server, with the line that would name it."""
    (problem,) = found("", bank="tools: {transfer: {risk: mutating}}\n")

    assert ("unnamed-tool", "tools/bank.yaml") == (problem.code, problem.file)
    assert "`balance`" in problem.message
    assert "transfer" not in problem.message
    assert [] == codes("", bank="risk: mutating\n")


def test_a_policy_with_many_mistakes_of_a_kind_is_told_the_first_and_their_number() -> None:
    """Each is looked for in the whole text: thousands, all told, took minutes."""
    users = ", ".join(f'User::"u{number:04}"' for number in range(1020))
    problems = found(policy(FORBID, f"when {{ [{users}].contains(principal) }}"))

    assert 21 == len(problems)
    assert "policy `bank/x`: 1,000 more of this kind" == problems[0].message
    assert "policy `bank/x` names the user `u0000`: it is not in `directory.yaml`" == problems[1].message


ALLOWS = [
    ('@allow("raw-string: names are canonical at the bank")', []),
    ('@allow("raw-string: a; overflow: b")', ["unneeded-allow"]),
    ('@allow("raw-string")', ["unneeded-allow"]),
    ('@allow("raw-strings: a")', ["raw-string", "unneeded-allow"]),
    ('@allow("")', ["raw-string", "unneeded-allow"]),
    ("@allow", ["raw-string", "unneeded-allow"]),
    ('@allow("no-agent: a")', ["raw-string", "unneeded-allow"]),
]


@pytest.mark.parametrize(("note", "expected"), ALLOWS)
def test_allow_silences_one_lint_for_a_reason(note: str, expected: list[str]) -> None:
    """An `@allow` silences what it names; one without reason, or without need, is told itself."""
    assert expected == sorted(codes(policy(FORBID, 'when { context.input.to == "mallory" }', note=note)))


def test_no_allow_silences_an_error() -> None:
    """What keeps a bundle from loading cannot be allowed."""
    note = '@allow("optional-attribute: never left out")'

    assert "optional-attribute" in codes(policy(FORBID, 'when { context.input.note == "x" }', note=note))


def test_lints_speak_beside_errors() -> None:
    """Policies that are valid are looked at while others are not."""
    wrong = policy(FORBID, "when { context.input.centz == 1 }")

    assert ["unknown-attribute", "open-permit"] == codes(wrong + policy(PERMIT, name="y"))


@pytest.mark.parametrize(
    ("word", "overlay", "message"),
    [
        (
            "clean",
            "risk: mutating",
            "asks for `clean`, and no name ever is: no overlay of a tool says `results: trusted`",
        ),
        (
            "issued",
            "risk: mutating",
            "asks for `issued`, and no name ever is: no overlay of a tool says `issues: [PATH]`",
        ),
        ("clean", "results: trusted", ""),
        ("issued", "issues: [id]", ""),
        ("tainted", "risk: mutating", ""),
    ],
)
def test_a_word_needs_an_overlay_that_brings_it_about(word: str, overlay: str, message: str) -> None:
    """Tools that no overlay trusts are not trusted, and the author is told where a rule counts on it."""
    rule = policy(FORBID, f'unless {{ ["named", "{word}"].containsAll(context.targets.provenance) }}')
    bank = f"tools: {{transfer: {{risk: mutating, targets: [to]}}, balance: {{{overlay}}}}}"

    said = [one.message for one in found(rule, bank=bank) if one.code == "unknown-provenance"]

    assert [f"policy `bank/x` {message}"] * bool(message) == said
