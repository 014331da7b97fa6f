"""Every doubt is a deny: forbids that err, hierarchies, inputs that are too deep or too wide, stacks that are small."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.process import PolicyChild
from pdp.testing.bundles import SCHEMA, bundle_files, tool
from tests.machinery.oracle.opened import Opened, opened

PERMIT = '@id("shop/all") permit (principal, action, resource);\n'
MOST = 2**63 - 1
LEAST = -(2**63)
PROPERTIES = {"n": {"type": "integer"}, "m": {"type": "integer"}, "s": {"type": "string"}, "amount": {"type": "number"}}

# Valid by the strictest validation, and an error when they are evaluated: with `n` the largest integer, a user of level
# 9 who leads something that the directory does not know, and a caller on shift 9.
ERRING = (
    "context.input.n + 1 > 0",
    "1 + context.input.n > 0",
    "context.input.n + context.input.n == 0",
    "context.input.n * 2 > 0",
    "2 * context.input.n > 0",
    "context.input.n * context.input.n >= 0",
    "context.input.m - 1 < 0",
    "0 - context.input.m > 0",
    "-2 - context.input.n < 0",
    "-context.input.m > 0",
    "-(context.input.m) != 0",
    "context.input.m * -1 > 0",
    "(context.input.n + 1) - 1 == context.input.n",
    "context.input.n + 1 == context.input.n + 1",
    "context.input.n + 1 != 0",
    "!(context.input.n + 1 > 0)",
    "context.input.n > 0 && context.input.n + 1 > 0",
    "context.input.n < 0 || context.input.n + 1 > 0",
    "if context.input.n + 1 > 0 then true else false",
    "if context.input.n > 0 then context.input.n + 1 > 0 else false",
    "[context.input.n + 1].contains(0)",
    "[1, 2].contains(context.input.n + 1)",
    "[[context.input.n + 1]].contains([0])",
    "[context.input.n * 2].containsAny([1])",
    "[1].containsAll([context.input.n + 1])",
    "[context.input.n + 1].isEmpty()",
    "{a: context.input.n + 1}.a > 0",
    "{a: context.input.n + 1} == {a: 0}",
    "{a: {b: context.input.n + 1}} has a",
    "principal.level * 9223372036854775807 > 0",
    "principal has level && principal.level + 9223372036854775807 > 0",
    "context.caller has shift && context.caller.shift + 9223372036854775807 > 0",
    "context.session.depth - 9223372036854775807 - 9 < 0",
    'context.now.offset(duration("9223372036854775807ms")) > context.now',
    'context.now < context.now.offset(duration("106751991167d"))',
    'datetime("9999-12-31").offset(duration("106751991167d")) > context.now',
    "principal.leads.level > 0",
    'principal.leads.leads in UserGroup::"staff"',
    'User::"nobody".level == 1',
    'Project::"none".budget > 0',
    "principal.leads.level > 0 && false",
    'Project::"none".budget + 9223372036854775807 > 0',
)
ARGUMENTS = json.dumps({"n": MOST, "m": LEAST, "s": "x"}).encode()

SPECIAL_SCHEMA = SCHEMA.replace("team?: String, level?: Long", "level: Long, leads: User") + (
    "entity Project = { budget: Long };\n"
)
SPECIAL_DIRECTORY = """
users:
  alice: {groups: [staff], attributes: {level: 9, leads: {type: User, id: ghost}}}
  ann: {attributes: {level: 1, leads: {type: User, id: alice}}}
user_groups: {staff: {}}
agents: {coder: {ceiling: ["shop/*"]}}
"""


def erring_policies(effect: str, clause: str) -> str:
    """Return a policy about each tool that errs when it is evaluated."""
    return "".join(
        f'@id("shop/{place:02}") {effect} (principal, action == Action::"shop/t{place:02}", resource) '
        f"{clause} {{ {condition} }};\n"
        for place, condition in enumerate(ERRING)
    )


@pytest.fixture(params=[("forbid", "when"), ("forbid", "unless"), ("permit", "when")], ids=" ".join, scope="module")
def erring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opened, str]]:
    """Yield a PDP whose tools each have one policy that errs, and the handle of a session."""
    files = bundle_files(
        policies={"shop": PERMIT + erring_policies(*request.param)},
        tools={"shop": [tool(f"t{place:02}", PROPERTIES, ["n", "m"]) for place in range(len(ERRING))]},
        directory=SPECIAL_DIRECTORY,
        schema=SPECIAL_SCHEMA,
        manifest="caller_facts: {properties: {shift: {type: integer}}}",
    )
    with opened(tmp_path_factory.mktemp("policies"), files) as pdp:
        yield pdp, pdp.session("shop/*")[1]


def test_there_are_forty() -> None:
    """Forty ways to err, and none stands twice."""
    assert len(set(ERRING)) == len(ERRING) >= 40


@pytest.mark.parametrize("place", range(len(ERRING)), ids=ERRING)
def test_a_policy_that_errs_denies(erring: tuple[Opened, str], place: int) -> None:
    """The engine would skip it and allow; here it is a deny that names the policy, each time."""
    pdp, handle = erring
    decisions = [pdp.ask(handle, f"shop/t{place:02}", ARGUMENTS, facts=b'{"shift":9}') for _ in range(2)]

    assert [("policy_error", (f"shop/{place:02}",), ())] * 2 == [
        (decision.ruling.basis.value, decision.ruling.errors, decision.ruling.policies) for decision in decisions
    ]


def test_a_forbid_that_errs_beside_one_that_matches(tmp_path: Path) -> None:
    """An error outweighs a matching forbid in the basis, and is a deny as well."""
    policies = """
    @id("shop/errs") forbid (principal, action == Action::"shop/buy", resource) when { context.input.n + 1 > 0 };
    @id("shop/matches") forbid (principal, action == Action::"shop/buy", resource);
    """
    files = bundle_files(
        policies={"shop": PERMIT + policies},
        tools={"shop": [tool("buy", PROPERTIES, ["n"])]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}}",
    )
    with opened(tmp_path, files) as pdp:
        _, handle = pdp.session("shop/*")
        error = pdp.ask(handle, "shop/buy", ARGUMENTS).ruling
        match = pdp.ask(handle, "shop/buy", b'{"n":1}').ruling

    assert ("policy_error", ("shop/errs",)) == (error.basis.value, error.errors)
    assert ("forbid", ("shop/errs", "shop/matches")) == (match.basis.value, match.policies)


# Hierarchies.

# A forbid by its head and condition; `ACTIONS` are those of tools, sessions are not what it is about.
ACTIONS = 'action in [Action::"read_only", Action::"destructive"]'
HIERARCHY = {
    "by risk group": 'principal, action in Action::"destructive", resource',
    "by server": f'principal, {ACTIONS}, resource in Server::"repo"',
    "by user group": f'principal in UserGroup::"barred", {ACTIONS}, resource',
    "by outer user group": f'principal in UserGroup::"outer", {ACTIONS}, resource',
    "by agent group": f'principal, {ACTIONS}, resource) when {{ context.agent in AgentGroup::"barred" }}',
    "by owner's group": f"principal, {ACTIONS}, resource is Thing) when {{ resource has owner && "
    'resource.owner in UserGroup::"outer" }',
    "by server in a condition": f'principal, {ACTIONS}, resource) when {{ resource in Server::"repo" }}',
    "by a set of servers": f'principal, {ACTIONS}, resource) when {{ resource in [Server::"other", Server::"repo"] }}',
    "by a group of a named user": f"principal, {ACTIONS}, resource is Server) when {{ "
    'User::"carol" in UserGroup::"outer" }',
}
EVERYTHING = {"repo/drop", "repo/read", "shop/drop", "shop/read", "shop/list"}
DENIED = {
    "by risk group": {"repo/drop", "shop/drop"},
    "by server": {"repo/drop", "repo/read"},
    "by owner's group": {"repo/read"},
    "by server in a condition": {"repo/drop", "repo/read"},
    "by a set of servers": {"repo/drop", "repo/read"},
    "by a group of a named user": {"repo/drop", "shop/drop", "shop/list"},
}
HIERARCHY_DIRECTORY = """
users:
  alice: {groups: [barred], attributes: {home: {type: Thing, id: x}, things: [{type: Thing, id: y}]}}
  carol: {groups: [barred]}
user_groups: {barred: {parents: [outer]}, outer: {}}
agents: {coder: {groups: [barred], ceiling: ["repo/*", "shop/*"]}}
agent_groups: {barred: {}}
entities:
  - {type: Thing, id: x, attributes: {owner: {type: User, id: carol}}, parents: [{type: Server, id: elsewhere}]}
  - {type: Thing, id: y}
"""
HIERARCHY_SCHEMA = SCHEMA.replace("team?: String", "home?: Thing, things?: Set<Thing>")
MAPPED = "{type: Thing, id: '{item}'}"
ITEM = {"item": {"type": "string"}}


def hierarchy_files(policy: str) -> dict[str, bytes]:
    """Return a bundle with one forbid beside a permit for everything."""
    return bundle_files(
        policies={"shop": f'{PERMIT}@id("shop/forbid") forbid ({policy}{")" * ("when" not in policy)};'},
        tools={
            "repo": [tool("drop"), tool("read", ITEM, ["item"])],
            "shop": [tool("drop"), tool("read", ITEM, ["item"]), tool("list")],
        },
        overlays={
            "repo": f"tools: {{drop: {{risk: destructive}}, read: {{risk: read_only, resource: {MAPPED}}}}}",
            "shop": "tools: {drop: {risk: destructive}, list: {risk: read_only}, "
            "read: {risk: read_only, resource: {type: Thing, id: 'shop/{item}'}}}",
        },
        directory=HIERARCHY_DIRECTORY,
        schema=HIERARCHY_SCHEMA,
    )


def answers(pdp: Opened, handle: str, actions: tuple[str, ...]) -> set[str]:
    """Return which of some actions are denied, asked in this order."""
    denied = set()
    for action in actions:
        arguments = b'{"item":"x"}' if action.endswith("/read") else b""
        basis = pdp.ask(handle, action, arguments).ruling.basis.value
        assert basis in ("permit", "forbid")
        denied |= {action} if basis == "forbid" else set()
    return denied


@pytest.mark.parametrize("kind", HIERARCHY)
def test_a_forbid_holds_across_actions_in_every_order(tmp_path: Path, kind: str) -> None:
    """A forbid by a group or a server matches whichever actions the session has called before, cached or not."""
    with opened(tmp_path, hierarchy_files(HIERARCHY[kind])) as pdp:
        for actions in permutations(sorted(EVERYTHING)):
            pdp.cache.clear()
            _, handle = pdp.session("repo/*", "shop/*")

            assert DENIED.get(kind, EVERYTHING) == answers(pdp, handle, actions + actions)


@pytest.mark.parametrize("first", sorted(EVERYTHING))
@pytest.mark.parametrize("kind", HIERARCHY)
def test_a_forbid_holds_whichever_action_a_bundle_meets_first(tmp_path: Path, kind: str, first: str) -> None:
    """A forbid matches whichever action a fresh bundle is asked about first."""
    with opened(tmp_path, hierarchy_files(HIERARCHY[kind])) as pdp:
        _, handle = pdp.session("repo/*", "shop/*")

        assert DENIED.get(kind, EVERYTHING) == answers(pdp, handle, (first, *sorted(EVERYTHING - {first})))


@pytest.mark.parametrize("item", ["x", "y", "z"])
@pytest.mark.parametrize("kind", ["by server", "by server in a condition", "by a set of servers"])
def test_a_thing_that_the_user_refers_to_stands_below_its_server(tmp_path: Path, kind: str, item: str) -> None:
    """A resource is below the server of the call, also when the session knows it from the user's attributes."""
    with opened(tmp_path, hierarchy_files(HIERARCHY[kind])) as pdp:
        _, handle = pdp.session("repo/*", "shop/*")
        call = json.dumps({"item": item}).encode()

        assert ["forbid", "permit", "forbid"] == [
            pdp.ask(handle, action, call).ruling.basis.value for action in ("repo/read", "shop/read", "repo/read")
        ]


# An amount cannot be hidden.


@pytest.mark.parametrize(
    ("amount", "basis"),
    [
        ("7", "permit"),
        ("7.0", "permit"),
        ("7.00000000", "permit"),
        ("500.0", "permit"),
        ("5e2", "permit"),
        ("500.0001", "forbid"),
        ("501", "forbid"),
        ("5.01e2", "forbid"),
        ("922337203685477.5807", "forbid"),
        ("500.00001", "invalid_arguments"),
        ("922337203685477.5808", "invalid_arguments"),
        ("1e999999999", "invalid_arguments"),
        ("1e-999999999", "invalid_arguments"),
        ("null", "invalid_arguments"),
        ('"500"', "invalid_arguments"),
        ("true", "invalid_arguments"),
        ("[501]", "invalid_arguments"),
        ('{"__extn":{"fn":"decimal","arg":"1.0"}}', "invalid_arguments"),
        ("NaN", "invalid_arguments"),
        ("Infinity", "invalid_arguments"),
        ('1,"amount":501', "invalid_arguments"),
    ],
)
def test_an_amount_cannot_be_hidden(paying: tuple[Opened, str], amount: str, basis: str) -> None:
    """However an amount is written, the rule about it sees it or the call is refused."""
    pdp, handle = paying

    assert basis == pdp.ask(handle, "shop/pay", b'{"amount":%s}' % amount.encode()).ruling.basis.value


@pytest.fixture(scope="module")
def paying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opened, str]]:
    """Yield a PDP with a rule about an amount, and the handle of a session."""
    rule = """
    @id("shop/amount") forbid (principal, action == Action::"shop/pay", resource)
    when { context.input.amount.greaterThan(decimal("500.0")) };
    """
    files = bundle_files(
        policies={"shop": PERMIT + rule},
        tools={"shop": [tool("pay", {"amount": {"type": "number"}, "more": {"type": "object"}}, ["amount"])]},
        overlays={"shop": "tools: {pay: {parameters: {amount: {type: decimal}}}}"},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}}",
    )
    with opened(tmp_path_factory.mktemp("policies"), files) as pdp:
        yield pdp, pdp.session("shop/*")[1]


# Deep and wide.

DEEP: dict[str, Callable[[int], bytes]] = {
    "lists": lambda n: b'{"amount":1,"more":{"a":' + b"[" * n + b"]" * n + b"}}",
    "objects": lambda n: b'{"amount":1,"more":' + b'{"a":' * n + b"1" + b"}" * n + b"}",
    "lists that never end": lambda n: b'{"amount":1,"more":' + b"[" * n,
    "brackets in a string": lambda n: b'{"amount":1,"more":{"a":"' + b"[" * n + b'"},"x":1}',
    "elements": lambda n: b'{"amount":1,"more":{"a":[' + b",".join([b"1"] * n) + b"]}}",
    "keys": lambda n: json.dumps({"amount": 1, "more": {f"k{place}": 1 for place in range(n)}}).encode(),
    "parameters": lambda n: json.dumps({"amount": 1, **{f"k{place}": 1 for place in range(n)}}).encode(),
    "string": lambda n: json.dumps({"amount": 1, "more": {"a": "x" * n * 8}}).encode(),
    "digits": lambda n: b'{"amount":' + b"9" * n + b"}",
    "fraction": lambda n: b'{"amount":0.' + b"1" * n + b"}",
    "exponent": lambda n: b'{"amount":1e' + b"9" * n + b"}",
    "spaces": lambda n: b'{"amount":' + b" " * n * 100 + b"1}",
}


@pytest.mark.parametrize("size", [5_000, 100_000])
@pytest.mark.parametrize("shape", DEEP)
def test_deep_and_wide_arguments_are_denied(paying: tuple[Opened, str], shape: str, size: int) -> None:
    """Arguments beyond the limits are a deny, and the next call is answered."""
    pdp, handle = paying

    assert "invalid_arguments" == pdp.ask(handle, "shop/pay", DEEP[shape](size)).ruling.basis.value
    assert "permit" == pdp.ask(handle, "shop/pay", b'{"amount":1}').ruling.basis.value


@pytest.mark.parametrize("shape", ["lists", "objects"])
def test_arguments_at_the_limit_are_judged(paying: tuple[Opened, str], shape: str) -> None:
    """As deep as the limit is no reason to deny; one level more is."""
    pdp, handle = paying
    inner = DEFAULT_LIMITS.arguments_depth - (2 if shape == "lists" else 1)

    assert ["permit", "invalid_arguments"] == [
        pdp.ask(handle, "shop/pay", DEEP[shape](depth)).ruling.basis.value for depth in (inner, inner + 1)
    ]


def with_policy(condition: str) -> dict[str, str]:
    """Return the files that a forbid with a condition changes."""
    return {"shop.cedar": f'{PERMIT}@id("shop/x") forbid (principal, action, resource) when {{ {condition} }};'}


def with_schema(text: str) -> dict[str, str]:
    """Return the files that more schema changes."""
    return {"schema.cedarschema": SCHEMA + text}


def with_tool(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that another tool changes."""
    return {"tools/shop.json": json.dumps({"tools": [tool("pay"), {"name": "deep", "inputSchema": schema}]})}


# `json.dumps` cannot write what is as deep as this, so text is put together.
BUNDLES: dict[str, Callable[[int], dict[str, str]]] = {
    "brackets": lambda n: with_policy("(" * n + "true" + ")" * n),
    "not": lambda n: with_policy("!" * n + "true"),
    "minus": lambda n: with_policy("0 == " + "-" * n + "1"),
    "or": lambda n: with_policy("false || " * n + "true"),
    "and": lambda n: with_policy("true && " * n + "true"),
    "plus": lambda n: with_policy("0 < " + "1 + " * n + "1"),
    "if": lambda n: with_policy("if true then " * n + "true" + " else false" * n),
    "sets": lambda n: with_policy("[" * n + "]" * n + " == []"),
    "records": lambda n: with_policy("{a: " * n + "1" + "}" * n + " == {}"),
    "steps": lambda n: with_policy("context" + ".a" * n),
    "a string without end": lambda n: with_policy('"' + "(" * n),
    "types": lambda n: with_schema("type Deep = " + "{a: " * n + "Long" + "}" * n + ";"),
    "sets in types": lambda n: with_schema("type Deep = " + "Set<" * n + "Long" + ">" * n + ";"),
    "types of types": lambda n: with_schema(
        "type T0 = Long;" + "".join(f"type T{place} = {{a: T{place - 1}}};" for place in range(1, n + 300))
    ),
    "parameters": lambda n: {
        "tools/shop.json": '{"tools":[{"name":"pay","inputSchema":{"type":"object","properties":{"a":'
        + '{"type":"object","additionalProperties":false,"properties":{"a":' * n
        + '{"type":"string"}'
        + "}}" * n
        + "}}}]}"
    },
    "YAML": lambda n: {"directory.yaml": "users: " + "{a: " * n + "1" + "}" * n},
    "YAML lists": lambda n: {"directory.yaml": "users: " + "[" * (n // 10) + "]" * (n // 10)},
}  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opened, str]]:
    """Yield a PDP that compiles in a child process, as the server does, and the handle of a session."""
    child = PolicyChild(timeout=60.0)
    files = bundle_files(
        policies={"shop": PERMIT},
        tools={"shop": [tool("pay")]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}}",
    )
    with opened(
        tmp_path_factory.mktemp("policies"), files, compile_files=lambda job: child.call("compile", job)
    ) as pdp:
        yield pdp, pdp.session("shop/*")[1]
    child.close()


@pytest.mark.parametrize("size", [300, 2_000, 20_000])
@pytest.mark.parametrize("shape", BUNDLES)
def test_deep_and_wide_bundles_are_refused(guarded: tuple[Opened, str], shape: str, size: int) -> None:
    """A bundle beyond the limits is refused with file and reason; the bundle that runs goes on."""
    pdp, handle = guarded
    changed = {name: text.encode() for name, text in BUNDLES[shape](size).items()}
    before = {name: (pdp.folder / name).read_bytes() for name in changed}
    try:
        with pytest.raises(BundleError) as refusal:
            pdp.reload(changed)
    finally:
        pdp.reload(before)

    assert {problem.file for problem in refusal.value.problems} <= set(changed)
    assert all(problem.message for problem in refusal.value.problems)
    assert "permit" == pdp.ask(handle, "shop/pay").ruling.basis.value


# Stacks.

# Asks on threads with stacks of several sizes; a text as deep and as wide as the limits allow decides.
STACKS = """
import json, sys, threading
from pathlib import Path
from pdp.errors import PDPError
from tests.machinery.oracle.opened import opened
from tests.decision.test_strictness import stack_files

for kibibytes in (256, 512, 1024, 2048, 4096, 16384, 65536):
    folder = Path(sys.argv[1]) / str(kibibytes)
    with opened(folder, stack_files()) as pdp:
        _, handle = pdp.session("shop/*")
        found = []

        def ask(action):
            try:
                found.append(pdp.ask(handle, action).ruling.basis.value)
            except PDPError as error:
                found.append(f"{type(error).__name__}: {error}")

        def run(work, *given):
            threading.stack_size(kibibytes * 1024)
            thread = threading.Thread(target=work, args=given)
            thread.start()
            thread.join()
            threading.stack_size(0)

        for action in ("shop/deep", "shop/plain", "shop/deep"):
            run(ask, action)
        # Once on a large stack, which remembers, and then on a small one again.
        ask("shop/deep")
        run(ask, "shop/deep")
        print(json.dumps([kibibytes, found]), flush=True)
"""


def stack_files() -> dict[str, bytes]:
    """Return a bundle with a forbid as deep and as wide as it may be, which matches only when read to its end."""
    # Each term counts twice: for its `==` and for the `||` before it; and one is for `when`.
    terms = " || ".join(['context.agent == Agent::"none"'] * (DEFAULT_LIMITS.policy_terms // 2 - 1) + ["true"])
    deep = "(" * 28 + terms + ")" * 28
    forbid = f'@id("shop/deep") forbid (principal, action == Action::"shop/deep", resource) when {{ {deep} }};'
    return bundle_files(
        policies={"shop": PERMIT + forbid},
        tools={"shop": [tool("deep"), tool("plain")]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}}",
    )


def test_a_small_stack_never_gives_another_answer(tmp_path: Path, project_root: Path) -> None:
    """On every stack the same answer, or a clear error where the stack is too small; never an allow instead."""
    program = subprocess.run(
        [sys.executable, "-c", STACKS, str(tmp_path)],
        cwd=project_root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    rows: dict[int, list[str]] = dict(map(json.loads, program.stdout.splitlines()))

    assert (0, 7) == (program.returncode, len(rows)), program.stderr
    for size, found in rows.items():
        expected = ["forbid", "permit", "forbid", "forbid", "forbid"]
        refused = "UnavailableError: this thread's stack is too small to evaluate policies; give it at least 2 MiB"
        assert all(answer in (wanted, refused) for answer, wanted in zip(found, expected, strict=True)), (size, found)
        assert size < 2048 or expected == found
