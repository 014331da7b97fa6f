"""The scan before the engine: it splits as the engine does, and what it lets pass fits on every stack that we use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import cedarpy
import pytest

from pdp.errors import InvalidJSONError, UnsafePolicyError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.safety import PolicyText, scan, scan_json, scan_schema

Form = Callable[[int], str]


def forbid(condition: str) -> str:
    """Return a forbid with one condition."""
    return f"forbid(principal, action, resource) when {{ {condition} }};"


# Every way to make an expression deep or wide, by a number. Where it matters, evaluation goes all the way down.
FORMS: dict[str, Form] = {
    "parentheses": lambda n: forbid("(" * n + "true" + ")" * n),
    "not": lambda n: forbid("!(" * n + "true" + ")" * n),
    "not four times": lambda n: forbid("!!!!(" * n + "true" + ")" * n),
    "minus": lambda n: forbid("0 == " + "-(" * n + "1" + ")" * n),
    "or": lambda n: forbid("false || " * n + "true"),
    "and": lambda n: forbid("true && " * n + "true"),
    "add": lambda n: forbid("0 < " + "1 + " * n + "1"),
    "subtract": lambda n: forbid("0 < " + "1 - " * n + "1"),
    "multiply": lambda n: forbid("0 < " + "1 * " * n + "1"),
    "equal": lambda n: forbid("1 == 1 && " * n + "true"),
    "if in else": lambda n: forbid("if false then true else " * n + "true"),
    "if in then": lambda n: forbid("if true then " * n + "true" + " else false" * n),
    "if in if": lambda n: forbid("if " * n + "true" + " then true else false" * n),
    "attributes": lambda n: forbid("context" + ".a" * n),
    "indices": lambda n: forbid("context" + '["a"]' * n),
    "has": lambda n: forbid("true || context has " + ".".join(["a"] * n)),
    "has, evaluated": lambda n: forbid("context has " + ".".join(["a"] * n) + " || true"),
    "calls": lambda n: forbid("[1]" + ".contains(1)" * n),
    "calls in calls": lambda n: forbid("[1].contains(" * n + "1" + ")" * n),
    "constructors": lambda n: forbid("decimal(" * n + '"1.0"' + ")" * n),
    "steps in brackets": lambda n: forbid("(" * n + "context" + ".a)" * n),
    "steps in calls": lambda n: forbid("context.a.contains(" * n + "1" + ")" * n),
    "sets": lambda n: forbid("[" * n + "1" + "]" * n + " != [1]"),
    "records": lambda n: forbid("{a: " * n + "1" + "}" * n + " != 1"),
    "like": lambda n: forbid('"a" like "*a*" && ' * n + "true"),
    "in": lambda n: forbid("principal in principal && " * n + "true"),
    "is": lambda n: forbid("principal is U && " * n + "true"),
    "conditions": lambda n: "forbid(principal, action, resource)" + " when { true }" * n + ";",
    "exceptions": lambda n: "forbid(principal, action, resource)" + " unless { false }" * n + ";",
    "wide set": lambda n: forbid("[" + ",".join(["1"] * n) + "] != 1"),
    "wide record": lambda n: forbid("{" + ",".join(f"a{i}: 1" for i in range(n)) + "} != 1"),
    "long type": lambda n: forbid("principal == " + "A::" * n + 'B::"b" || true'),
    "annotations": lambda n: "".join(f'@a{i}("")' for i in range(n)) + forbid("true"),
    "wide action": lambda n: "forbid(principal, action in [" + ",".join(['Action::"a"'] * n) + "], resource);",
    "many policies": lambda n: forbid("true") * n,
    "long string": lambda n: forbid('"' + "a(" * n + '" != ""'),
    "long pattern": lambda n: forbid('"' + "a" * n + '" like "' + "a*" * n + '"'),
    "operators, brackets and steps": lambda n: forbid(
        ("(" * 6 + "false || " * 8) * n + "context" + ".a" * 4 + ")" * 6 * n
    ),
    "operators after brackets": lambda n: forbid("(" * 30 + "true" + " && true" * n + ")" * 30),
}
WIDEST = 4000

SCHEMA = 'entity U; action "a" appliesTo { principal: U, resource: U, context: {} };'

# Does with every text what the server and its child do, on a thread with a stack of the size that it is told.
PROGRAM = """
import json, sys, threading, cedarpy
schema = cedarpy.Schema.from_str(sys.argv[2])
uid = {"type": "U", "id": "u"}
entities = cedarpy.Entities.from_json_str(json.dumps([{"uid": uid, "attrs": {}, "parents": []}]))
request = {"principal": uid, "action": {"type": "Action", "id": "a"}, "resource": uid, "context": "{}"}
said = {}
def try_all(texts):
    for name, text in texts.items():
        try:
            policies = cedarpy.PolicySet.from_str(text)
            cedarpy.validate_policies(text, schema)
            result = cedarpy.is_authorized(request, policies, entities, schema)
            said[name] = [result.decision.value, *result.diagnostics.errors]
            str(policies)
            json.loads(cedarpy.policies_to_json_str(text))
        except ValueError as error:
            said[name] = ["refused", str(error)]
threading.stack_size(int(sys.argv[1]) * 1024 * 1024)
thread = threading.Thread(target=try_all, args=(json.load(sys.stdin),))
thread.start()
thread.join()
json.dump(said, sys.stdout)
"""


def widest(form: Form) -> int:
    """Return the largest number up to `WIDEST` for which the scan lets a form pass."""
    low, high = 0, WIDEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            scan(form(middle), DEFAULT_LIMITS)
            low = middle
        except UnsafePolicyError:
            high = middle
    return low


def run(texts: dict[str, str], stack_mib: int) -> subprocess.CompletedProcess[str]:
    """Run the program on texts, on a thread with a stack of some MiB."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(stack_mib), SCHEMA],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def widest_texts() -> dict[str, str]:
    """Return the widest text of each form that the scan lets pass."""
    return {name: form(widest(form)) for name, form in FORMS.items()}


@pytest.mark.parametrize("stack_mib", [2, 16])
def test_what_passes_the_scan_fits_on_the_stack(widest_texts: dict[str, str], stack_mib: int) -> None:
    """The deepest and widest text of each form is evaluated to the end, on the smallest and on the usual stack."""
    done = run(widest_texts, stack_mib)

    assert done.returncode == 0
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said.keys() == widest_texts.keys()
    assert {name: words for name, words in said.items() if any("recursion" in word for word in words)} == {}
    # What is refused or errs does so for reasons of its own; everything else denies.
    odd = {name for name, words in said.items() if words != ["Deny"]}
    assert odd == {
        *("attributes", "indices", "calls", "constructors"),
        *("steps in brackets", "steps in calls", "operators, brackets and steps"),
    }


def test_the_proof_notices_a_skipped_policy() -> None:
    """Ten times the operators end in the engine's recursion limit: the proof above can fail."""
    done = run({"or": forbid("1 == 1 && " * DEFAULT_LIMITS.policy_terms * 10 + "true")}, 2)

    assert "recursion limit" in json.loads(done.stdout)["or"][1]


def test_the_proof_notices_a_crash() -> None:
    """Ten times the brackets end the process."""
    done = run({"parentheses": FORMS["parentheses"](DEFAULT_LIMITS.policy_depth * 10)}, 2)

    assert done.returncode < 0


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ("parentheses", 31),  # the braces of `when` are one level
        ("sets", 31),
        ("records", 31),
        ("attributes", 31),
        ("indices", 31),
        ("has", 32),  # a chain of n names has n - 1 steps
        ("steps in brackets", 15),
        ("or", 199),  # `when` is an operator too
        ("conditions", 200),
        ("if in else", 199),
        ("like", 99),
        ("long type", WIDEST),
        ("many policies", WIDEST),
        ("long string", WIDEST),
    ],
)
def test_limits_are_exact(form: str, number: int) -> None:
    """Each form passes up to exactly this number."""
    assert widest(FORMS[form]) == number


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("permit(\n" + "(" * 40, 2, "deeper than 32 levels (limit `policy_depth`)"),
        (forbid("true\n" + " && true\n" * 201), 201, "more than 200 operators in one policy (limit `policy_terms`)"),
        ('// fine\npermit(principal, "x);', 2, "a string is never closed"),
        ('permit "\\"', 1, "a string is never closed"),
        ("permit(\n\nprincipal", 1, "`(` is never closed"),
        ("permit(\n]", 2, "`(` is closed by `]`"),
        ("permit\n);", 2, "`)` closes nothing"),
    ],
)
def test_refusals_name_the_line(text: str, line: int, problem: str) -> None:
    """A refusal says what is wrong and where."""
    with pytest.raises(UnsafePolicyError) as caught:
        scan(text, DEFAULT_LIMITS)

    assert (caught.value.line, str(caught.value)) == (line, problem)


def test_policies_are_split() -> None:
    """Each policy keeps its exact text, from its first annotation to its `;`, and its line."""
    first = '@id("a;b")\n  permit(principal, action, resource) // ; (\n when { "\\"; //" == "" };'
    second = "forbid(principal, action, resource);"

    assert scan(f"// ; (\n\n{first} // x\n{second}\n// end", DEFAULT_LIMITS) == (
        PolicyText(text=first, line=3),
        PolicyText(text=second, line=6),
    )


def test_a_rest_is_kept() -> None:
    """What follows the last `;` is returned, so that the engine can complain about it."""
    policy = forbid("true")

    assert scan(policy + "\npermit ", DEFAULT_LIMITS) == (
        PolicyText(text=policy, line=1),
        PolicyText(text="permit ", line=2),
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_comments_end_where_the_engine_ends_them(end: str) -> None:
    """A carriage return ends a comment: nothing can be deep for the engine and hidden from the scan."""
    text = f"permit(principal, action, resource) // x{end}when {{ " + "(" * 40 + "true" + ")" * 40 + " };"
    assert len(cedarpy.PolicySet.from_str(text)) == 1

    with pytest.raises(UnsafePolicyError):
        scan(text, DEFAULT_LIMITS)


def test_attributes_named_like_operators_are_steps() -> None:
    """A step stays a step whatever its name: `.then.then` is as deep as `.a.a`."""
    with pytest.raises(UnsafePolicyError):
        scan(forbid("context" + ".then" * 40), DEFAULT_LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        "entity U { a: " + "{a: " * 31 + "Long" + "}" * 31 + " };",
        "entity U { a: " + "Set<" * 31 + "Long" + ">" * 31 + " };",
        "type A0 = Long;" + "".join(f"type A{n} = Set<A{n - 1}>;" for n in range(1, 256)) + "entity U { a: A255 };",
        'entity U { type: Long, "type": String };'
        + "".join(f"entity E{n} {{ a: {{ b: Long }} }};" for n in range(600)),
    ],
)
def test_schemas_within_the_limits_pass(text: str) -> None:
    """The deepest allowed schemas pass the scan and the engine."""
    scan_schema(text, DEFAULT_LIMITS)

    assert cedarpy.Schema.from_str(text) is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("entity U { a: " + "{a: " * 32 + "Long" + "}" * 32 + " };", "deeper than 32 levels (limit `policy_depth`)"),
        ("entity U { a: " + "Set<" * 32 + "Long" + ">" * 32 + " };", "deeper than 32 levels (limit `policy_depth`)"),
        (
            "".join(f"type A{n} = Set<A{n + 1}>;" for n in range(600)),
            "common types nest more than 512 levels deep",
        ),
        ('@doc("x) entity U;', "a string is never closed"),
        ("entity U { a: Set<Long };", "`<` is closed by `}`"),
    ],
)
def test_deep_schemas_are_refused(text: str, problem: str) -> None:
    """Nesting is counted within brackets, and along the names of common types."""
    with pytest.raises(UnsafePolicyError) as caught:
        scan_schema(text, DEFAULT_LIMITS)

    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("[" * 128 + "]" * 128, True),
        ("[" * 129 + "]" * 129, False),
        ('{"a":' * 129 + "1" + "}" * 129, False),
        (json.dumps(["[" * 200, '\\"[' * 200]), True),
        ('{"a": "\\"' + "[" * 129, False),
    ],
)
def test_json_depth(text: str, passes: bool) -> None:  # noqa: FBT001 - a column of the table
    """JSON is counted outside its strings, and may be 128 levels deep."""
    if passes:
        scan_json(text)
    else:
        with pytest.raises(InvalidJSONError):
            scan_json(text)
