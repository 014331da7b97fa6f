"""What policies ask of a gateway: what is read of their annotations, and what keeps a bundle from loading."""

from __future__ import annotations

import json

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.model import Obligation
from pdp.policy.bundle import Bundle
from pdp.policy.loading import inspect_bundle, load_bundle, policy_json, policy_source
from pdp.testing.bundles import bundle_files, compile_here, tool

DIRECTORY = "users: {alice: {}}\nagents: {coder: {ceiling: ['s/*']}}\n"
DECLARED = "name: test\nobligations: {ask_again: {meaning: ask the user}, log_access: {meaning: tell the owner}}\n"
PERMIT = 'permit (principal == User::"alice", action == Action::"s/read", resource);'
FORBID = 'forbid (principal == User::"alice", action == Action::"s/read", resource);'
NO_STEP = 'forbid (principal == User::"alice", action == Action::"pdp/request_session", resource);'
STEP = 'permit (principal == User::"alice", action == Action::"pdp/request_session", resource);'


def files(policies: str, manifest: str = DECLARED) -> dict[str, bytes]:
    """Return the files of a bundle with one tool."""
    return bundle_files(
        policies={"a": policies},
        tools={"s": [tool("read")]},
        directory=DIRECTORY,
        overlays={"s": "risk: read_only"},
        manifest=manifest,
    )


def loaded(policies: str) -> Bundle:
    """Return such a bundle, loaded."""
    return load_bundle(files(policies), DEFAULT_LIMITS, compile_here)


def asked(annotation: str) -> list[tuple[str, object]]:
    """Return the obligations of a permit with an annotation."""
    policy = loaded(f'@id("a/x")\n@obligation("{annotation}")\n{PERMIT}').policies["a/x"]
    return [(one.id, json.loads(one.parameters_json)) for one in policy.obligations]


def errors(policies: str, manifest: str = DECLARED) -> list[str]:
    """Return what keeps a bundle from loading: code, file, line and message."""
    report = inspect_bundle(files(policies, manifest), DEFAULT_LIMITS, compile_here)
    return [f"{one.code}: {one.file}:{one.line}: {one.message}" for one in report.errors]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("notice: {text: Customer data}", [("notice", {"text": "Customer data"})]),
        (
            "redact_result: {fields: ['[].email', user.iban]}",
            [("redact_result", {"fields": ["[].email", "user.iban"]})],
        ),
        (
            "\n  redact_result: {fields: [a]},  # why\n  max_result_bytes: {bytes: 9}\n",
            [("max_result_bytes", {"bytes": 9}), ("redact_result", {"fields": ["a"]})],
        ),
        ("log_access, ask_again: {}", [("ask_again", {}), ("log_access", {})]),
        (
            "ask_again: {b: [1, 1.5, true, null, 'x'], a: {c: d}}",
            [("ask_again", {"a": {"c": "d"}, "b": [1, 1.5, True, None, "x"]})],
        ),
        ("notice: {text: 'it''s \\\"so\\\"'}", [("notice", {"text": 'it\'s "so"'})]),
    ],
)
def test_what_is_read(annotation: str, expected: list[tuple[str, object]]) -> None:
    """An annotation is the inside of a YAML mapping: names with their parameters, in one or more lines."""
    assert expected == asked(annotation)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ("", "`@obligation` names no obligation"),
        ("notice", "`notice`: takes exactly the parameter `text`"),
        ("notice: x", "`notice`: its parameters must be a mapping"),
        ("notice: [x]", "`notice`: its parameters must be a mapping"),
        ("notice: {text: x, more: y}", "`notice`: takes exactly the parameter `text`"),
        ("notice: {text: ''}", "`notice`: `text` must be one printable line of at most 512 characters"),
        ("notice: {text: 7}", "`notice`: `text` must be one printable line of at most 512 characters"),
        (f"notice: {{text: {'x' * 513}}}", "`notice`: `text` must be one printable line of at most 512 characters"),
        ("notice: {text: 'a\u202eb'}", "`notice`: `text` must be one printable line of at most 512 characters"),
        ("notise: {text: x}", "unknown obligation: `notise`; did you mean `notice`?"),
        ("log_acces", "unknown obligation: `log_acces`; did you mean `log_access`?"),
        (
            "paint: {}",
            "unknown obligation: `paint`; if the gateway knows it, declare it in `bundle.yaml`: `obligations: {paint: ",
        ),
        (
            "notice: {text: a}, notice: {text: b}",
            "`@obligation` must read `NAME: {…}, NAME: {…}`: key `notice` appears",
        ),
        ("notice: {text: a", "`@obligation` must read `NAME: {…}, NAME: {…}`: not YAML"),
        ("notice: {text: a}} #", "`@obligation` must read `NAME: {…}, NAME: {…}`: not YAML"),
        ("ask_again: {a: !t x}", "`@obligation` must read `NAME: {…}, NAME: {…}`: "),
        ("ask_again: {a: 2026-01-01}", "`@obligation` must read `NAME: {…}, NAME: {…}`: dates"),
        ("ask_again: {a: .inf}", "`ask_again`: its parameters must be JSON values; numbers must be finite"),
        (f"ask_again: {{a: '{'ä' * 2100}'}}", "`ask_again`: its parameters are larger than 4096 bytes"),
        ("redact_result: {fields: []}", "`redact_result`: `fields` must be a list of 1 to 64 paths"),
        ("redact_result: {fields: email}", "`redact_result`: `fields` must be a list of 1 to 64 paths"),
        ("redact_result: {fields: [7]}", "`redact_result`: `fields`: a path must be 1 to 256 characters long"),
        ("redact_result: {fields: [a..b]}", "`redact_result`: `fields`: not a path such as `user.iban` or `[].email`"),
        ("redact_result: {feilds: [a]}", "`redact_result`: takes exactly the parameter `fields`"),
        ("max_result_bytes: {bytes: 0}", "`max_result_bytes`: `bytes` must be a whole number from 1 to 2147483647"),
        ("max_result_bytes: {bytes: true}", "`max_result_bytes`: `bytes` must be a whole number from 1 to"),
        ("max_result_bytes: {bytes: 1.5}", "`max_result_bytes`: `bytes` must be a whole number from 1 to"),
        (", ".join(f"a{n}" for n in range(17)), "`@obligation` names more than 16 obligations"),
        (" " * 131073, "`@obligation` is longer than 131072 characters"),
    ],
)
def test_what_cannot_be_read_keeps_the_bundle_from_loading(annotation: str, problem: str) -> None:
    """Each mistake has file and line, and names the nearest name that would be right."""
    (found,) = errors(f'@id("a/x")\n@obligation("{annotation}")\n{PERMIT}')

    assert found.startswith(f"annotation: a.cedar:2: policy `a/x`: {problem}")


@pytest.mark.parametrize(
    ("policy", "line", "problem"),
    [
        (f'@id("a/x")\n@obligation\n{PERMIT}', 2, "`@obligation` names no obligation"),
        (
            f'@id("a/x")\n@obligation("ask_again")\n{FORBID}',
            2,
            "`@obligation` on a forbid: only an allow has obligations",
        ),
        (f'@id("a/x")\n@advice("Do it otherwise.")\n{PERMIT}', 2, "`@advice` on a permit: only a deny has advice"),
        (f'@id("a/x")\n@obligation("ask_again")\n{STEP}', 2, "`@obligation` on a rule about sessions: only answers"),
        (f'@id("a/x")\n@advice("")\n{FORBID}', 2, "`@advice` must be one printable line of at most 512 characters"),
        (f'@id("a/x")\n@advice(" ")\n{FORBID}', 2, "`@advice` must be one printable line of at most 512 characters"),
        (
            f'@id("a/x")\n@advice("a\\nb")\n{FORBID}',
            2,
            "`@advice` must be one printable line of at most 512 characters",
        ),
        (f'@id("a/x")\n@advice("{"x" * 513}")\n{FORBID}', 2, "`@advice` must be one printable line of at most 512"),
        (
            f'@id("a/x")\n@obligations("ask_again")\n{PERMIT}',
            2,
            "unknown annotation: `@obligations`; did you mean `@obl",
        ),
        (f'@id("a/x")\n@Obligation("ask_again")\n{PERMIT}', 2, "unknown annotation: `@Obligation`; did you mean `@obl"),
        (f'@id("a/x")\n@step_up("May it?")\n{PERMIT}', 2, "`@step_up` on a permit: a person can only lift a deny"),
        (f'@id("a/x")\n@step_up\n{FORBID}', 2, "`@step_up` must be one printable line of at most 512 characters"),
        (f'@id("a/x")\n@step_up(" ")\n{FORBID}', 2, "`@step_up` must be one printable line of at most 512"),
        (f'@id("a/x")\n@step_up("a\\nb")\n{FORBID}', 2, "`@step_up` must be one printable line of at most 512"),
        (f'@id("a/x")\n@step_up("{"x" * 513}")\n{FORBID}', 2, "`@step_up` must be one printable line of at most 512"),
        (f'@id("a/x")\n@step_up("May it?")\n{NO_STEP}', 2, "`@step_up` on a rule about sessions: only answers"),
        (f'@id("a/x")\n@step_up_run("2")\n{FORBID}', 2, "`@step_up_run` needs `@step_up` beside it"),
        *(
            (
                f'@id("a/x")\n@step_up("May it?")\n@step_up_run("{run}")\n{FORBID}',
                3,
                "`@step_up_run` must be a number of calls from 2 to 20",
            )
            for run in ("", "1", "21", "2.0", " 2", "02", "two", "٣")
        ),
        (f'@id("a/x")\n@stepup("x")\n{FORBID}', 2, "unknown annotation: `@stepup`; did you mean `@step_up`?"),
        (
            f'@id("a/x")\n@step_up_runs("x")\n{FORBID}',
            2,
            "unknown annotation: `@step_up_runs`; did you mean `@step_up_",
        ),
        (f'@id("a/x")\n@advise("x")\n{FORBID}', 2, "unknown annotation: `@advise`; did you mean `@advice`?"),
    ],
)
def test_what_no_answer_would_carry_keeps_the_bundle_from_loading(policy: str, line: int, problem: str) -> None:
    """An obligation that is silently left out would be no obligation."""
    (found,) = errors(policy)

    assert found.startswith(f"annotation: a.cedar:{line}: policy `a/x`: {problem}")


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("obligations: [x]\n", "manifest: bundle.yaml:1: `obligations` must be a mapping of names, each with its"),
        ("obligations:\n  x: {}\n", "manifest: bundle.yaml:2: `x`: `meaning` must say in one line what the obligation"),
        (
            "obligations:\n  notice: {meaning: a}\n",
            "manifest: bundle.yaml:2: `notice` is known already; choose another",
        ),
    ],
)
def test_wrong_declarations_are_told(manifest: str, problem: str) -> None:
    """An obligation that gateways know has a meaning, and no name of ours."""
    (found,) = errors(f'@id("a/x") {PERMIT}', manifest)

    assert found.startswith(problem)


def test_other_annotations_are_the_author_s() -> None:
    """Cedar takes any annotation, and so does the bundle unless it looks like one of ours."""
    assert [] == errors(f'@id("a/x")\n@reason("because")\n@author("ann")\n{PERMIT}')


def test_what_a_person_is_asked_is_read() -> None:
    """Of one call, or of a run of calls that are alike; without the annotation nobody is."""
    texts = ['@step_up("May it?")', '@step_up("May it?")\n@step_up_run("20")', ""]
    found = [loaded(f'@id("a/x")\n{text}\n{FORBID}').policies["a/x"] for text in texts]

    assert [("May it?", 0), ("May it?", 20), ("", 0)] == [(one.step_up, one.step_up_run) for one in found]
    assert found[1] == policy_source(json.loads(json.dumps(policy_json(found[1]))))


def test_a_policy_keeps_what_it_asks_for_on_its_way_through_json() -> None:
    """The child process describes policies in JSON."""
    policy = loaded(f'@id("a/x")\n@obligation("ask_again: {{a: 1}}")\n{PERMIT}').policies["a/x"]

    assert (Obligation("ask_again", '{"a":1}'),) == policy.obligations
    assert policy == policy_source(json.loads(json.dumps(policy_json(policy))))


def test_a_permit_with_obligations_is_not_shadowed_by_a_wider_one() -> None:
    """Without it the call would still be allowed, but without the obligation."""
    agent = 'when { context.agent == Agent::"coder" };'
    wide = f'@id("a/wide") permit (principal, action == Action::"s/read", resource) {agent}'

    def codes(annotation: str) -> list[str]:
        narrow = f'@id("a/narrow") {annotation} {PERMIT[:-1]} {agent}'
        report = inspect_bundle(files(f"{wide}\n{narrow}"), DEFAULT_LIMITS, compile_here)
        assert not report.errors
        return [one.code for one in report.warnings]

    assert ["shadowed"] == codes("")
    assert [] == codes('@obligation("ask_again")')


def test_a_forbid_that_a_person_can_lift_shadows_only_its_like() -> None:
    """Once it is lifted, what it matched before counts: a forbid that asks nobody or something else, and a permit."""

    def shadowed(wide: str, other: str) -> list[str]:
        agent = 'when { context.agent == Agent::"coder" };'
        texts = f'@id("a/wide") {wide}\n{FORBID}\n@id("a/other") {other[:-1]} {agent}'
        report = inspect_bundle(files(texts), DEFAULT_LIMITS, compile_here)
        assert not report.errors
        return [one.message.split("`")[1] for one in report.warnings if one.code == "shadowed"]

    asks = '@step_up("May it?")'
    assert ["a/other"] == shadowed("", FORBID) == shadowed("", f"{asks} {FORBID}") == shadowed("", PERMIT)
    assert [] == shadowed(asks, FORBID) == shadowed(asks, PERMIT) == shadowed(asks, f'@step_up("Really?") {FORBID}')
    assert [] == shadowed(asks, f'{asks} @step_up_run("2") {FORBID}')
    assert ["a/other"] == shadowed(asks, f"{asks} {FORBID}")


def test_a_label_must_not_take_an_obligation_away() -> None:
    """A gateway can add the label, and another permit may still allow the call: then nothing would be redacted."""
    labels = DECLARED + "labels: {seen: {meaning: has read}, known: {meaning: was read, widens: true}}\n"

    def codes(effect: str, label: str) -> list[str]:
        condition = f'unless {{ context.session.labels.contains("{label}") }}'
        return [one.partition(":")[0] for one in errors(f'@id("a/x")\n{effect}{PERMIT[:-1]}\n{condition};', labels)]

    assert [] == codes("", "seen")
    assert ["label-widens"] == codes('@obligation("ask_again")\n', "seen")
    assert [] == codes('@obligation("ask_again")\n', "known")
